"""Video Swin-B (Liu et al., CVPR 2022): 1024-d. The row of a clip is the mean over time and space."""

from __future__ import annotations

from torch import nn
from torchvision.models.video import SwinTransformer3d, swin3d_b  # pyright: ignore[reportMissingTypeStubs]

from ..manifests.streams import CenterCrop, Geometry, Normalization, ShortSide, Size
from .checkpoints import Layouts, StateDict, Weights, load_network, renamed
from .network import NetworkCard
from .window_attention import with_window_attention

NUM_CLASSES = 400
"""Classes of Kinetics-400. The class names of other files are not known."""


def headless_swin3d_b() -> SwinTransformer3d:
    """Return torchvision's network up to the mean after the last norm: clips ``[n, 3, t, h, w]`` to ``[n, 1024]``.

    Results are equal to those of the published code except for the order of sums: 4e-7 of the largest, in float32.
    """
    network = swin3d_b(weights=None)
    network.add_module("head", nn.Identity())
    for name, index in list(network.named_buffers()):
        # relative_position_index follows from the size of the window, so it is not loaded from a checkpoint
        owner, _, own_name = name.rpartition(".")
        network.get_submodule(owner).register_buffer(own_name, index, persistent=False)
    return with_window_attention(network)


def _without_classifier(state_dict: StateDict, classifier: str) -> StateDict:
    """Remove a classifier with any number of classes. Unknown keys are kept for the strict loader to report."""
    left_out = {f"{classifier}.weight", f"{classifier}.bias"}
    return {
        name: value
        for name, value in state_dict.items()
        if name not in left_out and not name.endswith(".attn.relative_position_index")
    }


def _from_mmaction(state_dict: StateDict) -> StateDict:
    """Rename tensors: in torchvision's network, blocks and the patch mergings between them are one sequence."""
    stages = [(rf"^layers\.{stage}\.blocks\.", f"features.{2 * stage}.") for stage in range(4)]
    mergings = [(rf"^layers\.{stage}\.downsample\.", f"features.{2 * stage + 1}.") for stage in range(3)]
    layers = [(r"\.mlp\.fc1\.", ".mlp.0."), (r"\.mlp\.fc2\.", ".mlp.3.")]
    kept = _without_classifier(state_dict, "cls_head.fc_cls")
    return renamed(kept, [(r"^backbone\.", ""), *stages, *mergings, *layers])


def _load_classifier(weights: Weights) -> nn.Module:
    """Load a file with a classifier of 400 classes, in torchvision's layout."""
    return load_network(_swin3d_b_with_head, weights, {"video-swin-torchvision": _with_head})


def _swin3d_b_with_head() -> SwinTransformer3d:
    network = headless_swin3d_b()
    network.add_module("head", nn.Linear(network.num_features, NUM_CLASSES))
    return network


def _with_head(state_dict: StateDict) -> StateDict:
    return {name: value for name, value in state_dict.items() if not name.endswith(".attn.relative_position_index")}


LAYOUTS: Layouts = {
    "video-swin-mmaction": _from_mmaction,
    "video-swin-torchvision": lambda state_dict: _without_classifier(state_dict, "head"),
}

VIDEO_SWIN_B = NetworkCard(
    input="clip",
    load=lambda settings, weights: load_network(headless_swin3d_b, weights, LAYOUTS),
    dim=1024,
    layouts=tuple(LAYOUTS),
    batch_size=(2, 8),
    # as in GDLT and PAMFN: 300 × 224 pixels are squeezed into a square to show more of the rink
    geometry=Geometry(
        steps=(ShortSide(short_side_px=256), CenterCrop(center_crop_px=(224, 300)), Size(size_px=(224, 224)))
    ),
    normalization=Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    classify=lambda settings, weights: _load_classifier(weights),
    num_classes=NUM_CLASSES,
    license="Apache-2.0",
    source="Liu et al., CVPR 2022; SwinTransformer/Video-Swin-Transformer",
)
