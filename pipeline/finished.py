"""Detection of a run without remaining work, without importing torch, which takes seconds.

Resolving a stream imports its extractor, and with it torch. The resolved stream depends only on the recipe and on the
code of this package. It is therefore stored in the user's cache folder, under a digest of both.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import Field, ValidationError

from ..extractors.table import extractor_kind, is_from_another_package
from ..manifests.errors import InputError
from ..manifests.recipes import Recipe, named_weights
from ..manifests.streams import Record, StreamSpec
from .digests import settings_digest
from .planning.discovery import Inputs, inputs_entry
from .planning.resume_index import read_resume_index
from .store.files.storage import StorePath
from .store.manifest import is_store, read_manifest, stream_entries
from .store.shards import PROGRESS, shards_in
from .store.store import Store
from .system.user_cache import is_private, user_cache
from .weights.cache import is_random, open_cache

_LOG = logging.getLogger(__name__)

FOLDER = "resolved-streams"
_OF_OTHERS = ("torchvision", "timm", "pytorchvideo")


def is_finished(
    store: Store,
    recipe: Recipe,
    streams: Sequence[str] | None,
    weights: str | None,
    inputs: Inputs,
    *,
    roots: Sequence[StorePath],
    id_prefix: str = "",
    retry_failed: bool = False,
) -> bool:
    """Return whether a run certainly has no remaining work, without importing torch.

    The result is False if this is uncertain, e.g. if a stream is not in the cache, a checkpoint has changed, the store
    has other settings or other inputs, or a killed run has left segments in the write-ahead log.

    Args:
        store: The feature store.
        recipe: The recipe as it was loaded.
        streams: Names of the streams to extract; None: all.
        weights: ``random:SEED`` for random weights in place of all checkpoints.
        inputs: The videos.
        roots: Folders, files or URLs of the inputs.
        id_prefix: Precedes every video id.
        retry_failed: Whether failed videos count as remaining.
    """
    if not is_store(store) or inputs.clashes or inputs.columns is not None or shards_in(store.storage, PROGRESS):
        return False
    digests: dict[str, str] = {}
    checkpoints = open_cache(recipe.weights)
    for name in streams or recipe.streams:
        found = recall(recipe.streams[name])
        if found is None:
            return False
        names = named_weights(recipe, {name: found.spec}, weights)[name]
        known = {role: one if is_random(one) else checkpoints.recorded_digest(one) for role, one in names.items()}
        of_roles = {role: digest for role, digest in known.items() if digest is not None}
        if len(of_roles) < len(known):
            return False
        digests[name] = settings_digest(found.spec, of_roles, found.extractor_version)
    manifest = read_manifest(store)
    stored = stream_entries(manifest)
    if any(name not in stored or stored[name].settings_digest != digest for name, digest in digests.items()):
        return False
    if manifest.get("inputs") != inputs_entry(inputs, roots, id_prefix, len(inputs.videos)):
        return False
    index = read_resume_index(store, retry_failed=retry_failed)
    return not index.sources_to_compare(inputs.videos) and bool(index.are_done(inputs.videos, digests).all())


class ResolvedStream(Record):
    """A resolved stream."""

    spec: StreamSpec
    extractor_version: int = Field(ge=1)


def remember(recipe: Recipe, resolved: Mapping[str, StreamSpec]) -> None:
    """Store the resolved streams of a recipe for later calls of `is_finished`. Errors of the disk are ignored.

    Args:
        recipe: The recipe before its streams were resolved.
        resolved: Stream → result of `resolve` for it.
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
    """Return a stored resolved stream; None if there is none, or if other users may have written it."""
    path = _path(spec)
    if path is None or not is_private(path):
        return None
    try:
        return ResolvedStream.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _path(spec: StreamSpec) -> Path | None:
    """Return the file of a stream; None if the resolved stream depends on more than the recipe and this package."""
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
