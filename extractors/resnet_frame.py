"""ResNet-50 on whole frames, 2048-d: the ablation that ACTION-NET's paper sets against the person crop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..manifests.streams import CenterCrop, Geometry, Normalisation, Precision, Record, ShortSide
from .checkpoints import Weights
from .geometry import normalise
from .onednn_layers import to_device
from .precision import inference
from .protocol import FrameNeed, SegmentInput
from .resnet import DIM, IMAGENET, FcBias, load_resnet50


class ResNetFrame:
    """A segment's row is the mean over its frames; recipes ask for one frame a second, one frame a segment."""

    class Settings(Record):
        geometry: Geometry = Geometry(steps=(ShortSide(short_side_px=256), CenterCrop(center_crop_px=(224, 224))))
        """As torchvision evaluates these weights."""
        normalisation: Normalisation = IMAGENET
        fc_bias_seed: FcBias = "none"

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(
        self,
        *,
        weights: Mapping[str, Weights],
        device: torch.device,
        precision: Precision,
        geometry: Geometry,
        normalisation: Normalisation,
        fc_bias_seed: FcBias,
    ) -> None:
        self.dim = DIM
        self.frames = FrameNeed(geometry)
        self.audio = None
        self.batch_size = 8 if device.type == "cpu" else 64
        self._network = to_device(load_resnet50(weights["network"], fc_bias_seed), device)
        self._device = device
        self._precision: Precision = precision
        self._normalisation = normalisation

    def prepare(self, segment: SegmentInput) -> Tensor:
        """``uint8 [time, 3, height, width]``"""
        assert segment.frames is not None
        return segment.frames

    def forward(self, prepared: Sequence[Tensor]) -> list[Tensor | None]:
        with inference(self._device, self._precision):
            images = normalise(torch.cat(list(prepared)).to(self._device), self._normalisation)
            features = self._network(images).float()
            return [rows.mean(dim=0) for rows in features.split([len(frames) for frames in prepared])]
