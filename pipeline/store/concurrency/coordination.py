"""Coordination between concurrent writers of a store: the interface, and its form without locks on object storage.

On a disk, file locks are used (`writer_locks`).

An object store has no lock that ends with the process that holds it, so that correctness must not depend on one. Before
a writer removes a file, it writes those rows of the file that are not replaced into a file of its own. No row is lost,
however many writers do this at the same time (`compaction` has the proof). Leases and records only save work there.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from ....manifests.errors import StoreError
from ..files.object_storage import ObjectStorage
from ..files.urls import UnreachableStore
from .writer_locks import NOTHING_HELD, HeldSettings, held_in

IDLE_S = 3600.0
"""Age at which any run may merge a shard on an object store, because the run that wrote it has most likely ended."""
BEAT_S, STALE_S = 30.0, 120.0
"""Interval at which a writer renews its record on an object store; age of a record at which its writer counts as
dead."""
START_BEAT_S, START_STALE_S = 4.0, 20.0
"""The same for a run that starts. If a run was suspended for longer, it detects at the end of its start that another
process took its lease, and fails."""
_LEASE, _STARTING, _RECORDS = ".reorganizing", ".starting", ".runs"
_LOG = logging.getLogger(__name__)


class WriterLease(Protocol):
    """A registered writer, until it is closed, and its claims on videos; see `writer_locks`."""

    @property
    def writer_id(self) -> str: ...

    def close(self) -> None: ...

    def take(self, video_id: str) -> bool: ...

    def advance(self, video_id: str, counter: int) -> int: ...

    def is_free(self, video_id: str) -> bool: ...

    def release(self, video_ids: Iterable[str]) -> None: ...


class WriterCoordination(Protocol):
    """Knowledge and actions of a writer about the other writers of its store."""

    exclusive: bool
    """Whether `reorganizing` prevents all other writers from merging and removing shards."""

    def enter(self, writer_id: str | None = None, held: HeldSettings = NOTHING_HELD) -> WriterLease:
        """Register a writer.

        Args:
            writer_id: Id of the writer; a new random one by default.
            held: The settings that the writer uses. They are published as long as it lives.

        Raises:
            StoreError: A living writer has this id, as far as this is known.
        """
        ...

    def starting(self) -> AbstractContextManager[None]:
        """Let only one run at a time start to write; others wait."""
        ...

    def held(self) -> list[HeldSettings]:
        """Return the settings that living writers have published. Call it inside `starting`."""
        ...

    def reorganizing(self) -> AbstractContextManager[None]: ...

    def sweep(self) -> int:
        """Remove unfinished files of dead writers; return their number."""
        ...

    def idle(self, listed: Mapping[str, Mapping[str, str]], own: str | None) -> dict[str, list[str]]:
        """Return the listed shards that no other living writer relies on. Call it inside `reorganizing`.

        Args:
            listed: Folder → shard → the writer of the shard.
            own: Id of a writer whose shards are included although it lives.
        """
        ...


class LocklessCoordination:
    """Coordination on an object store. Whether a writer lives is unknown; the age of files is the only evidence."""

    exclusive = False

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage
        self._is_first = False

    def enter(self, writer_id: str | None = None, held: HeldSettings = NOTHING_HELD) -> WriterLease:
        chosen = secrets.token_hex(6) if writer_id is None else writer_id
        if not held.streams:
            return _Unlocked(chosen)
        about = replace(held, writer_id=chosen, host=socket.gethostname(), pid=os.getpid())
        return _RenewedRecord(
            self._storage, f"{_RECORDS}/{chosen}.json", json.dumps(asdict(about)).encode(), chosen, BEAT_S
        )

    @contextmanager
    def starting(self) -> Generator[None, None, None]:
        """Hold a lease that is renewed. A lease that is unchanged for `START_STALE_S` belongs to a killed run.

        Raises:
            StoreError: At the end of the block: this process was suspended, and another run took the lease. Both have
                published their settings, and the other run may not have read those of this run.
        """
        token, seen, since_s = secrets.token_hex(16).encode(), 0.0, time.monotonic()
        while not self._create(_STARTING, token):
            found_s = self._storage.times("").get(_STARTING, 0.0)
            if found_s != seen:
                seen, since_s = found_s, time.monotonic()
            elif time.monotonic() - since_s > START_STALE_S:
                self._storage.remove(_STARTING)
            time.sleep(min(0.5, START_BEAT_S))
        with closing(_RenewedRecord(self._storage, _STARTING, token, "", START_BEAT_S)) as lease:
            yield
            if lease.content() != token:
                raise StoreError(
                    f"{self._storage.where('')}: this run made no progress for {START_STALE_S:.0f} s while it started, "
                    "and another run has started instead; run the same command again"
                )

    def held(self) -> list[HeldSettings]:
        """Return the settings in records; remove records of age `STALE_S`. The server's time is that of the lease."""
        times = self._storage.times(_RECORDS)
        now_s = max([*self._storage.times("").values(), *times.values()], default=0.0)
        found: list[HeldSettings] = []
        for name, written_s in times.items():
            with suppress(FileNotFoundError):
                if now_s - written_s > STALE_S:
                    self._storage.remove(name)
                elif (held := held_in(self._storage.read(name))) is not None:
                    found.append(held)
        return found

    @contextmanager
    def reorganizing(self) -> Generator[None, None, None]:
        """Never wait. The first process gets a lease, and with it the shards of killed runs."""
        self._is_first = self._take_lease()
        try:
            yield
        finally:
            if self._is_first:
                self._storage.remove(_LEASE)

    def sweep(self) -> int:
        """Return 0, because objects are always complete."""
        return 0

    def idle(self, listed: Mapping[str, Mapping[str, str]], own: str | None) -> dict[str, list[str]]:
        """Return the shards of ``own`` and, if this process holds the lease, shards older than `IDLE_S`."""
        old = {name: self._old(name) if self._is_first else set[str]() for name in listed}
        return {
            name: [shard for shard, writer in shards.items() if writer == own or shard in old[name]]
            for name, shards in listed.items()
        }

    def _old(self, folder: str) -> set[str]:
        """Return the files older than `IDLE_S` by the object store's clock.

        The newest object at the root is the lease or the manifest that this run wrote, whose time is not in the future.
        """
        now_s = max(self._storage.times("").values(), default=0.0)
        return {name for name, written_s in self._storage.times(folder).items() if now_s - written_s > IDLE_S}

    def _take_lease(self) -> bool:
        """Return whether this process holds the lease. A lease older than `IDLE_S` belongs to a killed run."""
        if _LEASE in self._old(""):
            self._storage.remove(_LEASE)
        return self._create(_LEASE, secrets.token_bytes(16))

    def _create(self, name: str, data: bytes) -> bool:
        try:
            return self._storage.create(name, data)
        except UnreachableStore:  # S3 may refuse concurrent writes; with another cause the next request fails, too
            return False


