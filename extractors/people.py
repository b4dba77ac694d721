"""Stream ``people``: the largest person that a detector finds in a frame, to distinguish close-ups from wide shots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..manifests.streams import Geometry, Precision, Record
from .checkpoints import Weights
from .detectors import Detector, load_detector
from .person import Box
from .protocol import FrameNeed, SegmentInput

PERSON_VALUES = ("num_people", "height", "bottom", "width_to_height", "confidence")
"""The values of a row: the number of people; height and lower edge of the largest person as shares of the frame's
height; its width divided by its height (both in pixels); and the detector's confidence. All 0 without people."""


class People:
    """Detects people in the middle frame of each segment, in float32 with any precision of the stream."""

    class Settings(Record):
        detector: Detector = "ultralytics"
        """Kind of the detector, as in the stream ``resnet_crop``; ``weights.detector`` names its checkpoint."""
        person_threshold: float = Field(default=0.25, ge=0, le=1)
        """Least confidence of a detected person, 0 to 1."""

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ("detector",)
    audio = None
    dim = len(PERSON_VALUES)

    def __init__(
        self, *, settings: Settings, weights: Mapping[str, Weights], device: torch.device, precision: Precision
    ) -> None:
        self.frames = FrameNeed(Geometry(steps=()))
        self.batch_size = 8 if device.type == "cpu" else 32
        self._detector = load_detector(settings.detector, weights["detector"], device, settings.person_threshold)

    @staticmethod
    def feature_names() -> tuple[str, ...]:
        """Return `PERSON_VALUES`."""
        return PERSON_VALUES

    def prepare(self, segment: SegmentInput) -> Tensor:
        """Return the frame ``uint8 [3, height, width]``."""
        if segment.frames is None:
            raise ValueError("people: the segment has no frames; build it as `People.frames` requires")
        return segment.frames[len(segment.frames) // 2].clone()

    def forward(self, prepared: Sequence[Tensor]) -> list[Tensor | None]:
        found = self._detector.people(prepared)
        return [_row(boxes, frame.shape[-2]) for boxes, frame in zip(found, prepared, strict=True)]


def _row(boxes: Sequence[Box], height_px: int) -> Tensor:
    if not boxes:
        return torch.zeros(len(PERSON_VALUES))
    box = max(boxes, key=lambda each: each.area_px)
    tall = box.bottom - box.top
    shape = tall / height_px, box.bottom / height_px, (box.right - box.left) / tall
    return torch.tensor([len(boxes), *shape, box.confidence], dtype=torch.float32)
