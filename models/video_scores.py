"""Scores of single videos by a trained model, and the change of the score without each segment and each stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ..manifests.optional_packages import require_package
from ..pipeline.store.html import html_table
from ..pipeline.store.reader import FeatureStore
from .checkpoints import ModelCard
from .features import FeatureSet
from .metrics import spearman
from .prediction import predict, predict_intervals
from .samples import Samples, StreamSegments, stack_samples
from .table import model_class

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingTypeStubs]

MEASURES: Mapping[str, str] = {
    "effect": "points that the score loses without the segment",
    "attention": "share of the model's attention in its stream",
}
"""Fields of `Segment` that measure importance"""
CHANCE = 0.05
"""Probability that a segment stands out by chance in a video with normally distributed effects"""
MAX_BATCH_BYTES = 128 << 20
"""Maximum size of the features of shortened copies of a video that are predicted together"""


@dataclass(frozen=True)
class Segment:
    """A segment of a video and its importance for the score."""

    streams: tuple[str, ...]
    """The streams of the segment; all of them for a model on one time grid"""
    start_s: float
    end_s: float
    effect: float | None
    """Points that the score loses without the segment: the score minus the score of the same video without it. It is
    negative if the segment lowers the score. None for the only segment of a stream"""
    attention: float | None = None
    """The model's attention weight; weights sum to 1 in each stream. None for models without attention"""


@dataclass(frozen=True)
class VideoScore:
    """Result for one video."""

    video_id: str
    score: float
    segments: tuple[Segment, ...]
    """Ordered by stream and time"""
    stream_effects: Mapping[str, float] = field(default_factory=dict[str, float])
    """Stream → points that the score loses without the stream; empty if the video has a single stream"""
    without: tuple[str, ...] = ()
    """Missing streams of the video"""
    trained_on: bool = False
    """Whether the training videos of the model include this id or the same content"""
    interval: tuple[float, float] | None = None
    """Lowest and highest score; contains the score of nine in ten new videos. None for models without intervals"""

    def foremost(self, most: int) -> list[Segment]:
        """Return the ``most`` segments with the largest absolute effects, in descending order."""
        return sorted(self.segments, key=lambda segment: -abs(segment.effect or 0.0))[:most]

    @property
    def outstanding(self) -> frozenset[Segment]:
        """The segments whose effect is larger than that of the others by more than chance explains

        In each stream, the standard deviation of a normal distribution is estimated from the median of the absolute
        effects. A segment stands out if the maximum of as many draws as there are segments exceeds its effect with a
        probability below `CHANCE`.
        """
        found: set[Segment] = set()
        for group in _by_stream(self.segments).values():
            effects = np.abs([segment.effect or 0.0 for segment in group])
            deviation = float(np.median(effects)) / NormalDist().inv_cdf(0.75)
            limit = deviation * NormalDist().inv_cdf(1 - CHANCE / (2 * len(group)))
            found |= {segment for segment, effect in zip(group, effects, strict=True) if effect > limit}
        return frozenset(found)

    @property
    def attention_agreement(self) -> float | None:
        """Rank correlation of attention and absolute effect, averaged over the streams

        None for models without attention, or if attention or effect is constant in every stream.
        """
        found: list[float] = []
        for group in _by_stream(self.segments).values():
            weights = [segment.attention for segment in group if segment.attention is not None]
            effects = [abs(segment.effect) for segment in group if segment.effect is not None]
            if len(weights) == len(effects) > 2:
                found.append(spearman(weights, effects))
        defined = [value for value in found if not np.isnan(value)]
        return float(np.mean(defined)) if defined else None

    def uniform_share(self, segment: Segment) -> float:
        """Return the attention weight that every segment of the same stream has if all are equal."""
        return 1 / sum(other.streams == segment.streams for other in self.segments)


def _by_stream(segments: Iterable[Segment]) -> dict[tuple[str, ...], list[Segment]]:
    found: dict[tuple[str, ...], list[Segment]] = {}
    for segment in segments:
        found.setdefault(segment.streams, []).append(segment)
    return found


