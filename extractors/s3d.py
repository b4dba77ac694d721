"""S3D (Xie et al., ECCV 2018) with the Kinetics-400 weights of kylemin/S3D, as in v-iashin/video_features.

``torchvision:s3d`` is the same network with torchvision's weights.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import video  # pyright: ignore[reportMissingTypeStubs]

from ..manifests.streams import CenterCrop, Geometry, ShortSide
from .checkpoints import StateDict, Weights, load_network, renamed
from .network import ClipLengths, NetworkCard

DIM = 1024
NUM_CLASSES = 400
NAMES = (
    (r"^module\.", ""),
    (r"^base\.", "features."),
    (r"\.branch0\.0\.", ".branch0."),
    (r"\.conv\.", ".0."),
    (r"\.bn\.", ".1."),
    (r"\.conv_s\.", ".0.0."),
    (r"\.bn_s\.", ".0.1."),
    (r"\.conv_t\.", ".1.0."),
    (r"\.bn_t\.", ".1.1."),
    (r"^fc\.0\.", "classifier.1."),
)
"""kylemin's names → torchvision's."""


class S3D(nn.Module):
    """Maps clips ``float [n, 3, time, height, width]`` to ``[n, 1024]``, or to ``[n, 400]`` with the classifier.

    The output is the mean over space and over each two neighboring time steps, then over time. So the first and the
    last time step have half the weight of the others.
    """

    def __init__(self, *, classifier: bool) -> None:
        super().__init__()
        network: Any = video.s3d(weights=None, num_classes=NUM_CLASSES)
        self.features: nn.Module = network.features
        for module in self.features.modules():
            if isinstance(module, nn.Conv3d):  # with torchvision's initialization, float16 activations become zero
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        self.classifier: nn.Module | None = network.classifier if classifier else None

    def forward(self, clips: Tensor) -> Tensor:
        maps: Tensor = self.features(clips)
        pooled = functional.avg_pool3d(maps, (2, *maps.shape[3:]), stride=1)
        rows = pooled if self.classifier is None else self.classifier(pooled)
        return rows.mean((2, 3, 4))


def load_s3d(weights: Weights, *, classifier: bool = False) -> nn.Module:
    """Return the network from clips ``float [n, 3, time, height, width]`` to ``[n, 1024]`` or classes ``[n, 400]``."""

    def from_kylemin(state_dict: StateDict) -> StateDict:
        named = renamed(state_dict, NAMES)
        return {name: value for name, value in named.items() if classifier or not name.startswith("classifier.")}

    return load_network(lambda: S3D(classifier=classifier), weights, {"s3d-kylemin": from_kylemin})


S3D_K400 = NetworkCard(
    input="clip",
    load=lambda settings, weights: load_s3d(weights),
    dim=DIM,
    layouts=("s3d-kylemin",),
    batch_size=(2, 8),
    # kylemin/S3D's example scales to −1 … 1 and does not specify a size; 224² is the size of the paper
    geometry=Geometry(steps=(ShortSide(short_side_px=224), CenterCrop(center_crop_px=(224, 224)))),
    clip_lengths=ClipLengths(at_least=13),  # the last pool spans two time steps, and 12 frames give only one
    classify=lambda settings, weights: load_s3d(weights, classifier=True),
    num_classes=NUM_CLASSES,
    features_layer="features",
    pooled_steps=2,
    license="MIT",
    source="Xie et al., ECCV 2018; kylemin/S3D",
)
