"""What a benchmark found: rates in seconds of video per second, so that all compare, and the ratios between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .resources import PeakMemory

FORMAT = 1


@dataclass(frozen=True)
class StageCost:
    """What a stage, or one stream's part of it, takes for a second of video when it runs alone."""

    stage: str
    stream: str
    """Empty for the stage as a whole."""
    unit: str
    """``frames`` or ``segments``."""
    units_per_video_s: float
    wall_s: float
    cpu_s: float | None
    """Of this process and the decoders; None where that cannot be known."""
    working_bytes: int | None = None
    """Of a stream's network: the most that a full batch takes beside what was there."""

    @property
    def video_s_per_s(self) -> float:
        return 1 / self.wall_s

    @property
    def units_per_s(self) -> float:
        return self.units_per_video_s / self.wall_s


@dataclass(frozen=True)
class Bounds:
    """What no run can exceed, in seconds of video per second."""

    slowest: StageCost
    """Of the stages alone."""
    cores_video_s_per_s: float | None
    """What the cores allow if they do nothing but the stages' work: the bound where all stages share them."""

    @property
    def video_s_per_s(self) -> float:
        """The lower one."""
        return min(self.slowest.video_s_per_s, self.cores_video_s_per_s or self.slowest.video_s_per_s)


def bounds(stages: Sequence[StageCost], cores: int) -> Bounds:
    whole = [cost for cost in stages if not cost.stream]
    times = [cost.cpu_s for cost in whole]
    known = [seconds for seconds in times if seconds is not None]
    cores_rate = cores / sum(known) if len(known) == len(times) and sum(known) > 0 else None
    return Bounds(max(whole, key=lambda cost: cost.wall_s), cores_rate)


def together(parts: Sequence[StageCost]) -> StageCost:
    """A stage that does its streams' parts one after the other."""
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
    """One recipe on one machine. Times in seconds, memory in bytes."""

    recipe: str
    weights: str
    device: str
    cores: int
    decoder: str
    num_decoders: int
    videos: tuple[str, ...]
    """What was read, with sizes, rates and codecs."""
    setup_s: float
    """To load the networks and bring them to the device."""
    video_s: float
    """Seconds of video that the run from end to end went through."""
    wall_s: float
    cpu_s: float | None
    stages: tuple[StageCost, ...]
    utilisation: Mapping[str, float]
    """Stage → which part of the run's time its threads were busy."""
    memory: PeakMemory
    versions: Mapping[str, str]
    warm_up_s: float = 0.0
    """How much longer the first pass of every stage took, one after the other: compiling, loading what comes late."""
    loaded_bytes: Mapping[str, int] = field(default_factory=dict[str, int])
    """Stream → what loading its network took up; the first one's with the libraries that it shares."""
    circumstances: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """When and where, and what else ran (`Circumstances`)."""

    @property
    def bounds(self) -> Bounds:
        return bounds(self.stages, self.cores)

    @property
    def video_s_per_s(self) -> float:
        """From end to end."""
        return self.video_s / self.wall_s

    @property
    def speed_of_light_ratio(self) -> float:
        """End to end ÷ the slowest stage alone."""
        return self.video_s_per_s / self.bounds.slowest.video_s_per_s

    @property
    def shared_cores_ratio(self) -> float:
        """End to end ÷ the lower bound: the slowest stage alone, or what the cores allow."""
        return self.video_s_per_s / self.bounds.video_s_per_s

    def as_json(self) -> dict[str, Any]:
        """Everything measured, and what follows from it."""
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
            "speed_of_light_ratio": self.speed_of_light_ratio,
            "shared_cores_ratio": self.shared_cores_ratio,
        }
