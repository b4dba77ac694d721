"""What a trained model makes of single videos: a score each, and how much each segment had to do with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Literal

import numpy as np
import torch
from torch import nn

from ..pipeline.store.reader import FeatureStore
from .checkpoints import ModelCard
from .features import FeatureSet
from .fitting import judge
from .routines import Placed, Routines, stack_routines
from .table import model_class

Measure = Literal["attention", "occlusion"]
MEASURES: Mapping[Measure, str] = {
    "attention": "share of the model's attention",
    "occlusion": "points that the score loses without the segment",
}


@dataclass(frozen=True)
class Segment:
    """A stretch of a video and what it meant to the score."""

    streams: tuple[str, ...]
    """Which it is a segment of; all of them for a model that reads one time grid"""
    start_s: float
    end_s: float
    importance: float


@dataclass(frozen=True)
class VideoScore:
    """One video as a model sees it."""

    video_id: str
    score: float
    measure: Measure
    """``attention``: the weights that the model gave, which sum to 1 in each stream. ``occlusion``, for models that
    have none: the score minus the score of the same video without the segment, negative where it costs points."""
    segments: tuple[Segment, ...]
    """By stream, in the order of time. None where a lone segment cannot be left out."""
    without: tuple[str, ...] = ()
    """Streams that the video does not have"""
    trained_on: bool = False
    """A video of this id was among those that the model was trained on"""

    def foremost(self, most: int) -> list[Segment]:
        """The segments that mattered most, of all streams together, the greatest first."""
        return sorted(self.segments, key=lambda segment: -abs(segment.importance))[:most]


def score_videos(
    network: nn.Module, card: ModelCard, features: FeatureSet, store: FeatureStore, video_ids: Iterable[str]
) -> list[VideoScore]:
    """``features``: the store's, of the model's streams; ``video_ids``: some of them."""
    return [_score(network, card, features, store, video_id) for video_id in video_ids]


def _score(network: nn.Module, card: ModelCard, features: FeatureSet, store: FeatureStore, video_id: str) -> VideoScore:
    video = features.videos[video_id]
    routines = stack_routines({video_id: video}, card.dims)
    score = _points(network, card, routines)[0]
    attention = _attention(network, routines)
    there = tuple(stream for stream in card.dims if stream in video)
    one_grid = bool(model_class(card.model).one_grid)
    segments: list[Segment] = []
    for streams in [there] if one_grid else [(stream,) for stream in there]:
        times = store.read(video_id, streams[0])
        left_out = [] if attention else _without_each(network, card, video, streams)
        weights = attention[streams[0]].tolist() if attention else [score - other for other in left_out]
        segments += map(Segment, repeat(streams), times.start_s.tolist(), times.end_s.tolist(), weights)
    return VideoScore(
        video_id=video_id,
        score=score,
        measure="attention" if attention else "occlusion",
        segments=tuple(segments),
        without=tuple(stream for stream in card.dims if not store.holds(video_id, stream)),
        trained_on=video_id in card.trained_on,
    )


def _attention(network: nn.Module, routines: Routines) -> dict[str, np.ndarray]:
    """stream → ``[segments]``; empty for a model without such weights."""
    network.eval()
    with torch.inference_mode():
        importance = network(routines.whole(torch.zeros(1, dtype=torch.int64))).importance
    return {stream: weights[0].double().numpy() for stream, weights in importance.items()}


def _without_each(
    network: nn.Module, card: ModelCard, video: Mapping[str, Placed], streams: tuple[str, ...]
) -> list[float]:
    """Scores of the video with one segment cut out, for each segment; nothing where there is only one."""
    count = len(video[streams[0]])
    if count < 2:
        return []
    shorter = {
        str(index): {stream: part.without(index) if stream in streams else part for stream, part in video.items()}
        for index in range(count)
    }
    return _points(network, card, stack_routines(shorter, card.dims))


def _points(network: nn.Module, card: ModelCard, routines: Routines) -> list[float]:
    low, high = card.score_range
    return (low + (high - low) * judge(network, routines, torch.arange(len(routines)))).tolist()
