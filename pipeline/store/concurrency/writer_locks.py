"""The living writers of a store: each holds a lock that the kernel releases when its process ends, however it ends.

Two runs with different settings for one stream never write at once. Each writer publishes its settings: with its lock
on a file system, in a record that it renews on object storage. Runs begin one at a time (`Store.starting`):
each reads what living writers have published, then writes the manifest, then publishes its own settings. The published
settings of a killed writer do not count.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ....manifests.errors import StoreError
from ..files.local import disk_errors, inside

_LOCKS = ".writers"
_ID_PATIENCE_S = 1.0  # `living_writers` in another process holds each lock for a moment
PATIENCE_S = float(os.environ.get("ARABESQUE_PATIENCE_S", "180"))
"""Seconds to wait for a process of the store that makes no progress."""
_BEAT_S = min(5.0, PATIENCE_S / 10)
_WRITER_ID = re.compile(r"[A-Za-z0-9_.]+")


@dataclass(frozen=True)
class HeldSettings:
    """The settings of one writer, and where it runs."""

    writer_id: str = ""
    host: str = ""
    pid: int = 0
    number: str = ""
    """``float32`` or ``float16``."""
    streams: Mapping[str, str] = field(default_factory=dict[str, str])
    """Stream → settings digest."""

    def as_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


NOTHING_HELD = HeldSettings()
"""For a writer that adds no rows, such as a compaction."""


class WriterLock:
    """Shows that one writer lives: an flock, which the kernel releases with the process, kill -9 included.

    The lock file's time is renewed while the process runs (`heartbeat`).

    Args:
        root: The store's folder.
        writer_id: Id of the writer; a new random one by default.
        held: The settings that the writer uses; published with its lock.

    Raises:
        StoreError: A living writer has this id.
    """

    def __init__(self, root: Path, writer_id: str | None = None, held: HeldSettings = NOTHING_HELD) -> None:
        self.writer_id = secrets.token_hex(6) if writer_id is None else writer_id
        self._path = lock_path(root, self.writer_id)
        self._descriptor = _take(self._path)
        about = replace(held, writer_id=self.writer_id, host=socket.gethostname(), pid=os.getpid())
        with disk_errors(self._path):
            os.write(self._descriptor, about.as_json())
        self._is_released = threading.Event()
        self._beating = threading.Thread(target=self._beat, name=f"heartbeat {self.writer_id}", daemon=True)
        self._beating.start()

    def _beat(self) -> None:
        while not self._is_released.wait(_BEAT_S):
            with suppress(OSError):  # other runs may then consider this process stopped, which only costs work
                os.utime(self._descriptor)

    def release(self) -> None:
        if self._descriptor >= 0:
            self._is_released.set()
            self._beating.join()
            self._path.unlink(missing_ok=True)  # while the lock is held, so that no other writer's file is removed
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def is_living(root: Path, writer_id: str) -> bool:
    """Return whether the writer's process lives; False for an id that a writer cannot have."""
    try:
        path = lock_path(root, writer_id)
    except ValueError:
        return False
    return not _cleared(path)


def living_writers(root: Path) -> set[str]:
    """Return the ids of the writers whose process lives; remove the lock files of the others."""
    locks = sorted(inside(root, f"{_LOCKS}/*.lock").parent.glob("*.lock"))
    return {path.stem for path in locks if not _cleared(path)}


def heartbeat(root: Path, writer_id: str) -> int:
    """Return a number that changes every few seconds while the writer's process runs: the time of its lock file.

    Only changes are meaningful; the clock of the file system may differ from ours.
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


@contextmanager
def holding(path: Path, patience_s: float) -> Generator[bool, None, None]:
    """Lock a file that other processes lock too; yield False if they hold it for longer than ``patience_s``."""
    descriptor = open_lock(path)
    try:
        give_up_s, pause_s = time.monotonic() + patience_s, 0.001
        while not (is_locked := _locked(path, descriptor)) and time.monotonic() <= give_up_s:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.1)
        yield is_locked
    finally:
        os.close(descriptor)


def lock_path(root: Path, writer_id: str) -> Path:
    """Return the lock file of a writer; ValueError for an id that could name another file."""
    if not _WRITER_ID.fullmatch(writer_id):
        raise ValueError(f"writer id {writer_id!r}: letters, digits, '_' and '.' only")
    return inside(root, f"{_LOCKS}/{writer_id}.lock")


def _take(path: Path) -> int:
    give_up = time.monotonic() + _ID_PATIENCE_S
    while True:
        descriptor = open_lock(path)
        locked = _locked(path, descriptor)
        if locked and _is_still_at(path, descriptor):
            os.ftruncate(descriptor, 0)
            return descriptor
        os.close(descriptor)  # held by another, or removed between our open and our lock
        if not locked and time.monotonic() > give_up:
            raise StoreError(f"{path}: a living process writes under this id; give each writer its own")
        time.sleep(0.005)


def _cleared(path: Path) -> bool:
    """Return whether the lock's writer is dead; its file is then removed."""
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


def open_lock(path: Path) -> int:
    """Open a file to lock, creating it if needed; StoreError if this fails."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


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
    """Parse the output of `HeldSettings.as_json`; None for other content, such as that of earlier versions."""
    try:
        found: dict[str, Any] = json.loads(data)
        streams = {str(stream): str(digest) for stream, digest in found["streams"].items()}
        return HeldSettings(found["writer_id"], str(found["host"]), int(found["pid"]), str(found["number"]), streams)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
