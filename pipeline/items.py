"""Items that stages exchange, and events of a run. `runner.stages_of` states the items of each stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from ..manifests.errors import ConfigError
from ..manifests.streams import Geometry, StreamSpec
from .planning.sampling import Segments
from .records import Deinterlace, Hole, Outcome, VideoRecord

if TYPE_CHECKING:  # importing torch takes seconds, and `status` does not need it
    import torch

    from ..extractors.protocol import Extractor, SegmentInput
    from .decoding.audio_reader import AudioChunk
    from .decoding.decoder_pool import FrameChunk

Asked = TypeVar("Asked", bound=int | str)


@dataclass(frozen=True, eq=False)
class Stream:
    """A stream of the recipe with its loaded extractor."""

    name: str
    spec: StreamSpec
    extractor: Extractor
    settings_digest: str


class SharedSettings(NamedTuple):
    """Settings that apply to the decoding of a video, and thus to all streams; see `StreamSpec`."""

    audio_track: int | str
    deinterlace: Deinterlace


def shared_settings(streams: Iterable[Stream]) -> SharedSettings:
    """Return the audio track of all streams with audio, and the deinterlacing of all streams with frames."""
    tracks, fields = dict[str, int | str](), dict[str, Deinterlace]()
    for stream in streams:
        if stream.extractor.audio is not None:
            tracks[stream.name] = stream.spec.audio_track
        if stream.extractor.frames is not None:
            fields[stream.name] = stream.spec.deinterlace
    default: Deinterlace = "none"
    return SharedSettings(common_setting("audio_track", tracks, "best"), common_setting("deinterlace", fields, default))


def common_setting(name: str, values: Mapping[str, Asked], default: Asked) -> Asked:
    """Return the value of a setting that all streams share, because a video is decoded once for all streams.

    Args:
        name: The setting, a field of `StreamSpec`.
        values: Stream → value, for the streams that use the setting.
        default: The value if no stream uses it.

    Raises:
        ConfigError: Two streams have different values.
    """
    asked = {value: stream for stream, value in values.items()}
    if len(asked) > 1:
        raise ConfigError(
            f"streams {' and '.join(asked.values())}: {name} is {' and '.join(map(repr, asked))}, but a run decodes "
            "each video once; set the same value, or extract each stream in a separate run (--stream)"
        )
    return next(iter(asked), default)


@dataclass(frozen=True, eq=False)
class StreamPlan:
    """Remaining segments of one (video, stream)."""

    stream: Stream
    key: str
    segments: Segments
    known: Mapping[int, NDArray[np.float32] | None] = field(default_factory=dict[int, NDArray[np.float32] | None])
    """Segment index → feature from an interrupted run; None for a segment without a feature."""
    lost: frozenset[int] = frozenset()
    """Segments in holes, which follow from the container's time stamps."""
    masked: frozenset[int] = frozenset()
    """Segments that overlap an excluded part of a clip whose table has ``exclude = mask``."""
    geometry: Geometry | None = None
    """The extractor's geometry, after a resize to square pixels if necessary; None for a stream without frames."""

    @property
    def todo(self) -> list[int]:
        """Indices of the segments to compute, ascending."""
        done = self.known.keys() | self.lost | self.masked
        return [index for index in range(len(self.segments)) if index not in done]


@dataclass(frozen=True, eq=False)
class VideoPlan:
    """One video and its remaining streams."""

    video: VideoRecord
    streams: Mapping[str, StreamPlan]
    frames_by_geometry: Mapping[Geometry, NDArray[np.int64]]
    """Geometry → indices of the frames that streams with this geometry need, ascending."""
    wanted: NDArray[np.int64]
    """Indices of all frames to decode, ascending."""
    audio_until_s: float | None
    """Time up to which audio is decoded; None if no stream needs audio."""


@dataclass(frozen=True, eq=False)
class DecodedChunk:
    """Consecutive frames of a video from one decoder buffer."""

    plan: VideoPlan
    chunk: FrameChunk
    frames: torch.Tensor | None = None
    """The chunk's array on the device, set by the transfer stage."""


@dataclass(frozen=True, eq=False)
class PreprocessedChunk:
    """A chunk after preprocessing; ``frames`` is geometry → (frame indices, ``uint8 [frames, channels, h, w]``)."""

    plan: VideoPlan
    frames: Mapping[Geometry, tuple[NDArray[np.int64], torch.Tensor]]
    audio: AudioChunk | None


