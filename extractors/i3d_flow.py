"""I3D on optical flow: 1024-d, one row for each clip."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from pydantic import PositiveFloat, model_validator
from torch import Tensor, nn

from ..manifests.errors import ConfigError
from ..manifests.streams import CenterCrop, Geometry, Precision, StreamSpec
from .checkpoints import Weights
from .geometry import apply_geometry, crop, output_size
from .i3d import FEATURE_DIM, FEATURES_LAYER, NUM_CLASSES, POOLED_STEPS, I3DClassifier, InceptionI3D, load_i3d
from .inner_layers import InnerLayer, Network, OutputSettings, is_inner, with_row_shape
from .network_runner import NetworkRunner
from .optical_flow import METHODS, Quantization, as_network_input, as_stored, make_flow
from .optical_flow.conventions import Clamp20, Denseflow8
from .optical_flow.stream_settings import FlowStreamSettings
from .protocol import FrameNeed, SegmentInput


@dataclass(frozen=True, eq=False)
class FlowClip:
    """The frames from which flow is computed."""

    frames: Tensor
    """``uint8 [time, channels, height, width]``"""
    has_next_frame: bool


class I3DFlow:
    """I3D on optical flow.

    `prepare` returns flow ``[time, 2, height, width]``, float32 in pixels or uint8 as images; or the clip if the method
    runs on the device.
    """

    class Settings(OutputSettings, FlowStreamSettings):
        """Flow is computed on frames after ``geometry`` and then cropped; its unit is a pixel of the resized frame."""

        quantization: Quantization = Clamp20()
        """Conversion of flow in pixels to network input."""
        flow_geometry: Geometry = Geometry(steps=(CenterCrop(center_crop_px=(224, 224)),))
        """From the flow to the input of the network. Flow in pixels can only be cropped, because resizing would require
        scaling the vectors. Published pipelines resize 8-bit flow images without scaling (PAMFN: as color frames)."""
        last_flow: Literal["repeat", "zero"] = "repeat"
        """Flow of a video's last frame: ``repeat`` the flow of the frame before (PAMFN), or ``zero``. With the sampling
        `frames_after`, as in video_features, no segment ends with that frame."""
        batch_norm_eps: PositiveFloat = 1e-3
        """Epsilon of batch norms. The default is TensorFlow's, with which the weights were trained; published copies
        use PyTorch's default, 1e-5."""

        @model_validator(mode="after")
        def _only_images_are_resized(self) -> Self:
            crops_only = all(isinstance(step, CenterCrop) for step in self.flow_geometry.steps)
            if self.flow_geometry.gray or (not isinstance(self.quantization, Denseflow8) and not crops_only):
                raise ValueError(
                    "flow_geometry may only crop, or also resize with quantization denseflow8; remove the other steps"
                )
            return self

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ("network",)
    has_classifier: ClassVar[bool] = False
    """Whether a row is the output of the classifier instead of features"""

    @classmethod
    def networks(cls, spec: StreamSpec) -> list[Network]:
        """Return the network with the input size of a landscape video and with that of a portrait video."""
        settings = cls.Settings.model_validate(spec.settings)
        sizes = {
            output_size(*output_size(*sides, settings.geometry), settings.flow_geometry): None
            for sides in ((480, 640), (640, 480))
        }
        frames = spec.sampling.frames_per_segment
        return [
            Network(_load, settings, (2, frames, *size), FEATURE_DIM, FEATURES_LAYER, POOLED_STEPS) for size in sizes
        ]

    @classmethod
    def with_row_shape(cls, spec: StreamSpec) -> StreamSpec:
        """See `NetworkCard.with_row_shape`."""
        if not is_inner(cls.Settings.model_validate(spec.settings)):
            return spec
        if cls.has_classifier:
            raise ConfigError(f"extractor {spec.extractor}: classes have a single row; remove output and layer")
        return with_row_shape(spec, cls.networks(spec))

    @staticmethod
    def classifier() -> type[I3DFlow]:
        """Return the same network with its classifier."""
        return I3DFlowClassifier

    def __init__(
        self,
        *,
        settings: Settings,
        weights: Mapping[str, Weights],
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.shape: tuple[int, ...] = settings.row_shape or (NUM_CLASSES if self.has_classifier else FEATURE_DIM,)
        self.dim = math.prod(self.shape)
        self.audio = None
        self.frames = FrameNeed(settings.geometry, next_frame=True)
        self.batch_size = 4 if device.type == "cpu" else 16
        self._settings = settings
        self._flow = make_flow(settings.flow, weights, device)
        self._flow_runs_in = METHODS[settings.flow.method].runs_in
        loaded = _load(settings, weights["network"])
        network: nn.Module = I3DClassifier(loaded) if self.has_classifier else loaded
        if settings.row_shape:
            network = InnerLayer(network, settings, FEATURES_LAYER, POOLED_STEPS)
        self.runner = NetworkRunner(network, device, precision)

    def prepare(self, segment: SegmentInput) -> Tensor | FlowClip:
        assert segment.frames is not None
        clip = FlowClip(segment.frames, segment.has_next_frame)
        return self._flows_of([clip])[0] if self._flow_runs_in == "prepare" else clip

    def forward(self, prepared: Sequence[Tensor | FlowClip]) -> list[Tensor | None]:
        found = iter(self._flows_of([item for item in prepared if isinstance(item, FlowClip)]))
        flows = [next(found) if isinstance(item, FlowClip) else item for item in prepared]
        return [*self.runner.rows(flows, self._to_network)]

    def _flows_of(self, clips: Sequence[FlowClip]) -> list[Tensor]:
        flows = self._flow([clip.frames for clip in clips])
        return [self._stored(flow, clip) for flow, clip in zip(flows, clips, strict=True)]

    def _stored(self, flow: Tensor, clip: FlowClip) -> Tensor:
        if not clip.has_next_frame:
            last = flow[-1:]
            flow = torch.cat([flow, last if self._settings.last_flow == "repeat" else torch.zeros_like(last)])
        stored = as_stored(flow, self._settings.quantization)
        if stored.dtype == torch.uint8:
            return apply_geometry(stored, self._settings.flow_geometry).contiguous()
        return crop(stored, self._settings.flow_geometry).contiguous()

    def _to_network(self, stored: Tensor) -> Tensor:
        return as_network_input(stored, self._settings.quantization).transpose(1, 2)


def _load(settings: I3DFlow.Settings, weights: Weights) -> InceptionI3D:
    return load_i3d(weights, in_channels=2, batch_norm_eps=settings.batch_norm_eps)


class I3DFlowClassifier(I3DFlow):
    """I3D on optical flow with its classifier; a row has one number for each of the 400 classes."""

    has_classifier: ClassVar[bool] = True
