"""The table of extractors. A recipe may also name the class of another package by its import path.

Extractors are listed here by hand and imported when they are first used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from ..manifests.errors import ConfigError, UsageError
from ..manifests.import_paths import import_class
from ..manifests.optional_packages import require_package
from ..manifests.recipes import Recipe
from ..manifests.streams import Geometry, Record, StreamSpec
from ..manifests.validation import keys_of, suggestion, validation_message
from .protocol import Extractor, ExtractorKind

if TYPE_CHECKING:  # importing torch takes seconds; names are checked without it
    import torch

    from .checkpoints import Weights
    from .network import NetworkCard

EXTRACTORS: dict[str, str] = {
    "i3d_rgb": "i3d:I3D_RGB",
    "i3d_flow": "i3d_flow:I3DFlow",
    "optical_flow": "flow_field:FlowField",
    "video_swin_b": "video_swin:VIDEO_SWIN_B",
    "resnet_frame": "resnet:RESNET_FRAME",
    "resnet_crop": "resnet_crop:ResNetCrop",
    "ast": "audio_spectrogram:AST",
    "c3d": "c3d:C3D_SPORTS1M",
    "s3d": "s3d:S3D_K400",
    "r2plus1d_34": "r2plus1d:R2PLUS1D_34",
    "vggish": "vggish:VGGISH",
    "panns_cnn14": "panns:PANNS_CNN14",
    "signatures": "frame_signatures:FrameSignatures",
    "loudness": "loudness:Loudness",
    "people": "people:People",
    "transnet": "transnet:ShotBoundaries",
    "motion": "motion:Motion",
    "rhythm": "rhythm:Rhythm",
    "pose": "pose:Pose",
    "key_points": "pose:KeyPoints",
}
"""Name in a recipe → ``module:kind`` in this package."""

FAMILIES: dict[str, str] = {
    "pytorchvideo": "pytorchvideo_hub:pytorchvideo_card",
    "timm": "timm_family:timm_card",
    "crop": "athlete_crop:crop_kind",
    "logits": "class_scores:logits_kind",
    "torchvision": "torchvision_family:torchvision_card",
    "transformers": "transformers_family:transformers_card",
    "unmt": "unmasked_teacher:unmasked_teacher_card",
}
"""Family of networks → ``module:function``. The function returns the card for a name such as ``pytorchvideo:x3d_m``."""

PACKAGES = {"pytorchvideo": "pytorchvideo", "timm": "timm"}
"""Family → the optional package that it needs."""
_DETECTOR = {("detector", "ultralytics", "ultralytics"): "ultralytics"}
_POSE_NETWORK = {("network", "vitpose", "blazepose"): "ai_edge_litert"}
PACKAGES_OF_SETTINGS = {
    "resnet_crop": _DETECTOR,
    "crop": _DETECTOR,
    "people": _DETECTOR,
    "pose": _DETECTOR | _POSE_NETWORK,
    "key_points": _DETECTOR | _POSE_NETWORK,
}
"""Extractor → (setting, its default value, another value) → the optional package that the other value needs."""


def extractor_kind(name: str) -> ExtractorKind:
    """Return the class or the network's card for ``extractor = NAME`` in a recipe.

    Args:
        name: A name of `EXTRACTORS`; a family and a network, such as ``pytorchvideo:x3d_m``; or the import path of a
            class of another package, such as ``mypackage.mine:MyExtractor``, optionally with ``:VARIANT``.

    Raises:
        ConfigError: The name is not known, the class cannot be imported, or it is not an extractor.

    Example:
        >>> extractor_kind("motion").version >= 1
        True
    """
    if is_from_another_package(name):
        return _checked_class(_path_and_variant(name)[0])
    family, _, network = name.partition(":")
    module_name, _, member = (FAMILIES | EXTRACTORS)[family].partition(":")
    found = getattr(import_module(f".{module_name}", __package__), member)
    return _card(found, network) if family in FAMILIES else found


@cache
def _card(make: Callable[[str], NetworkCard], network: str) -> NetworkCard:
    return make(network)


def require_available(spec: StreamSpec) -> None:
    """Check the extractor of a stream before a run. Only extractors of other packages are imported.

    Args:
        spec: The stream, resolved or not.

    Raises:
        ConfigError: The extractor does not exist.
        MissingPackageError: It needs an optional package that is not installed.
    """
    name = spec.extractor
    if is_from_another_package(name):
        _checked_class(_path_and_variant(name)[0])
    elif module := PACKAGES.get(name.removeprefix("logits:").removeprefix("crop:").partition(":")[0]):
        require_package(module, f"extractor {name}")
    of_settings = PACKAGES_OF_SETTINGS.get("crop" if name.startswith("crop:") else name, {})
    for (setting, default, value), module in of_settings.items():
        if spec.settings.get(setting, default) == value:
            require_package(module, f'extractor {name} with {setting} = "{value}"')


def is_from_another_package(name: str) -> bool:
    """Return whether an extractor is named by its import path.

    Raises:
        ConfigError: The name is neither known nor an import path.
    """
    family, colon, _ = name.partition(":")
    if family in EXTRACTORS and colon:
        raise ConfigError(f"extractor {name!r}: {family} has no variants; write {family!r}")
    known = EXTRACTORS | FAMILIES
    if family in known:
        return False
    if colon and "." in family:
        return True
    hint = suggestion(family, known)
    if colon and (not hint or find_spec(family) is not None):
        return True
    raise ConfigError(
        f"extractor {name!r} is not known{hint}; there are {', '.join(sorted(known))}; for the class of "
        "another package, give its import path, module:class"
    )


def _path_and_variant(name: str) -> tuple[str, str]:
    """Return import path and variant of another package's class; the variant is empty where the name has none."""
    module_name, _, rest = name.partition(":")
    class_name, _, variant = rest.partition(":")
    return f"{module_name}:{class_name}", variant


