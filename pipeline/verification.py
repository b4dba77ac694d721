"""Verification of a store: compare settings with their digests, and extract some videos again."""

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
from ..manifests.errors import ConfigError, InputError
from ..manifests.recipes import Recipe
from ..manifests.streams import StreamSpec
from ..manifests.validation import validation_message
from .digests import settings_digest
from .extraction import Extraction
from .items import VideoSettled
from .options import RunOptions
from .planning.selection import InputSelection, find_inputs
from .store.files.storage import StorePath
from .store.manifest import StreamEntry, read_manifest, stream_entries
from .store.reader import FeatureStore
from .store.stream_features import StreamFeatures
from .streams import random_override

FLOAT16_STEP = 2.0**-10
"""Relative spacing of float16 numbers. It is added to the tolerance for stores of float16."""


@dataclass(frozen=True)
class Recomputed:
    """Comparison of one (video, stream) with its stored features."""

    video_id: str
    stream: str
    relative_error: float | None
    """Largest difference in a segment relative to its largest value; None if no values could be compared."""
    allowed: float
    problem: str
    """Reason why both differ; empty if they are equal within ``allowed``."""


def settings_problems(root: StorePath) -> dict[str, str]:
    """Return stream → problem for streams whose settings do not match their digest. Imported streams are skipped."""
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
    except (ValidationError, ConfigError, ValueError) as error:
        return f"this version of arabesque does not support its settings ({str(error).splitlines()[0]})"
    if digest != entry.settings_digest:
        return f"its settings have digest {digest}, its rows {entry.settings_digest}: another version wrote them"
    return ""


def recompute(
    root: StorePath,
    videos: StorePath | None,
    num_videos: int,
    *,
    clips: str | Path | None = None,
    id_prefix: str = "",
    seed: int = 0,
    options: RunOptions | None = None,
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> list[Recomputed]:
    """Extract some of the store's videos again, into a temporary store, and compare row by row.

    Args:
        root: The store.
        videos: Folder that was extracted. With ``clips``: the folder of the paths in the table, or None.
        clips: Table of clips that was extracted.
        num_videos: Number of videos, chosen at random.
        id_prefix: Prefix of the extraction.
        seed: Seed of the choice.
        options: How the run is executed.
        on_video: Called with the number of finished videos and the number of all videos.

    Raises:
        InputError: No video of the folder is in the store.
        WeightsError: A checkpoint is missing.
    """
    manifest = read_manifest(root)
    options = replace(options or RunOptions(), remembers_files=False)  # so that digests are computed again
    store = FeatureStore(root, partial=True)
    held = {video_id for stream in store.streams for video_id in store.keys(stream)}
    with tempfile.TemporaryDirectory(prefix="arabesque-verify-") as folder:
        again = Path(folder) / "features"
        recipe = _recipe(root, manifest)
        digests = {name: entry.weights for name, entry in stream_entries(manifest).items()}
        streams = [name for name in recipe.streams if name in store.streams]
        places = () if videos is None else (videos,)
        inputs = find_inputs(InputSelection(places, id_prefix=id_prefix, clips=clips))
        known = [file for file in inputs.videos if file.video_id in held]
        if not known:
            raise InputError(
                f"{clips or videos}: the store {root} has no features of its videos; give the folder that was extracted"
            )
        chosen = random.Random(seed).sample(known, min(num_videos, len(known)))
        run = Extraction(
            places,
            recipe,
            again,
            streams=streams,
            weights=random_override(recipe, digests),
            options=options,
            id_prefix=id_prefix,
            inputs=replace(inputs, videos=tuple(chosen), clashes={}, columns=None),
        )
        num_done = 0
        for event in run:
            num_done += isinstance(event, VideoSettled)
            on_video(num_done, len(chosen))
        ids = sorted(file.video_id for file in chosen)
        return list(_compared(store, FeatureStore(again, partial=True), run.streams, ids))


def _recipe(root: StorePath, manifest: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(manifest["recipe"])
    except ValidationError as error:
        raise ConfigError(
            f"{root}: its recipe cannot be run here ({validation_message(error)}); imported features have no recipe"
        ) from None


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
        problem = "the video no longer has features"
    elif made.content_digest != stored.content_digest:
        problem = "the content of the video has changed since it was extracted"
    elif made.key != stored.key:
        problem = "the settings or checkpoints differ from those of the store"
    elif not (np.array_equal(made.start_s, stored.start_s) and np.array_equal(made.end_s, stored.end_s)):
        problem = "the times of its segments differ"
    else:
        largest = np.maximum(np.abs(stored.values).max(axis=1), np.finfo(np.float32).tiny)
        values = made.values.astype(np.float16) if is_half else made.values
        error = float((np.abs(values - stored.values).max(axis=1) / largest).max())
        if not error <= allowed:
            where = f"computed on {stored.provenance.get('device', '?')}, now on {made.provenance['device']}"
            problem = f"its values differ ({where})"
    return Recomputed(stored.video_id, stored.stream, error, allowed, problem)
