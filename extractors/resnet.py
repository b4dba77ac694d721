"""ResNet-50 as torchvision ships it, cut after the average pool: 2048 numbers an image."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import NonNegativeInt
from torch import Tensor, nn
from torchvision.models import resnet50

from ..manifests.errors import WeightsError
from ..manifests.streams import Normalisation
from .checkpoints import StateDict, Weights, load_network

DIM = 2048

IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What the published weights were trained with; ACTION-NET's code uses ½ and ½ instead."""


FcBias = NonNegativeInt | Literal["none"]
"""ACTION-NET's script puts Linear(2048, 2048) with an identity weight in the classifier's place and leaves PyTorch's
random bias in it: a constant within ±1/√2048 on every row (field-notes A1). The original drew it without a seed, so
that any seed reproduces its size and none its numbers."""


def load_resnet50(weights: Weights, fc_bias_seed: FcBias = "none") -> nn.Module:
    """``float [n, 3, h, w] → float [n, 2048]``. The classifier must be in the file, and is dropped after loading."""
    network: Any = load_network(resnet50, weights, _our_keys)
    network.fc = nn.Identity() if fc_bias_seed == "none" else Shift(fc_bias(fc_bias_seed))
    return network


def fc_bias(seed: int) -> Tensor:
    """``float32 [2048]``: what a new Linear(2048, 2048) starts with, after ``torch.manual_seed(seed)``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(DIM, DIM).bias.detach()


class Shift(nn.Module):
    """Adds a constant row."""

    def __init__(self, row: Tensor) -> None:
        super().__init__()
        self.row: Tensor
        self.register_buffer("row", row)

    def forward(self, rows: Tensor) -> Tensor:
        return rows + self.row


def _our_keys(state_dict: StateDict, layout: str) -> StateDict:
    if layout != "resnet-torchvision":
        raise WeightsError(f"ResNet-50 has no key layout {layout!r}; weights.toml must say 'resnet-torchvision'")
    return state_dict
