"""Busy time of each stage of a run, for the progress display and the benchmark."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from spdl.pipeline import StageInfo, TaskHook

SELF_TIMED = frozenset({"decode"})
"""Stages that wait for other processes during a task, and therefore measure their busy time themselves."""


class StageTimer:
    """Busy seconds and finished tasks of a run by stage name. Pass its `hooks` to `spdl.pipeline`.

    The stages of `SELF_TIMED` receive the timer and call `add` or `busy`.
    """

    def __init__(self) -> None:
        self.busy_s: defaultdict[str, float] = defaultdict(float)
        self.tasks: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, stage: str, busy_s: float) -> None:
        """Add busy time to a stage. Thread-safe."""
        with self._lock:
            self.busy_s[stage] += busy_s

    @contextmanager
    def busy(self, stage: str) -> Generator[None]:
        """Add the duration of the block to a stage's busy time."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - began)

    def hooks(self, info: StageInfo) -> list[TaskHook]:
        """Task hooks that time a stage."""
        if info.stage_name.startswith("disaggregate"):  # a part of the stage before it, without work of its own
            return []
        name = "batch" if info.stage_name.startswith("aggregate") else info.stage_name  # aggregators cannot be named
        return [_StageHook(self, name)]

    def merge(self, busy_s: Mapping[str, float], tasks: Mapping[str, int]) -> None:
        """Add the busy time and tasks of another process."""
        for name, seconds in busy_s.items():
            self.add(name, seconds)
        self.tasks.update(tasks)

    def shares(self) -> dict[str, float]:
        """Share of each stage in the total busy time, largest first."""
        total_s = sum(self.busy_s.values()) or 1.0
        return {name: busy_s / total_s for name, busy_s in sorted(self.busy_s.items(), key=lambda item: -item[1])}


class _StageHook(TaskHook):
    def __init__(self, timer: StageTimer, stage: str) -> None:
        self._timer = timer
        self._stage = stage

    @asynccontextmanager
    async def task_hook(self, input_item: Any = None) -> AsyncGenerator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            if self._stage not in SELF_TIMED:
                self._timer.add(self._stage, time.perf_counter() - began)
            self._timer.tasks[self._stage] += 1
