"""How long each stage of a run was busy, read by the progress display and the benchmark."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from spdl.pipeline import StageInfo, TaskHook

SELF_TIMED = frozenset({"decode"})
"""Stages that wait for others while a task of theirs goes on; only they know when they were busy."""


class StageClock:
    """Busy seconds and finished tasks by stage name; one for a run. Its `hooks` go to the engine.

    A stage of `SELF_TIMED` is given the clock and tells it what it did itself.
    """

    def __init__(self) -> None:
        self.busy_s: defaultdict[str, float] = defaultdict(float)
        self.tasks: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, stage: str, busy_s: float) -> None:
        """From whatever thread."""
        with self._lock:
            self.busy_s[stage] += busy_s

    @contextmanager
    def busy(self, stage: str) -> Iterator[None]:
        """Counts the time that the block takes."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - began)

    def hooks(self, info: StageInfo) -> list[TaskHook]:
        name = "batch" if info.stage_name.startswith("aggregate") else info.stage_name  # aggregators cannot be named
        return [_StageHook(self, name)]

    def merge(self, busy_s: Mapping[str, float], tasks: Mapping[str, int]) -> None:
        """What the stages of another process were busy with."""
        for name, seconds in busy_s.items():
            self.add(name, seconds)
        self.tasks.update(tasks)

    def shares(self) -> dict[str, float]:
        """Each stage's part of all busy time, the busiest first."""
        total_s = sum(self.busy_s.values()) or 1.0
        return {name: busy_s / total_s for name, busy_s in sorted(self.busy_s.items(), key=lambda item: -item[1])}


class _StageHook(TaskHook):
    def __init__(self, clock: StageClock, stage: str) -> None:
        self._clock = clock
        self._stage = stage

    @asynccontextmanager
    async def task_hook(self, input_item: Any = None) -> AsyncIterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            if self._stage not in SELF_TIMED:
                self._clock.add(self._stage, time.perf_counter() - began)
            self._clock.tasks[self._stage] += 1
