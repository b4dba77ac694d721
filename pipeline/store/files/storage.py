"""Storage of a store's files: a folder on a disk or a prefix of an object store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from ....manifests.errors import StoreError
from ....manifests.urls import split_query

T = TypeVar("T")

StorePath = Path | str
"""A folder's path, or a URL; text without ``://`` is a path."""

_RELISTS = 100  # each retry is due to another finished merge
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class RangedFile(Protocol):
    """A file that is open for random access, in this process and in processes that are forked from it."""

    def read_into(self, pieces: Sequence[tuple[int, NDArray[np.uint8]]], max_gap_bytes: int) -> None:
        """Fill each buffer with the bytes from its position on.

        Args:
            pieces: Positions, ascending, and buffers.
            max_gap_bytes: Largest gap between two pieces that may be read as well to save a request.

        Raises:
            StoreError: The file ends before a piece, or cannot be read.
        """
        ...

    def close(self) -> None: ...


class Storage(Protocol):
    """Storage of whole files, which are never appended to. Names are relative to the root, with POSIX separators.

    Raises StoreError if the storage refuses an operation, and FileNotFoundError if a file to read or move is absent.
    """

    @property
    def root(self) -> StorePath: ...

    relist_after_s: float
    """Seconds for which a list of files may be reused, if an outdated list only costs work."""

    def where(self, name: str) -> str:
        """Return the file's path or URL, for messages."""
        ...

    def opened(
        self, name: str, columns: Sequence[str] | None = None, *, whole: bool = False
    ) -> AbstractContextManager[Any]:
        """Open a file for pyarrow: completely (``whole``), some ``columns``, or with random access."""
        ...

    def ranged(self, name: str) -> RangedFile:
        """Open a file for random access; FileNotFoundError if it is absent."""
        ...

    def put(self, name: str, data: bytes, owner: str, *, new: bool = False) -> None:
        """Write a whole file, which all processes can read afterwards. A ``new`` file does not replace another one."""
        ...

    def read(self, name: str) -> bytes: ...

    def exists(self, name: str) -> bool: ...

    def files(self, folder: str) -> list[str]:
        """Return the names of the files in ``folder``, sorted; empty if it does not exist.

        A file that is merged into another one at the same time is not missed.
        """
        ...

    def folders(self, folder: str = "") -> list[str]:
        """Return the names of the folders directly in ``folder``, sorted."""
        ...

    def entries(self) -> list[str]:
        """Return files and folders at the root, sorted; NotADirectoryError if the root is a file."""
        ...

    def all_files(self) -> Iterator[str]:
        """Yield every file at any depth, including unfinished ones."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; do nothing if it is absent."""
        ...

    def move(self, name: str, new_name: str) -> None: ...

    def each(self, act: Callable[[str], T], names: Iterable[str]) -> Iterable[T]:
        """Apply ``act`` to each file; results are in order. Calls are concurrent if latency dominates."""
        ...


def is_url(place: StorePath) -> bool:
    return isinstance(place, str) and _URL.match(place) is not None


def as_store_path(place: StorePath) -> StorePath:
    """Return a path as a `Path`, and a URL without its trailing slash. A ``file://`` URL becomes a path."""
    if isinstance(place, Path) or not is_url(place):
        return Path(place)
    if place.startswith("file://"):
        return Path(unquote(urlsplit(place).path))
    return "".join(split_query(place))


def stable_listing(listed: Callable[[], list[str]]) -> list[str]:
    """List files without missing any file that is being merged into another one.

    During a listing, a file may vanish before it is listed, while its replacement appears at a position that was
    already listed. The previous list then contains the vanished file. The listing is repeated until no file vanishes.
    """
    names = listed()
    while not set(names) <= set(again := listed()):
        names = again
    return again


def retry_on_missing(read: Callable[[], T], storage: Storage) -> T:
    """Call ``read`` again if a listed file is absent, because a writer has merged it in between."""
    for _ in range(_RELISTS):
        try:
            return read()
        except FileNotFoundError:
            continue
    raise StoreError(
        f"{storage.root}: files keep vanishing while they are read; try again when no run is writing there"
    )
