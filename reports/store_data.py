"""Data of a feature store for the report: records of videos, statistics of features, projections, duplicates."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..pipeline.records import Outcome
from ..pipeline.store.reader import FeatureStore

MAX_PAIRS = 50
"""Maximum number of near-duplicates that are listed"""
NEAR_COSINE = 0.98
"""Least cosine of the standardized features of two videos that are listed as near-duplicates"""
OUTLIER_DEVIATIONS = 4.0
"""A video is an outlier if its distance from the center exceeds the median distance by this many deviations (MAD)"""
MAX_COMPONENTS = 10
"""Number of principal components in which the distance of an outlier is measured"""
_BLOCK = 512

Array = NDArray[np.float64]


@dataclass(frozen=True)
class VideoSummary:
    """Data of one video in the store."""

    video_id: str
    outcomes: Mapping[str, Outcome]
    """Stream → outcome"""
    duration_s: float
    """End of the last segment; 0 without segments"""
    segments: Mapping[str, int]
    """Stream → number of segments"""

    @property
    def size_bytes(self) -> int:
        return max((one.size_bytes for one in self.outcomes.values()), default=0)

    @property
    def content_digest(self) -> str:
        return next((one.content_digest for one in self.outcomes.values() if one.content_digest), "")

    @property
    def frames_per_second(self) -> float:
        """Number of frames in the container ÷ end of the last segment; 0 if one of both is unknown"""
        frames = max((one.frames_expected for one in self.outcomes.values()), default=0)
        return frames / self.duration_s if self.duration_s else 0.0

    @property
    def holes(self) -> tuple[tuple[float, float], ...]:
        return max((one.holes for one in self.outcomes.values()), key=len, default=())

    @property
    def lost_share(self) -> float:
        return max((one.lost_share for one in self.outcomes.values()), default=0.0)

    @property
    def person_share(self) -> float | None:
        """Lowest share of the frames with a person over the streams that detect people; None without such streams"""
        shares = [one.person_share for one in self.outcomes.values()]
        return min((share for share in shares if share is not None), default=None)


@dataclass(frozen=True, eq=False)
class StreamStatistics:
    """Features of one stream over all videos."""

    video_ids: tuple[str, ...]
    means: Array
    """``[videos, dim]``: mean over the segments of each video"""
    deviations: Array
    """``[videos, dim]``: standard deviation over the segments of each video"""
    mean: Array
    """``[dim]``: mean over all segments"""
    deviation: Array
    """``[dim]``: standard deviation over all segments"""

    def deviations_of(self, video_id: str) -> Array:
        """Return the difference of a video's mean from the means of the other videos in deviations, ``[dim]``.

        NaN if there are fewer than three other videos. A feature that is equal in all other videos has 0.
        """
        count = len(self.video_ids) - 1
        if count < 3:
            return np.full(int(self.means.shape[1]), np.nan)
        own = self.means[self._rows[video_id]]
        total, squares = self._totals
        center = (total - own) / count
        spread = np.sqrt(np.maximum((squares - own**2) / count - center**2, 0))
        varies = spread > 1e-6 * np.maximum(np.abs(center), 1e-6)
        found: Array = np.zeros(int(self.means.shape[1]))
        np.divide(own - center, spread, out=found, where=varies)
        return found

    @cached_property
    def _rows(self) -> dict[str, int]:
        return dict(zip(self.video_ids, range(len(self.video_ids)), strict=True))

    @cached_property
    def _totals(self) -> tuple[Array, Array]:
        return self.means.sum(axis=0), (self.means**2).sum(axis=0)


@dataclass(frozen=True)
class Projection:
    """Projection of videos to the first two principal components of one stream."""

    stream: str
    video_ids: tuple[str, ...]
    points: Array
    """``[videos, 2]``"""
    shares: tuple[float, float]
    """Shares of the variance of both components"""


@dataclass(frozen=True)
class Outlier:
    video_id: str
    stream: str
    distance: float
    """Distance from the center ÷ median distance"""


@dataclass(frozen=True)
class StoreData:
    """The data of a store in the report."""

    videos: tuple[VideoSummary, ...]
    statistics: Mapping[str, StreamStatistics]
    projections: tuple[Projection, ...]
    near_duplicates: tuple[tuple[str, str, float], ...]
    """Two videos and the cosine of their standardized features, without pairs of files with identical bytes"""
    identical: tuple[tuple[str, ...], ...]
    """Groups of videos whose files have the same bytes"""
    outliers: tuple[Outlier, ...]
    unusual_durations: tuple[str, ...]
    """Videos with less than half or more than twice the median duration"""

    def reasons(self) -> list[tuple[str, str, list[tuple[str, str]]]]:
        """Return (kind, reason, list of (video, stream)) of all outcomes that are not done, most frequent first.

        The path of the file is removed from a reason, so that equal reasons of several files are one group.
        """
        groups: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        for video in self.videos:
            for outcome in video.outcomes.values():
                if outcome.kind != "done":
                    groups[outcome.kind, _without_path(outcome)].append((video.video_id, outcome.stream))
        severity = ("failed", "partial", "empty")
        ordered = sorted(groups.items(), key=lambda each: (severity.index(each[0][0]), -len(each[1]), each[0][1]))
        return [(kind, reason, found) for (kind, reason), found in ordered]


@dataclass
class _Sums:
    ids: list[str] = field(default_factory=list[str])
    means: list[Array] = field(default_factory=list[Array])
    deviations: list[Array] = field(default_factory=list[Array])
    count: int = 0
    total: Array | float = 0.0
    squares: Array | float = 0.0


def read_store_data(store: FeatureStore) -> StoreData:
    """Read all outcomes and features of a store once, stream by stream. Memory grows with videos, not with segments.

    Args:
        store: The store, opened with ``partial=True`` to show partial videos.
    """
    ends_s: dict[str, float] = {}
    segments: defaultdict[str, dict[str, int]] = defaultdict(dict)
    statistics: dict[str, StreamStatistics] = {}
    for stream in store.streams:
        sums = _Sums()
        for features in store.scan(stream):
            segments[features.video_id][stream] = len(features)
            if not len(features):
                continue
            ends_s[features.video_id] = max(ends_s.get(features.video_id, 0.0), float(features.end_s[-1]))
            values = features.row_means.astype(np.float64)
            sums.ids.append(features.video_id)
            sums.means.append(values.mean(axis=0))
            sums.deviations.append(values.std(axis=0))
            sums.count += len(values)
            sums.total = sums.total + values.sum(axis=0)
            sums.squares = sums.squares + (values**2).sum(axis=0)
        if sums.ids:
            statistics[stream] = _statistics(sums)
    by_video: defaultdict[str, dict[str, Outcome]] = defaultdict(dict)
    for outcome in store.outcomes():
        by_video[outcome.video_id][outcome.stream] = outcome
    videos = tuple(
        VideoSummary(name, by_video[name], ends_s.get(name, 0.0), segments.get(name, {})) for name in sorted(by_video)
    )
    identical = _identical(videos)
    return StoreData(
        videos=videos,
        statistics=statistics,
        projections=tuple(_projection(name, each) for name, each in statistics.items() if len(each.video_ids) > 2),
        near_duplicates=tuple(_near_duplicates(statistics, identical)),
        identical=identical,
        outliers=tuple(_outliers(statistics)),
        unusual_durations=tuple(_unusual_durations(videos)),
    )


def _statistics(sums: _Sums) -> StreamStatistics:
    order = sorted(range(len(sums.ids)), key=sums.ids.__getitem__)
    mean = np.asarray(sums.total) / sums.count
    return StreamStatistics(
        video_ids=tuple(sums.ids[row] for row in order),
        means=np.stack(sums.means)[order],
        deviations=np.stack(sums.deviations)[order],
        mean=mean,
        deviation=np.sqrt(np.maximum(np.asarray(sums.squares) / sums.count - mean**2, 0)),
    )


def _standardized(values: Array) -> Array:
    """Return columns with mean 0 and deviation 1; constant columns and values that are not finite become 0."""
    finite = np.where(np.isfinite(values), values, 0.0)
    spread = finite.std(axis=0)
    return (finite - finite.mean(axis=0)) / np.where(spread > 1e-12, spread, np.inf)


def _components(values: Array) -> tuple[Array, Array]:
    """Return the coordinates ``[videos, k]`` in the first principal components, and their shares of the variance.

    If there are fewer videos than features, they are computed from products between videos.
    """
    values = _standardized(values)
    total = float((values**2).sum())
    if total == 0:
        return np.zeros((len(values), 2)), np.zeros(2)
    if values.shape[0] <= values.shape[1]:
        squares, vectors = np.linalg.eigh(values @ values.T)
        order = np.argsort(-squares)[:MAX_COMPONENTS]
        found = vectors[:, order] * np.sqrt(np.maximum(squares[order], 0))
    else:
        squares, vectors = np.linalg.eigh(values.T @ values)
        order = np.argsort(-squares)[:MAX_COMPONENTS]
        found = values @ vectors[:, order]
    found = found * np.where(found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])] < 0, -1, 1)
    if found.shape[1] < 2:
        found = np.pad(found, ((0, 0), (0, 2 - found.shape[1])))
    return found, np.maximum(np.pad(squares[order], (0, max(0, 2 - len(order)))), 0) / total


def _projection(stream: str, statistics: StreamStatistics) -> Projection:
    points, shares = _components(statistics.means)
    return Projection(stream, statistics.video_ids, points[:, :2], (float(shares[0]), float(shares[1])))


def _identical(videos: Sequence[VideoSummary]) -> tuple[tuple[str, ...], ...]:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for video in videos:
        if video.content_digest:
            groups[video.content_digest].append(video.video_id)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def _near_duplicates(
    statistics: Mapping[str, StreamStatistics], identical: Sequence[Sequence[str]]
) -> Iterator[tuple[str, str, float]]:
    """Yield the most similar pairs of videos.

    The lowest cosine over the streams of both videos must be at least `NEAR_COSINE`. Fewer than eight videos are not
    compared, because the standardization of their features is not reliable.
    """
    same = {frozenset((one, other)) for group in identical for one in group for other in group}
    found: dict[tuple[str, str], float] = {}
    for number, each in enumerate(statistics.values()):
        if len(each.video_ids) < 8:
            return
        values = _standardized(np.concatenate([each.means, each.deviations], axis=1))
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        values = (values / np.where(norms > 0, norms, 1)).astype(np.float32)
        pairs: dict[tuple[str, str], float] = {}
        for first in range(0, len(values), _BLOCK):
            cosines = values[first : first + _BLOCK] @ values.T
            for row, column in np.argwhere(cosines >= NEAR_COSINE).tolist():
                if first + row < column:
                    names = each.video_ids[first + row], each.video_ids[column]
                    pairs[names] = float(cosines[row, column])
        shared = set(each.video_ids)
        kept = {names: value for names, value in found.items() if not shared.issuperset(names) or names in pairs}
        found = {names: min(value, pairs.get(names, 1.0)) for names, value in kept.items()}
        if number == 0:
            found = pairs
    ranked = sorted(found.items(), key=lambda each: (-each[1], each[0]))
    listed = [(one, other, value) for (one, other), value in ranked if frozenset((one, other)) not in same]
    yield from listed[:MAX_PAIRS]


def _outliers(statistics: Mapping[str, StreamStatistics]) -> Iterator[Outlier]:
    """Yield videos that are far from the center of a stream in its first principal components."""
    for stream, each in statistics.items():
        if len(each.video_ids) < 8:
            continue
        distances = np.linalg.norm(_components(each.means)[0], axis=1)
        middle = float(np.median(distances))
        deviation = 1.4826 * float(np.median(np.abs(distances - middle)))
        order: list[int] = np.argsort(-distances).tolist()
        for row in order:
            if distances[row] <= middle + OUTLIER_DEVIATIONS * max(deviation, 1e-9):
                break
            yield Outlier(each.video_ids[row], stream, float(distances[row] / middle) if middle else math.inf)


def _unusual_durations(videos: Sequence[VideoSummary]) -> Iterator[str]:
    known = [video.duration_s for video in videos if video.duration_s]
    if len(known) >= 8:
        middle = float(np.median(known))
        yield from (
            video.video_id for video in videos if video.duration_s and not middle / 2 <= video.duration_s <= 2 * middle
        )


def _without_path(outcome: Outcome) -> str:
    path = f"{outcome.input_root}/{outcome.source}" if outcome.source else ""
    reason = outcome.reason
    for prefix in (path, outcome.source):
        if prefix and reason.startswith(prefix):
            return reason[len(prefix) :].lstrip(": ") or reason
    return reason or "no reason is recorded"


def kinds_by_stream(videos: Sequence[VideoSummary]) -> dict[str, Counter[str]]:
    """Return stream → number of outcomes of each kind."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for video in videos:
        for stream, outcome in video.outcomes.items():
            found[stream][outcome.kind] += 1
    return found
