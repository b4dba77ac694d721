"""Fetch stage: copies remote videos to a temporary folder before they are decoded, and deletes the copies afterwards.

Decoders seek, which remote files do not support well. The folder is in ``TMPDIR``. Its size is limited, except for
videos that another run had claimed when they were due. It is removed at the end of the run. If the run was killed, the
next run removes the folder.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ...manifests.errors import StoreError
from ...manifests.urls import public_url
from ..items import Notice, VideoEnd
from ..records import COPIES_PREFIX, FileState, Outcome, RemotePath, Source, VideoFile
from ..store.concurrency.writer_locks import locked_file
from ..store.files.urls import connect, modified_ns, network_errors

T = TypeVar("T")

PREFETCH_BYTES = 20 << 30
"""Default disk space for copies."""
_ENDED = "the run ended before it was fetched"


class LocalCopy:
    """A remote video with its local copy, which may be in progress or not yet requested."""

    def __init__(self, origin: Source, prefetcher: Prefetcher, copying: Future[Path | None]) -> None:
        self.origin = origin
        self._prefetcher = prefetcher
        self._copying: Future[Path | None] = copying
        self._path: Path | None = None

    def wait(self) -> Path:
        """Wait for the local copy and return its path.

        Raises:
            StoreError: The file cannot be fetched; the message names its URL.
        """
        try:
            path = self._copying.result()
        except CancelledError:
            raise StoreError(f"{self.origin.path}: {_ENDED}") from None
        if path is None:  # another run had claimed the video when it was due
            path = self._prefetcher.copy(self.origin, at_once=True)
            self._copying = Future()
            self._copying.set_result(path)
        self._path = path
        return path

    def drop(self) -> None:
        """Delete the copy, or cancel its download."""
        if not self._copying.cancel():
            self._copying.add_done_callback(self._prefetcher.remove)

    def with_original_path(self, item: T) -> T:
        """Replace the path of the copy by the original path in the message of an item."""
        if isinstance(item, Outcome):
            return replace(item, reason=self._renamed(item.reason))
        if isinstance(item, VideoEnd):
            return replace(item, error=self._renamed(item.error))
        if isinstance(item, Notice):
            return replace(item, text=self._renamed(item.text))
        return item

    def _renamed(self, text: str) -> str:
        return text if self._path is None else text.replace(str(self._path), str(self.origin.path))


class Prefetcher:
    """Local copies of one worker's remote videos. Thread-safe; call `close` after use.

    Args:
        max_bytes: Disk space for the copies.
    """

    def __init__(self, max_bytes: int = PREFETCH_BYTES) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._folder: Path | None = None
        self._lock: FileIO | None = None
        self._is_closed = False
        self._changed = threading.Condition()  # protects all attributes above
        self._numbers = itertools.count()
        self._pool = ThreadPoolExecutor(1, "prefetch")

    def ahead(self, videos: Iterable[Source], is_free: Callable[[Source], bool]) -> Iterator[Source | LocalCopy]:
        """Yield the videos, and start to fetch each remote one when it is yielded; one download runs at a time.

        Args:
            videos: The videos.
            is_free: Whether a video should be fetched; False for a video that another run processes.
        """
        for file in videos:
            if isinstance(file.path, Path):
                yield file
            else:
                yield LocalCopy(file, self, self._pool.submit(self._copy_if_free, file, is_free))

    def _copy_if_free(self, file: Source, is_free: Callable[[Source], bool]) -> Path | None:
        return self.copy(file) if is_free(file) else None

    def copy(self, file: Source, *, at_once: bool = False) -> Path:
        """Fetch a file and return the path of its copy.

        Args:
            file: A remote file.
            at_once: Do not wait for free space, because the copies in it may be of videos that wait for this one.

        Raises:
            StoreError: The file cannot be fetched, or is larger than the limit.
        """
        assert isinstance(file.path, RemotePath)
        assert file.state is not None
        shown, size = str(file.path), file.state.size_bytes
        if size > self._max_bytes:
            limit = f"{self._max_bytes / 2**30:.1f} GiB for local copies; raise the limit (--spool-gb)"
            raise StoreError(f"{shown}: has {size / 2**30:.1f} GiB, more than the {limit}")
        path = self._reserve(size, shown, at_once) / f"{next(self._numbers)}{PurePosixPath(shown).suffix}"
        try:
            _download(file.path.url, path, file.state, self._check_open)
        except BaseException:
            self._remove(path, size)
            raise
        return path

    def remove(self, copying: Future[Path | None]) -> None:
        """Delete a copy whose download has ended."""
        if not copying.cancelled() and copying.exception() is None and (path := copying.result()) is not None:
            with suppress(FileNotFoundError):  # the whole folder was removed
                self._remove(path, path.stat().st_size)

    def close(self) -> None:
        """Cancel all downloads and delete the folder. Thread-safe; returns when the folder is deleted."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._pool.shutdown(cancel_futures=True)
        with self._changed:
            if self._folder is not None and self._lock is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._lock.close()
                self._folder = None

    def _reserve(self, size: int, url: str, at_once: bool) -> Path:
        with self._changed:
            while not at_once and self._is_full_for(size) and not self._is_closed:
                self._changed.wait()
            self._check_open(url)
            if self._folder is None:
                _remove_abandoned_folders()
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
def local_copy(file: VideoFile) -> Generator[Path]:
    """Yield the path of the file, or of a temporary copy of a remote one."""
    if isinstance(file.path, Path):
        yield file.path
        return
    with closing(Prefetcher()) as prefetcher:
        yield prefetcher.copy(file)


