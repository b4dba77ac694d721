"""Streams of a recipe with their networks, checkpoints and settings digests."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version

import torch

from ..extractors.engines import Engine, building_for
from ..extractors.table import build, extractor_kind, is_from_another_package, require_available
from ..extractors.weight_sources import Weights
from ..manifests.errors import InputError, WeightsError
from ..manifests.import_paths import code_digest
from ..manifests.recipes import Recipe, named_weights
from ..manifests.streams import StreamSpec
from .digests import settings_digest
from .items import Stream
from .weights.cache import is_random, open_cache, resolve_weights
from .weights.required import require_checkpoints


def build_streams(
    specs: Mapping[str, StreamSpec],
    weights: Mapping[str, Mapping[str, Weights]],
    settings_digests: Mapping[str, str],
    device: torch.device,
    engine: Engine = "torch",
) -> list[Stream]:
    """Load the networks of streams.

    Args:
        specs: Stream → its resolved settings.
        weights: Stream → role → checkpoint, from `chosen_weights`.
        settings_digests: Stream → digest, from `digests_of_settings`.
        device: Device of the networks.
        engine: Software that runs the networks.
    """
    with building_for(engine):
        return [
            Stream(
                name=name,
                spec=spec,
                extractor=build(spec, weights[name], device),
                settings_digest=settings_digests[name],
            )
            for name, spec in specs.items()
        ]


def chosen_weights(
    recipe: Recipe, specs: Mapping[str, StreamSpec], override: str | None
) -> dict[str, dict[str, Weights]]:
    """Find the checkpoints of streams.

    Args:
        recipe: The recipe. It may define checkpoints that are not in the package's manifest.
        specs: Stream → its resolved settings.
        override: ``random:SEED`` for random weights in place of all checkpoints, see `named_weights`.

    Returns:
        Stream → role → checkpoint.

    Raises:
        InputError: ``override`` does not have this form.
        MissingPackageError: An extractor needs an optional package that is not installed.
        WeightsError: A checkpoint is missing; the message contains the command that downloads it.
    """
    if override is not None and not is_random(override):
        raise InputError(f"weights {override!r}: give random:SEED with a whole number, e.g. random:0")
    for spec in specs.values():
        require_available(spec)
    names = named_weights(recipe, specs, override)
    if not any(names.values()):
        return {stream: {} for stream in names}
    require_checkpoints(recipe, specs, override)
    try:
        cache = open_cache(recipe.weights)
        return {stream: resolve_weights(roles, cache=cache) for stream, roles in names.items()}
    except WeightsError as error:
        hint = f"`arabesque weights fetch --recipe {recipe.name}` downloads all checkpoints of this recipe"
        raise WeightsError(f"{error}{'' if recipe.changes else f'; {hint}'}") from error


def random_override(recipe: Recipe, digests: Mapping[str, Mapping[str, str]]) -> str | None:
    """Return the ``random:SEED`` that replaced checkpoints of a recipe in a run; None if there was none.

    Args:
        recipe: The recipe of the run.
        digests: Stream → role → digest of its weights in the run.
    """
    names = named_weights(recipe, recipe.streams, None)
    return next(
        (
            digest
            for stream, roles in digests.items()
            for role, digest in roles.items()
            if digest.startswith("random:") and names.get(stream, {}).get(role) != digest
        ),
        None,
    )


def digests_of_settings(
    specs: Mapping[str, StreamSpec], weights: Mapping[str, Mapping[str, Weights]]
) -> dict[str, str]:
    """Return stream → settings digest, which covers all parts of a row's key except the video."""
    return {
        name: settings_digest(spec, weight_digests(weights[name]), extractor_kind(spec.extractor).version)
        for name, spec in specs.items()
    }


def weight_digests(weights: Mapping[str, Weights]) -> dict[str, str]:
    """Return role → digest of its checkpoint."""
    return {role: source.digest for role, source in weights.items()}


def made_with(decoder: str, extractors: Iterable[str] = ()) -> dict[str, str]:
    """Return facts for the provenance of a row that its key does not cover: package versions, machine and decoder.

    Args:
        decoder: Name of the decoder backend.
        extractors: Names of extractors. For classes of other packages, the SHA-256 of the source file is included.
    """
    return _package_versions() | {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "decoder": decoder,
        **{name: f"sha256 {digest}" for name in extractors for digest in code_of(name).values()},
    }


@cache
def _package_versions() -> dict[str, str]:
    """Return the versions of packages, cached: importlib takes milliseconds to parse the metadata of a package."""
    return {name: version(name) for name in ("arabesque", "torch", "torchvision", "numpy", "av")}


def code_of(extractor: str) -> dict[str, str]:
    """Return ``code_sha256`` of the file that defines a class of another package; nothing for the package's own."""
    return {"code_sha256": code_digest(extractor_kind(extractor))} if is_from_another_package(extractor) else {}
