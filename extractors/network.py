"""The extractor class for all networks. A card describes what is different for each network.

A single network has its card in its own file (`i3d.I3D_RGB`, `video_swin.VIDEO_SWIN_B`). A family has a function that
returns the card of one of its networks (``pytorchvideo:x3d_m``). See `table.EXTRACTORS` and `table.FAMILIES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from pydantic import Field, create_model
from torch import Tensor, nn

from ..manifests.errors import ConfigError
from ..manifests.streams import CenterCrop, Geometry, Normalization, Precision, Record, StreamSpec
from .checkpoints import Weights
from .geometry import ImageSize, normalize, output_size, several_crops
from .inner_layers import InnerLayer, Network, OutputSettings, is_inner, with_row_shape
from .network_runner import NetworkRunner
from .protocol import AudioNeed, FrameNeed, SegmentInput

ROLE = "network"
AS_DECODED = Geometry(steps=())
HALVES = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""Normalization to −1 … 1."""


_CROPS = (
    'Crops of each frame. "center": the last step of the geometry. "five": the corners and the center, of the size of '
    'that step; a row is the mean over the crops. "ten": these and their mirror images, at ten times the cost.'
)


@dataclass(frozen=True)
class ClipLengths:
    """The numbers of frames that a network takes.

    Example:
        >>> 12 in ClipLengths(at_least=8, multiple_of=4), 10 in ClipLengths(multiple_of=4)
        (True, False)
        >>> str(ClipLengths(at_least=9))
        'at least 9 frames'
    """

    at_least: int = 1
    at_most: int | None = None
    multiple_of: int = 1

    def __contains__(self, num_frames: int) -> bool:
        fits = self.at_least <= num_frames and (self.at_most is None or num_frames <= self.at_most)
        return fits and num_frames % self.multiple_of == 0

    def __str__(self) -> str:
        if self.at_least == self.at_most:
            return f"{self.at_least} frame{'' if self.at_least == 1 else 's'}"
        if self.at_most is not None:
            text = f"{self.at_least} to {self.at_most} frames"
        else:
            text = f"at least {self.at_least} frames"
        return f"{text}, a multiple of {self.multiple_of}" if self.multiple_of > 1 else text


