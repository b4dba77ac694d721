"""I3D on optical flow: 1024-d, one row for each clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor

from ..manifests.streams import CenterCrop, Geometry, Precision, Record, ShortSide
from .batching import rows_by_shape
from .checkpoints import Weights
from .geometry import apply_geometry, crop
from .i3d import FEATURE_DIM, load_i3d
from .optical_flow import METHODS, FlowSettings, Quantisation, as_network_input, as_stored, make_flow
from .optical_flow.conventions import Clamp20, Denseflow8
from .optical_flow.opencv import Dis
from .precision import DTYPES, inference
from .protocol import FrameNeed, SegmentInput


@dataclass(frozen=True, eq=False)
class FlowClip:
    """What flow is computed from."""

    frames: Tensor
    """``uint8 [time, channels, height, width]``"""
    has_next_frame: bool


def _short_side_256(settings: dict[str, Any]) -> Geometry:
    return Geometry(steps=(ShortSide(short_side_px=256),), gray=not METHODS[settings["flow"].method].colour)


class I3DFlow:
    """Prepared: flow as ``[time, 2, height, width]``, float32 in pixels or uint8 as images; the clip itself where
    the method runs on the device."""

    class Settings(Record):
        """Flow is computed on what ``geometry`` leaves, then cropped: vectors stay in pixels of the resized frame."""

        flow: FlowSettings = Dis()
        geometry: Geometry = Field(default_factory=_short_side_256)
        quantisation: Quantisation = Clamp20()
        flow_geometry: Geometry = Geometry(steps=(CenterCrop(center_crop_px=(224, 224)),))
        """From the flow to what the network sees. Flow in pixels can be cropped only: stretched, its vectors would be
        wrong. Published pipelines stretch 8-bit flow images all the same (PAMFN: as its colour frames)."""
        last_flow: Literal["repeat", "zero"] = "repeat"
        """What a video's last frame moves like, after which there is none: as the one before it (PAMFN), or not at all.
        Where a sampling asks for `frames_after`, as video_features does, no segment ends with that frame."""
        batch_norm_eps: PositiveFloat = 1e-3

        @property
        def weight_roles(self) -> tuple[str, ...]:
            return METHODS[self.flow.method].weight_roles

        @model_validator(mode="after")
        def _frames_suit_the_method(self) -> Self:
            if self.geometry.gray is METHODS[self.flow.method].colour:
                kind, value = ("gray", "true") if not self.geometry.gray else ("colour", "false")
                raise ValueError(f"{self.flow.method} is computed on {kind} frames; set gray = {value} in geometry")
            return self

        @model_validator(mode="after")
        def _only_images_are_resized(self) -> Self:
            crops_only = all(isinstance(step, CenterCrop) for step in self.flow_geometry.steps)
            if self.flow_geometry.gray or (not isinstance(self.quantisation, Denseflow8) and not crops_only):
                raise ValueError("flow_geometry takes crops alone, and resizes only of denseflow8's images")
            return self

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(
        self,
        *,
        weights: Mapping[str, Weights],
        device: torch.device,
        precision: Precision,
        flow: FlowSettings,
        geometry: Geometry,
        quantisation: Quantisation,
        flow_geometry: Geometry,
        last_flow: Literal["repeat", "zero"],
        batch_norm_eps: float,
    ) -> None:
        self.dim = FEATURE_DIM
        self.audio = None
        self.frames = FrameNeed(geometry, next_frame=True)
        self.batch_size = 16 if device.type == "cuda" else 4
        self._device = device
        self._precision: Precision = precision
        self._flow = make_flow(flow, weights, device)
        self._flow_runs_in = METHODS[flow.method].runs_in
        self._quantisation: Quantisation = quantisation
        self._flow_geometry = flow_geometry
        self._repeats_last = last_flow == "repeat"
        self._network = load_i3d(weights["network"], in_channels=2, batch_norm_eps=batch_norm_eps).to(device)

    def prepare(self, segment: SegmentInput) -> Tensor | FlowClip:
        assert segment.frames is not None
        clip = FlowClip(segment.frames, segment.has_next_frame)
        return self._flow_of(clip) if self._flow_runs_in == "prepare" else clip

    def forward(self, prepared: Sequence[Tensor | FlowClip]) -> list[Tensor | None]:
        flows = [self._flow_of(item) if isinstance(item, FlowClip) else item for item in prepared]
        with inference(self._device, self._precision):
            return [*rows_by_shape(flows, self._features)]

    def _flow_of(self, clip: FlowClip) -> Tensor:
        flow = self._flow(clip.frames)
        if not clip.has_next_frame:
            last = flow[-1:]
            flow = torch.cat([flow, last if self._repeats_last else torch.zeros_like(last)])
        stored = as_stored(flow, self._quantisation)
        if stored.dtype == torch.uint8:
            return apply_geometry(stored, self._flow_geometry).contiguous()
        return crop(stored, self._flow_geometry).contiguous()

    def _features(self, stored: Tensor) -> Tensor:
        clips = as_network_input(stored.to(self._device), self._quantisation)
        return self._network(clips.to(DTYPES[self._precision]).transpose(1, 2))
