"""torchvision's ResNet-50 up to its average pool: 2048 numbers for each image."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import NonNegativeInt
from torch import Tensor, nn
from torchvision.models import resnet50  # pyright: ignore[reportMissingTypeStubs]

from ..manifests.streams import CenterCrop, Geometry, Normalization, Record, ShortSide
from .checkpoints import Weights, load_network, unchanged
from .network import NetworkCard

DIM = 2048
NUM_CLASSES = 1000
"""ImageNet-1k."""

IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Normalization in the training of the published weights. ACTION-NET's code uses ½ and ½ instead."""


FcBias = NonNegativeInt | Literal["none"]
"""Seed of the bias in ACTION-NET's last layer, Linear(2048, 2048) with an identity weight and PyTorch's random bias: a
constant within ±1/√2048 on every row (docs/provenance.md). The original has no seed, so its values are unknown."""


def load_resnet50(weights: Weights, fc_bias_seed: FcBias = "none") -> nn.Module:
    """Return the network ``float [n, 3, h, w] → [n, 2048]``. The file must contain the classifier, which is removed."""
    network: Any = load_network(resnet50, weights, {"resnet-torchvision": unchanged})
    network.fc = nn.Identity() if fc_bias_seed == "none" else Shift(fc_bias(fc_bias_seed))
    return network


def load_resnet50_classifier(weights: Weights) -> nn.Module:
    """Return the network ``float [n, 3, h, w] → [n, 1000]``."""
    return load_network(resnet50, weights, {"resnet-torchvision": unchanged})


def fc_bias(seed: int) -> Tensor:
    """Return the initial bias ``float32 [2048]`` of a Linear(2048, 2048) after ``torch.manual_seed(seed)``."""
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        return nn.Linear(DIM, DIM).bias.detach()


class Shift(nn.Module):
    """Adds a constant row."""

    def __init__(self, row: Tensor) -> None:
        super().__init__()
        self.row: Tensor
        self.register_buffer("row", row)

    def forward(self, rows: Tensor) -> Tensor:
        return rows + self.row


class ResNetOptions(Record):
    fc_bias_seed: FcBias = "none"
    """Seed of a random bias that is added to the row, as in ACTION-NET's code; none: no bias."""


RESNET_FRAME = NetworkCard(
    input="image",
    load=lambda settings, weights: load_resnet50(weights, settings.fc_bias_seed),
    dim=DIM,
    layouts=("resnet-torchvision",),
    batch_size=(8, 64),
    # as torchvision evaluates these weights
    geometry=Geometry(steps=(ShortSide(short_side_px=256), CenterCrop(center_crop_px=(224, 224)))),
    normalization=IMAGENET,
    options=ResNetOptions,
    classify=lambda settings, weights: load_resnet50_classifier(weights),
    num_classes=NUM_CLASSES,
    license="BSD-3-Clause",
    source="torchvision, ResNet50_Weights; whole frames are the ablation of ACTION-NET's person crop",
)
"""ResNet-50 on whole frames, 2048-d. Recipes sample one frame per second and one frame per segment."""
