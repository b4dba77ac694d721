"""Isolation of a child process, on the child's side: restrictions, and its exit together with its parent."""

from __future__ import annotations

import os
import resource
import select
import threading
from collections.abc import Sequence

from .restriction import restrict_process

MAX_WRITTEN_BYTES = 1 << 20
"""Maximal size of a file that an isolated process can write to, such as its standard error."""


def isolate(device_files: Sequence[str] = ()) -> str:
    """Restrict this process permanently. Call it before the process starts threads and opens untrusted files.

    Args:
        device_files: Device files that stay writable; see `restrict_process`.

    Returns:
        The operations that the kernel denies from now on; see `restrict_process`.
    """
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, MAX_WRITTEN_BYTES)):
        resource.setrlimit(limit, (value, value))
    return restrict_process(device_files)


def exit_with_parent(descriptor: int) -> None:
    """Start a thread that exits this process when the other end of a socket is closed, even if a library hangs."""
    threading.Thread(target=_exit_at_hangup, args=(descriptor,), daemon=True).start()


def _exit_at_hangup(descriptor: int) -> None:
    hangup = select.poll()
    hangup.register(descriptor, 0)  # reports only that the other end was closed
    hangup.poll()
    os._exit(0)


class MemoryLimit:
    """Limit on the memory that a process allocates after the limit was applied. Only Linux enforces it.

    The limit counts address space, the only measure with which an allocation fails instead of slowing down the machine.
    """

    def __init__(self, allowance_bytes: int) -> None:
        self._allowance_bytes = allowance_bytes
        self._is_applied = False
        _, self._hard = resource.getrlimit(resource.RLIMIT_AS)

    def apply(self) -> None:
        address_space_bytes = _address_space_bytes()
        if address_space_bytes is not None:
            limit = address_space_bytes + self._allowance_bytes
            self._is_applied = True
            self._set(limit if self._hard == resource.RLIM_INFINITY else min(limit, self._hard))

    def lift(self) -> None:
        if self._is_applied:
            self._set(self._hard)

    def _set(self, soft: int) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (soft, self._hard))

    def __str__(self) -> str:
        return f"its memory allowance of {self._allowance_bytes / 2**20:,.0f} MiB"


def _address_space_bytes() -> int | None:
    """Return the size of this process's address space; None on platforms without ``/proc``."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
