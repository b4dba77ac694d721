"""Storage at a URL, such as ``s3://bucket/prefix``, through fsspec.

A file is written by one PUT of bytes that are complete in memory, so that it is either complete or absent. Streams are
not used: some file systems publish a part of a stream after an exception.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ....manifests.errors import StoreError
from ....manifests.urls import public_url
from .storage import stable_listing
from .urls import connect, modified_ns, network_errors

T = TypeVar("T")

_AT_ONCE = 16
"""Number of concurrent requests for small files. Each takes 20 to 100 ms, independent of its size."""
_READ_AHEAD_BYTES = 4 << 20
"""Two row groups: reading a shard in order then takes one request per two row groups."""
_GAP_BYTES = 256 << 10
"""A smaller gap between two ranges is also read, because this takes no longer than another request."""


class ObjectStorage:
    """A `Storage` whose root is a URL."""

    relist_after_s = 30.0

    def __init__(self, root: str) -> None:
        self.root = root
        self._connection: tuple[int, Any, str] | None = None

    def where(self, name: str) -> str:
        place = public_url(self.root)
        return f"{place}/{name}" if name else place

    @contextmanager
    def opened(
        self, name: str, columns: Sequence[str] | None = None, *, whole: bool = False
    ) -> Generator[Any, None, None]:
        """Yield a file: with ``columns`` by the footer and then all ranges at once, otherwise with read-ahead."""
        if whole:
            yield io.BytesIO(self.read(name))
            return
        with self._reading_ahead(name) if columns is None else self._columns(name, columns) as file:
            yield file

    def ranged(self, name: str) -> _RemoteRanges:
        """Return a file whose ranges are requested one by one, or together if they are close to each other."""
        return _RemoteRanges(self, name)

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Return the bytes of a file from ``start`` to ``end``."""
        files, key = self._at(name)
        with network_errors(self.where(name)):
            return files.cat_file(key, start=start, end=end)

    def put(self, name: str, data: bytes, owner: str, *, new: bool = False) -> None:
        if not new:
            self._put(name, data, "overwrite")
        elif not self.create(name, data):
            raise StoreError(f"{self.where(name)}: another writer has written this file; give each writer another id")

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file; return False if a file with other content exists.

        A file with the same content was written by this process: the response was lost, and the request was repeated.
        """
        try:
            self._put(name, data, "create")
        except FileExistsError:
            with suppress(FileNotFoundError):  # it was removed in between
                return self.read(name) == data
            return False
        return True

    def read(self, name: str) -> bytes:
        files, key = self._at(name)
        with network_errors(self.where(name)):
            return files.cat_file(key)

    def exists(self, name: str) -> bool:
        files, key = self._at(name)
        with network_errors(self.where(name)), suppress(FileNotFoundError):
            return files.info(key)["type"] == "file"
        return False

    def files(self, folder: str) -> list[str]:
        """List until stable, because a long list has several pages, between which files may be merged."""
        return stable_listing(lambda: list(self.times(folder)))

    def times(self, folder: str) -> dict[str, float]:
        """Return the files in ``folder``: name → time of writing, in seconds since 1970."""
        found = sorted((entry for entry in self._list(folder) if entry["type"] == "file"), key=_name)
        return {f"{folder}/{_name(entry)}".lstrip("/"): modified_ns(entry) / 1e9 for entry in found}

    def folders(self, folder: str = "") -> list[str]:
        return sorted(_name(entry) for entry in self._list(folder) if entry["type"] == "directory")

    def entries(self) -> list[str]:
        return sorted(map(_name, self._list("")))

    def all_files(self) -> Iterator[str]:
        files, key = self._at("")
        with network_errors(self.root):
            found = files.find(key)
        return (name[len(key) :].lstrip("/") for name in found)

    def each(self, act: Callable[[str], T], names: Iterable[str]) -> Iterable[T]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from pool.map(act, names)

    def remove(self, name: str) -> None:
        files, key = self._at(name)
        with network_errors(self.where(name)), suppress(FileNotFoundError):
            files.rm_file(key)

    def move(self, name: str, new_name: str) -> None:
        """Copy in the object store, then remove the original. After an interruption the file is at both places."""
        files, key = self._at(name)
        with network_errors(self.where(name)):
            files.cp_file(key, self._at(new_name)[1])
        self.remove(name)

    def _put(self, name: str, data: bytes, mode: str) -> None:
        files, key = self._at(name)
        try:
            with network_errors(self.where(name)):
                files.pipe_file(key, data, mode=mode)
        except FileNotFoundError as error:
            raise StoreError(f"{self.where(name)}: {error}; create it, or choose another output folder") from error

    def _columns(self, name: str, columns: Sequence[str]) -> Any:
        from fsspec import parquet  # pyright: ignore[reportMissingTypeStubs]

        files, key = self._at(name)
        opener: Any = parquet
        try:
            raising: Any = _RaisingFileSystem(files)
            return opener.open_parquet_file(
                key, fs=raising, columns=list(columns), engine="pyarrow", max_gap=_GAP_BYTES
            )
        except FileNotFoundError:
            raise
        except Exception:  # damaged or unreachable: reading with read-ahead shows the cause
            return self._reading_ahead(name)

    def _reading_ahead(self, name: str) -> _RemoteFile:
        files, key = self._at(name)
        with network_errors(self.where(name)):
            file = files.open(key, block_size=_READ_AHEAD_BYTES, cache_type="readahead")
        return _RemoteFile(file, self.where(name))

    def _list(self, folder: str) -> list[dict[str, Any]]:
        files, key = self._at(folder)
        with network_errors(self.where(folder)), suppress(FileNotFoundError, NotADirectoryError):
            return [entry for entry in files.ls(key, detail=True, refresh=True) if _name(entry)]
        return []

    def _at(self, name: str) -> tuple[Any, str]:
        """Return the file system and the file's name in it. A forked process opens another connection."""
        if self._connection is None or self._connection[0] != os.getpid():
            self._connection = (os.getpid(), *connect(self.root, to_write=True))
        _, files, prefix = self._connection
        return files, f"{prefix}/{name}" if name else prefix

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "_connection": None}


