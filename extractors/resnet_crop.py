"""ResNet-50 on the crop around the largest person, 2048-d: ACTION-NET's static stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..manifests.streams import Geometry, Normalisation, Precision, Record, Size
from .checkpoints import Weights
from .geometry import apply_geometry, normalise
from .onednn_layers import to_device
from .person import Box, PersonDetector
from .precision import inference
from .protocol import FrameNeed, SegmentInput
from .resnet import DIM, IMAGENET, FcBias, load_resnet50


class ResNetCrop:
    """Crops at the resolution of the file. A segment's row is the mean over its frames, less those left out."""

    class Settings(Record):
        crop_geometry: Geometry = Geometry(steps=(Size(size_px=(224, 224)),))
        """From the crop, whatever its shape, to what the network sees."""
        normalisation: Normalisation = IMAGENET
        fc_bias_seed: FcBias = "none"
        person_threshold: float = Field(default=0.25, ge=0, le=1)
        margin: float = Field(default=0.0, ge=0)
        """Widens the box on each of its four sides by this share of its width or height."""
        no_person: Literal["whole-frame", "drop"] = "whole-frame"
        """What stands for a frame in which nobody is found. ACTION-NET drops it, and with it its place in time; the
        whole frame keeps every segment, so that streams stay aligned and a video without people still has features."""

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ("network", "detector")

    def __init__(
        self,
        *,
        weights: Mapping[str, Weights],
        device: torch.device,
        precision: Precision,
        crop_geometry: Geometry,
        normalisation: Normalisation,
        fc_bias_seed: FcBias,
        person_threshold: float,
        margin: float,
        no_person: Literal["whole-frame", "drop"],
    ) -> None:
        self.dim = DIM
        self.frames = FrameNeed(Geometry(steps=()))
        self.audio = None
        self.batch_size = 8 if device.type == "cpu" else 32
        self._network = to_device(load_resnet50(weights["network"], fc_bias_seed), device)
        self._detector = PersonDetector(weights["detector"], device, person_threshold)
        self._device = device
        self._precision: Precision = precision
        self._crop_geometry, self._normalisation = crop_geometry, normalisation
        self._margin, self._keeps_empty = margin, no_person == "whole-frame"

    def prepare(self, segment: SegmentInput) -> Tensor:
        """``uint8 [time, 3, height, width]``"""
        assert segment.frames is not None
        return segment.frames

    def forward(self, prepared: Sequence[Tensor]) -> list[Tensor | None]:
        frames = [frame.to(self._device) for segment in prepared for frame in segment]
        crops = [
            self._crop(frame, box) for frame, box in zip(frames, self._detector.largest_person(frames), strict=True)
        ]
        features = iter(self._features([crop for crop in crops if crop is not None]))
        of_frames = iter([None if crop is None else next(features) for crop in crops])
        return [_mean([next(of_frames) for _ in segment]) for segment in prepared]

    def _crop(self, frame: Tensor, box: Box | None) -> Tensor | None:
        """``uint8 [1, 3, h, w]`` as the network sees it; None where the frame is to be left out."""
        if box is not None:
            frame = cut(frame, box, self._margin)
        elif not self._keeps_empty:
            return None
        return apply_geometry(frame[None], self._crop_geometry)

    def _features(self, crops: Sequence[Tensor]) -> Sequence[Tensor]:
        if not crops:
            return ()
        with inference(self._device, self._precision):
            return self._network(normalise(torch.cat(list(crops)), self._normalisation)).float().unbind()


def cut(frame: Tensor, box: Box, margin: float) -> Tensor:
    """``[3, h, w]`` inside the box and its margin, at the nearest whole pixels, at least one by one."""
    height, width = frame.shape[-2:]
    more_x, more_y = margin * (box.right - box.left), margin * (box.bottom - box.top)
    left, right = _span(box.left - more_x, box.right + more_x, width)
    top, bottom = _span(box.top - more_y, box.bottom + more_y, height)
    return frame[:, top:bottom, left:right]


def _span(first: float, last: float, limit: int) -> tuple[int, int]:
    start = min(max(round(first), 0), limit - 1)
    return start, max(min(round(last), limit), start + 1)


def _mean(rows: Sequence[Tensor | None]) -> Tensor | None:
    kept = [row for row in rows if row is not None]
    return torch.stack(kept).mean(dim=0) if kept else None