@cache
def _checked_class(path: str) -> ExtractorKind:
    """Import an extractor; raise `ConfigError` if the class lacks a part of the `Extractor` protocol."""
    found = import_class(path, "extractor")
    if missing := list(_missing_parts(found)):
        raise ConfigError(
            f"extractor {path!r}: {'; '.join(missing)}; `arabesque.testing.check_extractor` checks a class against "
            "arabesque.extractors.protocol.Extractor"
        )
    return cast("ExtractorKind", found)


def _missing_parts(found: type) -> Iterator[str]:
    record = getattr(found, "Settings", None)
    if not (isinstance(record, type) and issubclass(record, Record)):
        yield "Settings is not a subclass of arabesque.manifests.streams.Record"
        return
    version = getattr(found, "version", None)
    if not isinstance(version, int) or version < 1:
        yield "version is not a positive integer"
    roles = getattr(found, "weight_roles", None)
    if not isinstance(roles, tuple) or not all(isinstance(role, str) for role in cast("tuple[Any, ...]", roles)):
        yield "weight_roles is not a tuple of names"
    for method in ("prepare", "forward"):
        if not callable(getattr(found, method, None)):
            yield f"has no method {method}"
    parameters = inspect.signature(found).parameters
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return
    variant = ("variant",) if getattr(found, "variants", ()) else ()
    for keyword in ("settings", "weights", "device", "precision", *variant):
        if keyword not in parameters:
            yield f"the constructor has no keyword {keyword!r}"


@cache
def feature_names(name: str) -> tuple[str, ...] | None:
    """Return the names of an extractor's features, in the order of its rows.

    Args:
        name: The extractor's name in a recipe.

    Returns:
        None if the features have no names, as those of networks, or if the extractor is not installed.
    """
    try:
        names = getattr(extractor_kind(name), "feature_names", None)
    except UsageError:
        return None
    return None if names is None else names()


