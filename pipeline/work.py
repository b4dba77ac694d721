"""What travels between the stages of a run. Each stage takes some of these and passes the others on untouched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extractors.protocol import Extractor, SegmentInput
from ..manifests.streams import Geometry, StreamSpec
from .records import VideoRecord
from .sampling import Segments

Passing = Any
"""An item that a stage does not know and hands on as it is."""


@dataclass(frozen=True, eq=False)
class Stream:
    """A stream of the recipe, ready to run."""

    name: str
    spec: StreamSpec
    extractor: Extractor
    settings_digest: str
    weight_digests: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class StreamPlan:
    """What is left to do for one (video, stream)."""

    stream: Stream
    key: str
    segments: Segments
    known: Mapping[int, NDArray[np.float32] | None] = field(default_factory=dict[int, NDArray[np.float32] | None])
    """Features of segments that an interrupted run had finished, by segment index; None for one without a row."""

    @property
    def todo(self) -> list[int]:
        """Segments still to be computed, ascending."""
        return [index for index in range(len(self.segments)) if index not in self.known]


@dataclass(frozen=True, eq=False)
class VideoPlan:
    """One video and the streams that it still owes."""

    video: VideoRecord
    streams: Mapping[str, StreamPlan]
    frames_by_geometry: Mapping[Geometry, NDArray[np.int64]]
    """Geometry → the frames that any stream needs in it, ascending."""
    wanted: NDArray[np.int64]
    """The frames that any stream needs at all, ascending."""
    audio_until_s: float | None
    """How far the sound is needed; None where no stream listens."""


@dataclass(frozen=True, eq=False)
class VideoEnd:
    """Nothing more comes of a video; ``broke`` says why where it ended too early."""

    plan: VideoPlan
    frames_delivered: int
    decode_s: float
    broke: str = ""
    sound_broke: str = ""
    """Only the sound ended too early: streams that do not listen are whole."""
    transient: bool = False
    abandoned: bool = False
    """The video is read again under another plan: what came of this one is dropped."""
    segments_sent: Mapping[str, int] = field(default_factory=dict[str, int])
    """Stream → segments that were handed on; filled by the assembling stage."""


@dataclass(frozen=True, eq=False)
class SegmentWork:
    """A segment on its way through an extractor: first its input, then what `Extractor.prepare` made of it."""

    plan: VideoPlan
    stream: Stream
    segment: SegmentInput
    prepared: Any = None
    compute_s: float = 0.0


@dataclass(frozen=True, eq=False)
class SegmentFeature:
    """A finished segment; ``feature`` is None where the extractor has nothing to say of it."""

    plan: VideoPlan
    stream: Stream
    index: int
    start_s: float
    end_s: float
    feature: NDArray[np.float32] | None
    compute_s: float


@dataclass(frozen=True, eq=False)
class SegmentFailure:
    """A segment that an extractor could not compute: its (video, stream) fails, nothing else does."""

    plan: VideoPlan
    stream: Stream
    index: int
    reason: str
    transient: bool


@dataclass(frozen=True)
class VideoSettled:
    """Every stream that a video owed has its outcome."""

    video_id: str


@dataclass(frozen=True)
class Awaiting:
    """All that is left to do is in the hands of other runs, for the moment."""

    num_videos: int


@dataclass(frozen=True)
class WorkDone:
    """What a worker of another process has computed since it last said so."""

    num_segments: int
    busy_s: Mapping[str, float]
    """Stage → busy seconds."""
    tasks: Mapping[str, int]


@dataclass(frozen=True)
class GivenUp:
    """A video that no worker will get any more."""

    video_id: str
    reason: str


@dataclass(frozen=True)
class Notice:
    """Something that a person should know, of the workers or of a file."""

    text: str
