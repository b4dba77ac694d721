"""Storage on a file system: every file is written atomically, below one folder.

Every call that changes the disk uses this module's ``os``, which the tests of crashes replace.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ....manifests.errors import StoreError
from .storage import stable_listing

T = TypeVar("T")

_TEMPORARY = ".tmp-"  # starts with a dot: pandas, pyarrow, polars and duckdb ignore such names


@dataclass(eq=False)
class LocalStorage:
    """A `Storage` on a file system."""

    root: Path
    relist_after_s = 0.0

    def where(self, name: str) -> str:
        return str(self.root / name)

    @contextmanager
    def opened(
        self, name: str, columns: Sequence[str] | None = None, *, whole: bool = False
    ) -> Generator[Any, None, None]:
        """Yield the path, because pyarrow then reads only what it needs; an open file if the name is not UTF-8."""
        path = str(self.root / name)
        try:
            path.encode()
        except UnicodeEncodeError:
            with open(path, "rb") as file:
                yield file
        else:
            yield path

    def ranged(self, name: str) -> _LocalRanges:
        """Open a file for random access. It remains readable if it is merged and removed."""
        return _LocalRanges(self.root / name)

    def put(self, name: str, data: bytes, owner: str, *, new: bool = False) -> None:
        """Write a file, which is then on disk. Temporary files are removed after the writer ``owner`` has died.

        Living writers have distinct ids, so that two ``new`` files never have the same name.
        """
        path = inside(self.root, name)
        temporary = path.with_name(f"{_TEMPORARY}{owner}-{path.name}")
        with disk_errors(path):
            _make_folder(path.parent)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(temporary, flags, 0o666)
                try:
                    rest = memoryview(data)
                    while rest:
                        rest = rest[os.write(descriptor, rest) :]
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                os.replace(temporary, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
            _sync_folder(path.parent)

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def exists(self, name: str) -> bool:
        return (self.root / name).exists()

    def files(self, folder: str) -> list[str]:
        """Return the names of the files in ``folder``, sorted, without temporary ones; empty if it does not exist."""
        with suppress(FileNotFoundError, NotADirectoryError):
            path = self.root / folder
            names = stable_listing(lambda: [name for name in os.listdir(path) if not name.startswith(_TEMPORARY)])
            return sorted(f"{folder}/{name}" for name in names)
        return []

    def folders(self, folder: str = "") -> list[str]:
        with suppress(FileNotFoundError), os.scandir(self.root / folder) as entries:
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
        path = inside(self.root, name)
        with disk_errors(path), suppress(FileNotFoundError):
            os.unlink(path)

    def move(self, name: str, new_name: str) -> None:
        path, new_path = inside(self.root, name), inside(self.root, new_name)
        with disk_errors(path):
            _make_folder(new_path.parent)
            os.replace(path, new_path)
            _sync_folder(new_path.parent)
            _sync_folder(path.parent)

    def sweep(self, living_writers: Callable[[], set[str]]) -> int:
        """Remove the temporary files of dead writers; return their number.

        The living writers are read after the files are listed. A writer takes its lock before its first file, so that
        the files of a writer that starts in between are never removed.
        """
        leftovers = [name for name in self.all_files() if PurePosixPath(name).name.startswith(_TEMPORARY)]
        living = living_writers() if leftovers else set[str]()
        writers = (PurePosixPath(name).name.removeprefix(_TEMPORARY).partition("-")[0] for name in leftovers)
        dead = [name for name, writer in zip(leftovers, writers, strict=True) if writer not in living]
        for name in dead:
            self.remove(name)
        return len(dead)


class _LocalRanges:
    """Reads ranges at given positions, so that forked processes can share the descriptor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read_into(self, pieces: Sequence[tuple[int, NDArray[np.uint8]]], max_gap_bytes: int) -> None:
        try:
            for position, buffer in pieces:
                done = 0
                while done < len(buffer):
                    count = os.preadv(self._descriptor, [buffer[done:].data], position + done)
                    if not count:
                        raise StoreError(f"{self._path}: ends at {position + done} bytes; get the file again")
                    done += count
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be read ({error.strerror}); check the disk") from error

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


def inside(root: Path, name: str) -> Path:
    """Return the path of a file in a store, to write, move or remove it.

    Raises:
        StoreError: The name, or a symbolic link in the store, leads to another place. Files of a store may come from
            others, and must not change anything outside of the store. The store's folder itself may be a link.
    """
    path = root / name
    below = PurePosixPath(name)
    if below.is_absolute() or ".." in below.parts:
        raise StoreError(f"{root}: the file name {name!r} leads out of the store; delete the file that contains it")
    if Path(os.path.realpath(path.parent)) != Path(os.path.realpath(root), *below.parts[:-1]):
        raise StoreError(
            f"{path.parent}: a symbolic link leads to {os.path.realpath(path.parent)}; replace the link by a folder"
        )
    return path


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents. Each is on disk before the next one is created."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):
        os.mkdir(folder)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Sync a folder. Otherwise a power failure may revert a rename although the file's bytes are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(path: Path) -> Generator[None, None, None]:
    """Convert OSError into a StoreError with advice."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: {_advice(error)}") from error


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free space and run the same command again; stored features are kept"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"cannot be written ({error.strerror}); allow writing there or choose another output folder"
    return f"cannot be written ({error.strerror or error}); fix that and run the same command again"
