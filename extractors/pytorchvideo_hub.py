"""``pytorchvideo:NAME``: a network of pytorchvideo's model zoo, without its classifier."""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..manifests.errors import ConfigError
from ..manifests.streams import CenterCrop, Geometry, Normalization, ShortSide
from .checkpoints import Weights, load_network, unchanged
from .device_copies import constant
from .network import ClipLengths, NetworkCard

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
"""All networks of `pytorchvideo.models.hub` except detectors, which need boxes in addition to the clip."""

SLOW_STRIDE = 4
"""SlowFast's slow pathway gets every fourth frame (α of the paper and of all published checkpoints)."""

LENGTHS = {"slowfast": ClipLengths(at_least=SLOW_STRIDE, multiple_of=SLOW_STRIDE)}


MVIT_FRAMES = {"mvit_base_16": 1, "mvit_base_16x4": 16, "mvit_base_32x3": 32}


def pytorchvideo_card(name: str) -> NetworkCard:
    """Return the card of ``pytorchvideo:NAME``.

    Features are the mean over time and space before the projection (MViT: the class token after the last norm). For
    clips as in training this is equal to the network's pooling. Other lengths and sizes are possible except for MViT,
    whose positions are fixed. The default geometry is for networks trained at 224². X3D-XS and -S were trained with a
    short side of 182 and a crop of 160², X3D-L with 356 and 312².
    """
    require_name(name)
    frames = MVIT_FRAMES.get(name)
    return NetworkCard(
        input="clip",
        load=lambda settings, weights: load_hub_network(name, weights)[0],
        dim=768 if frames else 2304 if name.startswith("slowfast") else 2048,
        layouts=("pytorchvideo-hub",),
        batch_size=(4, 16),
        geometry=Geometry(steps=(ShortSide(short_side_px=256), CenterCrop(center_crop_px=(224, 224)))),
        # as in the model zoo's training on Kinetics
        normalization=Normalization(mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225)),
        clip_lengths=ClipLengths(frames, frames) if frames else LENGTHS.get(name.partition("_")[0], ClipLengths()),
        classify=lambda settings, weights: load_hub_network(name, weights, classifier=True)[0],
        num_classes=400,
        license="Apache-2.0",
        source="pytorchvideo 0.1.5, models/hub",
    )


def require_name(name: str) -> None:
    """Raise `ConfigError` for a network that the hub does not have."""
    if name not in NAMES:
        raise ConfigError(f"extractor pytorchvideo:{name or '?'} is not known; NAME is one of {', '.join(NAMES)}")


def load_hub_network(name: str, weights: Weights, *, classifier: bool = False) -> tuple[nn.Module, int]:
    """Return the network ``float [n, 3, time, height, width]`` → ``[n, dim]`` or ``[n, classes]``, and dim.

    Raises:
        ConfigError: The name is not known.
    """
    require_name(name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)  # by fvcore's import
        from pytorchvideo.models import hub  # pyright: ignore[reportMissingTypeStubs]
    network = load_network(getattr(hub, name), weights, {"pytorchvideo-hub": unchanged})
    dim = _cut_off_classifier(network, keep=classifier)
    if name.startswith("slowfast"):
        return SlowAndFast(network), dim
    if name.startswith("mvit"):
        return FixedSize(network), dim
    return network, dim


def _cut_off_classifier(network: Any, *, keep: bool = False) -> int:
    """Remove softmax and projection, or with ``keep`` only softmax; average over time and space.

    Returns:
        Number of inputs of the projection.
    """
    if hasattr(network, "projection"):  # efficient X3D
        dim = network.projection.model.in_features
        if not keep:
            network.projection = nn.Identity()
        return dim
    head = network.head if hasattr(network, "head") else network.blocks[-1]
    dim = head.proj.in_features
    head.activation = None
    if not keep:
        head.proj = nn.Identity()
    for part in [module for block in network.blocks[-2:] for module in block.modules()]:
        for child_name, child in part.named_children():
            if isinstance(child, nn.AvgPool3d):  # its window has the size for the clips of the training
                setattr(part, child_name, nn.AdaptiveAvgPool3d(1))
    return dim


class SlowAndFast(nn.Module):
    """Passes a clip to both pathways of SlowFast."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: Tensor) -> Tensor:
        time = clips.shape[2]
        if time % SLOW_STRIDE:
            raise ValueError(
                f"segment: has {time} frames; SlowFast needs a multiple of {SLOW_STRIDE}; set frames_per_segment"
            )
        # evenly from the first to the last frame, as in the model zoo
        slow = cast("list[int]", torch.linspace(0, time - 1, time // SLOW_STRIDE).long().tolist())  # pyright: ignore[reportUnknownMemberType]
        return self.network([clips[:, :, constant(tuple(slow), clips.device, torch.long)], clips])


class FixedSize(nn.Module):
    """MViT, which accepts clips of one size only because of its positions."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        patches = network.cls_positional_encoding.patch_embed_shape
        strides = network.patch_embed.patch_model.stride
        self.size = tuple(n * stride for n, stride in zip(patches, (1, *strides)[-3:], strict=True))

    def forward(self, clips: Tensor) -> Tensor:
        if tuple(clips.shape[2:]) != self.size:
            raise ValueError(
                f"segment: is {list(clips.shape[2:])} (frames, height, width); this MViT accepts {list(self.size)}; "
                "set frames_per_segment and geometry"
            )
        return self.network(clips if self.size[0] > 1 else clips.squeeze(2))
