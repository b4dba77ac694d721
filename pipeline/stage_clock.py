"""How long each stage of a run was busy, read by the progress display and the benchmark."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from spdl.pipeline import StageInfo, TaskHook


class StageClock:
    """Busy seconds and finished tasks by stage name; one for a run. Its `hooks` go to the engine."""

    def __init__(self) -> None:
        self.busy_s: defaultdict[str, float] = defaultdict(float)
        self.tasks: Counter[str] = Counter()

    def hooks(self, info: StageInfo) -> list[TaskHook]:
        name = "batch" if info.stage_name.startswith("aggregate") else info.stage_name  # aggregators cannot be named
        return [_StageHook(self, name)]

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
            self._clock.busy_s[self._stage] += time.perf_counter() - began
            self._clock.tasks[self._stage] += 1