class _NoClaims:
    """Claims without effect: two runs may process the same video, and the second reads the outcome of the first."""

    def take(self, video_id: str) -> bool:
        return True

    def advance(self, video_id: str, counter: int) -> int:
        return counter

    def is_free(self, video_id: str) -> bool:
        return True

    def release(self, video_ids: Iterable[str]) -> None: ...


class _RenewedRecord(_NoClaims):
    """An object that shows that its writer lives. It is written every ``beat_s``, unless a process replaced it."""

    def __init__(self, storage: ObjectStorage, name: str, data: bytes, writer_id: str, beat_s: float) -> None:
        self.writer_id = writer_id
        self._storage = storage
        self._name = name
        self._data = data
        self._beat_s = beat_s
        self._is_ending = threading.Event()
        storage.put(name, data, writer_id)
        self._thread = threading.Thread(target=self._renew, name=f"renew {name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        if not self._is_ending.is_set():
            self._is_ending.set()
            self._thread.join()
            if self.content() == self._data:
                self._storage.remove(self._name)

    def content(self) -> bytes | None:
        """Return the current content of the object; None if there is none."""
        try:
            return self._storage.read(self._name)
        except FileNotFoundError:
            return None

    def _renew(self) -> None:
        while not self._is_ending.wait(self._beat_s):
            try:
                if self.content() not in (None, self._data):
                    return
                self._storage.put(self._name, self._data, self.writer_id)
            except StoreError as error:  # the next attempt may succeed
                _LOG.warning("the record of this run cannot be renewed: %s", error)


@dataclass(frozen=True)
class _Unlocked(_NoClaims):
    writer_id: str

    def close(self) -> None: ...
