"""Coordination of a store's writers by file locks: which of them live, and which videos they claim.

Each writer holds a lock (`WriterLock`), which the kernel releases when its process ends, for whatever reason.

Runs with different settings for one stream never write at the same time. Each writer publishes its settings: together
with its lock on a file system, in a record that it renews on object storage. Runs start one at a time
(`Store.starting`): each reads the settings of living writers, then writes the manifest, then publishes its own
settings. The settings of killed writers do not count.

A claim shows which run processes a video, so that little work is done twice. It is a small file in the store's
``.claims`` folder. Its name is derived from the video, and its content names the writer. A claim is valid while its
writer lives, which the kernel knows, and makes progress: the writer's process renews the time of its lock file every
few seconds. Other processes compare this time with the previous one and measure by their own monotonic clocks, so that
clocks need not agree. A claim is free if its writer's lock file has not changed for `PATIENCE_S` (a stopped process, a
frozen node). If that writer continues later, its additions have an older counter than those of the run that took over
(see `index`). Claims only save work: if two runs process the same video, the result is still correct.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import socket
import stat
import threading
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any

from ....manifests.errors import StoreError
from ..files.local import LocalStorage, disk_errors, inside

_LOCKS = ".writers"
_ID_PATIENCE_S = 1.0  # `living_writers` in another process holds each lock briefly
PATIENCE_S = float(os.environ.get("ARABESQUE_PATIENCE_S", "180"))
"""Seconds to wait for another process of the store that makes no progress."""
_BEAT_S = min(5.0, PATIENCE_S / 10)
STARTING_PATIENCE_S = 300.0
"""Seconds to wait for a run that starts: it archives rows of other settings, which takes minutes for large stores."""
_START_LOCK, _REORGANIZE_LOCK = ".starting.lock", ".reorganizing.lock"
_CLAIMS = ".claims"
_CLAIM_PATIENCE_S = PATIENCE_S / 10
"""Seconds to wait for the lock of all claims. A process that is stopped while it holds this lock does not block others:
at worst two processes claim the same video."""
_LONGEST_CLAIM = 1 << 16  # bytes
MAX_LEAD = 1 << 32
"""Maximal difference of a claim's counter and the store's. A larger one is damaged or forged."""
_WRITER_ID = re.compile(r"[A-Za-z0-9_.]+")


@dataclass(frozen=True)
class HeldSettings:
    """The settings of one writer, and the machine and process that it runs in."""

    writer_id: str = ""
    host: str = ""
    pid: int = 0
    number: str = ""
    """``float32`` or ``float16``."""
    streams: Mapping[str, str] = field(default_factory=dict[str, str])
    """Stream → settings digest."""


NOTHING_HELD = HeldSettings()
"""Settings of a writer that adds no rows, such as a compaction."""


class WriterLock:
    """Shows that one writer lives, and holds its claims on videos. Thread-safe.

    It is an flock, which the kernel releases when the process ends, even after kill -9. The lock file's time is renewed
    while the process runs (`heartbeat`).

    Args:
        root: The store's folder.
        writer_id: Id of the writer; a new random one by default.
        held: The settings that the writer uses. They are published with its lock.
        patience_s: Claims of a writer that has been stalled for this long are free.

    Raises:
        StoreError: A living writer has this id.
    """

    def __init__(
        self,
        root: Path,
        writer_id: str | None = None,
        held: HeldSettings = NOTHING_HELD,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.writer_id = secrets.token_hex(6) if writer_id is None else writer_id
        self._root = root
        self._claims_lock = root / _CLAIMS / "lock"
        self._patience_s = patience_s
        # writer → last heartbeat, seconds without change, time of the last check
        self._seen: dict[str, tuple[int, float, float]] = {}
        self._guard = threading.Lock()
        self._lock_path = lock_path(root, self.writer_id)
        lock = locked_file(self._lock_path, _ID_PATIENCE_S)
        if lock is None:
            raise StoreError(f"{self._lock_path}: a living process uses this writer id; give each writer another id")
        self._lock = lock
        about = replace(held, writer_id=self.writer_id, host=socket.gethostname(), pid=os.getpid())
        try:
            with disk_errors(self._lock_path):
                os.ftruncate(lock.fileno(), 0)
                os.write(lock.fileno(), json.dumps(asdict(about)).encode())
        except BaseException:
            lock.close()
            raise
        self._is_released = threading.Event()
        self._beating = threading.Thread(target=self._beat, name=f"heartbeat {self.writer_id}", daemon=True)
        self._beating.start()

    def _beat(self) -> None:
        while not self._is_released.wait(_BEAT_S):
            with suppress(OSError):  # other runs may then consider this process stopped, and repeat its work
                os.utime(self._lock.fileno())

    def close(self) -> None:
        if not self._lock.closed:
            self._is_released.set()
            self._beating.join()
            self._lock_path.unlink(missing_ok=True)  # while the lock is held, so that no other writer's file is removed
            self._lock.close()

    def take(self, video_id: str) -> bool:
        """Try to claim a video. Return whether this writer holds it. Raises StoreError if claims cannot be written."""
        path = self._claim_path(video_id)
        with locked_file(self._claims_lock, _CLAIM_PATIENCE_S) or nullcontext():
            owner, counter = _read_claim(path)
            if not self._is_free(owner):
                return False
            self._write_claim(path, video_id, counter)
        return True

    def advance(self, video_id: str, counter: int) -> int:
        """Return the counter for reading a video that this writer has claimed.

        It is at least ``counter``, and greater than the counters of earlier claims of the video that were not released.
        """
        path = self._claim_path(video_id)
        with locked_file(self._claims_lock, _CLAIM_PATIENCE_S) or nullcontext():
            _, earlier = _read_claim(path)
            if earlier is not None and earlier < counter + MAX_LEAD:
                counter = max(counter, earlier + 1)
            self._write_claim(path, video_id, counter)
        return counter

    def is_free(self, video_id: str) -> bool:
        return self._is_free(_read_claim(self._claim_path(video_id))[0])

    def release(self, video_ids: Iterable[str]) -> None:
        """Release claims of this writer, except those that another run has taken over."""
        with locked_file(self._claims_lock, _CLAIM_PATIENCE_S) or nullcontext():
            for video_id in video_ids:
                path = self._claim_path(video_id)
                if _read_claim(path)[0] == self.writer_id:
                    with suppress(FileNotFoundError):
                        os.unlink(path)

    def _is_free(self, owner: str) -> bool:
        """Return whether this writer may take over claims of ``owner``, because its process is dead or has stalled.

        The time between two calls counts only up to a tenth of the patience, because this process may have been
        stopped, too.
        """
        if owner == self.writer_id or not _WRITER_ID.fullmatch(owner) or _cleared(lock_path(self._root, owner)):
            return True
        beat, now_s = heartbeat(self._root, owner), time.monotonic()
        with self._guard:
            known, still_s, looked_s = self._seen.get(owner, (beat, 0.0, now_s))
            still_s = still_s + min(now_s - looked_s, self._patience_s / 10) if beat == known else 0.0
            self._seen[owner] = beat, still_s, now_s
        return still_s >= self._patience_s

    def _write_claim(self, path: Path, video_id: str, counter: int | None) -> None:
        """Write a claim without fsync, because claims are not needed after a power failure."""
        claim = {"writer": self.writer_id, "video_id": video_id, "counter": counter}
        with disk_errors(path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o666)
            try:
                os.write(descriptor, json.dumps(claim).encode())
            finally:
                os.close(descriptor)

    def _claim_path(self, video_id: str) -> Path:
        name = hashlib.sha256(os.fsencode(video_id)).hexdigest()[:32]
        return inside(self._root, f"{_CLAIMS}/{name}.json")


def living_writers(root: Path) -> set[str]:
    """Return the ids of the writers whose process lives. Remove the lock files of the others."""
    locks = sorted(inside(root, f"{_LOCKS}/*.lock").parent.glob("*.lock"))
    return {path.stem for path in locks if not _cleared(path)}


def heartbeat(root: Path, writer_id: str) -> int:
    """Return a number that changes every few seconds while the writer's process runs: the time of its lock file.

    Only changes have a meaning; the clock of the file system may differ from ours.
    """
    try:
        descriptor = os.open(lock_path(root, writer_id), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError):
        return 0
    try:
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


class BusyStore(StoreError):
    """Another process is reorganizing the store, and may have been stopped while doing so."""


def locked_file(path: Path, patience_s: float) -> FileIO | None:
    """Open a file, which is created if necessary, and lock it until it is closed.

    Returns:
        The file; None if other processes hold the lock for longer than ``patience_s``.

    Raises:
        StoreError: The file cannot be opened or locked.
    """
    give_up_s, pause_s = time.monotonic() + patience_s, 0.001
    while True:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        is_locked = False
        try:
            is_locked = _locked(path, descriptor)
            if is_locked and _is_still_at(path, descriptor):
                return FileIO(descriptor, "r+")
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # held by another process, or removed after we opened it
        if not is_locked and time.monotonic() > give_up_s:
            return None
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.1)


def lock_path(root: Path, writer_id: str) -> Path:
    """Return the path of a writer's lock file. ValueError for an id that could name another file."""
    if not _WRITER_ID.fullmatch(writer_id):
        raise ValueError(f"writer id {writer_id!r}: letters, digits, '_' and '.' only")
    return inside(root, f"{_LOCKS}/{writer_id}.lock")