class _RemoteRanges:
    """A `RangedFile` of an object."""

    def __init__(self, storage: ObjectStorage, name: str) -> None:
        self._storage = storage
        self._name = name

    def read_into(self, pieces: Sequence[tuple[int, NDArray[np.uint8]]], max_gap_bytes: int) -> None:
        together: list[tuple[int, NDArray[np.uint8]]] = []
        for position, buffer in pieces:
            if together and position - _end(together) > max_gap_bytes:
                self._request(together)
                together = []
            together.append((position, buffer))
        if together:
            self._request(together)

    def close(self) -> None:
        """Do nothing, because nothing is open between requests."""

    def _request(self, pieces: Sequence[tuple[int, NDArray[np.uint8]]]) -> None:
        start, end = pieces[0][0], _end(pieces)
        data = np.frombuffer(self._storage.read_range(self._name, start, end), np.uint8)
        if len(data) != end - start:
            raise StoreError(f"{self._storage.where(self._name)}: ends at {start + len(data)} bytes; get it again")
        for position, buffer in pieces:
            buffer[:] = data[position - start : position - start + len(buffer)]


def _end(pieces: Sequence[tuple[int, NDArray[np.uint8]]]) -> int:
    position, buffer = pieces[-1]
    return position + len(buffer)


class _RaisingFileSystem:
    """A file system that raises the errors that fsspec returns in place of a range's bytes."""

    def __init__(self, files: Any) -> None:
        self._files = files

    def cat_ranges(self, paths: Any, starts: Any, ends: Any) -> list[bytes]:
        pieces = self._files.cat_ranges(paths, starts, ends)  # some versions of fsspec ignore on_error
        for piece in pieces:
            if isinstance(piece, BaseException):
                raise piece
        return pieces

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)


class _RemoteFile:
    """An open file that distinguishes network errors from damaged content."""

    def __init__(self, file: Any, url: str) -> None:
        self._file = file
        self._url = url

    def read(self, size: int = -1) -> bytes:
        with network_errors(self._url):
            return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _RemoteFile:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()


def _name(entry: dict[str, Any]) -> str:
    return entry["name"].rpartition("/")[2]