@dataclass(frozen=True, kw_only=True)
class NetworkCard:
    """Facts about a network. A card is called like a class: ``card(settings=…, weights=…, …)`` returns an extractor.

    Attributes:
        input: Input of the network. ``image``: single frames ``[n, 3, height, width]``; the row of a segment is the
            mean over its frames. ``clip``: segments ``[n, 3, time, height, width]``. ``audio``: stacked results of
            `front_end`.
        load: Returns the network without its classifier for settings and weights; its output is ``[n, dim]``.
        dim: Length of a row.
        layouts: Key layouts of checkpoints that `load` reads, as in weights.toml.
        batch_size: Segments per call on a CPU and on a GPU.
        geometry: Default of the setting ``geometry``, the steps from decoded frames to network input.
        normalization: Default of the setting ``normalization``.
        hears: Returns the audio that a network with audio input needs, for settings.
        front_end: Returns the function from ``float32 [samples]`` to network input, for settings.
        options: Further settings.
        clip_lengths: Frames per segment that the network accepts.
        input_size: Height and width of pictures, if the network accepts one size only.
        default_weights: The checkpoint for streams that do not name one; also the name of this network with that
            checkpoint: ``torchvision:resnet50.IMAGENET1K_V2``. None if every stream must name a checkpoint.
        classify: Returns the network with its classifier for settings and weights; its output is ``[n, num_classes]``
            before softmax. None without a classifier.
        num_classes: Number of classes of `classify`.
        is_classifier: Whether this card is for the network with its classifier, which has no output of inner layers.
        features_layer: The layer whose mean is the row; None for the last layer with a map of `dim` channels.
        pooled_steps: Size of the moving average over time that the network applies before its mean over time: 2 for
            I3D and S3D.
        complete: Adds settings that depend on files of the checkpoint; None if no setting does.
        dim_of: Returns the length of a row for settings, if it depends on them.
        license: License of the network's published weights.
        source: Publication of the network and its settings.
        version: Version of the computation, increased whenever the numbers change; part of every row's key.
    """

    input: Literal["image", "clip", "audio"]
    load: Callable[[Any, Weights], nn.Module]
    dim: int
    layouts: tuple[str, ...]
    batch_size: tuple[int, int]
    geometry: Geometry = AS_DECODED
    normalization: Normalization = HALVES
    hears: Callable[[Any], AudioNeed] | None = None
    front_end: Callable[[Any], Callable[[Tensor], Tensor]] | None = None
    options: type[Record] = Record
    clip_lengths: ClipLengths = ClipLengths()
    input_size: ImageSize | None = None
    default_weights: str | None = None
    classify: Callable[[Any, Weights], nn.Module] | None = None
    num_classes: int = 0
    is_classifier: bool = False
    features_layer: str | None = None
    pooled_steps: int = 1
    complete: Callable[[Any], Record] | None = None
    dim_of: Callable[[Any], int] | None = None
    license: str = ""
    source: str = ""
    version: int = 1
    weight_roles: tuple[str, ...] = field(default=(ROLE,), init=False)
    Settings: type[Record] = field(init=False)
    """Settings in a recipe: `options`, and for networks on frames ``geometry``, ``normalization``, ``crops`` and those
    of `OutputSettings`"""

    def __post_init__(self) -> None:
        defaults: Any = {
            "geometry": (
                Geometry,
                Field(self.geometry, description="From decoded frames to the input of the network."),
            ),
            "normalization": (Normalization, Field(self.normalization, description="``(x / 255 - mean) / std``.")),
            "crops": (Literal["center", "five", "ten"], Field("center", description=_CROPS)),
        }
        settings = self.options
        if self.input != "audio":
            bases: Any = (OutputSettings,) if self.options is Record else (self.options, OutputSettings)
            settings = create_model("Settings", __base__=bases, __module__=__name__, **defaults)
        object.__setattr__(self, "Settings", settings)

    @property
    def classifier(self) -> NetworkCard | None:
        """Card of the network with its classifier, whose rows have one number for each class; None without one"""
        if self.classify is None:
            return None
        return replace(
            self, load=self.classify, dim=self.num_classes, default_weights=None, classify=None, is_classifier=True
        )

    @property
    def takes_blank_frames(self) -> bool:
        """Whether `Sampling.zero_last_frame` is possible, as for every network on frames"""
        return self.input != "audio"

    @property
    def takes_float_frames(self) -> bool:
        """Whether the geometry may return float32 pixels that are not rounded"""
        return self.input != "audio"

    def networks(self, spec: StreamSpec) -> list[Network]:
        """Return the network with the input size of a landscape video and with that of a portrait video.

        Args:
            spec: The stream, with all settings.

        Raises:
            ConfigError: The network takes audio.
        """
        if self.input == "audio":
            raise ConfigError(f"extractor {spec.extractor}: layers are available for networks on frames only")
        settings: Any = self.Settings.model_validate(spec.settings)
        frames = (spec.sampling.frames_per_segment,) if self.input == "clip" else ()
        sizes = {output_size(*sides, settings.geometry): None for sides in ((480, 640), (640, 480))}
        return [
            Network(self.load, settings, (3, *frames, *size), self.dim, self.features_layer, self.pooled_steps)
            for size in sizes
        ]

    def with_row_shape(self, spec: StreamSpec) -> StreamSpec:
        """Return a resolved stream; if it stores an inner layer or a map, with the layer and the shape of its rows.

        Raises:
            ConfigError: The network does not have this output.
        """
        settings: Any = self.Settings.model_validate(spec.settings)
        if not is_inner(settings):
            return spec
        if self.is_classifier:
            raise ConfigError(f"extractor {spec.extractor}: classes have a single row; remove output and layer")
        if self.input == "image" and settings.output == "time":
            raise ConfigError(
                f"extractor {spec.extractor}: output = 'time' needs a network on clips, and this one takes single "
                "frames; set sampling.frames_per_segment = 1 for a row for each frame"
            )
        if settings.output == "map" and settings.crops != "center":
            raise ConfigError(
                f"extractor {spec.extractor}: output = 'map' cannot be averaged over crops; set crops = 'center', or "
                "another output"
            )
        return with_row_shape(spec, self.networks(spec))

    def check(self, spec: StreamSpec) -> None:
        """Raise `ConfigError` for a stream whose segments the network does not accept."""
        num_frames = spec.sampling.frames_per_segment
        if self.input == "clip" and num_frames not in self.clip_lengths:
            raise ConfigError(
                f"extractor {spec.extractor}: the network takes {self.clip_lengths}, not {num_frames}; "
                "set sampling.frames_per_segment"
            )
        settings: Any = self.Settings.model_validate(spec.settings)
        geometry = settings.model_dump().get("geometry")
        if geometry is not None and settings.crops != "center" and _last_crop(settings.geometry) is None:
            raise ConfigError(
                f'extractor {spec.extractor}: crops = "{settings.crops}" replaces a center crop at the end of the '
                "geometry, which has none; set settings.geometry so that it ends with center_crop_px"
            )
        if self.input_size is not None and geometry is not None:
            sizes = {output_size(*sides, Geometry.model_validate(geometry)) for sides in ((480, 640), (640, 480))}
            if sizes != {self.input_size}:
                height, width = self.input_size
                raise ConfigError(
                    f"extractor {spec.extractor}: the network takes pictures of {height} × {width} px; set "
                    f"settings.geometry so that it ends with center_crop_px or size_px = [{height}, {width}]"
                )

    def __call__(
        self, *, settings: Any, weights: Mapping[str, Weights], device: torch.device, precision: Precision
    ) -> NetworkExtractor:
        network = self.load(settings, weights[ROLE])
        sentence_rows: Tensor | None = getattr(network, "sentence_rows", None)
        if self.input != "audio" and settings.row_shape:
            network = InnerLayer(network, settings, self.features_layer, self.pooled_steps)
        return NetworkExtractor(self, settings, NetworkRunner(network, device, precision), sentence_rows)


