"""A package outside arabesque: an extractor with a checkpoint and a scoring model. Tests name both by import path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from arabesque.extractors.checkpoints import Layouts, Weights, load_network, renamed
from arabesque.extractors.protocol import FrameNeed, SegmentInput
from arabesque.manifests.streams import Geometry, Precision, Record
from arabesque.models.scoring import ScorePrediction, SegmentBatch

NUM_FEATURES = 4
LAYOUTS: Layouts = {"newcomer-linear": partial(renamed, patterns=[(r"^net\.", "")])}


class Colors:
    """A linear function of the mean color of a segment."""

    class Settings(Record):
        gain: float = 1.0

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ("network",)
    dim = NUM_FEATURES
    frames = FrameNeed(Geometry(steps=()))
    audio = None
    batch_size = 4

    def __init__(
        self, *, weights: Mapping[str, Weights], device: torch.device, precision: Precision, settings: Settings
    ) -> None:
        self._network = load_network(lambda: nn.Linear(3, NUM_FEATURES), weights["network"], LAYOUTS).to(device)
        self._device = device
        self._gain = settings.gain
        self._dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision, torch.float32)
        self._network.to(self._dtype)

    def prepare(self, segment: SegmentInput) -> Tensor:
        assert segment.frames is not None
        return segment.frames.float().mean(dim=(0, 2, 3)) * (self._gain / 255)

    def forward(self, prepared: Sequence[Tensor]) -> list[Tensor | None]:
        with torch.inference_mode():
            return list(self._network(torch.stack(list(prepared)).to(self._device, self._dtype)).float().cpu())


class MeanOfSegments(nn.Module):
    """A linear function of the mean segment of each stream."""

    class Settings(Record):
        bounded: bool = False

    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = False
    order_invariant: ClassVar[bool] = True

    def __init__(self, dims: Mapping[str, int], settings: Settings) -> None:
        super().__init__()
        self.bounded = settings.bounded
        self.layers = nn.ModuleDict({stream: nn.Linear(dim, 1) for stream, dim in dims.items()})

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        total: Any = 0.0
        for stream, layer in self.layers.items():
            mask = batch.masks[stream]
            mean = (batch.features[stream] * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
            total = total + layer(mean)[:, 0]
        return ScorePrediction(total.sigmoid() if self.bounded else total)
