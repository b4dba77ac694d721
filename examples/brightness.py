"""An extractor of your own: mean brightness of each segment, and its change. `brightness.toml` names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from arabesque.extractors.checkpoints import Weights
from arabesque.extractors.protocol import FrameNeed, SegmentInput
from arabesque.manifests.streams import Geometry, Precision, Record, ShortSide


class Brightness:
    """Two numbers for each segment: mean of the frames' luma, and its standard deviation over time."""

    class Settings(Record):
        scale: float = 1.0

    version: ClassVar[int] = 1  # raise it in every change that changes features
    weight_roles: ClassVar[tuple[str, ...]] = ()
    dim = 2
    frames = FrameNeed(Geometry(steps=(ShortSide(short_side_px=64),)))
    audio = None
    batch_size = 16

    def __init__(
        self, *, weights: Mapping[str, Weights], device: torch.device, precision: Precision, settings: Settings
    ) -> None:
        self._scale = settings.scale

    def prepare(self, segment: SegmentInput) -> Tensor:
        """Return the luma of each frame, ``float32 [time]``."""
        assert segment.frames is not None  # uint8 [time, 3, height, width]
        red, green, blue = segment.frames.float().mean(dim=(2, 3)).unbind(1)
        return (0.299 * red + 0.587 * green + 0.114 * blue) * (self._scale / 255)

    def forward(self, prepared: Sequence[Tensor]) -> list[Tensor | None]:
        """Return ``float32 [dim]`` for each segment."""
        return [torch.stack([luma.mean(), luma.std(correction=0)]).cpu() for luma in prepared]
