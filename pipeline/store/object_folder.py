"""A store on object storage: ``s3://bucket/prefix`` and whatever else fsspec reaches.

A file is one PUT of bytes that were whole in memory, so that it is there whole or not at all; never a stream, whose
parts some file systems publish when an exception ends it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from ...manifests.errors import StoreError
from .folders import without_gaps
from .urls import connect, modified_ns, reached

T = TypeVar("T")

_AT_ONCE = 16
"""Requests under way while many small files are read: each takes 20 to 100 ms, whatever its size."""
_READ_AHEAD_BYTES = 4 << 20
"""Two row groups: a shard that is read in order takes a request for each two of them."""
_GAP_BYTES = 256 << 10
"""Less than this between two pieces that are wanted is read along: it takes no longer than another request."""


class ObjectFolder:
    """A `Folder` whose root is a URL."""

    relist_after_s = 30.0

    def __init__(self, root: str) -> None:
        self.root = root
        self._connection: tuple[int, Any, str] | None = None

    def where(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    @contextmanager
    def opened(self, name: str, columns: Sequence[str] | None = None, *, whole: bool = False) -> Iterator[Any]:
        """Of some columns the footer, then all their pieces at once; here and there as asked for, reading ahead."""
        if whole:
            yield io.BytesIO(self.read(name))
            return
        with self._reading_ahead(name) if columns is None else self._columns(name, columns) as file:
            yield file

    def put(self, name: str, data: bytes, owner: str, *, new: bool = False) -> None:
        if not new:
            self._put(name, data, "overwrite")
        elif not self.create(name, data):
            raise StoreError(f"{self.where(name)}: another writer has put a file of this name; give each its own id")

    def create(self, name: str, data: bytes) -> bool:
        """False where a file of other content is there already.

        One of the same content is our own: an answer was lost, and the request was sent again.
        """
        try:
            self._put(name, data, "create")
        except FileExistsError:
            with suppress(FileNotFoundError):  # it was there, and is gone again
                return self.read(name) == data
            return False
        return True

    def read(self, name: str) -> bytes:
        files, key = self._at(name)
        with reached(self.where(name)):
            return files.cat_file(key)

    def exists(self, name: str) -> bool:
        files, key = self._at(name)
        with reached(self.where(name)), suppress(FileNotFoundError):
            return files.info(key)["type"] == "file"
        return False

    def files(self, folder: str) -> list[str]:
        """A long list comes in pages, between which files may be merged."""
        return without_gaps(lambda: list(self.times(folder)))

    def times(self, folder: str) -> dict[str, float]:
        """Files in ``folder`` by name → when they were written, in seconds since 1970."""
        found = sorted((entry for entry in self._list(folder) if entry["type"] == "file"), key=_name)
        return {f"{folder}/{_name(entry)}".lstrip("/"): modified_ns(entry) / 1e9 for entry in found}

    def folders(self, folder: str = "") -> list[str]:
        return sorted(_name(entry) for entry in self._list(folder) if entry["type"] == "directory")

    def entries(self) -> list[str]:
        return sorted(map(_name, self._list("")))

    def all_files(self) -> Iterator[str]:
        files, key = self._at("")
        with reached(self.root):
            found = files.find(key)
        return (name[len(key) :].lstrip("/") for name in found)

    def each(self, act: Callable[[str], T], names: Iterable[str]) -> Iterable[T]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from pool.map(act, names)

    def remove(self, name: str) -> None:
        files, key = self._at(name)
        with reached(self.where(name)), suppress(FileNotFoundError):
            files.rm_file(key)

    def move(self, name: str, new_name: str) -> None:
        """Copied by the store itself, then removed: interrupted, it is in both places until it is moved again."""
        files, key = self._at(name)
        with reached(self.where(name)):
            files.cp_file(key, self._at(new_name)[1])
        self.remove(name)

    def _put(self, name: str, data: bytes, mode: str) -> None:
        files, key = self._at(name)
        try:
            with reached(self.where(name)):
                files.pipe_file(key, data, mode=mode)
        except FileNotFoundError as error:
            raise StoreError(f"{self.where(name)}: {error}; create it, or choose another place") from error

    def _columns(self, name: str, columns: Sequence[str]) -> Any:
        from fsspec.parquet import open_parquet_file

        files, key = self._at(name)
        try:
            frank: Any = _Frank(files)
            return open_parquet_file(key, fs=frank, columns=list(columns), engine="pyarrow", max_gap=_GAP_BYTES)
        except FileNotFoundError:
            raise
        except Exception:  # damaged, or out of reach: reading it bit by bit tells which
            return self._reading_ahead(name)

    def _reading_ahead(self, name: str) -> _Reading:
        files, key = self._at(name)
        with reached(self.where(name)):
            file = files.open(key, block_size=_READ_AHEAD_BYTES, cache_type="readahead")
        return _Reading(file, self.where(name))

    def _list(self, folder: str) -> list[dict[str, Any]]:
        files, key = self._at(folder)
        with reached(self.where(folder)), suppress(FileNotFoundError, NotADirectoryError):
            return [entry for entry in files.ls(key, detail=True, refresh=True) if _name(entry)]
        return []

    def _at(self, name: str) -> tuple[Any, str]:
        """The file system and the file's name in it; connected anew in a forked process, which must not share one."""
        if self._connection is None or self._connection[0] != os.getpid():
            self._connection = (os.getpid(), *connect(self.root, to_write=True))
        _, files, prefix = self._connection
        return files, f"{prefix}/{name}" if name else prefix

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "_connection": None}


class _Frank:
    """A file system that raises what keeps it from reading a piece, and does not hand it out in the piece's place."""

    def __init__(self, files: Any) -> None:
        self._files = files

    def cat_ranges(self, paths: Any, starts: Any, ends: Any) -> list[bytes]:
        pieces = self._files.cat_ranges(paths, starts, ends)  # some versions of fsspec do not heed on_error
        for piece in pieces:
            if isinstance(piece, BaseException):
                raise piece
        return pieces

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)


class _Reading:
    """An open file that tells what keeps it from being read from what is wrong with it."""

    def __init__(self, file: Any, url: str) -> None:
        self._file = file
        self._url = url

    def read(self, size: int = -1) -> bytes:
        with reached(self._url):
            return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Reading:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()


def _name(entry: dict[str, Any]) -> str:
    return entry["name"].rpartition("/")[2]
