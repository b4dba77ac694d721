"""Compile code with Numba in one process at a time.

Numba compiles on first use and keeps the machine code in a cache that all processes of an installation share. If two
processes fill the cache at the same time, it may contain code that crashes every later process (observed on 2026-11-30
with librosa's beat tracker and an empty cache). So the first use in a process waits for that in other processes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress

import platformdirs
from filelock import FileLock, Timeout

_LOG = logging.getLogger(__name__)

PATIENCE_S = 300.0
"""Longest wait for another process, which may have been suspended."""

_used: set[str] = set()
_first_use = threading.RLock()


@contextmanager
def alone_on_first_use(code: str) -> Generator[None, None, None]:
    """Run the first block of this process while no other thread or process runs its first block.

    Later blocks of a process do not wait. If the user's cache folder cannot have a lock, only the threads of this
    process wait for each other.

    Args:
        code: Name of the functions that the block calls, such as ``librosa``.

    Example:
        >>> with alone_on_first_use("example"):
        ...     pass
    """
    if code in _used:
        yield
        return
    with _first_use:
        lock = _lock_between_processes() if code not in _used else None
        try:
            yield
            _used.add(code)
        finally:
            if lock is not None:
                lock.release()


def _lock_between_processes() -> FileLock | None:
    try:
        folder = platformdirs.user_cache_path("arabesque", appauthor=False)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "compiling.lock", is_singleton=True)  # blocks may be nested
        with suppress(Timeout):
            lock.acquire(timeout=PATIENCE_S)
            return lock
    except (OSError, RuntimeError, NotImplementedError) as error:  # read-only, no home, a file system without locks
        _LOG.debug("first use without a lock: %s", error)
    return None
