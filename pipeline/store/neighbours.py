"""Who else works on a store, and what one may do about it: with a file system's locks, or without any.

An object store knows no lock that ends with its holder. Nothing there depends on one: whoever removes a file has first
written its rows, those that nothing newer replaced, into a file of its own, so that no row is lost however many do so
at once (`compaction` says why). What neighbours know of each other there only saves work.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from .atomic_files import LocalFolder
from .claims import Claims, sweep_claims
from .folders import Folder
from .object_folder import ObjectFolder
from .shards import writer_of
from .urls import UnreachableStore
from .writer_locks import WriterLock, living_writers, reorganising

IDLE_S = 3600.0
"""On an object store, a shard of this age is merged by whoever comes: the run that wrote it is most likely over."""
_LEASE = ".reorganising"


class Presence(Protocol):
    """A writer at work, until the block ends."""

    @property
    def writer_id(self) -> str: ...

    def release(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class VideoClaims(Protocol):
    """Which videos a run has in hand; see `claims`."""

    def take(self, video_id: str) -> bool: ...

    def is_free(self, video_id: str) -> bool: ...

    def give_back(self, video_ids: Iterable[str]) -> None: ...


class Neighbours(Protocol):
    exclusive: bool
    """Whether `reorganising` keeps all others from merging and removing."""

    def enter(self, writer_id: str | None = None) -> Presence:
        """StoreError where a living writer is known to have that id; a fresh one by default."""
        ...

    def claims(self, writer_id: str) -> VideoClaims: ...

    def reorganising(self) -> AbstractContextManager[None]: ...

    def sweep(self) -> int:
        """Remove what dead writers left unfinished; returns how many files."""
        ...

    def idle(self, listed: Mapping[str, Sequence[str]], own: str | None) -> dict[str, list[str]]:
        """Folder → those of its listed shards that nobody else counts on. Ask while reorganising."""
        ...


def neighbours(folder: Folder) -> Neighbours:
    if isinstance(folder, LocalFolder):
        return LockingNeighbours(folder)
    if isinstance(folder, ObjectFolder):
        return UnseenNeighbours(folder)
    raise TypeError(f"no neighbours are known of a {type(folder).__name__}")


class LockingNeighbours:
    """On a file system: the kernel knows who lives."""

    exclusive = True

    def __init__(self, folder: LocalFolder) -> None:
        self._folder = folder

    def enter(self, writer_id: str | None = None) -> Presence:
        return WriterLock(self._folder.root, writer_id)

    def claims(self, writer_id: str) -> VideoClaims:
        return Claims(self._folder.root, writer_id)

    def reorganising(self) -> AbstractContextManager[None]:
        return reorganising(self._folder.root)

    def sweep(self) -> int:
        sweep_claims(self._folder.root)
        return self._folder.sweep(lambda: living_writers(self._folder.root))

    def idle(self, listed: Mapping[str, Sequence[str]], own: str | None) -> dict[str, list[str]]:
        """Of dead writers, and one's own."""
        spared = living_writers(self._folder.root) - {own}
        return {name: [shard for shard in shards if writer_of(shard) not in spared] for name, shards in listed.items()}


class UnseenNeighbours:
    """On an object store: nobody knows who lives, and only files tell their age."""

    exclusive = False

    def __init__(self, folder: ObjectFolder) -> None:
        self._folder = folder
        self._is_first = False

    def enter(self, writer_id: str | None = None) -> Presence:
        return _Unlocked(secrets.token_hex(6) if writer_id is None else writer_id)

    def claims(self, writer_id: str) -> VideoClaims:
        return _NoClaims()

    @contextmanager
    def reorganising(self) -> Iterator[None]:
        """Nobody waits: the first who comes takes a lease, and with it what killed runs have left behind."""
        self._is_first = self._take_lease()
        try:
            yield
        finally:
            if self._is_first:
                self._folder.remove(_LEASE)

    def sweep(self) -> int:
        """An object is there whole or not at all."""
        return 0

    def idle(self, listed: Mapping[str, Sequence[str]], own: str | None) -> dict[str, list[str]]:
        """One's own and, for the first who comes, old ones."""
        old = {name: self._old(name) if self._is_first else set[str]() for name in listed}
        return {
            name: [shard for shard in shards if writer_of(shard) == own or shard in old[name]]
            for name, shards in listed.items()
        }

    def _old(self, folder: str) -> set[str]:
        """By clocks that need not agree better than to an hour."""
        return {name for name, written_s in self._folder.times(folder).items() if time.time() - written_s > IDLE_S}

    def _take_lease(self) -> bool:
        """Whether this is the first who came; a lease that has grown old was left by a run that was killed."""
        if _LEASE in self._old(""):
            self._folder.remove(_LEASE)
        try:
            return self._folder.create(_LEASE, secrets.token_bytes(16))
        except UnreachableStore:  # S3 may refuse two at once; if it is more than that, what follows will tell
            return False


@dataclass(frozen=True)
class _Unlocked:
    writer_id: str

    def release(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class _NoClaims:
    """Everything is free: two runs may do the same video, and what the first one stored is news to the second."""

    def take(self, video_id: str) -> bool:
        return True

    def is_free(self, video_id: str) -> bool:
        return True

    def give_back(self, video_ids: Iterable[str]) -> None: ...