def _cleared(path: Path) -> bool:
    """Return whether the lock's writer is dead. Its file is then removed."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):  # a link or a folder is not the lock of a writer
            return True
        raise StoreError(f"{path}: cannot be opened ({error.strerror}); allow reading and writing it") from error
    try:
        if not _locked(path, descriptor):
            return False
        if _is_still_at(path, descriptor):
            path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


def _locked(path: Path, descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be locked ({error.strerror}); choose an output folder on a file system with file locks"
        ) from error
    return True


def _is_still_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def held_in(data: bytes) -> HeldSettings | None:
    """Parse the JSON text of `HeldSettings`. None for other content, such as that of earlier versions."""
    try:
        found: dict[str, Any] = json.loads(data)
        streams = {str(stream): str(digest) for stream, digest in found["streams"].items()}
        return HeldSettings(found["writer_id"], str(found["host"]), int(found["pid"]), str(found["number"]), streams)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _read_claim(path: Path) -> tuple[str, int | None]:
    """Return writer and counter of a claim; no writer if the claim is missing, or incomplete after a kill."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return "", None
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            claim: dict[str, object] = json.loads(os.read(descriptor, _LONGEST_CLAIM))
            counter = claim.get("counter")
            return str(claim.get("writer")), counter if isinstance(counter, int) else None
    except (OSError, ValueError, RecursionError, AttributeError):  # AttributeError: the text is not a claim
        pass
    finally:
        os.close(descriptor)
    return "", None