class NetworkExtractor:
    """The stream of one network.

    `prepare` returns ``uint8 [time, 3, height, width]``, or normalized frames if some are blank or the geometry does
    not round; with several crops ``[crops, time, 3, height, width]``; for audio the result of the card's front end.
    """

    def __init__(
        self, card: NetworkCard, settings: Any, runner: NetworkRunner, sentence_rows: Tensor | None = None
    ) -> None:
        own_dim = card.dim_of(settings) if card.dim_of else card.dim
        self.shape: tuple[int, ...] = getattr(settings, "row_shape", ()) or (own_dim,)
        self.dim = math.prod(self.shape)
        self.sentence_rows = sentence_rows
        """``float32 [sentences, dim]`` for the sentences of the settings; None without sentences"""
        self._crop = None if card.input == "audio" or settings.crops == "center" else _last_crop(settings.geometry)
        """Size of the crops that are averaged; None for a single crop"""
        self.frames = None if card.input == "audio" else FrameNeed(settings.geometry)
        if self._crop is not None:
            steps = settings.geometry.steps[:-1]
            self.frames = FrameNeed(settings.geometry.model_copy(update={"steps": steps}))
        self.audio = card.hears(settings) if card.hears else None
        self.batch_size = card.batch_size[runner.device.type != "cpu"]
        self._input = card.input
        self._settings = settings
        self._front_end = card.front_end(settings) if card.front_end else None
        self.runner = runner
        self.forwards_concurrently = runner.is_concurrent

    def prepare(self, segment: SegmentInput) -> Tensor:
        if self._front_end is not None:
            assert segment.waveform is not None
            return self._front_end(segment.waveform)
        assert segment.frames is not None
        frames = segment.frames
        if segment.blank_frames or frames.dtype != torch.uint8:
            frames = normalize(frames, self._settings.normalization)
            for place in segment.blank_frames:  # zero after normalization: this is not the value of any uint8 level
                frames[place].zero_()
        if self._crop is None:
            return frames
        return several_crops(frames, self._crop, mirrored=self._settings.crops == "ten")

    def forward(self, prepared: Sequence[Tensor]) -> list[Tensor | None]:
        if self._crop is None:
            return [*self._rows(prepared)]
        rows = iter(self._rows([crop for crops in prepared for crop in crops]))
        return [torch.stack([next(rows) for _ in crops]).mean(dim=0) for crops in prepared]

    def _rows(self, prepared: Sequence[Tensor]) -> list[Tensor]:
        if self._input != "image":
            return self.runner.rows(prepared, self._to_network, most=self.batch_size)
        images = [image for frames in prepared for image in frames]
        rows = iter(self.runner.rows(images, self._to_network, most=self.batch_size))
        return [torch.stack([next(rows) for _ in frames]).mean(dim=0) for frames in prepared]

    def _to_network(self, stacked: Tensor) -> Tensor:
        if stacked.dtype == torch.uint8:
            stacked = normalize(stacked, self._settings.normalization)
        return stacked.transpose(1, 2) if self._input == "clip" else stacked


def _last_crop(geometry: Geometry) -> CenterCrop | None:
    """Return the center crop at the end of a geometry; None if there is none."""
    last = geometry.steps[-1] if geometry.steps else None
    return last if isinstance(last, CenterCrop) else None
