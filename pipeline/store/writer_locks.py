"""Who is writing to a store right now: a lock per writer that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from ...manifests.errors import StoreError
from .atomic_files import explained

_LOCKS = ".writers"
_REORGANISING = ".reorganising.lock"
_PATIENCE_S = 1.0  # whoever asks which writers live holds each lock for a moment
_WRITER_ID = re.compile(r"[A-Za-z0-9_.]+")


class WriterLock:
    """One writer's sign of life: an flock, which the kernel drops with the process, kill -9 included."""

    def __init__(self, root: Path, writer_id: str | None = None) -> None:
        """Raises StoreError where a living writer has that id. Without an id a fresh random one is taken."""
        self.writer_id = secrets.token_hex(6) if writer_id is None else writer_id
        if not _WRITER_ID.fullmatch(self.writer_id):
            raise ValueError(f"writer id {self.writer_id!r}: letters, digits, '_' and '.' only")
        self._path = root / _LOCKS / f"{self.writer_id}.lock"
        self._descriptor = _take(self._path)
        about = {"host": socket.gethostname(), "pid": os.getpid()}
        with explained(self._path):
            os.write(self._descriptor, json.dumps(about).encode())

    def release(self) -> None:
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)  # while the lock is held, so that nobody else's file can be hit
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def is_living(root: Path, writer_id: str) -> bool:
    """Whether the writer's process lives."""
    return not _cleared(root / _LOCKS / f"{writer_id}.lock")


def living_writers(root: Path) -> set[str]:
    """Ids of the writers whose process lives; the lock files of the others are removed."""
    return {path.stem for path in sorted((root / _LOCKS).glob("*.lock")) if not _cleared(path)}


@contextmanager
def reorganising(root: Path) -> Iterator[None]:
    """Only one process at a time merges or sets aside shards; others wait for it."""
    descriptor = open_lock(root / _REORGANISING)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _take(path: Path) -> int:
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        descriptor = open_lock(path)
        locked = _locked(path, descriptor)
        if locked and _is_still_at(path, descriptor):
            os.ftruncate(descriptor, 0)
            return descriptor
        os.close(descriptor)  # not ours, or somebody cleared the file between our open and our lock
        if not locked and time.monotonic() > give_up:
            raise StoreError(f"{path}: a living process writes under this id; give each writer its own")
        time.sleep(0.005)


def _cleared(path: Path) -> bool:
    """Whether the lock's writer is dead; then its file is gone, too."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        if not _locked(path, descriptor):
            return False
        if _is_still_at(path, descriptor):
            path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


def open_lock(path: Path) -> int:
    """A descriptor of a file to lock, made where it is not there; StoreError where it cannot be."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


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
