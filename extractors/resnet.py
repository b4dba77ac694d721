"""ResNet-50 as torchvision ships it, cut after the average pool: 2048 numbers an image."""

from __future__ import annotations

from torch import nn
from torchvision.models import resnet50

from ..manifests.errors import WeightsError
from ..manifests.streams import Normalisation
from .checkpoints import StateDict, Weights, load_network

DIM = 2048

IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What the published weights were trained with; ACTION-NET's code uses ½ and ½ instead."""


def load_resnet50(weights: Weights) -> nn.Module:
    """``float [n, 3, h, w] → float [n, 2048]``. The classifier must be in the file, and is dropped after loading."""
    network = load_network(resnet50, weights, _our_keys)
    network.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return network


def _our_keys(state_dict: StateDict, layout: str) -> StateDict:
    if layout != "resnet-torchvision":
        raise WeightsError(f"ResNet-50 has no key layout {layout!r}; weights.toml must say 'resnet-torchvision'")
    return state_dict
