"""Videos at a URL come to a local folder just before they are decoded, for decoders seek, and go when they are read.

The folder lies where temporary files do (``TMPDIR``), holds no more than it is allowed to (but for videos that another
run had in hand until their turn to be read), and is removed at the end; that of a run that was killed, by the next one.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..manifests.errors import StoreError
from .records import COPIES_PREFIX, FileState, Outcome, RemotePath, VideoFile
from .store.urls import connect, modified_ns, reached
from .store.writer_locks import open_lock
from .work import Notice, VideoEnd

if TYPE_CHECKING:
    from .sharing import SharedWork

T = TypeVar("T")

SPOOL_BYTES = 20 << 30
_ENDED = "the run ended before it was fetched"


class SpooledVideo:
    """A video whose local copy is there, on its way, or still to be asked for."""

    def __init__(self, origin: VideoFile, spool: Spool, copying: Future[Path | None]) -> None:
        self.origin = origin
        self._spool = spool
        self._copying = copying

    def wait(self) -> VideoFile:
        """The local copy, of the original's state; StoreError, which names the URL, where there is none to be had."""
        try:
            path = self._copying.result()
        except CancelledError:
            raise StoreError(f"{self.origin.path}: {_ENDED}") from None
        if path is None:  # another run had it in hand when its turn to be fetched came
            path = self._spool.copy(self.origin, at_once=True)
            self._copying = Future()
            self._copying.set_result(path)
        return replace(self.origin, path=path)

    def drop(self) -> None:
        """Nobody needs the copy any more."""
        if not self._copying.cancel():
            self._copying.add_done_callback(self._spool.remove)

    def told(self, item: T) -> T:
        """What was said of the copy, said of the original."""
        if isinstance(item, Outcome):
            return replace(item, reason=self._renamed(item.reason))
        if isinstance(item, VideoEnd):
            return replace(item, broke=self._renamed(item.broke), sound_broke=self._renamed(item.sound_broke))
        if isinstance(item, Notice):
            return replace(item, text=self._renamed(item.text))
        return item

    def _renamed(self, text: str) -> str:
        path = self._copying.result()
        return text if path is None else text.replace(str(path), str(self.origin.path))


class Spool:
    """The copies of one worker. Used by several threads; a block closes it."""

    def __init__(self, max_bytes: int = SPOOL_BYTES) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._folder: Path | None = None
        self._lock = -1
        self._is_closed = False
        self._changed = threading.Condition()  # guards all of the above
        self._numbers = itertools.count()
        self._pool = ThreadPoolExecutor(1, "spool")

    def ahead(self, videos: Iterable[VideoFile], shared: SharedWork) -> Iterator[VideoFile | SpooledVideo]:
        """Videos as they are asked for; those at a URL begin to be fetched then, one after the other."""
        for file in videos:
            if isinstance(file.path, Path):
                yield file
            else:
                yield SpooledVideo(file, self, self._pool.submit(self._copy_if_free, file, shared))

    def copy(self, file: VideoFile, *, at_once: bool = False) -> Path:
        """Waits for room, unless it is wanted ``at_once``: those that have it may be behind this one."""
        assert isinstance(file.path, RemotePath)
        assert file.state is not None
        url, size = file.path.url, file.state.size_bytes
        if size > self._max_bytes:
            raise StoreError(
                f"{url}: has {size / 2**30:.1f} GiB, the spool {self._max_bytes / 2**30:.1f}; give it more (--spool-gb)"
            )
        path = self._room_for(size, url, at_once) / f"{next(self._numbers)}{PurePosixPath(url).suffix}"
        try:
            _download(url, path, file.state, self._check_open)
        except BaseException:
            self._remove(path, size)
            raise
        return path

    def remove(self, copying: Future[Path | None]) -> None:
        if not copying.cancelled() and copying.exception() is None and (path := copying.result()) is not None:
            with suppress(FileNotFoundError):  # the whole folder is gone
                self._remove(path, path.stat().st_size)

    def close(self) -> None:
        """Ends what is being fetched; when this returns the folder is gone, whoever closed first."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._pool.shutdown(cancel_futures=True)
        with self._changed:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                os.close(self._lock)
                self._folder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _copy_if_free(self, file: VideoFile, shared: SharedWork) -> Path | None:
        return self.copy(file) if shared.is_free(file) else None

    def _room_for(self, size: int, url: str, at_once: bool) -> Path:
        with self._changed:
            while not at_once and self._is_full_for(size) and not self._is_closed:
                self._changed.wait()
            self._check_open(url)
            if self._folder is None:
                _sweep()
                self._folder, self._lock = _new_folder()
            self._used_bytes += size
            return self._folder

    def _is_full_for(self, size: int) -> bool:
        return self._used_bytes > 0 and self._used_bytes + size > self._max_bytes

    def _remove(self, path: Path, size: int) -> None:
        path.unlink(missing_ok=True)
        with self._changed:
            self._used_bytes -= size
            self._changed.notify_all()

    def _check_open(self, url: str) -> None:
        if self._is_closed:
            raise StoreError(f"{url}: {_ENDED}")


@contextmanager
def local_copy(file: VideoFile) -> Iterator[Path]:
    """The file itself where it is local."""
    if isinstance(file.path, Path):
        yield file.path
        return
    with Spool() as spool:
        yield spool.copy(file)


def is_remote(file: VideoFile) -> bool:
    return isinstance(file.path, RemotePath)


@contextmanager
def local_copies(files: Iterable[VideoFile], max_bytes: int = SPOOL_BYTES) -> Iterator[list[VideoFile]]:
    """The files, copied here until the block ends where they lie at a URL: as many of those as fit, at least one."""
    left_bytes = max_bytes
    with Spool(max_bytes) as spool:
        here: list[VideoFile] = []
        for file in files:
            if isinstance(file.path, Path):
                here.append(file)
                continue
            assert file.state is not None
            if file.state.size_bytes <= left_bytes or not here:
                here.append(replace(file, path=spool.copy(file)))
                left_bytes -= file.state.size_bytes
        yield here


def _download(url: str, path: Path, state: FileState, check: Any) -> None:
    """The whole file, of that very state, whose time the copy gets: a copy is known by it as the original is."""
    from fsspec.callbacks import Callback

    class Check(Callback):
        def relative_update(self, inc: int = 1) -> None:
            check(url)

    files, key = connect(url)
    try:
        with reached(url):
            files.get_file(key, str(path), callback=Check())
            found = files.info(key)
    except FileNotFoundError as error:
        raise StoreError(f"{url}: is gone since the folder was listed; check it and run again") from error
    now = path.stat().st_size, modified_ns(found)
    if now != (state.size_bytes, state.modified_ns):
        raise StoreError(f"{url}: was replaced since the folder was listed; run again")
    os.utime(path, ns=(state.modified_ns, state.modified_ns))


def _new_folder() -> tuple[Path, int]:
    """Locked as long as this process lives."""
    folder = Path(tempfile.mkdtemp(prefix=COPIES_PREFIX))
    lock = open_lock(folder / "lock")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return folder, lock


def _sweep() -> None:
    """Removes the folders of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{COPIES_PREFIX}*"):
        with suppress(OSError):  # locked by a living process, not locked yet, or another user's
            descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
