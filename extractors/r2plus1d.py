"""R(2+1)D-34 trained on 65 million Instagram videos (Ghadiyaram et al., CVPR 2019), as converted by ig65m-pytorch."""

from __future__ import annotations

from torch import nn
from torchvision.models.video import resnet  # pyright: ignore[reportMissingTypeStubs]

from ..manifests.streams import CenterCrop, Geometry, Normalization, ShortSide
from .checkpoints import StateDict, Weights, load_network
from .network import NetworkCard

DIM = 512
NUM_CLASSES = 400
"""The two fine-tuned files have the classes of Kinetics-400, the others 359 or 487 classes without published names."""
BLOCKS = (3, 4, 6, 3)
MIDDLE_CHANNELS = {"layer2": (128, 288), "layer3": (256, 576), "layer4": (512, 1152)}
"""Layer → channels of the second convolution of its first block, and channels between its two parts, as in Caffe2."""


def r2plus1d_34(num_classes: int | None) -> nn.Module:
    """Return the network from clips ``float [n, 3, time, height, width]`` to ``[n, 512]`` or ``[n, num_classes]``."""
    network = resnet.VideoResNet(
        block=resnet.BasicBlock,
        conv_makers=[resnet.Conv2Plus1D] * 4,
        layers=list(BLOCKS),
        stem=resnet.R2Plus1dStem,
        num_classes=num_classes or 1,
    )
    for layer, (channels, between) in MIDDLE_CHANNELS.items():
        second = network.get_submodule(f"{layer}.0.conv2")
        second.add_module("0", resnet.Conv2Plus1D(channels, channels, between))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps = 1e-3  # as in Caffe2
    if num_classes is None:
        network.add_module("fc", nn.Identity())
    return network


def load_r2plus1d_34(weights: Weights, *, classifier: bool = False) -> nn.Module:
    """Return the network from clips ``float [n, 3, time, height, width]`` to ``[n, 512]`` or classes ``[n, 400]``."""

    def from_ig65m(state_dict: StateDict) -> StateDict:
        return {name: value for name, value in state_dict.items() if classifier or not name.startswith("fc.")}

    classes = NUM_CLASSES if classifier else None
    return load_network(lambda: r2plus1d_34(classes), weights, {"ig65m-pytorch": from_ig65m})


R2PLUS1D_34 = NetworkCard(
    input="clip",
    load=lambda settings, weights: load_r2plus1d_34(weights),
    dim=DIM,
    layouts=("ig65m-pytorch",),
    batch_size=(2, 16),
    # as in `extract` of ig65m-pytorch
    geometry=Geometry(
        steps=(ShortSide(short_side_px=128, one_factor=True), CenterCrop(center_crop_px=(112, 112))),
        antialias=False,
        resize_arithmetic="float",
    ),
    normalization=Normalization(mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989)),
    classify=lambda settings, weights: load_r2plus1d_34(weights, classifier=True),
    num_classes=NUM_CLASSES,
    license="MIT",
    source="Ghadiyaram et al., CVPR 2019; facebookresearch/VMZ; moabitcoin/ig65m-pytorch 1.0.0",
)
