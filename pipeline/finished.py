"""Recognize a run that has nothing to do without importing torch, which takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..manifests.recipes import Recipe
from ..manifests.urls import public_url
from .digests import settings_digest
from .planning.discovery import Inputs
from .planning.resume_index import read_resume_index
from .resolved_streams import recall
from .store.files.storage import StorePath
from .store.manifest import is_store, read_manifest, stream_entries
from .store.shards import PROGRESS, shards_in
from .store.store import Store
from .weights.cache import is_random, open_cache
from .weights.required import named_weights


def inputs_entry(inputs: Inputs, roots: Sequence[StorePath], id_prefix: str, num_videos: int) -> dict[str, Any]:
    """Return what a store's manifest records of a run's inputs."""
    places = () if inputs.is_selection else roots
    folders = [str(root.resolve()) if isinstance(root, Path) else public_url(root) for root in places]
    entry: dict[str, Any] = {"folder": folders[0] if len(folders) == 1 else "", "videos": num_videos}
    return entry | ({"id_prefix": id_prefix} if id_prefix else {})


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
    """Return whether a run has nothing to do, as far as this can be known without torch.

    False means that it is not known: streams that are not in the cache, checkpoints that changed, a store of other
    settings, of other inputs, or with a killed run's work in progress.

    Args:
        store: The feature store.
        recipe: The recipe as it was loaded.
        streams: Its streams to extract; None: all.
        weights: ``random:SEED`` in place of all checkpoints.
        inputs: The videos.
        roots: Folders, files or URLs that they are from.
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
