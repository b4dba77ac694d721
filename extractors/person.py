"""Boxes of the people in a frame; `detectors` lists the networks that find them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torchvision.ops import nms  # pyright: ignore[reportMissingTypeStubs]

from ..manifests.streams import Geometry, Size
from .device_copies import upload
from .geometry import apply_geometry
from .precision import inference


@dataclass(frozen=True)
class Box:
    """Edges in pixels, clipped to the frame; ``right`` and ``bottom`` are exclusive."""

    left: float
    top: float
    right: float
    bottom: float
    confidence: float = 1.0
    """The detector's confidence, 0 to 1"""

    @property
    def area_px(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)


class Detections(NamedTuple):
    """People in one frame."""

    edges_px: Tensor
    """``[people, 4]``: left, top, right, bottom in pixels of the frame; on the CPU."""
    confidence: Tensor
    """``[people]``, on the CPU."""


class DetectionNetwork(Protocol):
    """Finds people."""

    @property
    def overlap_iou(self) -> float | None:
        """Threshold of non-maximum suppression (intersection over union); None if it is not needed"""
        ...

    def detect(self, frames: Tensor, threshold: float) -> list[Detections]:
        """Find the people of each frame of ``uint8 [n, 3, height, width]``, RGB, with at least this confidence.

        The candidates of all frames are copied from the device together and selected on the CPU, because a selection on
        the device makes the host wait for every frame.
        """
        ...


class PersonDetector:
    """A network and the processing of its boxes.

    It always computes in float32: boxes are compared with a threshold and rounded to whole pixels, so that errors of
    half precision would change them.

    Args:
        network: Finds people.
        device: Device of the network.
        threshold: Least confidence of a person, 0 to 1.
    """

    def __init__(self, network: DetectionNetwork, device: torch.device, threshold: float = 0.25) -> None:
        self._network = network
        self._device = device
        self._threshold = threshold

    def people(self, frames: Sequence[Tensor]) -> list[list[Box]]:
        """Return the people of each RGB frame ``uint8 [3, h, w]``, by decreasing confidence.

        Frames of the same size are computed in one batch.
        """
        positions: defaultdict[torch.Size, list[int]] = defaultdict(list)
        for position, frame in enumerate(frames):
            positions[frame.shape].append(position)
        boxes: dict[int, list[Box]] = {}
        for together in positions.values():
            batch = torch.stack([frames[position] for position in together])
            with inference(self._device, "float32"):
                found = self._network.detect(upload(batch, self._device), self._threshold)
            for position, people in zip(together, found, strict=True):
                boxes[position] = self._boxes(people, batch.shape[-2], batch.shape[-1])
        return [boxes[position] for position in range(len(frames))]

    def _boxes(self, people: Detections, height: int, width: int) -> list[Box]:
        edges, confidence = people
        if self._network.overlap_iou is None:
            kept = confidence.argsort(descending=True, stable=True)
        else:
            kept = nms(edges, confidence, self._network.overlap_iou)
        inside = edges[kept].clamp(min=0).minimum(edges.new_tensor([width, height, width, height]))
        rows = torch.cat([inside, confidence[kept, None]], dim=1)
        numbers = cast("list[list[float]]", rows.tolist())  # pyright: ignore[reportUnknownMemberType]
        found = [Box(*row) for row in numbers]
        return [box for box in found if box.right > box.left and box.bottom > box.top]


@dataclass(frozen=True)
class Letterbox:
    """Resizing to a given long side, then padding with gray to multiples of the network's stride."""

    frame_px: tuple[int, int]
    """(height, width), as in all sizes of this class"""
    resized_px: tuple[int, int]
    padding_px: tuple[int, int]
    """Sum of both sides; the smaller half is at the top and at the left"""

    @classmethod
    def fit(cls, height: int, width: int, long_side_px: int, stride: int) -> Letterbox:
        """Return the letterbox of a frame. The result is a square if the stride is equal to the long side."""
        scale = min(long_side_px / height, long_side_px / width)
        resized = max(round(height * scale), 1), max(round(width * scale), 1)
        return cls((height, width), resized, (-resized[0] % stride, -resized[1] % stride))

    def apply(self, frames: Tensor, gray_level: int) -> Tensor:
        """Resize and pad frames ``uint8 [n, 3, h, w]``, bilinearly without antialiasing as in the detectors' code."""
        resized = apply_geometry(frames, Geometry(steps=(Size(size_px=self.resized_px),), antialias=False))
        (top, left), (height, width) = self._offset, self.padding_px
        return nn.functional.pad(resized, (left, width - left, top, height - top), value=gray_level)

    def undo(self, edges: Tensor) -> Tensor:
        """Convert edges ``[n, 4]`` (left, top, right, bottom) on the padded image to the frame, without clipping."""
        (top, left), (height, width) = self._offset, self.frame_px
        scale_y, scale_x = height / self.resized_px[0], width / self.resized_px[1]
        offset = edges.new_tensor([left, top, left, top])
        return (edges - offset) * edges.new_tensor([scale_x, scale_y, scale_x, scale_y])

    @property
    def _offset(self) -> tuple[int, int]:
        return self.padding_px[0] // 2, self.padding_px[1] // 2
