"""What a store's videos came to, stream by stream."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ..manifests.errors import StoreError
from .inputs import Inputs, find_videos
from .records import Outcome, OutcomeKind
from .store.ends import Ends
from .store.folders import Root, as_root
from .store.reader import FeatureStore


@dataclass(frozen=True)
class StreamStatus:
    """How many videos of a stream ended how; ``left`` have no outcome yet."""

    counts: Mapping[OutcomeKind, int]
    left: int
    segments: int


@dataclass(frozen=True)
class StoreStatus:
    """Counts for each stream, and every outcome that is no success."""

    recipe: str
    folder: str
    """Where the latest run took its videos from."""
    streams: Mapping[str, StreamStatus]
    troubles: tuple[Outcome, ...]
    """Failed and partial, by video and stream."""
    empties: tuple[Outcome, ...]


def read_status(root: Root, inputs: Inputs | None = None) -> StoreStatus:
    """The state of a store with respect to some videos; by default those that the latest run was given.

    Where that folder is gone, what is left is counted by the number of videos that it had.
    """
    store = FeatureStore(root, partial=True)
    facts = store.manifest.get("inputs", {})
    folder, num_videos = str(facts.get("folder", "")), int(facts.get("videos", 0))
    if inputs is None and folder:
        with suppress(FileNotFoundError, StoreError):
            inputs = find_videos(as_root(folder))
    ends = store.ends
    counted = np.ones(len(ends), bool)
    if inputs is not None:
        ids = {video.video_id for video in inputs.videos} | set(inputs.clashes)
        num_videos = len(ids)
        counted = ends.are("video_id", *ids)
    return StoreStatus(
        recipe=str(store.manifest["recipe"]["name"]),
        folder=folder,
        streams={name: _stream_status(ends, counted & ends.are("stream", name), num_videos) for name in store.streams},
        troubles=tuple(ends.outcomes(counted & ends.are("kind", "failed", "partial"))),
        empties=tuple(ends.outcomes(counted & ends.are("kind", "empty"))),
    )


def _stream_status(ends: Ends, mine: NDArray[np.bool_], num_videos: int) -> StreamStatus:
    counts = {kind: int(np.sum(mine & ends.are("kind", kind))) for kind in get_args(OutcomeKind)}
    return StreamStatus(
        counts={kind: count for kind, count in counts.items() if count},
        left=max(0, num_videos - int(np.sum(mine))),
        segments=int(np.sum(ends.numbers("segments")[mine])),
    )
