"""The one table of extractors. Nothing is scanned or decorated into it, and nothing is imported before it is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, cast

import torch
from pydantic import ValidationError

from ..manifests.complaints import did_you_mean, first_complaint
from ..manifests.errors import ManifestError
from ..manifests.recipes import Recipe
from ..manifests.streams import StreamSpec
from .checkpoints import Weights
from .protocol import Extractor

EXTRACTORS: dict[str, str] = {
    "i3d_rgb": "i3d_rgb:I3DRgb",
    "i3d_flow": "i3d_flow:I3DFlow",
    "video_swin_b": "video_swin:VideoSwinB",
    "resnet_frame": "resnet_frame:ResNetFrame",
    "resnet_crop": "resnet_crop:ResNetCrop",
    "ast": "audio_spectrogram:AudioSpectrogramTransformer",
    "pytorchvideo": "pytorchvideo_hub:PytorchVideoHub",
    "motion": "motion:Motion",
    "rhythm": "rhythm:Rhythm",
}
"""Name in a recipe → ``module:class`` in this package. A name may carry a variant: ``pytorchvideo:x3d_m``."""


TAKE_BLANK_FRAMES = ("i3d_rgb", "video_swin_b")
"""Those that make the blank frames of `Sampling.zero_last_frame` zero; to the others they would be black pictures."""


def extractor_class(name: str) -> type[Extractor]:
    """The class behind a recipe's ``extractor = NAME``; raises `ManifestError` for a name that is not in the table."""
    family = name.partition(":")[0]
    if family not in EXTRACTORS:
        hint = did_you_mean(family, EXTRACTORS)
        raise ManifestError(f"extractor {name!r} is not known{hint}; there are {', '.join(sorted(EXTRACTORS))}")
    module_name, _, class_name = EXTRACTORS[family].partition(":")
    return cast(type[Extractor], getattr(import_module(f".{module_name}", __package__), class_name))


def resolve(spec: StreamSpec) -> StreamSpec:
    """The spec with every setting of its extractor filled in and checked; raises `ManifestError`."""
    extractor = extractor_class(spec.extractor)
    _check_variant(spec.extractor, getattr(extractor, "variants", ()))
    record = extractor.Settings
    try:
        settings = record.model_validate(spec.settings)
    except ValidationError as error:
        complaint = first_complaint(error, "settings", record.model_fields)
        raise ManifestError(f"extractor {spec.extractor}: {complaint}") from None
    roles = {*extractor.weight_roles, *getattr(settings, "weight_roles", ())}
    if set(spec.weights) != roles:
        raise ManifestError(
            f"extractor {spec.extractor}: weights must name {sorted(roles) or 'nothing'}, "
            f"not {sorted(spec.weights) or 'nothing'}"
        )
    if spec.sampling.zero_last_frame and spec.extractor not in TAKE_BLANK_FRAMES:
        raise ManifestError(
            f"extractor {spec.extractor} knows no blank frames; set sampling.zero_last_frame only for "
            f"{', '.join(TAKE_BLANK_FRAMES)}"
        )
    return spec.model_copy(update={"settings": settings.model_dump(mode="json")})


def _check_variant(name: str, variants: Sequence[str]) -> None:
    family, _, variant = name.partition(":")
    if variant and not variants:
        raise ManifestError(f"extractor {name!r}: {family} has no variants; write {family!r}")
    if variants and variant not in variants:
        raise ManifestError(f"extractor {name!r}: write {family}:NAME with one of {', '.join(variants)}")


def resolved_recipe(recipe: Recipe) -> Recipe:
    """The recipe with every stream resolved."""
    return recipe.model_copy(update={"streams": {name: resolve(spec) for name, spec in recipe.streams.items()}})


def build(spec: StreamSpec, weights: Mapping[str, Weights], device: torch.device) -> Extractor:
    """An extractor ready to run. ``spec`` must come from `resolve`; ``weights`` holds one entry for each role."""
    extractor: Any = extractor_class(spec.extractor)
    settings = extractor.Settings.model_validate(spec.settings)
    keywords = {name: getattr(settings, name) for name in type(settings).model_fields}
    if variant := spec.extractor.partition(":")[2]:
        keywords["variant"] = variant
    return extractor(weights=weights, device=device, precision=spec.precision, **keywords)
