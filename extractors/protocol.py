"""The contract of every extractor, as data that the pipeline follows.

An extractor is a fixed computation from segments to feature rows. It declares which frames and audio it needs
(`FrameNeed`, `AudioNeed`). The pipeline decodes each video once, applies each geometry once, cuts segments, and calls

    prepare(segment)        one segment, on a CPU thread, in parallel with others: flow, filterbanks, classical features
    forward(prepared)       a batch of results of `prepare`, of any videos, usually one call at a time: the network

An extractor processes tensors, not videos, files or runs. To add one, write a file with a class that satisfies
`Extractor` and a `Settings` record, and add a line to `table.py` and its checkpoint to `manifests/weights.toml`. The
contract test includes it automatically. For a class of another package, a recipe gives the import path:
``extractor = "mypackage.mine:MyExtractor"``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..manifests.optional_packages import require_package
from ..manifests.streams import AudioWindows, Geometry, Precision, Record, Resampler

if TYPE_CHECKING:  # importing torch takes seconds, and recipes are checked without it
    import pandas  # pyright: ignore[reportMissingTypeStubs]
    import torch

    from .checkpoints import Weights

Made = TypeVar("Made")


@dataclass(frozen=True)
class FrameNeed:
    """Frames of a segment, as ``uint8 [time, channels, height, width]`` after ``geometry``."""

    geometry: Geometry
    next_frame: bool = False
    """Append the next sampled frame after the segment, if there is one (for optical flow); ``time`` is then one more"""


@dataclass(frozen=True)
class AudioNeed:
    """Audio of a segment's interval, as ``float32 [samples]`` at ``rate_hz``, in −1 … 1."""

    rate_hz: int
    channel: Literal["mean", "first"] = "mean"
    resampler: Resampler = "soxr"
    remove_mean: bool = False
    windows: AudioWindows = "interval"

    @property
    def needs_whole_track(self) -> bool:
        """Whether segments can only be cut after the last sample of the track.

        The whole track is then in memory, 6 MB for 100 s at 16 kHz. Frames would accumulate as well, so an extractor
        with such a need should not need frames.
        """
        return self.remove_mean or self.windows == "equal-split"


@dataclass(eq=False)
class Shared:
    """Results computed once for all streams that use the same frames of a segment; read only."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    made: dict[str, Any] = field(default_factory=dict[str, Any])

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """Return the result of ``make``, computed once; concurrent callers block."""
        with self.lock:
            if name not in self.made:
                self.made[name] = make()
            return self.made[name]


@dataclass(frozen=True, eq=False)
class SegmentInput:
    """One segment of one video, with the frames and audio that the extractor declared."""

    index: int
    start_s: float
    end_s: float
    frames: torch.Tensor | None = None
    """``uint8 [time, channels, height, width]``, on the extractor's device; float32 levels with
    ``resize_arithmetic = "float"``."""
    frame_times_s: tuple[float, ...] = ()
    """One time per frame, relative to the video's first frame."""
    waveform: torch.Tensor | None = None
    """``float32 [samples]``, on the CPU; silence where the track has a gap."""
    has_next_frame: bool = False
    """Whether the last of ``frames`` is the frame after the segment (`FrameNeed.next_frame`)"""
    blank_frames: tuple[int, ...] = ()
    """Positions of blank frames, which are black in ``frames`` and must be zero after normalization; see
    `Sampling.zero_last_frame`. Only extractors with ``takes_blank_frames`` get any."""
    shared: Shared = field(default_factory=Shared)
    """One object for all streams with the same ``frames``"""


