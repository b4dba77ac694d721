"""From a feature store and labels to routines in memory; what cannot be used is named, never dropped in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..manifests.errors import ManifestError
from ..pipeline.store import FeatureStore
from .routines import Routines, stack_routines


@dataclass(frozen=True, eq=False)
class LabelledRoutines:
    """What a store and a label file have in common, and what they have not."""

    routines: Routines
    scores: np.ndarray
    """``float64 [videos]``, in the routines' order"""
    streams: Mapping[str, Mapping[str, object]]
    """The store's manifest entry of each stream: under which settings its features were made"""
    without_label: tuple[str, ...]
    without_video: tuple[str, ...]
    unfinished: tuple[str, ...]
    """Labelled videos that lack a stream which is not known to be empty: failed, not extracted yet, or partial"""


def read_labelled(
    store: FeatureStore, scores: Mapping[str, float], streams: Sequence[str] | None = None
) -> LabelledRoutines:
    """The labelled videos of which every stream is there, or known to be empty (a video without sound).

    ``streams``: all of the store's where None is given. Videos come in the order of their ids.
    """
    chosen = _chosen(store, streams)
    empty = {(end.video_id, end.stream) for end in store.outcomes() if end.kind == "empty"}
    known = set(store.video_ids)
    labelled = sorted(known & scores.keys())
    complete = [
        name for name in labelled if all(store.holds(name, stream) or (name, stream) in empty for stream in chosen)
    ]
    videos = _read(store, chosen, complete)
    used = [name for name in complete if videos[name]]
    manifest = store.manifest["streams"]
    return LabelledRoutines(
        routines=stack_routines(
            {name: videos[name] for name in used}, {stream: int(manifest[stream]["dim"]) for stream in chosen}
        ),
        scores=np.array([scores[name] for name in used], dtype=np.float64),
        streams={stream: dict(manifest[stream]) for stream in chosen},
        without_label=tuple(sorted(known - scores.keys())),
        without_video=tuple(name for name in scores if name not in known),
        unfinished=tuple(sorted(set(labelled) - set(used))),
    )


def _chosen(store: FeatureStore, streams: Sequence[str] | None) -> tuple[str, ...]:
    if streams is None:
        return store.streams
    for stream in streams:
        if stream not in store.streams:
            raise ManifestError(f"{store.path}: no stream {stream!r} in this store; it has {', '.join(store.streams)}")
    return tuple(streams)


def _read(store: FeatureStore, streams: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """``{video_id: {stream: [segments, dim]}}``, empty streams left out."""
    videos: dict[str, dict[str, np.ndarray]] = {name: {} for name in names}
    for stream in streams:
        for features in store.scan(stream):
            if features.video_id in videos and len(features):
                videos[features.video_id][stream] = features.values
    return videos