@dataclass(eq=False)
class LockCoordination:
    """Coordination by file locks, with which the kernel knows which writers live."""

    storage: LocalStorage
    exclusive = True

    def enter(self, writer_id: str | None = None, held: HeldSettings = NOTHING_HELD) -> WriterLock:
        return WriterLock(self.storage.root, writer_id, held)

    @contextmanager
    def starting(self) -> Generator[None, None, None]:
        """Wait for other runs. StoreError if one takes longer than `STARTING_PATIENCE_S`."""
        root = self.storage.root
        lock = locked_file(inside(root, _START_LOCK), STARTING_PATIENCE_S)
        if lock is None:
            raise StoreError(
                f"{root}: another run has been starting for {STARTING_PATIENCE_S:.0f} s; end it or run again later"
            )
        with lock:
            yield

    def held(self) -> list[HeldSettings]:
        found: list[HeldSettings] = []
        for writer_id in sorted(living_writers(self.storage.root)):
            with suppress(OSError):  # the writer may have ended in between
                held = held_in(lock_path(self.storage.root, writer_id).read_bytes())
                found += [] if held is None else [held]
        return found

    @contextmanager
    def reorganizing(self) -> Generator[None, None, None]:
        """Let only one process at a time merge or archive shards. Others wait, but not longer than `PATIENCE_S`.

        Raises:
            BusyStore: The other process took longer. It keeps the lock, because only one process may reorganize the
                store.
        """
        root = self.storage.root
        lock = locked_file(inside(root, _REORGANIZE_LOCK), PATIENCE_S)
        if lock is None:
            raise BusyStore(
                f"{root}: another process has been reorganizing this store for {PATIENCE_S:g} s; wait for it, or "
                "continue or end it if it was stopped, then run the same command again"
            )
        with lock:
            yield

    def sweep(self) -> int:
        """Remove the claims and the unfinished files of dead writers; return their number."""
        root, lock = self.storage.root, inside(self.storage.root, f"{_CLAIMS}/lock")
        if lock.parent.exists():
            with locked_file(lock, _CLAIM_PATIENCE_S) or nullcontext():
                owners = {path: _read_claim(path)[0] for path in lock.parent.glob("*.json")}
                living = living_writers(root) if owners else set[str]()
                for path, owner in owners.items():
                    if owner not in living:
                        with suppress(FileNotFoundError):
                            os.unlink(path)
        return self.storage.sweep(lambda: living_writers(root))

    def idle(self, listed: Mapping[str, Mapping[str, str]], own: str | None) -> dict[str, list[str]]:
        """Return the shards of dead writers and of ``own``."""
        spared = living_writers(self.storage.root) - {own}
        return {
            name: [shard for shard, writer in shards.items() if writer not in spared] for name, shards in listed.items()
        }