@dataclass(frozen=True, repr=False)
class ScoreReport:
    """The scores of videos, and the reasons why other videos have no score.

    Attributes:
        model: The model's name.
        target: The score that it predicts.
        videos: Results of the videos that have a score, by id.
        not_scored: Video id → reason why the video has no score.
        paths: Video id → the video's file.
    """

    model: str
    target: str
    videos: tuple[VideoScore, ...]
    not_scored: Mapping[str, str]
    paths: Mapping[str, str]

    def __getitem__(self, video_id: str) -> VideoScore:
        for each in self.videos:
            if each.video_id == video_id:
                return each
        raise KeyError(f"{video_id!r} has no score: {self.not_scored.get(video_id, 'it is not among the videos')}")

    def __len__(self) -> int:
        return len(self.videos)

    def __iter__(self) -> Iterator[VideoScore]:
        return iter(self.videos)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a table with one row for each scored video: id, score, and missing streams."""
        require_package("pandas", "a table of pandas")
        import pandas  # pyright: ignore[reportMissingTypeStubs]

        rows = [
            {
                "video_id": each.video_id,
                "score": each.score,
                "interval": each.interval,
                "without": each.without,
                "trained_on": each.trained_on,
            }
            for each in self.videos
        ]
        return pandas.DataFrame(rows, columns=["video_id", "score", "interval", "without", "trained_on"])

    def __repr__(self) -> str:
        return f"ScoreReport({self.model}, {self.target}: {len(self.videos)} scored, {len(self.not_scored)} not scored)"

    def _repr_html_(self) -> str:
        rows: list[tuple[str, str]] = [(each.video_id, f"{each.score:.2f}") for each in self.videos]
        return html_table(repr(self), ("video", self.target), [*rows, *self.not_scored.items()])


def score_videos(
    network: nn.Module, card: ModelCard, features: FeatureSet, store: FeatureStore, video_ids: Iterable[str]
) -> list[VideoScore]:
    """Score videos, and measure the change of each score without each segment and each stream.

    Args:
        network: The model that `load_checkpoint` returned, on the device of the features.
        card: Its description.
        features: The model's streams of the store.
        store: The store, for the times of the segments.
        video_ids: Videos among ``features``.
    """
    return [_score(network, card, features, store, video_id) for video_id in video_ids]


def _score(network: nn.Module, card: ModelCard, features: FeatureSet, store: FeatureStore, video_id: str) -> VideoScore:
    video = features.videos[video_id]
    samples = stack_samples({video_id: video}, card.dims).to(features.device)
    score = _predict_scores(network, card, samples)[0]
    bounds = predict_intervals(network, samples, torch.zeros(1, dtype=torch.int64))
    attention = _attention(network, samples)
    there = tuple(stream for stream in card.dims if stream in video)
    one_grid = bool(model_class(card.model).one_grid)
    segments: list[Segment] = []
    for streams in [there] if one_grid else [(stream,) for stream in there]:
        times = store.read(video_id, streams[0]).with_masked()
        others = _without_each_segment(network, card, features, video, streams)
        weights = attention[streams[0]].tolist() if attention else [None] * len(times.present)
        for index in np.flatnonzero(times.present).tolist():
            effect = score - others[index] if others else None
            start_s, end_s = float(times.start_s[index]), float(times.end_s[index])
            segments.append(Segment(streams, start_s, end_s, effect, weights[index]))
    held = [stream for stream in there if store.holds(video_id, stream)]
    return VideoScore(
        video_id=video_id,
        score=score,
        segments=tuple(segments),
        stream_effects=_stream_effects(network, card, features, video, held, score) if len(held) > 1 else {},
        without=tuple(stream for stream in card.dims if not store.holds(video_id, stream)),
        interval=None if bounds is None else (_scaled(bounds[1], card), _scaled(bounds[2], card)),
        trained_on=video_id in card.trained_on
        or card.trained_duplicate(features.contents.get(video_id, "")) is not None,
    )


def _scaled(fraction: torch.Tensor, card: ModelCard) -> float:
    low, high = card.score_range
    return low + (high - low) * float(fraction)


def _attention(network: nn.Module, samples: Samples) -> dict[str, np.ndarray]:
    """Return stream → attention ``[segments]``; empty for a model without attention weights."""
    network.eval()
    with torch.inference_mode():
        importance = network(samples.whole(torch.zeros(1, dtype=torch.int64))).importance
    return {stream: weights[0].cpu().double().numpy() for stream, weights in importance.items()}


def _without_each_segment(
    network: nn.Module,
    card: ModelCard,
    features: FeatureSet,
    video: Mapping[str, StreamSegments],
    streams: tuple[str, ...],
) -> list[float]:
    """Return the scores without each segment; empty for a single segment."""
    count = len(video[streams[0]])
    if count < 2:
        return []
    video_bytes = 4 * sum(len(part) * card.dims[stream] for stream, part in video.items())
    at_once = max(1, MAX_BATCH_BYTES // max(1, video_bytes))
    found: list[float] = []
    for first in range(0, count, at_once):
        shorter = {
            str(index): {stream: part.without(index) if stream in streams else part for stream, part in video.items()}
            for index in range(first, min(first + at_once, count))
        }
        found += _predict_scores(network, card, stack_samples(shorter, card.dims).to(features.device))
    return found


def _stream_effects(
    network: nn.Module,
    card: ModelCard,
    features: FeatureSet,
    video: Mapping[str, StreamSegments],
    streams: Sequence[str],
    score: float,
) -> dict[str, float]:
    """Return the points that the score loses without each stream."""
    one_grid = bool(model_class(card.model).one_grid)
    lacking = {
        absent: {
            stream: StreamSegments.absent(len(part)) if stream == absent else part
            for stream, part in video.items()
            if one_grid or stream != absent
        }
        for absent in streams
    }
    scores = _predict_scores(network, card, stack_samples(lacking, card.dims).to(features.device))
    return {stream: score - other for stream, other in zip(streams, scores, strict=True)}


def _predict_scores(network: nn.Module, card: ModelCard, samples: Samples) -> list[float]:
    low, high = card.score_range
    return (low + (high - low) * predict(network, samples, torch.arange(len(samples)))).numpy().tolist()
