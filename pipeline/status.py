"""What a store's videos came to, stream by stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from .inputs import Inputs, find_videos
from .records import Outcome, OutcomeKind
from .store.folders import Root
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
    if inputs is None and folder and Path(folder).exists():
        inputs = find_videos(Path(folder))
    outcomes = store.outcomes()
    if inputs is not None:
        ids = {video.video_id for video in inputs.videos} | set(inputs.clashes)
        num_videos = len(ids)
        outcomes = [outcome for outcome in outcomes if outcome.video_id in ids]
    return StoreStatus(
        recipe=str(store.manifest["recipe"]["name"]),
        folder=folder,
        streams={stream: _stream_status(stream, outcomes, num_videos) for stream in store.streams},
        troubles=tuple(outcome for outcome in outcomes if outcome.kind in ("failed", "partial")),
        empties=tuple(outcome for outcome in outcomes if outcome.kind == "empty"),
    )


def _stream_status(stream: str, outcomes: Collection[Outcome], num_videos: int) -> StreamStatus:
    mine = [outcome for outcome in outcomes if outcome.stream == stream]
    return StreamStatus(
        counts=Counter(outcome.kind for outcome in mine),
        left=max(0, num_videos - len(mine)),
        segments=sum(outcome.segments for outcome in mine),
    )
