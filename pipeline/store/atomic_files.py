"""Files that are there whole or not at all, below one folder.

Everything that a store on a disk keeps goes through `LocalFolder` (its sibling for object storage is `object_folder`).
Every call that changes the disk goes through this module's ``os``, which is where the crash tests pull the plug.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ...manifests.errors import StoreError
from .folders import without_gaps

T = TypeVar("T")

_TEMPORARY = ".tmp-"  # a dot first: pandas, pyarrow, polars and duckdb pass over such names


class LocalFolder:
    """A `Folder` on a file system."""

    relist_after_s = 0.0

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        return self.root / name

    def where(self, name: str) -> str:
        return str(self.path(name))

    @contextmanager
    def opened(self, name: str, columns: Sequence[str] | None = None, *, whole: bool = False) -> Iterator[str]:
        """The path: pyarrow opens files itself, and reads no more than it needs."""
        yield str(self.path(name))

    def put(self, name: str, data: bytes, owner: str, *, new: bool = False) -> None:
        """On disk when this returns. Leftovers are rubbish once the writer ``owner`` is dead.

        No two living writers have one id, so that no two files that are ``new`` have one name.
        """
        path = self.path(name)
        temporary = path.with_name(f"{_TEMPORARY}{owner}-{path.name}")
        with explained(path):
            _make_folder(path.parent)
            try:
                _write(temporary, data)
                os.replace(temporary, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
            _sync_folder(path.parent)

    def read(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def exists(self, name: str) -> bool:
        return self.path(name).exists()

    def files(self, folder: str) -> list[str]:
        """Names of the files in ``folder``, sorted, without temporary ones; none where there is no such folder."""
        return [f"{folder}/{name}" for name in without_gaps(lambda: self._list(folder))]

    def folders(self, folder: str = "") -> list[str]:
        with suppress(FileNotFoundError), os.scandir(self.path(folder)) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
        return []

    def entries(self) -> list[str]:
        return sorted(os.listdir(self.root)) if self.root.exists() else []

    def all_files(self) -> Iterator[str]:
        for folder, _, files in os.walk(self.root):
            yield from (Path(folder, file).relative_to(self.root).as_posix() for file in files)

    def each(self, act: Callable[[str], T], names: Iterable[str]) -> Iterable[T]:
        return map(act, names)

    def remove(self, name: str) -> None:
        with explained(self.path(name)), suppress(FileNotFoundError):
            os.unlink(self.path(name))

    def move(self, name: str, new_name: str) -> None:
        path, new_path = self.path(name), self.path(new_name)
        with explained(path):
            _make_folder(new_path.parent)
            os.replace(path, new_path)
            _sync_folder(new_path.parent)
            _sync_folder(path.parent)

    def sweep(self, living_writers: Callable[[], set[str]]) -> int:
        """Remove the temporary files that dead writers left behind; returns how many.

        Who lives is asked after the files are listed: a writer takes its lock before its first file, so that the files
        of one that begins in between are never mistaken for leftovers.
        """
        leftovers = [name for name in self.all_files() if _file_of(name).startswith(_TEMPORARY)]
        living = living_writers() if leftovers else set[str]()
        dead = [name for name in leftovers if _file_of(name).removeprefix(_TEMPORARY).partition("-")[0] not in living]
        for name in dead:
            self.remove(name)
        return len(dead)

    def _list(self, folder: str) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.path(folder)) if not name.startswith(_TEMPORARY))
        except (FileNotFoundError, NotADirectoryError):
            return []


def _file_of(name: str) -> str:
    return name.rpartition("/")[2]


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    """Create a folder and those above it, each of them on disk before the next."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):
        os.mkdir(folder)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Without this a rename may be forgotten in a power cut, though the file's bytes are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into a StoreError that tells the way out."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: {_way_out(error)}") from error


def _way_out(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; make room and run the same command again, what is stored stays"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"cannot be written ({error.strerror}); allow writing there or choose another output folder"
    return f"cannot be written ({error.strerror or error}); mend that and run the same command again"
