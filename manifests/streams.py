"""Settings of one feature stream: the frozen records of a recipe's ``[streams.NAME]`` table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from .short_help import own_names

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
Remainder = Literal["drop-tail", "drop-both", "pad-last", "pad-both"]
FrameChoice = Literal["nearest-time", "integer-stride", "integer-stride-of-whole-rate"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]
Resampler = Literal["soxr", "sinc-hann"]
"""``soxr``: libsoxr in high quality. ``sinc-hann``: torchaudio's default, a short windowed sinc with some aliasing."""
AudioWindows = Literal["interval", "equal-split"]
"""``interval``: the audio of the segment's time interval. ``equal-split``: the track is divided into as many equal
parts as there are segments, regardless of its start time (PAMFN)."""


Deinterlace = Literal["none", "bwdif"]
AudioTrackChoice = NonNegativeInt | Annotated[str, Field(pattern=r"^(best|[A-Za-z]{2,3})$")]


class Record(BaseModel):
    """Base class of records that are read from files. Records are frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class _RecordType(type(BaseModel)):
    def __dir__(cls) -> list[str]:
        return own_names(cls)


Record.__class__ = _RecordType  # type: ignore[assignment] - not `metaclass=`, which type checkers would not recognize as pydantic's


class Sampling(Record):
    """The frames of each segment. The interval of a segment is from its first frame to the frame after its last one.

    The fields after ``remainder`` reproduce details of published extractors; docs/provenance.md lists their sources.
    """

    fps: Literal["native"] | PositiveFloat
    """Sampling rate in frames per second, or ``"native"`` for every recorded frame."""
    frames_per_segment: PositiveInt
    """Number of sampled frames in one segment. A segment has one row."""
    frames_per_step: PositiveInt
    """Sampled frames from the start of a segment to the start of the next. Segments overlap if it is smaller than
    ``frames_per_segment``."""
    remainder: Remainder
    """Handling of frames that do not fill the last segment. ``drop-tail`` drops them, ``drop-both`` drops half of them
    at the start and the rest at the end of the video (GDLT), ``pad-last`` repeats the last frame until the segment is
    full. ``pad-both`` centers a segment on every step-th sampled frame, beginning with the first, with half of its
    frames (rounded down) before that frame; the first and the last frame of the video are repeated beyond its ends.
    With ``frames_per_step = 1`` there is one row for each frame. The interval of a row is then that of its step."""
    frame_choice: FrameChoice = "nearest-time"
    """Choice of frames for ``fps``. ``nearest-time``: the frame nearest to each tick, at any recorded rate.
    ``integer-stride``: the last frame of each stride, with stride = int(N / int(N · fps / recorded fps)) for N frames
    (ACTION-NET's dynamic stream); 12 fps from 25 fps become 12.5, and the first frame is not used.
    ``integer-stride-of-whole-rate``: the same with the recorded rate truncated to an integer (its static stream)."""
    zero_last_frame: bool = False
    """Append a frame that is zero after normalization if the stride does not divide the number of frames, as in
    ACTION-NET's dynamic stream, which allocates a row for the remaining frames and does not fill it."""
    frames_after: NonNegativeInt = 0
    """Number of sampled frames that must follow a segment for it to be used. video_features reads 65 frames for a stack
    of 64, also for color, so that a video of 128 frames has one stack."""

    @model_validator(mode="after")
    def _quirks_fit(self) -> Self:
        strided = self.frame_choice != "nearest-time"
        if strided and self.fps == "native":
            raise ValueError(f'frame_choice = "{self.frame_choice}" needs a sampling rate; set fps to a number')
        if self.zero_last_frame and not strided:
            raise ValueError('zero_last_frame requires an integer stride; set frame_choice = "integer-stride"')
        if self.remainder == "pad-both" and self.frames_after:
            raise ValueError('remainder = "pad-both" has a segment at every step; remove frames_after')
        if self.zero_last_frame and (self.frames_per_segment == 1 or self.remainder in ("pad-last", "pad-both")):
            raise ValueError(
                "zero_last_frame would create a segment without a picture; set frames_per_segment to 2 or more, and "
                'remainder = "drop-tail"'
            )
        return self


class Resize(Record):
    """Common settings of the resizing steps."""

    antialias: bool | Literal["as-geometry"] = "as-geometry"
    """Antialiasing of this step instead of that of the geometry, for pipelines with two libraries (ACTION-NET)."""


class ShortSide(Resize):
    """Resize so that the shorter side has this length. The longer side is truncated to a whole pixel."""

    short_side_px: PositiveInt
    """Length of the shorter side in pixels."""
    one_factor: bool = False
    """Scale the coordinates of both sides by the factor of the shorter side, as torch does with ``scale_factor``, even
    if the longer side is truncated. Requires ``antialias = false`` and ``resize_arithmetic = "float"``."""


class Height(Resize):
    """Resize to this height and keep the aspect ratio. The width is rounded, halves up, as in ACTION-NET's code."""

    height_px: PositiveInt
    """Height in pixels."""


class Size(Resize):
    """Resize to exactly ``(height, width)``; the aspect ratio may change."""

    size_px: tuple[PositiveInt, PositiveInt]
    """``(height, width)`` in pixels."""


class CenterCrop(Record):
    """Crop ``(height, width)`` at the center. Smaller frames are padded with zeros, as in torchvision."""

    center_crop_px: tuple[PositiveInt, PositiveInt]
    """``(height, width)`` in pixels."""
    odd_margin: Literal["half-even", "down"] = "half-even"
    """Rounding of half an odd margin: ``half-even`` as torchvision's ``round``, or ``down`` as video_features' ``// 2``
    (different e.g. at 455 px)."""


class Patches(Resize):
    """Resize to the maximum number of square patches of a network, with nearly the same aspect ratio (SigLIP 2)."""

    max_patches: PositiveInt
    """Largest number of patches."""
    patch_px: PositiveInt
    """Side of a patch in pixels."""


ResizeArithmetic = Literal["torch", "pil", "float", "float-rounded"]
"""See `Geometry.resize_arithmetic`."""
GeometryStep = ShortSide | Height | Size | CenterCrop | Patches


class Geometry(Record):
    """Steps from decoded frames to network input, in order. Results are rounded to uint8 after each resize.

    Most published pipelines resize 8-bit images (PIL, OpenCV) and round at the same points. For those that resize in
    floating point there is ``resize_arithmetic = "float"``. Streams with equal geometry share the result.
    """

    steps: tuple[GeometryStep, ...]
    """``short_side_px``, ``height_px``, ``size_px`` and ``max_patches`` resize, ``center_crop_px`` crops. Empty: frames
    as decoded. ``one_factor`` scales both sides by the factor of the shorter one, as torch's scale_factor does."""
    interpolation: Interpolation = "bilinear"
    """Interpolation of all resizing steps: nearest, bilinear or bicubic."""
    antialias: bool = True
    """True: the resize of PIL and torch. False: OpenCV's ``cv2.resize``, or that of torch in floating point."""
    resize_arithmetic: ResizeArithmetic = "torch"
    """torch, pil: antialiased resize with the integer weights of torch's uint8 kernel (16 bits) or of Pillow (22 bits),
    which published code used on PIL images. They differ by one level in .05 to .5 % of the pixels of real videos.
    float: torch's resize in floating point without rounding (processors that rescale first; video_features' R(2+1)D
    and S3D). float-rounded: the same, rounded to 8 bits after each resize (torchvision on uint8 videos). The last two
    are only for networks on frames and clips."""
    gray: bool = False
    """Convert to one channel (ITU-R 601 luma, as OpenCV's ``COLOR_RGB2GRAY``) before the first step."""

    @model_validator(mode="after")
    def _one_factor_is_torch_s(self) -> Geometry:
        for step in self.steps:
            if isinstance(step, ShortSide) and step.one_factor:
                antialias = self.antialias if step.antialias == "as-geometry" else step.antialias
                if antialias or self.interpolation == "nearest" or self.resize_arithmetic in ("torch", "pil"):
                    raise ValueError('one_factor requires antialias = false and resize_arithmetic = "float"; set both')
        return self


class Normalization(Record):
    """``(x / 255 - mean) / std``, per channel."""

    mean: tuple[float, ...]
    """Mean of each channel, on the scale 0 to 1."""
    std: tuple[Annotated[float, Field(gt=0)], ...]
    """Standard deviation of each channel, on the same scale."""


RENAMED = {"normalisation": "normalization", "quantisation": "quantization"}
"""Spelling in recipes of earlier stores → current spelling, for keys and values of a stream's settings."""


OF_NETWORK = ("output", "layer")
"""Settings of the extractor that a stream may also have at its top level: ``streams.rgb.output = "time"``."""


def respelled(value: Any, spelling: Mapping[str, str]) -> Any:
    """Return a copy of the value in which each name of ``spelling`` is replaced in keys and strings, recursively."""
    if isinstance(value, str):
        return reduce(lambda text, pair: text.replace(*pair), spelling.items(), value)
    if isinstance(value, Mapping):
        table = cast("Mapping[Any, Any]", value)
        return {respelled(name, spelling): respelled(item, spelling) for name, item in table.items()}
    if isinstance(value, list | tuple):
        return [respelled(item, spelling) for item in cast("list[Any]", value)]
    return value


class StreamSpec(Record):
    """One stream of a recipe.

    ``extractor`` is a name in ``arabesque.extractors.table``. The ``Settings`` record of the extractor validates
    ``settings`` and adds the defaults, so that a resolved spec is complete. ``weights`` maps the weight roles of the
    extractor (``network``, ``detector``) to checkpoints of ``weights.toml``.
    """

    extractor: str
    """The extractor that computes the rows of the stream; README.md lists all of them."""
    sampling: Sampling
    """The frames of each segment."""
    weights: dict[str, str] = Field(default_factory=dict)
    """Role → checkpoint, a name of `arabesque weights list`; or random:SEED for random weights, for tests."""
    precision: Precision = "float32"
    """Number format of the network: float32, tf32, bfloat16 or float16. Rows differ from those of float32 by up to 3e-2
    (bfloat16) or 4e-3 (tf32, float16) of the largest value of the row."""
    deinterlace: Deinterlace = "none"
    """Deinterlacing of frames whose odd and even rows were recorded at different times. ``"none"``: frames are used as
    decoded, with comb artifacts at moving objects. ``"bwdif"``: FFmpeg's filter computes one progressive frame for each
    frame, with the same time; frames that are not marked as interlaced are unchanged."""
    pixel_aspect: Literal["ignore", "display"] = "ignore"
    """Handling of non-square pixels (DVDs, DV, some broadcasts). ``"ignore"``: pixels are treated as square, as in
    OpenCV, decord and the published extractors, which distorts proportions. ``"display"``: the width is resized to the
    display aspect ratio before the first step of the geometry."""
    audio_track: AudioTrackChoice = "best"
    """The audio stream of a file with several. ``"best"``: FFmpeg's choice, which prefers the default flag and avoids
    audio descriptions; a number: that audio stream, counted from 0 as in ``ffmpeg -map 0:a:N``; a language code such as
    ``"eng"``: the best stream in that language. A file without such a stream has no audio."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the extractor."""

    @model_validator(mode="before")
    @classmethod
    def _read_earlier_spelling(cls, given: Any) -> Any:
        """Accept the settings of recipes in stores of earlier versions, and `OF_NETWORK` at the top level."""
        if not isinstance(given, Mapping):
            return given
        fields = dict(cast("Mapping[str, Any]", given))
        if isinstance(settings := fields.get("settings", {}), Mapping):
            beside = {name: fields.pop(name) for name in OF_NETWORK if name in fields}
            if twice := [name for name in beside if name in settings]:
                raise ValueError(f"{twice[0]} is also in settings; set it once")
            fields |= {"settings": {**settings, **beside}} if beside else {}
        return fields | ({"settings": respelled(fields["settings"], RENAMED)} if "settings" in fields else {})
