"""What one stream of features asks for and gives: the frozen records behind a recipe's ``[streams.NAME]``."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

Precision = Literal["float32", "bfloat16", "float16"]
Remainder = Literal["drop-tail", "drop-both", "pad-last"]
FrameChoice = Literal["nearest-time", "integer-stride", "integer-stride-of-whole-rate"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]
Resampler = Literal["soxr", "sinc-hann"]
"""``soxr``: its high quality. ``sinc-hann``: torchaudio's default, a short windowed sinc that lets aliases through."""
AudioWindows = Literal["interval", "equal-split"]
"""``interval``: what sounds while a segment's frames are shown. ``equal-split``: the track from its first sample to its
last, cut into as many equal parts as there are segments, wherever its sound starts and ends (PAMFN)."""


class Record(BaseModel):
    """Base of everything that is read from a file: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Sampling(Record):
    """Which frames make a segment. A segment's interval runs from its first frame to the frame after its last.

    ``fps``: frames per second to sample, or ``"native"`` for every frame as it was recorded.
    ``remainder``: what happens to the frames that do not fill a last segment. ``drop-tail`` leaves them out,
    ``drop-both`` leaves out half of them at the head and the rest at the tail (GDLT), ``pad-last`` fills the
    segment by repeating the last frame.

    The other fields are quirks of published extractors; field-notes A1 and A7 are their sources.
    """

    fps: Literal["native"] | PositiveFloat
    frames_per_segment: PositiveInt
    frames_per_step: PositiveInt
    remainder: Remainder
    frame_choice: FrameChoice = "nearest-time"
    """How ``fps`` picks frames. ``nearest-time``: the frame nearest to each tick, whatever the recorded rate.
    ``integer-stride``: every stride-th frame, the last of each stride, with stride = int(N / int(N · fps / recorded
    fps)) of N frames (ACTION-NET's dynamic stream): 12 fps out of 25 become 12.5, and the first frame is never seen.
    ``integer-stride-of-whole-rate``: the same with the recorded rate cut to a whole number (its static stream)."""
    zero_last_frame: bool = False
    """Where the stride does not divide the number of frames, one more frame follows that is zero after normalisation:
    ACTION-NET's dynamic stream allocates a row for the left-over frames and never fills it."""
    frames_after: NonNegativeInt = 0
    """A segment counts only if so many sampled frames follow it: video_features reads 65 frames for a stack of 64,
    of colour too, so that a video of 128 frames has one stack."""

    @model_validator(mode="after")
    def _quirks_fit(self) -> Self:
        strided = self.frame_choice != "nearest-time"
        if strided and self.fps == "native":
            raise ValueError(f'frame_choice = "{self.frame_choice}" takes frames at a rate; set fps to a number')
        if self.zero_last_frame and not strided:
            raise ValueError('zero_last_frame is what a stride leaves over; set frame_choice = "integer-stride"')
        if self.zero_last_frame and (self.frames_per_segment == 1 or self.remainder == "pad-last"):
            raise ValueError("zero_last_frame would leave a segment without a picture; drop the tail of longer ones")
        return self


class Resize(Record):
    """What the resizing steps share."""

    antialias: bool | Literal["as-geometry"] = "as-geometry"
    """A step's own in place of the geometry's, for pipelines that mix libraries (ACTION-NET: OpenCV, then PIL)."""


class ShortSide(Resize):
    """Resize so that the shorter side has this length; the longer one is truncated to a whole pixel."""

    short_side_px: PositiveInt


class Height(Resize):
    """Resize to this height, keeping the aspect ratio; the width is rounded, halves up, as ACTION-NET's code does."""

    height_px: PositiveInt


class Size(Resize):
    """Resize to exactly ``(height, width)``, whatever that does to the aspect ratio."""

    size_px: tuple[PositiveInt, PositiveInt]


class CenterCrop(Record):
    """Cut ``(height, width)`` out of the centre; a frame that is smaller is padded with zeros, as torchvision does."""

    center_crop_px: tuple[PositiveInt, PositiveInt]
    odd_margin: Literal["half-even", "down"] = "half-even"
    """Half of an odd margin: torchvision's ``round``, or video_features' ``// 2``, one pixel off for a 455 px width."""


GeometryStep = ShortSide | Height | Size | CenterCrop


class Geometry(Record):
    """From decoded frames to what a network sees: steps in their order, results rounded to uint8 after each resize.

    Published pipelines resize 8-bit images (PIL, OpenCV), so we round where they round. Two streams with an equal
    geometry share its result.
    """

    steps: tuple[GeometryStep, ...]
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    """True: PIL's resize, torchvision's on PIL images. False: OpenCV's ``cv2.resize``."""
    gray: bool = False
    """Convert to one channel (ITU-R 601 luma, as OpenCV's ``COLOR_RGB2GRAY``) before the first step."""


class Normalisation(Record):
    """``(x / 255 - mean) / std``, per channel."""

    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]


class StreamSpec(Record):
    """One stream of a recipe.

    ``extractor`` names a row of ``arabesque.extractors.table``; ``settings`` are that extractor's own and are
    checked by its ``Settings`` record, which also fills every default, so that a resolved spec leaves nothing
    implicit. ``weights`` maps the extractor's weight roles (``network``, ``detector``) to checkpoints of
    ``weights.toml``.
    """

    extractor: str
    sampling: Sampling
    weights: dict[str, str] = Field(default_factory=dict)
    precision: Precision = "float32"
    settings: dict[str, Any] = Field(default_factory=dict)
