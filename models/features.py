"""Features in memory, and their combination with labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..manifests.errors import InputError
from ..pipeline.store.aligned_dataset import on_grid
from ..pipeline.store.files.storage import StorePath
from ..pipeline.store.manifest import stream_entries
from ..pipeline.store.reader import FeatureStore
from ..pipeline.store.stream_features import StreamFeatures
from .label_matching import Matching, match_labels
from .samples import Samples, StreamSegments, stack_samples
from .splits import abbreviate

VideoStreams = Mapping[str, StreamSegments]
"""stream → its segments of a video"""


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """The videos of a source whose chosen streams are all complete or empty."""

    videos: Mapping[str, VideoStreams]
    dims: Mapping[str, int]
    streams: Mapping[str, Mapping[str, Any]]
    """Settings of each stream: its entry in the manifest of the store"""
    known: frozenset[str]
    """Ids of all videos of the source, including incomplete ones"""
    source: StorePath
    partial: frozenset[str] = frozenset()
    """Excluded videos with parts that cannot be decoded"""
    admitted: frozenset[str] = frozenset()
    """Partial videos that are included in ``videos``"""
    max_lost: float | None = None
    """Maximum lost share of included partial videos; None if all or no partial videos are included"""
    recipe: Mapping[str, Any] | None = None
    """Resolved recipe of the streams; None for imported features"""
    contents: Mapping[str, str] = field(default_factory=dict[str, str])
    """Video → digest of its content: of the file's bytes, or of imported features"""
    device: torch.device | str = "cpu"
    """Device of the stacked tensors"""
    _stacked: dict[tuple[str, ...], Samples] = field(default_factory=dict[tuple[str, ...], Samples], init=False)

    def on(self, device: torch.device | str) -> FeatureSet:
        """Return the same videos, stacked on this device."""
        return replace(self, device=device)

    def stacked(self, names: tuple[str, ...]) -> Samples:
        """Return these videos in one tensor per stream, on the device. The result is cached."""
        if names not in self._stacked:
            videos = {name: self.videos[name] for name in names}
            self._stacked[names] = stack_samples(videos, self.dims).to(self.device)
        return self._stacked[names]


@dataclass(frozen=True, eq=False)
class LabeledSamples:
    """Videos with both features and labels, and lists of those missing either."""

    samples: Samples
    scores: np.ndarray
    """``float64 [videos]``, in the order of ``samples``"""
    streams: Mapping[str, Mapping[str, Any]]
    recipe: Mapping[str, Any] | None = None
    without_label: tuple[str, ...] = field(default=())
    without_video: tuple[str, ...] = field(default=())
    partial: tuple[str, ...] = field(default=())
    """Excluded labeled videos with parts that cannot be decoded"""
    unfinished: tuple[str, ...] = field(default=())
    """Labeled videos with a stream that failed or has not been extracted"""
    contents: Mapping[str, str] = field(default_factory=dict[str, str])
    """Video → digest of its content"""
    notes: tuple[str, ...] = ()
    """Notes for the user on matched labels and on included partial videos"""
    others: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    """Other scores of a data set → ``float64 [videos]``, for models that learn several scores together"""


def label_samples(
    features: FeatureSet, scores: Mapping[str, float], matching: Matching | None = None
) -> LabeledSamples:
    """Return the videos with both features and labels, ordered by id.

    Args:
        features: Features of the videos.
        scores: Id in the label file → score.
        matching: Video of each label; computed unless given.
    """
    matching = match_labels(scores, features.known) if matching is None else matching
    scores = {matching.videos.get(label, label): score for label, score in scores.items()}
    used = tuple(sorted(features.videos.keys() & scores.keys()))
    notes = [matching.note] if matching.note else []
    if features.max_lost is not None:
        admitted = sorted(features.admitted.intersection(used))
        left_out = sorted(features.partial & scores.keys())
        notes.append(
            f"partial videos: {len(admitted)} that lost at most {100 * features.max_lost:g}% of their duration were "
            f"used{f' ({abbreviate(admitted)})' if admitted else ''}, {len(left_out)} that lost more were left out"
            f"{f' ({abbreviate(left_out)})' if left_out else ''}"
        )
    return LabeledSamples(
        samples=features.stacked(used),
        scores=np.array([scores[name] for name in used], dtype=np.float64),
        streams=features.streams,
        recipe=features.recipe,
        without_label=tuple(sorted(features.known - scores.keys())),
        without_video=tuple(name for name in scores if name not in features.known),
        partial=tuple(sorted(features.partial & scores.keys())),
        unfinished=tuple(sorted((features.known & scores.keys()) - features.partial - set(used))),
        contents={name: features.contents[name] for name in used if name in features.contents},
        notes=tuple(notes),
    )


def contents_of(data: LabeledSamples, video_ids: Sequence[str]) -> tuple[str, ...]:
    """Return the content digests of these videos; an empty string for an unknown one."""
    return tuple(data.contents.get(name, "") for name in video_ids)


