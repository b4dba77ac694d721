"""I3D on optical flow: 1024-d, one row for each clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pydantic import PositiveFloat, field_validator, model_validator
from torch import Tensor

from ..manifests.streams import CenterCrop, Geometry, Precision, Record, ShortSide
from .batching import rows_by_shape
from .checkpoints import Weights
from .geometry import apply_geometry, crop
from .i3d import FEATURE_DIM, load_i3d
from .optical_flow import CONVENTIONS, METHODS, MethodName, Preset, Quantisation, denseflow_images
from .precision import DTYPES, inference
from .protocol import FrameNeed, SegmentInput


@dataclass(frozen=True, eq=False)
class GrayClip:
    """What flow is computed from."""

    gray: Tensor
    """``uint8 [time, height, width]``"""
    has_next_frame: bool


class I3DFlow:
    """Prepared: flow as ``[time, 2, height, width]``, float32 in pixels or uint8 as images; the clip itself where
    the method runs on the device."""

    class Settings(Record):
        """Flow is computed on what ``geometry`` leaves, then cropped: vectors stay in pixels of the resized frame."""

        geometry: Geometry = Geometry(steps=(ShortSide(short_side_px=256),), gray=True)
        method: MethodName = "dis"
        preset: Preset = "medium"
        """Speed against accuracy, for ``dis`` alone."""
        quantisation: Quantisation = "clamp20"
        """``clamp20``: as the weights were trained. ``denseflow8``: denseflow's 8-bit images, which PAMFN's code read.
        ``video-features``: that extractor's levels, rounded but not stored."""
        bound_px: PositiveFloat = 20.0
        """Where ``denseflow8`` saturates; denseflow's own default is 32, and PAMFN does not tell which it used."""
        flow_geometry: Geometry = Geometry(steps=(CenterCrop(center_crop_px=(224, 224)),))
        """From the flow to what the network sees. Flow in pixels can be cropped only: stretched, its vectors would be
        wrong. Published pipelines stretch 8-bit flow images all the same (PAMFN: as its colour frames)."""
        batch_norm_eps: PositiveFloat = 1e-3

        @field_validator("geometry")
        @classmethod
        def _flow_is_of_gray_frames(cls, geometry: Geometry) -> Geometry:
            if not geometry.gray:
                raise ValueError("optical flow is computed on gray frames; set gray = true")
            return geometry

        @model_validator(mode="after")
        def _only_images_are_resized(self) -> Self:
            crops_only = all(isinstance(step, CenterCrop) for step in self.flow_geometry.steps)
            if self.flow_geometry.gray or (self.quantisation != "denseflow8" and not crops_only):
                raise ValueError('flow_geometry takes crops alone, and resizes only with quantisation = "denseflow8"')
            return self

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(
        self,
        *,
        weights: Mapping[str, Weights],
        device: torch.device,
        precision: Precision,
        geometry: Geometry,
        method: MethodName,
        preset: Preset,
        quantisation: Quantisation,
        bound_px: float,
        flow_geometry: Geometry,
        batch_norm_eps: float,
    ) -> None:
        self.dim = FEATURE_DIM
        self.audio = None
        self.frames = FrameNeed(geometry, next_frame=True)
        self.batch_size = 16 if device.type == "cuda" else 4
        self._device = device
        self._precision: Precision = precision
        self._flow = METHODS[method].make(preset)
        self._flow_runs_in = METHODS[method].runs_in
        self._quantisation: Quantisation = quantisation
        self._bound_px = bound_px
        self._flow_geometry = flow_geometry
        self._network = load_i3d(weights["network"], in_channels=2, batch_norm_eps=batch_norm_eps).to(device)

    def prepare(self, segment: SegmentInput) -> Tensor | GrayClip:
        assert segment.frames is not None
        clip = GrayClip(segment.frames[:, 0], segment.has_next_frame)
        return self._flow_of(clip) if self._flow_runs_in == "prepare" else clip

    def forward(self, prepared: Sequence[Tensor | GrayClip]) -> list[Tensor | None]:
        with inference(self._device, self._precision):
            flows = [self._flow_of(item) if isinstance(item, GrayClip) else item for item in prepared]
            return [*rows_by_shape(flows, self._features)]

    def _flow_of(self, clip: GrayClip) -> Tensor:
        flow = self._flow(clip.gray)
        if self._quantisation == "denseflow8":
            flow = apply_geometry(denseflow_images(flow, self._bound_px), self._flow_geometry)
        else:
            flow = crop(flow, self._flow_geometry)
        # as PAMFN does at a video's end: the last frame's motion is taken to go on
        return flow.contiguous() if clip.has_next_frame else torch.cat([flow, flow[-1:]])

    def _features(self, flows: Tensor) -> Tensor:
        clips = CONVENTIONS[self._quantisation](flows.to(self._device))
        return self._network(clips.to(DTYPES[self._precision]).transpose(1, 2))
