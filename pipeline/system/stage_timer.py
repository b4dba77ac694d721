"""Busy time of each stage of a run, for the progress display and the benchmark."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(eq=False)
class StageTimer:
    """Busy seconds of a run by stage name."""

    busy_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict[str, float](float))
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, stage: str, busy_s: float) -> None:
        """Add busy time to a stage. Thread-safe."""
        with self.lock:
            self.busy_s[stage] += busy_s

    @contextmanager
    def busy(self, stage: str) -> Generator[None]:
        """Add the duration of the block to a stage's busy time."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - began)

    def merge(self, busy_s: Mapping[str, float]) -> None:
        """Add the busy time of another process."""
        for name, seconds in busy_s.items():
            self.add(name, seconds)

    def shares(self) -> dict[str, float]:
        """Return the share of each stage in the total busy time, largest first."""
        total_s = sum(self.busy_s.values()) or 1.0
        return {name: busy_s / total_s for name, busy_s in sorted(self.busy_s.items(), key=lambda item: -item[1])}