def resolve(spec: StreamSpec) -> StreamSpec:
    """Return the spec with every setting of its extractor filled in and checked.

    Raises:
        ConfigError: The extractor is not known, or cannot compute this stream.
    """
    kind = extractor_kind(spec.extractor)
    _check_variant(spec.extractor, kind)
    for name in ("output", "layer"):
        if name in spec.settings and name not in kind.Settings.model_fields:
            raise ConfigError(
                f"extractor {spec.extractor}: a segment has one row, the only output of this extractor; remove {name}"
            )
    try:
        settings = kind.Settings.model_validate(spec.settings)
    except ValidationError as error:
        complaint = validation_message(error, "settings", keys_of(kind.Settings))
        raise ConfigError(f"extractor {spec.extractor}: {complaint}") from None
    if (complete := getattr(kind, "complete", None)) is not None:
        settings = complete(settings)
    roles = {*kind.weight_roles, *getattr(settings, "weight_roles", ())}
    default = getattr(kind, "default_weights", None)
    if default and not spec.weights:
        spec = spec.model_copy(update={"extractor": default, "weights": dict.fromkeys(roles, default)})
    weights = spec.weights
    if set(weights) != roles:
        wrong = ", ".join(f"weights.{role}{suggestion(role, roles)}" for role in weights if role not in roles)
        raise ConfigError(
            f"extractor {spec.extractor}: weights must name {sorted(roles) or 'nothing'}, "
            f"not {sorted(weights) or 'nothing'}{f' ({wrong})' if wrong else ''}"
        )
    if spec.sampling.zero_last_frame and not getattr(kind, "takes_blank_frames", False):
        raise ConfigError(
            f"extractor {spec.extractor} takes no blank frames; remove sampling.zero_last_frame from its stream"
        )
    if not getattr(kind, "takes_float_frames", False):
        for name, value in settings:
            if isinstance(value, Geometry) and value.resize_arithmetic == "float":
                raise ConfigError(
                    f"extractor {spec.extractor} takes 8-bit frames only; set settings.{name}.resize_arithmetic to "
                    '"float-rounded", "torch" or "pil"'
                )
    resolved = spec.model_copy(update={"settings": settings.model_dump(mode="json"), "weights": weights})
    if (check := getattr(kind, "check", None)) is not None:
        check(resolved)
    if (with_row_shape := getattr(kind, "with_row_shape", None)) is not None:
        resolved = with_row_shape(resolved)
    return resolved


def _check_variant(name: str, kind: ExtractorKind) -> str:
    """Return the variant of another package's class in the name; raise `ConfigError` if the class does not have it."""
    if not is_from_another_package(name):
        return ""
    path, variant = _path_and_variant(name)
    variants: tuple[str, ...] = getattr(kind, "variants", ())
    if variant and not variants:
        raise ConfigError(f"extractor {name!r}: {path} has no variants; write {path!r}")
    if variants and variant not in variants:
        raise ConfigError(f"extractor {name!r}: write {path}:NAME with one of {', '.join(variants)}")
    return variant


def resolved_recipe(recipe: Recipe, needed: Collection[str] | None = None) -> Recipe:
    """Return the recipe with every stream resolved.

    Args:
        recipe: The recipe.
        needed: The streams that must be valid, by default all. Other streams that are not valid are left unresolved.

    Raises:
        ConfigError: As `resolve`; the message names the file of the recipe and the stream.
    """
    streams: dict[str, StreamSpec] = {}
    for name, spec in recipe.streams.items():
        try:
            streams[name] = resolve(spec)
        except ConfigError as error:
            if needed is None or name in needed:
                raise ConfigError(f"{recipe.source}, streams.{name}: {error}") from error
            streams[name] = spec
    return recipe.model_copy(update={"streams": streams})


def build(spec: StreamSpec, weights: Mapping[str, Weights], device: torch.device) -> Extractor:
    """Return an extractor that is ready to run.

    Args:
        spec: A stream that `resolve` returned.
        weights: Role → checkpoint.
        device: Device of the networks.
    """
    kind: Any = extractor_kind(spec.extractor)
    settings = kind.Settings.model_validate(spec.settings)
    variant = _check_variant(spec.extractor, kind)
    keywords = {"variant": variant} if variant else {}
    made = kind(settings=settings, weights=weights, device=device, precision=spec.precision, **keywords)
    if missing := [name for name in ("dim", "frames", "audio", "batch_size") if not hasattr(made, name)]:
        raise ConfigError(
            f"extractor {spec.extractor}: its objects have no attribute {', '.join(missing)}; set each as "
            "arabesque.extractors.protocol.Extractor describes"
        )
    return made
