"""``torchvision:NAME``: the input of the last layer of an image or video classifier of torchvision.

``torchvision:resnet50`` uses torchvision's default weights, ``torchvision:resnet50.IMAGENET1K_V1`` those of that name.
Geometry and normalization are the preset that torchvision publishes with the weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, cast

from torch import nn
from torchvision import models  # pyright: ignore[reportMissingTypeStubs]

from ..manifests.errors import ConfigError
from ..manifests.hub_weights import TORCHVISION_LAYOUT, torchvision_entry, torchvision_weights
from ..manifests.streams import CenterCrop, Geometry, Normalization, ShortSide, Size
from ..manifests.validation import suggestion
from .checkpoints import Weights, load_network, unchanged
from .network import ClipLengths, NetworkCard
from .window_attention import with_window_attention
from .without_memory import without_memory

LENGTHS = {"mvit": ClipLengths(16, 16), "s3d": ClipLengths(at_least=14)}
"""Start of a network's name → clip lengths. MViT has positions for 16 frames. S3D's last pool spans two time steps."""

FIXED_SIZE = ("vit", "maxvit", "mvit")
"""Start of the names of networks that accept one size only, because each patch has a position."""


def torchvision_card(variant: str) -> NetworkCard:
    """Return the card of ``torchvision:NAME`` or ``torchvision:NAME.WEIGHTS``.

    Raises:
        ConfigError: torchvision has no such network, or no such weights for it.
    """
    name, _, weights_name = variant.partition(".")
    if name not in networks():
        hint = suggestion(name, networks())
        raise ConfigError(
            f"extractor torchvision:{name or '?'} is not known{hint}; NAME is an image or video classifier of "
            "torchvision, e.g. convnext_tiny or r2plus1d_18"
        )
    weights = torchvision_weights(name, weights_name)
    entry = torchvision_entry(f"{name}.{weights.name}")
    preset: Any = weights.transforms()
    video = name in models.list_models(module=models.video)
    sizes = preset.resize_size
    resize = ShortSide(short_side_px=sizes[0]) if len(sizes) == 1 else Size(size_px=(sizes[0], sizes[1]))
    crop = preset.crop_size if video else preset.crop_size * 2
    return NetworkCard(
        input="clip" if video else "image",
        load=lambda settings, given: load_torchvision(name, weights, given),
        dim=_last_layer(without_memory(lambda: _build(name, weights)), weights)[1],
        layouts=(TORCHVISION_LAYOUT,),
        batch_size=(2, 8) if video else (8, 64),
        geometry=Geometry(
            steps=(resize, CenterCrop(center_crop_px=(crop[0], crop[1]))),
            interpolation=preset.interpolation.value,
            antialias=not video,  # as in torchvision's presets for uint8 tensors
            resize_arithmetic="float-rounded",
        ),
        normalization=Normalization(mean=tuple(preset.mean), std=tuple(preset.std)),
        input_size=(crop[0], crop[1]) if name.startswith(FIXED_SIZE) else None,
        clip_lengths=next((lengths for start, lengths in LENGTHS.items() if name.startswith(start)), ClipLengths()),
        default_weights=f"torchvision:{name}.{weights.name}",
        classify=lambda settings, given: load_torchvision(name, weights, given, classifier=True),
        num_classes=len(weights.meta["categories"]),
        features_layer="features" if name == "s3d" else None,
        pooled_steps=2 if name == "s3d" else 1,
        license=entry.license,
        source=entry.source,
    )


def networks() -> list[str]:
    """Return the names of all networks."""
    return [*models.list_models(module=models), *models.list_models(module=models.video)]


def load_torchvision(name: str, published: Any, weights: Weights, *, classifier: bool = False) -> nn.Module:
    """Return the network from ``float [n, 3, (time,) height, width]`` to ``[n, dim]``, or to ``[n, classes]``."""
    network = load_network(lambda: _build(name, published), weights, {TORCHVISION_LAYOUT: unchanged})
    if classifier:
        return with_window_attention(network)
    owner, _, last = _last_layer(network, published)[0].rpartition(".")
    network.get_submodule(owner).add_module(last, nn.Identity())
    return with_window_attention(network)


def _build(name: str, published: Any) -> nn.Module:
    """Return a network of the same form as the published weights."""
    options: dict[str, Any] = {"num_classes": len(published.meta["categories"])}
    if name.startswith("vit"):
        options["image_size"] = published.meta["min_size"][0]
    if name in ("googlenet", "inception_v3"):  # their ported weights need another normalization
        options |= {"transform_input": True, "aux_logits": True, "init_weights": True}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The default weight initialization of", FutureWarning)
        return models.get_model(name, weights=None, **options)


def _last_layer(network: nn.Module, published: Any) -> tuple[str, int]:
    """Return name and number of inputs of the layer that computes the classes. Auxiliary classifiers are before it."""
    num_classes = len(published.meta["categories"])
    found = ("", 0)
    for name, module in cast("Iterator[tuple[str, nn.Module]]", network.named_modules()):
        if isinstance(module, nn.Linear) and module.out_features == num_classes:
            found = name, module.in_features
        elif isinstance(module, nn.Conv2d | nn.Conv3d) and module.out_channels == num_classes:
            found = name, module.in_channels
    return found