@dataclass(frozen=True, eq=False)
class PersonBoxes:
    """The people that a detector found in the frames of one video, in the order of time.

    Every frame that the detector processed has at least one row: a frame without a person has one row whose edges and
    confidence are NaN.

    Example:
        >>> boxes = PersonBoxes.without_people([0.0, 1.0], height_px=480, width_px=640)
        >>> len(boxes), boxes.num_frames, boxes.num_frames_with_person
        (2, 2, 0)
    """

    time_s: NDArray[np.float64]
    """``[boxes]``: time of the frame."""
    edges_px: NDArray[np.float32]
    """``[boxes, 4]``: left, top, right, bottom in pixels of the frame; right and bottom are exclusive."""
    confidence: NDArray[np.float32]
    """``[boxes]``: the detector's confidence, 0 to 1."""
    track: NDArray[np.int32]
    """``[boxes]``: equal for the boxes of one person; −1 for a box that is not linked to others."""
    chosen: NDArray[np.bool_]
    """``[boxes]``: whether the stream used the box as that of an athlete."""
    height_px: int
    """Size of the upright frames that the detector processed; see `StreamSpec.pixel_aspect`."""
    width_px: int

    @classmethod
    def without_people(cls, times_s: Sequence[float], height_px: int, width_px: int) -> PersonBoxes:
        """Return the record of frames in which no person was found."""
        count = len(times_s)
        return cls(
            np.array(times_s, np.float64),
            np.full((count, 4), np.nan, np.float32),
            np.full(count, np.nan, np.float32),
            np.full(count, -1, np.int32),
            np.zeros(count, bool),
            height_px,
            width_px,
        )

    def __len__(self) -> int:
        return len(self.time_s)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a table with one row for each box; the columns are those of `FeatureStore.boxes_to_pandas`."""
        require_package("pandas", "a table of pandas")
        import pandas  # pyright: ignore[reportMissingTypeStubs]

        edges = {name: self.edges_px[:, place] for place, name in enumerate(("left", "top", "right", "bottom"))}
        size = {"frame_width": self.width_px, "frame_height": self.height_px}
        return pandas.DataFrame(
            {"time_s": self.time_s, **edges, "confidence": self.confidence, "track": self.track, "chosen": self.chosen}
            | size
        )

    @property
    def num_frames(self) -> int:
        """Number of frames that the detector processed."""
        return len(np.unique(self.time_s))

    @property
    def num_frames_with_person(self) -> int:
        """Number of frames in which the stream used the box of a person."""
        return len(np.unique(self.time_s[self.chosen]))


@dataclass(frozen=True, eq=False)
class FinishedVideo:
    """Result of `VideoParts` for a whole video."""

    features: Mapping[int, NDArray[np.float32]]
    """Segment index → ``[dim]``; segments without a row are absent."""
    boxes: PersonBoxes | None
    """None if no frame was searched for people."""


class VideoParts(Protocol):
    """Combines the parts of one video, for extractors whose rows depend on more than one segment.

    `Extractor.forward` of an extractor that has the method ``start_video() -> VideoParts`` returns a *part* for each
    segment: a vector of float32 numbers of any length, which is also written to the write-ahead log. The pipeline adds
    the parts of each video in the order of their segments. The extractor's method ``is_part(values)`` returns whether
    an array of the log is a valid part.
    """

    def add(self, index: int, part: NDArray[np.float32], frame_times_s: Sequence[float]) -> None:
        """Add the part of one segment."""
        ...

    def finish(self) -> FinishedVideo:
        """Return the rows; called once, after the last part."""
        ...


class ExtractorKind(Protocol):
    """An entry of `arabesque.extractors.table`: a class, or the `NetworkCard` of a network.

    A class or a card may also have these attributes:

    - ``takes_blank_frames = True``: frames in `SegmentInput.blank_frames` are zero after normalization.
    - ``takes_float_frames = True``: frames may be float32 levels (`Geometry.resize_arithmetic`).
    - ``feature_names()``, a static method: the names of the numbers of a row, in order.
    - ``default_weights``: the checkpoint for streams that do not name one; also the name of the extractor with it.
    - ``with_row_shape(spec)``: returns a resolved stream with the settings that follow from its sampling and its other
      settings.
    - ``check(spec)``: raises `ConfigError` for a resolved stream that the extractor cannot compute.
    - ``shows_network = True``: `arabesque look` shows what the network finds, and needs its checkpoint.
    - ``variants``, a tuple of names: a recipe chooses one by ``module:class:variant``; the constructor has the keyword
      ``variant``.
    """

    @property
    def Settings(self) -> type[Record]:
        """Settings in a recipe. A property ``weight_roles`` of the record names checkpoints that depend on settings."""
        ...

    @property
    def version(self) -> int:
        """Version of the computation, increased whenever the numbers change; part of every row's key, as is the name of
        the extractor in the recipe."""
        ...

    @property
    def weight_roles(self) -> tuple[str, ...]:
        """Roles of the checkpoints that are needed with any settings, e.g. ``("network",)``; ``weights`` in the recipe
        names one checkpoint for each role."""
        ...

    def __call__(
        self, *, settings: Any, weights: Mapping[str, Weights], device: torch.device, precision: Precision
    ) -> Extractor:
        """Make an extractor; ``settings`` is an instance of `Settings`."""
        ...


class Extractor(Protocol):
    """The computation of one stream; `arabesque.extractors.table.build` makes it from an `ExtractorKind`.

    An extractor whose segments have more than one row, such as [time, dim], also has ``shape``, the shape of what
    `forward` returns for a segment; ``dim`` is then the number of its values.

    An extractor with a text tower also has ``sentence_rows``: ``float32 [sentences, dim]``, one row for each of
    ``settings.sentences``, or None. The manifest of the store keeps them.
    """

    dim: int
    """Number of values of a segment: the length of its row."""
    frames: FrameNeed | None
    audio: AudioNeed | None
    batch_size: int
    """Number of segments in a call of `forward`"""

    def prepare(self, segment: SegmentInput) -> Any:
        """Return the input of `forward` for one segment. Called from several threads at once."""
        ...

    def forward(self, prepared: Sequence[Any]) -> list[torch.Tensor | None]:
        """Return the result for each item, independent of the rest of the batch.

        Called from one thread at a time, or from several at once if the extractor has the attribute
        ``forwards_concurrently = True``.

        Returns:
            For each item a ``float32 [dim]`` row, values of the extractor's ``shape``, or a part (see `VideoParts`).
            None for a segment without a row, e.g. without a person.
        """
        ...


def shape_of(extractor: Extractor) -> tuple[int, ...]:
    """Return the shape of an extractor's result for a segment: its ``shape``, by default ``(dim,)``."""
    return getattr(extractor, "shape", (extractor.dim,))
