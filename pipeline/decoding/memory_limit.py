"""Holding a process to a memory allowance."""

from __future__ import annotations

import os
import resource
import sys


class MemoryLimit:
    """An allowance on top of what the process has when the limit is applied. Only Linux keeps to it.

    It counts address space, the one measure that makes an allocation fail instead of the whole machine suffer.
    """

    def __init__(self, allowance_bytes: int) -> None:
        self._allowance_bytes = allowance_bytes
        _, self._hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash must not write gigabytes either

    def apply(self) -> None:
        if sys.platform == "linux":
            limit = _address_space_bytes() + self._allowance_bytes
            self._set(limit if self._hard == resource.RLIM_INFINITY else min(limit, self._hard))

    def lift(self) -> None:
        self._set(self._hard)

    def _set(self, soft: int) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (soft, self._hard))

    def __str__(self) -> str:
        return f"its memory allowance of {self._allowance_bytes / 2**20:,.0f} MiB"


def _address_space_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
