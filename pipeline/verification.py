"""Whether a store holds what its recipe gives: settings against their digests, and some videos computed once more."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ..extractors.precision import TOLERANCES
from ..extractors.table import resolve
from ..manifests.complaints import first_complaint
from ..manifests.errors import ManifestError
from ..manifests.recipes import Recipe
from ..manifests.streams import StreamSpec
from .extraction import Extraction, RunOptions
from .keys import settings_digest
from .store.folders import Root
from .store.manifest import StreamEntry, read_manifest, stream_entries
from .store.reader import FeatureStore, StreamFeatures
from .work import VideoSettled

FLOAT16_STEP = 2.0**-10
"""Between two neighbours of float16, as a share of them: what a store of float16 adds to a difference."""


@dataclass(frozen=True)
class Recomputed:
    """One (video, stream) computed once more."""

    video_id: str
    stream: str
    relative_error: float | None
    """Largest difference of a row over its largest number; None where there is nothing to compare."""
    allowed: float
    problem: str
    """Empty where both are the same within ``allowed``."""


def settings_problems(root: Root) -> dict[str, str]:
    """Stream → why its settings are not those of its digest; streams without a recipe (imports) are passed over."""
    manifest = read_manifest(root)
    specs: Mapping[str, Any] = manifest["recipe"].get("streams", {})
    problems: dict[str, str] = {}
    for name, entry in stream_entries(manifest).items():
        if name in specs and (problem := _settings_problem(specs[name], entry)):
            problems[name] = problem
    return problems


def _settings_problem(spec: Mapping[str, Any], entry: StreamEntry) -> str:
    try:
        digest = settings_digest(resolve(StreamSpec.model_validate(spec)), entry.weights, entry.extractor_version)
    except (ValidationError, ManifestError, ValueError) as error:
        return f"this version of arabesque does not know its settings ({str(error).splitlines()[0]})"
    if digest != entry.settings_digest:
        return f"its settings have digest {digest}, its rows {entry.settings_digest}: another version made them"
    return ""


def recompute(
    root: Root,
    videos: Root,
    num_videos: int,
    *,
    seed: int = 0,
    options: RunOptions | None = None,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> list[Recomputed]:
    """Extract ``num_videos`` of the store's videos again, elsewhere, and compare row by row.

    Which ones follows from ``seed``. ManifestError where none of the videos is in the store, WeightsError where a
    checkpoint is not at hand.
    """
    manifest = read_manifest(root)
    options = replace(options or RunOptions(), remembers_files=False)  # every byte is read again
    store = FeatureStore(root, partial=True)
    held = {video_id for stream in store.streams for video_id in store.keys(stream)}
    with tempfile.TemporaryDirectory(prefix="arabesque-verify-") as folder:
        again = Path(folder) / "features"
        recipe, weights = _recipe(root, manifest), _override(manifest)
        streams = [name for name in recipe.streams if name in store.streams]
        run = Extraction(videos, recipe, again, streams=streams, weights=weights, options=options)
        known = [file for file in run.inputs.videos if file.video_id in held]
        if not known:
            raise ManifestError(f"{videos}: none of its videos is in {root}; give the folder that was extracted")
        chosen = random.Random(seed).sample(known, min(num_videos, len(known)))
        run.inputs = replace(run.inputs, videos=tuple(chosen), clashes={})
        settled = 0
        for event in run:
            settled += isinstance(event, VideoSettled)
            on_video(settled, len(chosen))
        ids = sorted(file.video_id for file in chosen)
        return list(_compared(store, FeatureStore(again, partial=True), run.streams, ids))


def _recipe(root: Root, manifest: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(manifest["recipe"])
    except ValidationError as error:
        raise ManifestError(
            f"{root}: its recipe cannot be run here ({first_complaint(error)}); features that were imported have none"
        ) from None


def _override(manifest: Mapping[str, Any]) -> str | None:
    """The ``random:SEED`` of a store that was made on random weights."""
    digests = (digest for entry in stream_entries(manifest).values() for digest in entry.weights.values())
    return next((digest for digest in digests if digest.startswith("random:")), None)


def _compared(
    store: FeatureStore, again: FeatureStore, streams: Mapping[str, StreamSpec], video_ids: Sequence[str]
) -> Iterator[Recomputed]:
    for video_id in video_ids:
        for stream, spec in streams.items():
            stored, made = (one[video_id][stream] if one.holds(video_id, stream) else None for one in (store, again))
            if stored is not None:
                yield _comparison(stored, made, spec)


def _comparison(stored: StreamFeatures, made: StreamFeatures | None, spec: StreamSpec) -> Recomputed:
    is_half = np.array_equal(stored.values, stored.values.astype(np.float16))
    allowed = TOLERANCES[spec.precision] + (FLOAT16_STEP if is_half else 0)
    problem, error = "", None
    if made is None:
        problem = "nothing comes of this video any more"
    elif made.content_digest != stored.content_digest:
        problem = "the video has other bytes than the one that was extracted"
    elif made.key != stored.key:
        problem = "the settings or checkpoints here are others than the store's"
    elif not (np.array_equal(made.start_s, stored.start_s) and np.array_equal(made.end_s, stored.end_s)):
        problem = "its segments lie elsewhere in time"
    else:
        largest = np.maximum(np.abs(stored.values).max(axis=1), np.finfo(np.float32).tiny)
        values = made.values.astype(np.float16) if is_half else made.values
        error = float((np.abs(values - stored.values).max(axis=1) / largest).max())
        if not error <= allowed:
            where = f"made on {stored.provenance.get('device', '?')}, computed again on {made.provenance['device']}"
            problem = f"its numbers are others ({where})"
    return Recomputed(stored.video_id, stored.stream, error, allowed, problem)
