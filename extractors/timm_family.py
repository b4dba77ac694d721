"""``timm:NAME``: the pooled features of an image network of timm, before its classifier.

timm is an optional dependency: ``pip install ".[timm]"``. ``timm:convnext_tiny`` uses timm's default weights, and
``timm:convnext_tiny.in12k_ft_in1k`` the weights with that tag.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

from torch import nn

from ..manifests.errors import ConfigError
from ..manifests.hub_weights import TIMM_LAYOUT, timm_entry
from ..manifests.optional_packages import require_package
from ..manifests.streams import CenterCrop, Geometry, GeometryStep, Normalization, ShortSide, Size
from ..manifests.validation import suggestion
from .checkpoints import Weights, load_network, unchanged
from .network import NetworkCard
from .without_memory import without_memory


def timm_card(name: str) -> NetworkCard:
    """Return the card of ``timm:NAME``.

    Raises:
        ConfigError: timm has no such network, or its resizing cannot be expressed as a geometry.
    """
    timm = _timm()
    if not timm.is_model(name.partition(".")[0]):
        hint = suggestion(name, timm.list_models())
        raise ConfigError(f"extractor timm:{name or '?'} is not known{hint}; `timm.list_models()` lists all names")
    try:
        network: Any = without_memory(lambda: timm.create_model(name, pretrained=False))
    except RuntimeError as error:
        tags = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}.*")) or "none"
        raise ConfigError(f"extractor timm:{name}: {error}; pretrained: {tags}") from error
    facts = timm.data.resolve_model_data_config(network)
    height, width = facts["input_size"][1:]
    fixed = (height, width) if network.pretrained_cfg.get("fixed_input_size") else None
    published = f"{network.pretrained_cfg['architecture']}.{network.pretrained_cfg['tag']}"
    entry = timm_entry(published) if network.pretrained_cfg.get("hf_hub_id") else None
    return NetworkCard(
        input="image",
        load=lambda settings, weights: load_timm(name, weights),
        dim=int(network.head_hidden_size),
        layouts=(TIMM_LAYOUT,),
        batch_size=(8, 64),
        geometry=Geometry(
            steps=_steps(name, facts), interpolation=facts["interpolation"], resize_arithmetic="pil"
        ),  # timm's evaluation transform resizes PIL images
        normalization=Normalization(mean=facts["mean"], std=facts["std"]),
        input_size=fixed,
        default_weights=f"timm:{published}" if entry else None,
        license=entry.license if entry else "",
        source=f"timm {timm.__version__}",
    )


def load_timm(name: str, weights: Weights) -> nn.Module:
    """Return the network ``float [n, 3, height, width] → [n, dim]``."""
    network: Any = load_network(lambda: _timm().create_model(name, pretrained=False), weights, {TIMM_LAYOUT: unchanged})
    network.reset_classifier(0)
    return network


def _steps(name: str, facts: dict[str, Any]) -> tuple[GeometryStep, ...]:
    """Return timm's evaluation transform: resize to the input size divided by ``crop_pct``, then crop."""
    height, width = facts["input_size"][1:]
    scaled = math.floor(height / facts["crop_pct"]), math.floor(width / facts["crop_pct"])
    crop = CenterCrop(center_crop_px=(height, width))
    if facts["crop_mode"] == "squash":
        return (Size(size_px=scaled), crop)
    if facts["crop_mode"] == "center" and height == width:
        return (ShortSide(short_side_px=scaled[0]), crop)
    raise ConfigError(
        f"extractor timm:{name}: its crop mode {facts['crop_mode']!r} for {height} × {width} px cannot be expressed as "
        "a geometry"
    )


def _timm() -> ModuleType:
    require_package("timm", "extractor timm")
    import timm
    import timm.data  # pyright: ignore[reportUnusedImport]  # callers use it as `timm.data`

    return timm
