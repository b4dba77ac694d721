"""Cache of resolved streams: with it, a run that has nothing to do need not import the code of its extractors.

Resolving a stream imports its extractor, and with it torch (seconds). The result depends on the stream as the recipe
states it and on our code, so that it is kept in the user's cache folder under a digest of both.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import Field, ValidationError

from ..extractors.table import extractor_kind, is_from_another_package
from ..manifests.errors import InputError
from ..manifests.recipes import Recipe
from ..manifests.streams import Record, StreamSpec
from .system.user_cache import is_private, user_cache

_LOG = logging.getLogger(__name__)

FOLDER = "resolved-streams"
_OF_OTHERS = ("torchvision", "timm", "pytorchvideo")


class ResolvedStream(Record):
    """A resolved stream."""

    spec: StreamSpec
    extractor_version: int = Field(ge=1)


def remember(recipe: Recipe, resolved: Mapping[str, StreamSpec]) -> None:
    """Keep the resolved streams of a recipe. A cache that cannot be written is not an error.

    Args:
        recipe: The recipe before its streams were resolved.
        resolved: Stream → what `resolve` returned for it.
    """
    for name, spec in resolved.items():
        path = _path(recipe.streams[name])
        if path is None or path.exists():
            continue
        kept = ResolvedStream(spec=spec, extractor_version=extractor_kind(spec.extractor).version)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            staged = path.with_name(f".{path.name}.{os.getpid()}")
            staged.write_text(kept.model_dump_json(), "utf-8")
            staged.chmod(0o600)
            staged.replace(path)
        except OSError as error:
            _LOG.debug("%s: cannot be written (%s)", path, error)


def recall(spec: StreamSpec) -> ResolvedStream | None:
    """Return a resolved stream; None if it is not known, or if other users may have written it."""
    path = _path(spec)
    if path is None or not is_private(path):
        return None
    try:
        return ResolvedStream.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _path(spec: StreamSpec) -> Path | None:
    """Return the file of a stream; None for a stream that depends on more than our code and the recipe."""
    if is_from_another_package(spec.extractor) or spec.extractor.partition(":")[0] == "transformers":
        return None
    described = json.dumps(spec.model_dump(mode="json"), sort_keys=True)
    try:
        folder = user_cache() / FOLDER
    except InputError:
        return None
    return folder / f"{hashlib.sha256(f'{_code()} {described}'.encode()).hexdigest()[:32]}.json"


@cache
def _code() -> str:
    """Return a digest of the code that resolves streams, and the versions of packages that name networks."""
    root = Path(__file__).parents[1]
    sources = [*sorted((root / "extractors").rglob("*.py")), *sorted((root / "manifests").glob("*.py"))]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources))
    digest.update((root / "manifests" / "weights.toml").read_bytes())
    for name in _OF_OTHERS:
        with suppress(PackageNotFoundError):
            digest.update(f"{name} {version(name)}".encode())
    return digest.hexdigest()
