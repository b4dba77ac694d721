"""Features in memory, from a feature store or from files that authors released, and what they share with labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..manifests.errors import ManifestError
from ..pipeline.store.aligned_samples import on_grid
from ..pipeline.store.folders import Root
from ..pipeline.store.reader import FeatureStore, StreamFeatures
from .routines import Placed, Routines, stack_routines

VideoStreams = Mapping[str, Placed]
"""stream → what a video has of it"""


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Every video of a source that has all of the chosen streams, or lacks some because they are empty."""

    videos: Mapping[str, VideoStreams]
    dims: Mapping[str, int]
    streams: Mapping[str, Mapping[str, Any]]
    """Under which settings each stream was made: a store's manifest entries"""
    known: frozenset[str]
    """All videos of the source, the incomplete ones included"""
    source: Root
    partial: frozenset[str] = frozenset()
    """Videos left out because their file breaks off"""
    recipe: Mapping[str, Any] | None = None
    """What extracted the streams, resolved; None where others did"""
    _stacked: dict[tuple[str, ...], Routines] = field(default_factory=dict[tuple[str, ...], Routines], init=False)

    def stacked(self, names: tuple[str, ...]) -> Routines:
        """These videos in one tensor per stream; the same one for all who ask for the same videos."""
        if names not in self._stacked:
            self._stacked[names] = stack_routines({name: self.videos[name] for name in names}, self.dims)
        return self._stacked[names]


@dataclass(frozen=True, eq=False)
class LabelledRoutines:
    """What features and labels have in common, and what they have not."""

    routines: Routines
    scores: np.ndarray
    """``float64 [videos]``, in the routines' order"""
    streams: Mapping[str, Mapping[str, Any]]
    recipe: Mapping[str, Any] | None = None
    without_label: tuple[str, ...] = field(default=())
    without_video: tuple[str, ...] = field(default=())
    partial: tuple[str, ...] = field(default=())
    """Labelled videos left out because their file breaks off"""
    unfinished: tuple[str, ...] = field(default=())
    """Labelled videos that lack a stream which is not known to be empty: failed, or not extracted yet"""


def label_routines(features: FeatureSet, scores: Mapping[str, float]) -> LabelledRoutines:
    """The videos that have both, in the order of their ids."""
    used = tuple(sorted(features.videos.keys() & scores.keys()))
    return LabelledRoutines(
        routines=features.stacked(used),
        scores=np.array([scores[name] for name in used], dtype=np.float64),
        streams=features.streams,
        recipe=features.recipe,
        without_label=tuple(sorted(features.known - scores.keys())),
        without_video=tuple(name for name in scores if name not in features.known),
        partial=tuple(sorted(features.partial & scores.keys())),
        unfinished=tuple(sorted((features.known & scores.keys()) - features.partial - set(used))),
    )


def read_store(
    store: FeatureStore,
    streams: Sequence[str] | None = None,
    *,
    one_grid: bool = False,
    only: Collection[str] | None = None,
) -> FeatureSet:
    """The store's videos, or ``only`` these. ``one_grid``: bring all streams to the segments of the first, by overlap
    in time.

    A video without sound is complete without its audio streams; one whose extraction failed is not.
    """
    chosen = tuple(streams or store.streams)
    for stream in chosen:
        if stream not in store.streams:
            raise ManifestError(f"{store.path}: no stream {stream!r} in this store; it has {', '.join(store.streams)}")
    ends = {(end.video_id, end.stream): end.kind for end in store.outcomes() if end.stream in chosen}
    empty = {place for place, kind in ends.items() if kind == "empty"}
    broken = set() if store.partial else {name for (name, _), kind in ends.items() if kind == "partial"}
    complete = {
        name: _streams_of(store, name, chosen)
        for name in store.video_ids
        if (only is None or name in only)
        and all(store.holds(name, stream) or (name, stream) in empty for stream in chosen)
    }
    found = _read_all(store, complete)
    if one_grid:
        found = {name: _aligned(video, chosen) for name, video in found.items() if chosen[0] in video}
    placed = {name: {stream: _placed(part) for stream, part in video.items()} for name, video in found.items()}
    entries = store.manifest["streams"]
    return FeatureSet(
        videos={name: video for name, video in placed.items() if video},
        dims={stream: int(entries[stream]["dim"]) for stream in chosen},
        streams={stream: dict(entries[stream]) for stream in chosen},
        known=frozenset(store.video_ids) | broken,
        source=store.path,
        partial=frozenset(broken),
        recipe=_recipe(store, chosen),
    )


def _recipe(store: FeatureStore, chosen: Sequence[str]) -> Mapping[str, Any] | None:
    """The store's recipe, if it is the one that made these streams; imported features have none."""
    recipe = store.manifest["recipe"]
    return recipe if recipe.get("streams", {}).keys() >= set(chosen) else None


def some(names: Sequence[str], most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


_Part = StreamFeatures | Placed


def _streams_of(store: FeatureStore, name: str, chosen: Sequence[str]) -> list[str]:
    return [stream for stream in chosen if store.holds(name, stream)]


def _read_all(store: FeatureStore, wanted: Mapping[str, Sequence[str]]) -> dict[str, dict[str, _Part]]:
    """Stream by stream in the order of storage, which is the fast way."""
    videos: dict[str, dict[str, _Part]] = {name: {} for name in wanted}
    for stream in {stream: None for names in wanted.values() for stream in names}:
        for features in store.scan(stream):
            if features.video_id in videos and len(features):
                videos[features.video_id][stream] = features
    return videos


def _aligned(video: Mapping[str, _Part], streams: Sequence[str]) -> dict[str, _Part]:
    """Every stream on the first one's segments; a stream that the video lacks is nowhere present on them."""
    grid = video[streams[0]]
    assert isinstance(grid, StreamFeatures)
    aligned: dict[str, _Part] = {}
    for stream in streams:
        part = video.get(stream)
        if isinstance(part, StreamFeatures):
            aligned[stream] = Placed(*on_grid(part, grid.start_s, grid.end_s))
        else:
            aligned[stream] = Placed.absent(len(grid))
    return aligned


def _placed(part: _Part) -> Placed:
    return part if isinstance(part, Placed) else Placed(part.values)
