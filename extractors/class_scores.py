"""``logits:NAME``: the output of an extractor's classifier instead of its features, and the names of the classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..manifests.errors import ConfigError
from ..manifests.streams import StreamSpec
from ..manifests.weights import Classes, WeightsEntry
from .inner_layers import OutputSettings
from .protocol import ExtractorKind


def logits_kind(name: str) -> ExtractorKind:
    """Return the extractor NAME with its classifier: a row has one number for each class, before any softmax.

    Args:
        name: Name of an extractor, such as ``i3d_rgb`` or ``torchvision:r2plus1d_18.KINETICS400_V1``.

    Raises:
        ConfigError: The extractor is not known, or has no classifier.
    """
    from .table import extractor_kind

    kind: Any = extractor_kind(name)
    found: Any = getattr(kind, "classifier", None)
    if found is None:
        raise ConfigError(f"extractor {name}: its network has no known classifier; use another stream")
    return found() if isinstance(kind, type) else found


def with_classifier(spec: StreamSpec) -> StreamSpec:
    """Return a stream of the classes of another stream's network, without the settings of that stream's output."""
    settings = {name: value for name, value in spec.settings.items() if name not in OutputSettings.model_fields}
    return spec.model_copy(update={"extractor": f"logits:{spec.extractor}", "settings": settings})


def class_names(spec: StreamSpec, entry_of: Callable[[str], WeightsEntry]) -> Sequence[str]:
    """Return the names of the classes of a stream's network, in the order of its output.

    Args:
        spec: Resolved settings of the stream, with the extractor itself or with ``logits:``.
        entry_of: Returns the entry of a checkpoint, as `WeightsCache.entry` does.

    Raises:
        ConfigError: The names are not known.
    """
    checkpoint = spec.weights["network"]
    if checkpoint.startswith("torchvision:"):
        from ..manifests.hub_weights import torchvision_weights

        network, _, weights = checkpoint.removeprefix("torchvision:").partition(".")
        return torchvision_weights(network, weights).meta["categories"]
    if checkpoint.startswith(("random:", "timm:", "transformers:")):
        raise ConfigError(f"checkpoint {checkpoint}: the names of its classes are not known")
    classes = entry_of(checkpoint).classes
    if classes is None:
        raise ConfigError(f"checkpoint {checkpoint}: the names of its classes are not known")
    return _names_of(classes)


def _names_of(classes: Classes) -> Sequence[str]:
    """Return the class names. torchvision has those of its own weights."""
    from torchvision.models import ResNet50_Weights  # pyright: ignore[reportMissingTypeStubs]
    from torchvision.models.video import R3D_18_Weights  # pyright: ignore[reportMissingTypeStubs]

    published: Any = {"kinetics-400": R3D_18_Weights.KINETICS400_V1, "imagenet-1k": ResNet50_Weights.IMAGENET1K_V1}
    return published[classes].meta["categories"]
