"""One process at a time compiles code with Numba.

Numba compiles on first use and keeps the machine code in a cache that all processes of an installation share. Processes
that fill it at the same time can leave code that crashes every later process (seen on 2026-11-30: two processes that
began with an empty cache of librosa's beat tracker). So the first use in a process waits for that of other processes.
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
"""How long a process waits for another one, which may have been stopped."""

_used: set[str] = set()
_first_use = threading.RLock()


@contextmanager
def alone_on_first_use(code: str) -> Generator[None, None, None]:
    """Run the block while no other thread or process runs its first one; later blocks of a process run at once.

    Where the user's cache folder cannot hold a lock, only the threads of this process wait for each other.

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
        lock = FileLock(folder / "compiling.lock", is_singleton=True)  # one block may contain another
        with suppress(Timeout):
            lock.acquire(timeout=PATIENCE_S)
            return lock
    except (OSError, RuntimeError, NotImplementedError) as error:  # read-only, no home, a file system without locks
        _LOG.debug("first use without a lock: %s", error)
    return None
