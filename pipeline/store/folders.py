"""Where a store lies: a folder on a disk or a prefix of an object store, told apart by how it is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

T = TypeVar("T")

Root = Path | str
"""A folder's path, or a URL; text without ``://`` is a path."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Folder(Protocol):
    """Whole files in, whole files out, never an append. Names are relative to the root, with POSIX separators.

    StoreError where the place refuses; FileNotFoundError where a file to read or move is gone.
    """

    @property
    def root(self) -> Root: ...

    relist_after_s: float
    """How long a list of files may be taken for fresh by those whom a stale one only costs work."""

    def where(self, name: str) -> str:
        """The file as a person would name it."""
        ...

    def opened(
        self, name: str, columns: Sequence[str] | None = None, *, whole: bool = False
    ) -> AbstractContextManager[Any]:
        """What pyarrow reads a file from: all of it, or nothing but some ``columns``, or here and there."""
        ...

    def put(self, name: str, data: bytes, owner: str, *, new: bool = False) -> None:
        """Write a whole file, there for everybody when this returns; one that is ``new`` replaces nothing."""
        ...

    def read(self, name: str) -> bytes: ...

    def exists(self, name: str) -> bool: ...

    def files(self, folder: str) -> list[str]:
        """Names of the files in ``folder``, sorted; none where there is no such folder. None is missed that is merely
        being merged into another."""
        ...

    def folders(self, folder: str = "") -> list[str]:
        """Names of the folders directly in ``folder``, sorted."""
        ...

    def entries(self) -> list[str]:
        """What lies at the root, files and folders, sorted; NotADirectoryError where the root is a file."""
        ...

    def all_files(self) -> Iterator[str]:
        """Every file, however deep, unfinished ones included."""
        ...

    def remove(self, name: str) -> None:
        """A file that is gone already is no error."""
        ...

    def move(self, name: str, new_name: str) -> None: ...

    def each(self, act: Callable[[str], T], names: Iterable[str]) -> Iterable[T]:
        """``act`` of each file, in their order: at once where waiting for answers takes most of the time."""
        ...


def is_url(place: Root) -> bool:
    return isinstance(place, str) and _URL.match(place) is not None


def as_root(place: Root) -> Root:
    """A path as a `Path`, a URL without its last slash as it is; ``file://`` names a path."""
    if isinstance(place, Path) or not is_url(place):
        return Path(place)
    if place.startswith("file://"):
        return Path(unquote(urlsplit(place).path))
    return place.rstrip("/")


def without_gaps(listed: Callable[[], list[str]]) -> list[str]:
    """A list of files in which none is missed that is being merged into another, however many come meanwhile.

    While a folder is read, one may vanish before its turn, and what holds its rows now appear after its own. But then
    the list before had the one that vanished: lists again until that is not so.
    """
    names = listed()
    while not set(names) <= set(again := listed()):
        names = again
    return again


def open_folder(root: Root) -> Folder:
    """Reads nothing yet."""
    from .atomic_files import LocalFolder
    from .object_folder import ObjectFolder

    place = as_root(root)
    return LocalFolder(place) if isinstance(place, Path) else ObjectFolder(place)
