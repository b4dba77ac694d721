"""The contract of every extractor, as data that the pipeline follows.

An extractor is a frozen computation from segments to feature rows. It says which frames and which sound it needs
(`FrameNeed`, `AudioNeed`); the pipeline decodes once, applies each distinct geometry once, cuts segments, and calls

    prepare(segment)        one segment, on a CPU thread, several at a time: flow, filterbanks, classical features
    forward(prepared)       a batch of what `prepare` returned, of any videos, one call at a time: the network

It processes tensors, not videos, files or runs. To add one: a file with a class that satisfies `Extractor` and a
`Settings` record, a line in `table.py`, its checkpoint in `manifests/weights.toml`; the contract test finds it. A class
of another package needs no line: a recipe names it by its import path, ``extractor = "mypackage.mine:MyExtractor"``.
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

if TYPE_CHECKING:  # importing torch takes seconds, and much is checked without it
    import pandas  # pyright: ignore[reportMissingTypeStubs]
    import torch

    from .checkpoints import Weights

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


@dataclass(eq=False)
class Shared:
    """Results computed once for all streams that use the same frames of a segment; read only."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    made: dict[str, Any] = field(default_factory=dict[str, Any])

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """The result of ``make``, computed once; concurrent callers block."""
        with self.lock:
            if name not in self.made:
                self.made[name] = make()
            return self.made[name]


@dataclass(frozen=True, eq=False)
class SegmentInput:
    """One segment of one video: what an extractor asked for, and nothing else."""

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
    """The last of ``frames`` is the one after the segment, which `FrameNeed.next_frame` asked for."""
    blank_frames: tuple[int, ...] = ()
    """Positions in ``frames``, black there, that stand for no picture and are zero after normalization: see
    `Sampling.zero_last_frame`, which only extractors with ``takes_blank_frames`` accept."""
    shared: Shared = field(default_factory=Shared)
    """The same for all streams whose ``frames`` are these."""


@dataclass(frozen=True, eq=False)
class PersonBoxes:
    """The people that a detector found in the frames of one video, in the order of time.

    Every frame that the detector saw has at least one row: a frame without a person has one row whose edges and
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
    """Size of the frames, upright and as the detector saw them; see `StreamSpec.pixel_aspect`."""
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
        """Number of frames that the detector saw."""
        return len(np.unique(self.time_s))

    @property
    def num_frames_with_person(self) -> int:
        """Number of frames in which the stream used the box of a person."""
        return len(np.unique(self.time_s[self.chosen]))


@dataclass(frozen=True, eq=False)
class FinishedVideo:
    """What `VideoParts` makes of a whole video."""

    features: Mapping[int, NDArray[np.float32]]
    """Segment index → ``[dim]``; segments without a row are absent."""
    boxes: PersonBoxes | None
    """None if no frame was searched for people."""


class VideoParts(Protocol):
    """Combines the parts of one video, for extractors whose rows depend on more than one segment.

    An extractor that has the method ``start_video() -> VideoParts`` returns from `Extractor.forward` a *part* for each
    segment: a vector of float32 numbers of any length, which also goes to the write-ahead log. The pipeline passes
    the parts of each video on in the order of their segments. Its method ``is_part(values)`` returns whether an array
    of the log is a part that it can use.
    """

    def add(self, index: int, part: NDArray[np.float32], frame_times_s: Sequence[float]) -> None:
        """Add the part of one segment."""
        ...

    def finish(self) -> FinishedVideo:
        """Return the rows; called once, after the last part."""
        ...


class ExtractorKind(Protocol):
    """What `arabesque.extractors.table` names: a class, or the `NetworkCard` of a network.

    A class or a card may also have these attributes:

    - ``takes_blank_frames = True``: frames in `SegmentInput.blank_frames` are zero after normalization.
    - ``takes_float_frames = True``: frames may be float32 levels (`Geometry.resize_arithmetic`).
    - ``feature_names()``, a static method: the names of the numbers of a row, in order.
    - ``default_weights``: the checkpoint of a stream that names none, and the name of the extractor with it.
    - ``with_row_shape(spec)``: returns a resolved stream with what follows from its sampling and its settings.
    - ``check(spec)``: raises `ConfigError` for a resolved stream that the extractor cannot compute.
    - ``shows_network = True``: `arabesque look` shows what the network finds, and needs its checkpoint.
    - ``variants``, a tuple of names: a recipe chooses one by ``module:class:variant``; the constructor has the keyword
      ``variant``.
    """

    @property
    def Settings(self) -> type[Record]:
        """What a recipe may set. A property ``weight_roles`` of it names the checkpoints that only some settings ask
        for."""
        ...

    @property
    def version(self) -> int:
        """Raised whenever the numbers change; part of every row's key, as is the extractor's name in the recipe."""
        ...

    @property
    def weight_roles(self) -> tuple[str, ...]:
        """Which checkpoints it needs with any settings, e.g. ``("network",)``; the recipe's ``weights`` names one for
        each."""
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
    """How many segments fill a call of `forward`."""

    def prepare(self, segment: SegmentInput) -> Any:
        """One segment's input to `forward`. Called from several threads at once."""
        ...

    def forward(self, prepared: Sequence[Any]) -> list[torch.Tensor | None]:
        """One ``float32 [dim]`` row for each item, whatever else is in the batch; or one part, see `VideoParts`; or
        values of the extractor's ``shape``. Called from one thread at a time, or from several at once if the extractor
        has the attribute ``forwards_concurrently = True``.

        None where the stream has nothing to say of a segment (no person in it): it then has no row.
        """
        ...


def shape_of(extractor: Extractor) -> tuple[int, ...]:
    """Return the shape of what an extractor makes of a segment: ``(dim,)`` unless it has another ``shape``."""
    return getattr(extractor, "shape", (extractor.dim,))
