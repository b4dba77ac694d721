"""Streams each in a run of its own, against all of them in one pass over the same videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .bare_stages import Step
from .benchmark import Benchmark
from .end_to_end import run_end_to_end


@dataclass(frozen=True)
class OneByOne:
    one_pass_s: float
    streams_s: Mapping[str, float]
    """Stream → how long a run of it alone took."""

    @property
    def sum_s(self) -> float:
        return sum(self.streams_s.values())

    @property
    def ratio(self) -> float:
        """One pass ÷ the sum."""
        return self.one_pass_s / self.sum_s

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"sum_s": self.sum_s, "one_pass_over_sum": self.ratio}


def run_one_by_one(found: Benchmark, on_step: Step = lambda _: None) -> OneByOne:
    """With the networks that are loaded already, on what the benchmark's run from end to end went through."""
    bench, take = found.bench, found.take
    streams_s: dict[str, float] = {}
    for stream in bench.streams:
        on_step(f"{stream.name} by itself")
        streams_s[stream.name] = run_end_to_end(bench.of(stream.name), take.files, take.head_s).spent.wall_s
    return OneByOne(found.report.wall_s, streams_s)
