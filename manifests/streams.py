"""What one stream of features asks for and gives: the frozen records behind a recipe's ``[streams.NAME]``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

Precision = Literal["float32", "bfloat16", "float16"]
Remainder = Literal["drop-tail", "drop-both", "pad-last"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]


class Record(BaseModel):
    """Base of everything that is read from a file: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Sampling(Record):
    """Which frames make a segment. A segment's interval runs from its first frame to the frame after its last.

    ``fps``: frames per second to sample, or ``"native"`` for every frame as it was recorded.
    ``remainder``: what happens to the frames that do not fill a last segment. ``drop-tail`` leaves them out,
    ``drop-both`` leaves out half of them at the head and the rest at the tail (GDLT), ``pad-last`` fills the
    segment by repeating the last frame.
    """

    fps: Literal["native"] | PositiveFloat
    frames_per_segment: PositiveInt
    frames_per_step: PositiveInt
    remainder: Remainder


class ShortSide(Record):
    """Resize so that the shorter side has this length; the longer one is truncated to a whole pixel."""

    short_side_px: PositiveInt


class Height(Record):
    """Resize to this height, keeping the aspect ratio; the width is truncated to a whole pixel."""

    height_px: PositiveInt


class Size(Record):
    """Resize to exactly ``(height, width)``, whatever that does to the aspect ratio."""

    size_px: tuple[PositiveInt, PositiveInt]


class CenterCrop(Record):
    """Cut ``(height, width)`` out of the centre; a frame that is smaller is padded with zeros, as torchvision does."""

    center_crop_px: tuple[PositiveInt, PositiveInt]


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
