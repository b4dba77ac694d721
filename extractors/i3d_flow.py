"""I3D on optical flow: 1024-d, one row for each clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

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
        stored = as_stored(self._flow(clip.frames), self._quantisation)
        if stored.dtype == torch.uint8:
            stored = apply_geometry(stored, self._flow_geometry)
        else:
            stored = crop(stored, self._flow_geometry)
        # as PAMFN does at a video's end: the last frame's motion is taken to go on
        return stored.contiguous() if clip.has_next_frame else torch.cat([stored, stored[-1:]])

    def _features(self, stored: Tensor) -> Tensor:
        clips = as_network_input(stored.to(self._device), self._quantisation)
        return self._network(clips.to(DTYPES[self._precision]).transpose(1, 2))
