"""Report of a benchmark: rates in seconds of video per second, and ratios between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .resources import PeakMemory

FORMAT = 1


@dataclass(frozen=True)
class StageCost:
    """Cost of an isolated stage, or of one stream's part of it, per second of video."""

    stage: str
    stream: str
    """Empty for the whole stage."""
    unit: str
    """``frames`` or ``segments``."""
    units_per_video_s: float
    wall_s: float
    cpu_s: float | None
    """Processor time of this process and the decoders; None if it cannot be measured."""
    working_bytes: int | None = None
    """Peak memory of a full batch in addition to the loaded network; only for networks."""

    @property
    def video_s_per_s(self) -> float:
        return 1 / self.wall_s

    @property
    def units_per_s(self) -> float:
        return self.units_per_video_s / self.wall_s


@dataclass(frozen=True)
class Bounds:
    """Upper bounds of a run's speed, in seconds of video per second."""

    slowest: StageCost
    """The slowest isolated stage."""
    cores_video_s_per_s: float | None
    """Bound by the cores, which all stages share: cores ÷ processor time of all stages."""

    @property
    def video_s_per_s(self) -> float:
        """The lower one of both bounds."""
        return min(self.slowest.video_s_per_s, self.cores_video_s_per_s or self.slowest.video_s_per_s)


def bounds(stages: Sequence[StageCost], cores: int) -> Bounds:
    whole = [cost for cost in stages if not cost.stream]
    times = [cost.cpu_s for cost in whole]
    known = [seconds for seconds in times if seconds is not None]
    cores_rate = cores / sum(known) if len(known) == len(times) and sum(known) > 0 else None
    return Bounds(max(whole, key=lambda cost: cost.wall_s), cores_rate)


def together(parts: Sequence[StageCost]) -> StageCost:
    """Return the cost of a stage that processes its streams one after the other."""
    times = [part.cpu_s for part in parts]
    known = [seconds for seconds in times if seconds is not None]
    return StageCost(
        stage=parts[0].stage,
        stream="",
        unit=parts[0].unit,
        units_per_video_s=sum(part.units_per_video_s for part in parts),
        wall_s=sum(part.wall_s for part in parts),
        cpu_s=sum(known) if len(known) == len(times) else None,
    )


@dataclass(frozen=True)
class Report:
    """Results for one recipe on one machine. Times are in seconds, memory in bytes."""

    recipe: str
    weights: str
    device: str
    cores: int
    decoder: str
    num_decoders: int
    videos: tuple[str, ...]
    """Descriptions of the videos: length, size, frame rate, codec, audio."""
    setup_s: float
    """Time to load the networks onto the device."""
    video_s: float
    """Seconds of video of the end-to-end run."""
    wall_s: float
    cpu_s: float | None
    stages: tuple[StageCost, ...]
    utilization: Mapping[str, float]
    """Stage → share of the run's time in which its threads were busy."""
    memory: PeakMemory
    versions: Mapping[str, str]
    warm_up_s: float = 0.0
    """Additional time of the first passes of all stages, for compilation and lazy loading."""
    loaded_bytes: Mapping[str, int] = field(default_factory=dict[str, int])
    """Stream → memory of its loaded network; the first one includes shared libraries."""
    circumstances: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Date, machine and load (`Circumstances`)."""

    @property
    def bounds(self) -> Bounds:
        return bounds(self.stages, self.cores)

    @property
    def video_s_per_s(self) -> float:
        """Speed of the end-to-end run."""
        return self.video_s / self.wall_s

    @property
    def slowest_stage_ratio(self) -> float:
        """Speed of the end-to-end run ÷ speed of the slowest isolated stage."""
        return self.video_s_per_s / self.bounds.slowest.video_s_per_s

    @property
    def shared_cores_ratio(self) -> float:
        """Speed of the end-to-end run ÷ the lower one of both `bounds`."""
        return self.video_s_per_s / self.bounds.video_s_per_s

    def as_json(self) -> dict[str, Any]:
        """Return all measurements and derived figures as JSON data."""
        stages = [
            asdict(cost)
            | {
                "bare_per_s": cost.units_per_s,
                "bare_video_s_per_s": cost.video_s_per_s,
                "achieved_per_s": cost.units_per_video_s * self.video_s_per_s,
            }
            for cost in self.stages
        ]
        return {
            "format": FORMAT,
            **asdict(self),
            "stages": stages,
            "end_to_end_video_s_per_s": self.video_s_per_s,
            "slowest_stage": self.bounds.slowest.stage,
            "slowest_bare_video_s_per_s": self.bounds.slowest.video_s_per_s,
            "cores_video_s_per_s": self.bounds.cores_video_s_per_s,
            "speed_of_light_ratio": self.slowest_stage_ratio,
            "shared_cores_ratio": self.shared_cores_ratio,
        }
