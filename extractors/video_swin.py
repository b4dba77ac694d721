"""Video Swin-B (Liu et al., CVPR 2022): 1024-d, one row for each clip, the mean over time and space."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import nn
from torchvision.models.video import SwinTransformer3d, swin3d_b

from ..manifests.errors import WeightsError
from ..manifests.streams import CenterCrop, Geometry, Normalisation, Precision, Record, ShortSide, Size
from .checkpoints import StateDict, Weights, load_network
from .clip_network import ClipNetwork
from .window_attention import with_window_attention


class VideoSwinB(ClipNetwork):
    class Settings(Record):
        """Defaults: GDLT's and PAMFN's, which squeeze 300 × 224 into a square to see more of the rink."""

        geometry: Geometry = Geometry(
            steps=(ShortSide(short_side_px=256), CenterCrop(center_crop_px=(224, 300)), Size(size_px=(224, 224)))
        )
        normalisation: Normalisation = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

    version: ClassVar[int] = 1

    def __init__(
        self,
        *,
        weights: Mapping[str, Weights],
        device: torch.device,
        precision: Precision,
        geometry: Geometry,
        normalisation: Normalisation,
    ) -> None:
        super().__init__(
            load_network(headless_swin3d_b, weights["network"], to_our_keys),
            dim=1024,
            batch_size=8 if device.type == "cuda" else 2,
            device=device,
            precision=precision,
            geometry=geometry,
            normalisation=normalisation,
        )


def headless_swin3d_b() -> SwinTransformer3d:
    """Clips ``[n, 3, time, height, width]`` to ``[n, 1024]``: torchvision's network up to its mean after the last norm.

    Its numbers equal the published code's but for the order of sums: 4e-7 of the largest, in float32.
    """
    network = swin3d_b(weights=None)
    network.add_module("head", nn.Identity())
    for name, index in list(network.named_buffers()):
        # relative_position_index follows from the window's size: nothing that a checkpoint could tell
        owner, _, own_name = name.rpartition(".")
        network.get_submodule(owner).register_buffer(own_name, index, persistent=False)
    return with_window_attention(network)


def to_our_keys(state_dict: StateDict, layout: str) -> StateDict:
    """Renames a published layout to torchvision's, leaving out the classifier, of whatever number of classes.

    A key that is not known stays as it is, for the strict loader to report.
    """
    if layout not in _LAYOUTS:
        raise WeightsError(f"Video Swin has no key layout {layout!r}; it reads {', '.join(sorted(_LAYOUTS))}")
    classifier, rename = _LAYOUTS[layout]
    left_out = {f"{classifier}.weight", f"{classifier}.bias"}
    return {
        rename(name): value
        for name, value in state_dict.items()
        if name not in left_out and not name.endswith(".attn.relative_position_index")
    }


def _from_mmaction(name: str) -> str:
    """Blocks and the mergings between them stand in one sequence at torchvision's."""
    name = name.removeprefix("backbone.")
    name = re.sub(r"^layers\.(\d)\.blocks\.", lambda stage: f"features.{2 * int(stage[1])}.", name)
    name = re.sub(r"^layers\.(\d)\.downsample\.", lambda stage: f"features.{2 * int(stage[1]) + 1}.", name)
    return name.replace(".mlp.fc1.", ".mlp.0.").replace(".mlp.fc2.", ".mlp.3.")


def _unchanged(name: str) -> str:
    return name


_LAYOUTS: dict[str, tuple[str, Callable[[str], str]]] = {
    "video-swin-mmaction": ("cls_head.fc_cls", _from_mmaction),
    "video-swin-torchvision": ("head", _unchanged),
}
"""What the classifier is called, and how the other keys are renamed."""