def read_store(
    store: FeatureStore,
    streams: Sequence[str] | None = None,
    *,
    one_grid: bool = False,
    only: Collection[str] | None = None,
    max_lost: float | None = None,
) -> FeatureSet:
    """Read the videos of a store whose streams are all complete or empty.

    A video without an audio track is complete without its audio streams. A video with a failed stream is not.

    Args:
        store: The store. If it was opened with ``partial``, partial videos are included.
        streams: Streams to read; all by default.
        one_grid: Resample all streams to the segments of the first one by overlap in time.
        only: Ids of the videos to read; all by default.
        max_lost: Include only those partial videos that lost at most this share (0 to 1) of their duration.

    Raises:
        InputError: The store does not have one of the streams, or the segments of a stream have more than one row.
    """
    chosen = tuple(streams or store.streams)
    for stream in chosen:
        if stream not in store.streams:
            raise InputError(f"{store.path}: no stream {stream!r} in this store; it has {', '.join(store.streams)}")
    for stream, entry in stream_entries(store.manifest).items():
        if stream in chosen and len(entry.row_shape) > 1:
            raise InputError(
                f"{store.path}: stream {stream!r} has {' × '.join(map(str, entry.row_shape))} values for each segment, "
                f'but scoring models need one row; extract it with output = "pooled", or choose other streams'
            )
    empty = {(outcome.video_id, outcome.stream) for outcome in store.outcomes() if outcome.kind == "empty"}
    lost = _lost_shares(store, chosen)
    admitted = {name for name, share in lost.items() if store.partial and (max_lost is None or share <= max_lost)}
    broken = lost.keys() - admitted
    complete = {
        name: _streams_of(store, name, chosen)
        for name in store.video_ids
        if (only is None or name in only)
        and name not in broken
        and all(store.holds(name, stream) or (name, stream) in empty for stream in chosen)
    }
    read = _read_all(store, complete)
    contents = {name: _content_of(video) for name, video in read.items() if video}
    found: Mapping[str, Mapping[str, _Part]] = read
    if one_grid:
        found = {name: _aligned(video, chosen) for name, video in read.items() if chosen[0] in video}
    placed = {name: {stream: _placed(part) for stream, part in video.items()} for name, video in found.items()}
    entries = store.manifest["streams"]
    return FeatureSet(
        videos={name: video for name, video in placed.items() if video},
        dims={stream: int(entries[stream]["dim"]) for stream in chosen},
        streams={stream: dict(entries[stream]) for stream in chosen},
        known=frozenset(store.video_ids) | broken,
        source=store.path,
        partial=frozenset(broken),
        admitted=frozenset(admitted),
        max_lost=max_lost,
        recipe=_recipe(store, chosen),
        contents=contents,
    )


def _lost_shares(store: FeatureStore, streams: Collection[str]) -> dict[str, float]:
    """Return the undecodable share of the duration of each partial video, as the maximum over its streams.

    Outcomes of older versions do not contain a share. For those it is the share of missing frames, or 1 for a video
    without missing frames, whose audio is damaged.
    """
    lost: dict[str, float] = {}
    for outcome in store.outcomes():
        if outcome.kind != "partial" or outcome.stream not in streams:
            continue
        share = outcome.lost_share
        if not share and not outcome.holes:
            known = 0 < outcome.frames_delivered < outcome.frames_expected
            share = 1 - outcome.frames_delivered / outcome.frames_expected if known else 1.0
        lost[outcome.video_id] = max(share, lost.get(outcome.video_id, 0.0))
    return lost


def _content_of(video: Mapping[str, StreamFeatures]) -> str:
    """Return the digest of a video's bytes, or for imported streams their joined digests."""
    return "+".join(sorted({features.content_digest for features in video.values()}))


def _recipe(store: FeatureStore, chosen: Sequence[str]) -> Mapping[str, Any] | None:
    """Return the recipe of the store if it contains these streams; None for imported streams."""
    recipe = store.manifest["recipe"]
    return recipe if recipe.get("streams", {}).keys() >= set(chosen) else None


_Part = StreamFeatures | StreamSegments


def _streams_of(store: FeatureStore, name: str, chosen: Sequence[str]) -> list[str]:
    return [stream for stream in chosen if store.holds(name, stream)]


def _read_all(store: FeatureStore, wanted: Mapping[str, Sequence[str]]) -> dict[str, dict[str, StreamFeatures]]:
    """Read stream by stream in the order of storage, because this is the fastest way."""
    videos: dict[str, dict[str, StreamFeatures]] = {name: {} for name in wanted}
    for stream in {stream: None for names in wanted.values() for stream in names}:
        for features in store.scan(stream):
            if features.video_id in videos and len(features):
                videos[features.video_id][stream] = features
    return videos


def _aligned(video: Mapping[str, StreamFeatures], streams: Sequence[str]) -> dict[str, _Part]:
    """Return all streams on the segments of the first one. A missing stream has no present segment."""
    grid = video[streams[0]].with_masked()
    aligned: dict[str, _Part] = {}
    for stream in streams:
        part = video.get(stream)
        if part is not None:
            aligned[stream] = StreamSegments(*on_grid(part, grid.start_s, grid.end_s, grid.present))
        else:
            aligned[stream] = StreamSegments.absent(len(grid.present))
    return aligned


def _placed(part: _Part) -> StreamSegments:
    if isinstance(part, StreamSegments):
        return part
    if not len(part.masked_s):
        return StreamSegments(part.values)
    found = part.with_masked()
    return StreamSegments(found.values, found.present)
