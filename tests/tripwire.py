"""A stand-in for the ``os`` module that fails or kills at a chosen call that touches the disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

DISK_CALLS = ("open", "write", "fsync", "close", "replace", "unlink", "mkdir", "ftruncate")


class TrippedOs:
    """Counts disk calls from 0; before call number ``at`` (of those named ``only``, if given) it calls ``trip``.

    ``onwards``: also before each later call.
    """

    def __init__(
        self,
        at: int,
        trip: Callable[[str, tuple[Any, ...]], None],
        only: str | None = None,
        *,
        onwards: bool = False,
    ) -> None:
        self.calls = 0
        self._at, self._trip, self._only, self._onwards = at, trip, only, onwards

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in DISK_CALLS or self._only not in (None, name):
            return real

        def counted(*arguments: Any, **keywords: Any) -> Any:
            number, self.calls = self.calls, self.calls + 1
            if number == self._at or (self._onwards and number > self._at >= 0):
                self._trip(name, arguments)
            if name == "fsync":  # protects against power cuts, which a test cannot cause; slow
                return None
            return real(*arguments, **keywords)

        return counted


def kill_process(name: str, arguments: tuple[Any, ...]) -> None:
    """Kill this process; before that, a write writes half of its data."""
    if name == "write":
        descriptor, data = arguments
        os.write(descriptor, bytes(data)[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
