"""Any network of pytorchvideo's model zoo as ``pytorchvideo:NAME``: what it feeds its classifier."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..manifests.errors import ManifestError, WeightsError
from ..manifests.streams import CenterCrop, Geometry, Normalisation, Precision, Record, ShortSide
from .checkpoints import StateDict, Weights, load_network
from .clip_network import ClipNetwork

NAMES = (
    "c2d_r50",
    "csn_r101",
    "efficient_x3d_s",
    "efficient_x3d_xs",
    "i3d_r50",
    "mvit_base_16",
    "mvit_base_16x4",
    "mvit_base_32x3",
    "r2plus1d_r50",
    "slow_r50",
    "slowfast_16x8_r101_50_50",
    "slowfast_r101",
    "slowfast_r50",
    "x3d_l",
    "x3d_m",
    "x3d_s",
    "x3d_xs",
)
"""All of `pytorchvideo.models.hub` but the detectors, which want boxes beside the clip."""

SLOW_STRIDE = 4
"""SlowFast's slow pathway sees every fourth frame (α of the paper, and of every published checkpoint)."""


class PytorchVideoHub(ClipNetwork):
    """Features are the mean over time and space before the projection (MViT: the class token after the last norm).

    For the clips that a network was trained on this is its own pooling; other lengths and sizes work too, except for
    MViT, whose positions are fixed. The defaults fit networks that were trained at 224²: X3D-XS and -S take a short
    side of 182 and a crop of 160², X3D-L 356 and 312².
    """

    class Settings(Record):
        geometry: Geometry = Geometry(steps=(ShortSide(short_side_px=256), CenterCrop(center_crop_px=(224, 224))))
        normalisation: Normalisation = Normalisation(mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))
        """Of the model zoo's Kinetics training."""

    version: ClassVar[int] = 1
    variants: ClassVar[tuple[str, ...]] = tuple(NAMES)
    """What may follow the colon in a recipe's ``pytorchvideo:NAME``."""

    def __init__(
        self,
        *,
        weights: Mapping[str, Weights],
        device: torch.device,
        precision: Precision,
        geometry: Geometry,
        normalisation: Normalisation,
        variant: str = "",
    ) -> None:
        network, dim = load_hub_network(variant, weights["network"])
        super().__init__(
            network,
            dim=dim,
            batch_size=4 if device.type == "cpu" else 16,
            device=device,
            precision=precision,
            geometry=geometry,
            normalisation=normalisation,
        )


def load_hub_network(name: str, weights: Weights) -> tuple[nn.Module, int]:
    """``float [n, 3, time, height, width] → float [n, dim]`` and dim; raises `ManifestError` for an unknown name."""
    if name not in NAMES:
        raise ManifestError(f"extractor pytorchvideo:{name or '?'} is not known; NAME is one of {', '.join(NAMES)}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)  # fvcore, on import
        from pytorchvideo.models import hub
    network = load_network(getattr(hub, name), weights, _our_keys)
    dim = _cut_off_classifier(network)
    if name.startswith("slowfast"):
        return SlowAndFast(network), dim
    if name.startswith("mvit"):
        return FixedSize(network), dim
    return network, dim


def _our_keys(state_dict: StateDict, layout: str) -> StateDict:
    if layout != "pytorchvideo-hub":
        raise WeightsError(f"pytorchvideo has no key layout {layout!r}; weights.toml must say 'pytorchvideo-hub'")
    return state_dict


def _cut_off_classifier(network: Any) -> int:
    """Takes projection and softmax away, averages over all there is, and returns how many numbers are left."""
    if hasattr(network, "projection"):  # efficient X3D
        dim = network.projection.model.in_features
        network.projection = nn.Identity()
        return dim
    head = network.head if hasattr(network, "head") else network.blocks[-1]
    dim = head.proj.in_features
    head.proj, head.activation = nn.Identity(), None
    for part in [module for block in network.blocks[-2:] for module in block.modules()]:
        for child_name, child in part.named_children():
            if isinstance(child, nn.AvgPool3d):  # windows of the size that the training clips end up with
                setattr(part, child_name, nn.AdaptiveAvgPool3d(1))
    return dim


class SlowAndFast(nn.Module):
    """Gives a clip to both pathways."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: Tensor) -> Tensor:
        time = clips.shape[2]
        if time % SLOW_STRIDE:
            raise ValueError(f"segment has {time} frames; SlowFast needs a multiple of {SLOW_STRIDE}: set the recipe's")
        # evenly from the first to the last frame, as the model zoo's own sampling does
        slow = torch.linspace(0, time - 1, time // SLOW_STRIDE).long()
        return self.network([clips[:, :, slow.to(clips.device)], clips])


class FixedSize(nn.Module):
    """Gives MViT a clip of the one size that it has positions for."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        patches = network.cls_positional_encoding.patch_embed_shape
        strides = network.patch_embed.patch_model.stride
        self.size = tuple(n * stride for n, stride in zip(patches, (1, *strides)[-3:], strict=True))

    def forward(self, clips: Tensor) -> Tensor:
        if tuple(clips.shape[2:]) != self.size:
            raise ValueError(
                f"segment is {list(clips.shape[2:])} (frames, height, width); this MViT takes {list(self.size)}: "
                "set frames_per_segment and geometry"
            )
        return self.network(clips if self.size[0] > 1 else clips.squeeze(2))
