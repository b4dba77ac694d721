"""C3D (Tran et al., ICCV 2015), trained on Sports-1M. MS-LSTM and C3D with regression use its features."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from ..manifests.streams import CenterCrop, Geometry, Normalization, Size
from .checkpoints import Weights, load_network, unchanged
from .network import ClipLengths, NetworkCard

NUM_FRAMES = 16
LAYER_DIM = 4096
CHANNELS = {"1": 64, "2": 128, "3a": 256, "3b": 256, "4a": 512, "4b": 512, "5a": 512, "5b": 512}
"""Convolution → output channels. A pool follows the last convolution of each number."""


class C3D(nn.Module):
    """Maps clips ``float [n, 3, 16, 112, 112]``, levels 0 … 255, to ``[n, 4096]``: fc6 after its ReLU.

    Layers have the names of c3d-pytorch's port of the authors' Caffe model. The classifier is included, so that loading
    verifies every tensor of the file.
    """

    def __init__(self) -> None:
        super().__init__()
        given = 3
        for name, made in CHANNELS.items():
            self.add_module(f"conv{name}", nn.Conv3d(given, made, 3, padding=1))
            given = made
        self.fc6 = nn.Linear(8192, LAYER_DIM)
        self.fc7 = nn.Linear(LAYER_DIM, LAYER_DIM)
        self.fc8 = nn.Linear(LAYER_DIM, 487)

    def forward(self, clips: Tensor) -> Tensor:
        pools: OrderedDict[str, nn.Module] = OrderedDict(
            {
                "1": nn.MaxPool3d((1, 2, 2)),
                "2": nn.MaxPool3d(2),
                "3b": nn.MaxPool3d(2),
                "4b": nn.MaxPool3d(2),
                "5b": nn.MaxPool3d(2, padding=(0, 1, 1)),
            }
        )
        for name in CHANNELS:
            clips = self.get_submodule(f"conv{name}")(clips).relu()
            if name in pools:
                clips = pools[name](clips)
        return self.fc6(clips.flatten(1)).relu()


def load_c3d(weights: Weights) -> nn.Module:
    """Return the network ``float [n, 3, 16, 112, 112] → [n, 4096]``."""
    return load_network(C3D, weights, {"c3d-pytorch": unchanged})


C3D_SPORTS1M = NetworkCard(
    input="clip",
    load=lambda settings, weights: load_c3d(weights),
    dim=LAYER_DIM,
    layouts=("c3d-pytorch",),
    batch_size=(2, 16),
    # as in the port's predict.py: 112 rows, the middle 112 of 200 columns, no mean subtracted (the authors do that)
    geometry=Geometry(steps=(Size(size_px=(112, 200)), CenterCrop(center_crop_px=(112, 112)))),
    normalization=Normalization(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255)),
    clip_lengths=ClipLengths(NUM_FRAMES, NUM_FRAMES),
    input_size=(112, 112),
    license="MIT",
    source="Tran et al., ICCV 2015; DavideA/c3d-pytorch, c3d.pickle",
)