def is_remote(file: VideoFile) -> bool:
    """Return whether the file has to be fetched before it can be read."""
    return isinstance(file.path, RemotePath)


@contextmanager
def local_copies(files: Iterable[VideoFile], max_bytes: int = PREFETCH_BYTES) -> Generator[list[VideoFile]]:
    """Yield the files, with remote ones as temporary copies: as many as fit in ``max_bytes``, but at least one."""
    free_bytes = max_bytes
    with closing(Prefetcher(max_bytes)) as prefetcher:
        here: list[VideoFile] = []
        copies: dict[RemotePath, Path] = {}  # several clips may have the same file
        for file in files:
            if isinstance(file.path, Path):
                here.append(file)
                continue
            assert file.state is not None
            if file.path not in copies and (file.state.size_bytes <= free_bytes or not here):
                copies[file.path] = prefetcher.copy(file)
                free_bytes -= file.state.size_bytes
            if file.path in copies:
                here.append(file.at(copies[file.path]))
        yield here


def _download(url: str, path: Path, state: FileState, check: Any) -> None:
    """Download a file and check that it has the listed size and time. The copy gets the original's time."""
    from fsspec.callbacks import Callback  # pyright: ignore[reportMissingTypeStubs]

    shown = public_url(url)

    class Check(Callback):
        def relative_update(self, inc: int = 1) -> None:
            check(shown)

    files, key = connect(url)
    try:
        with network_errors(url), _full_disk(shown, path.parent):
            files.get_file(key, str(path), callback=Check())
            found = files.info(key)
    except FileNotFoundError as error:
        raise StoreError(f"{shown}: has been deleted since the folder was listed; check it and run again") from error
    now = path.stat().st_size, modified_ns(found)
    if now != (state.size_bytes, state.modified_ns):
        raise StoreError(f"{shown}: has been replaced since the folder was listed; run again")
    os.utime(path, ns=(state.modified_ns, state.modified_ns))


@contextmanager
def _full_disk(shown: str, folder: Path) -> Generator[None]:
    """Distinguish a full disk from errors of the network, which have the same class."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"{shown}: no space for a copy in {folder} ({os.strerror(error.errno)}); free space there, or set "
                "TMPDIR to a larger disk, then run again"
            ) from error
        raise


def _new_folder() -> tuple[Path, FileIO]:
    """Create a folder with a lock file, which is locked as long as this process lives."""
    folder = Path(tempfile.mkdtemp(prefix=COPIES_PREFIX))
    lock = locked_file(folder / "lock", 60.0)
    if lock is None:  # other processes lock it only for a moment, to check whether this one lives
        raise StoreError(f"{folder}: another process holds the lock of this new folder; run the same command again")
    return folder, lock


def _remove_abandoned_folders() -> None:
    """Remove the folders of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{COPIES_PREFIX}*"):
        with suppress(OSError):  # locked by a living process, not locked yet, or another user's
            descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
