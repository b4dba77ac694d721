"""What every extractor promises, as data that the pipeline obeys.

An extractor is a frozen computation from segments to feature rows. It says which frames and which sound it needs
(`FrameNeed`, `AudioNeed`); the pipeline decodes once, applies each distinct geometry once, cuts segments, and calls

    prepare(segment)        one segment, on a CPU thread, several at a time: flow, filterbanks, classical features
    forward(prepared)       a batch of what `prepare` returned, of any videos, one call at a time: the network

It knows tensors, not videos, files or runs. To add one: a file with a class that satisfies `Extractor` and a
`Settings` record, a line in `table.py`, its checkpoint in `manifests/weights.toml`; the contract test finds it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import torch

from ..manifests.streams import AudioWindows, Geometry, Record, Resampler

Made = TypeVar("Made")


@dataclass(frozen=True)
class FrameNeed:
    """Frames of a segment, as ``uint8 [time, channels, height, width]`` after ``geometry``."""

    geometry: Geometry
    next_frame: bool = False
    """Also the sampled frame after the segment (for optical flow): ``time`` is one longer wherever there is one."""


@dataclass(frozen=True)
class AudioNeed:
    """Sound of a segment's interval, as ``float32 [samples]`` at ``rate_hz``, in −1 … 1."""

    rate_hz: int
    channel: Literal["mean", "first"] = "mean"
    resampler: Resampler = "soxr"
    remove_mean: bool = False
    windows: AudioWindows = "interval"

    @property
    def needs_whole_track(self) -> bool:
        """Then no segment is ready before the last sample, and the track is held: 6 MB for 100 s at 16 kHz.

        Memory grows with the track, so that no stream should ask for frames beside it.
        """
        return self.remove_mean or self.windows == "equal-split"


class Shared:
    """What streams that see the same frames of the same segment compute once; nobody may change what is in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """What ``make`` returns, called by the first that asks; who asks meanwhile waits."""
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            return self._made[name]


@dataclass(frozen=True, eq=False)
class SegmentInput:
    """One segment of one video: what an extractor asked for, and nothing else."""

    index: int
    start_s: float
    end_s: float
    frames: torch.Tensor | None = None
    """``uint8 [time, channels, height, width]``, on the extractor's device."""
    frame_times_s: tuple[float, ...] = ()
    """One time per frame, relative to the video's first frame."""
    waveform: torch.Tensor | None = None
    """``float32 [samples]``, on the CPU; silence where the track has a gap."""
    has_next_frame: bool = False
    """The last of ``frames`` is the one after the segment, which `FrameNeed.next_frame` asked for."""
    blank_frames: tuple[int, ...] = ()
    """Positions in ``frames``, black there, that stand for no picture and are zero after normalisation: see
    `Sampling.zero_last_frame`, which only the extractors of `table.TAKE_BLANK_FRAMES` accept."""
    shared: Shared = field(default_factory=Shared)
    """The same for all streams whose ``frames`` are these."""


class Extractor(Protocol):
    """One stream's computation; instances are built by `arabesque.extractors.table.build`."""

    Settings: ClassVar[type[Record]]
    """What a recipe may set; its fields are the constructor's keyword arguments. A property ``weight_roles`` names the
    checkpoints that only some settings ask for."""
    version: ClassVar[int]
    """Raised whenever the numbers change; part of every row's key."""
    weight_roles: ClassVar[tuple[str, ...]]
    """Which checkpoints it needs whatever its settings, e.g. ``("network",)``; the recipe's ``weights`` names one for
    each."""

    dim: int
    """Length of a feature row."""
    frames: FrameNeed | None
    audio: AudioNeed | None
    batch_size: int
    """How many segments fill a call of `forward`."""

    def prepare(self, segment: SegmentInput) -> Any:
        """One segment's input to `forward`. Called from several threads at once."""
        ...

    def forward(self, prepared: Sequence[Any]) -> list[torch.Tensor | None]:
        """One ``float32 [dim]`` row for each item, whatever the company it travels in.

        None where the stream has nothing to say of a segment (no person in it): it then has no row.
        """
        ...