@dataclass(frozen=True, eq=False)
class ChunkFailure:
    """A chunk that could not be preprocessed. Only its video fails."""

    plan: VideoPlan
    reason: str


@dataclass(frozen=True, eq=False)
class VideoEnd:
    """End-of-video marker. ``error`` is the message if decoding failed as a whole."""

    plan: VideoPlan
    frames_delivered: int
    decode_s: float
    error: str = ""
    holes: tuple[Hole, ...] = ()
    """Intervals without frames; they do not affect streams that need only audio."""
    audio_holes: tuple[Hole, ...] = ()
    """Intervals without audio; they do not affect streams that need only frames."""
    transient: bool = False
    decoded_on_cpu: str = ""
    """Reason why frames were decoded on the CPU and not on the GPU; empty otherwise."""
    abandoned: bool = False
    """Whether the video is decoded again with another plan; the results of this plan are discarded."""
    segments_sent: Mapping[str, int] = field(default_factory=dict[str, int])
    """Stream → number of segments, set by the assemble stage."""


@dataclass(frozen=True, eq=False)
class SegmentTask:
    """A segment for an extractor: its input and, after the prepare stage, the result of `Extractor.prepare`."""

    plan: VideoPlan
    stream: Stream
    segment: SegmentInput
    prepared: Any = None
    compute_s: float = 0.0


@dataclass(frozen=True, eq=False)
class Batch:
    """Segments of one stream that its network processes together."""

    stream: Stream
    tasks: tuple[SegmentTask, ...]


@dataclass(frozen=True, eq=False)
class SegmentFeature:
    """A finished segment. ``feature`` is ``float32 [dim]`` or has the extractor's ``shape``. It is a part of the
    video's features for extractors with `VideoParts`, and None if the extractor returns none."""

    plan: VideoPlan
    stream: Stream
    index: int
    start_s: float
    end_s: float
    feature: NDArray[np.float32] | None
    compute_s: float


@dataclass(frozen=True, eq=False)
class SegmentFailure:
    """A segment whose extractor failed. Only its (video, stream) fails."""

    plan: VideoPlan
    stream: Stream
    index: int
    reason: str
    transient: bool


@dataclass(frozen=True, eq=False)
class BatchResult:
    """The results of a batch, one for each of its segments."""

    results: tuple[SegmentFeature | SegmentFailure, ...]


@dataclass(frozen=True)
class PhaseStarted:
    """A phase of the run starts."""

    phase: Literal["loading networks", "extracting", "merging shards"]


@dataclass(frozen=True)
class VideoOpened:
    """The metadata of a video were read, and its segments were planned."""

    video_id: str
    duration_s: float
    segments: Mapping[str, int]
    """Stream → number of segments to compute."""


@dataclass(frozen=True)
class VideoSettled:
    """All remaining streams of a video have an outcome."""

    video_id: str


@dataclass(frozen=True)
class Awaiting:
    """All remaining videos are claimed by other runs; this run waits for them."""

    num_videos: int


@dataclass(frozen=True)
class WorkerProgress:
    """Work of a worker since its last report."""

    num_segments: int
    busy_s: Mapping[str, float]
    """Stage → busy seconds."""
    segments: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    """(video id, stream) → number of segments."""


@dataclass(frozen=True)
class PoisonedVideo:
    """A video that is not assigned again, because too many workers died while they processed it."""

    video_id: str
    reason: str


@dataclass(frozen=True)
class Notice:
    """A message for the user, about a worker or a file."""

    text: str


Trait = Literal["interlaced", "non-square-pixels", "several-tracks"]


@dataclass(frozen=True)
class VideoTraits:
    """Properties of one video that a run reports for all videos together; see `traits`."""

    video_id: str
    traits: tuple[Trait, ...]


Event = (
    Outcome
    | SegmentFeature
    | PhaseStarted
    | VideoOpened
    | VideoSettled
    | Awaiting
    | WorkerProgress
    | Notice
    | VideoTraits
)
"""Events of a run. Outcomes and features are yielded after the writer has accepted them."""

EVENTS: tuple[type[Event], ...] = get_args(Event)
