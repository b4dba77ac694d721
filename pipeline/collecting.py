"""The collecting stage: finished segments in any order in, whole rows and outcomes of (video, stream) out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .planning import outcome_of
from .records import FeatureRow, Outcome
from .work import SegmentFailure, SegmentFeature, StreamPlan, VideoEnd, VideoPlan, VideoSettled


@dataclass
class _Tally:
    """What has arrived of one (video, stream)."""

    features: dict[int, NDArray[np.float32]]
    arrived: int = 0
    without_row: int = 0
    compute_s: float = 0.0
    failure: SegmentFailure | None = None


@dataclass
class _VideoTally:
    streams: dict[str, _Tally]
    end: VideoEnd | None = None
    settled: set[str] = field(default_factory=set[str])


class Collector:
    """Holds what has arrived of every video in flight; a stream is settled once its last segment is there.

    A video's end may overtake its segments: it says how many were sent, and the collector waits for as many.
    """

    def __init__(self, provenance: Mapping[str, str]) -> None:
        self._provenance = dict(provenance)
        self._videos: dict[VideoPlan, _VideoTally] = {}

    @property
    def unsettled(self) -> list[str]:
        """Videos that have not ended; empty after a run that lost nothing."""
        return sorted(plan.video.video_id for plan in self._videos)

    def __call__(self, items: list[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, SegmentFeature | SegmentFailure | VideoEnd):
                yield from self._collect(item)
            else:
                yield item

    def _collect(
        self, item: SegmentFeature | SegmentFailure | VideoEnd
    ) -> Iterator[SegmentFeature | FeatureRow | Outcome | VideoSettled]:
        video = self._videos.get(item.plan) or self._videos.setdefault(item.plan, _new_tally(item.plan))
        if isinstance(item, VideoEnd):
            video.end = item
        elif isinstance(item, SegmentFailure):
            tally = video.streams[item.stream.name]
            tally.arrived += 1
            tally.failure = tally.failure or item
        else:
            tally = video.streams[item.stream.name]
            tally.arrived += 1
            tally.compute_s += item.compute_s
            if item.feature is None:
                tally.without_row += 1
            else:
                tally.features[item.index] = item.feature
            yield item
        if video.end is not None:
            yield from self._settle(video, video.end)

    def _settle(self, video: _VideoTally, end: VideoEnd) -> Iterator[FeatureRow | Outcome | VideoSettled]:
        for name, plan in end.plan.streams.items():
            tally = video.streams[name]
            if name not in video.settled and tally.arrived == end.segments_sent.get(name, 0):
                video.settled.add(name)
                if not end.abandoned:
                    yield from self._result(plan, tally, end)
        if len(video.settled) == len(end.plan.streams):
            del self._videos[end.plan]
            if not end.abandoned:
                yield VideoSettled(end.plan.video.video_id)

    def _result(self, plan: StreamPlan, tally: _Tally, end: VideoEnd) -> Iterator[FeatureRow | Outcome]:
        """The row, where there is one, before the outcome that speaks of it."""
        facts: dict[str, object] = {
            "key": plan.key,
            "frames_delivered": end.frames_delivered,
            "segments": len(tally.features),
            "decode_s": round(end.decode_s, 3),
            "compute_s": round(tally.compute_s, 3),
        }
        video = end.plan.video
        broke = end.broke or (end.sound_broke if plan.stream.extractor.audio is not None else "")
        if tally.failure is not None:
            reason, transient = tally.failure.reason, tally.failure.transient
            yield outcome_of(video, plan.stream, "failed", reason, **facts | {"segments": 0, "transient": transient})
        elif broke and (end.transient or not tally.features):
            facts |= {"segments": 0, "transient": end.transient}
            yield outcome_of(video, plan.stream, "failed", broke, **facts)
        elif broke:
            yield self._row(plan, tally, end, "partial", broke)
            yield outcome_of(video, plan.stream, "partial", broke, **facts)
        elif not tally.features:
            yield outcome_of(video, plan.stream, "empty", _why_no_rows(plan, tally), **facts)
        else:
            gaps = _gaps(plan, tally)
            yield self._row(plan, tally, end, "done", gaps)
            yield outcome_of(video, plan.stream, "done", gaps, **facts)

    def _row(
        self, plan: StreamPlan, tally: _Tally, end: VideoEnd, outcome: Literal["done", "partial"], reason: str
    ) -> FeatureRow:
        """With what its outcome tells in its provenance, in case that the row is all that gets to the disk."""
        order = sorted(tally.features)
        video = end.plan.video
        frames = {"frames_expected": str(video.probe.num_frames), "frames_delivered": str(end.frames_delivered)}
        return FeatureRow(
            video_id=video.video_id,
            stream=plan.stream.name,
            key=plan.key,
            content_digest=video.content_digest,
            settings_digest=plan.stream.settings_digest,
            outcome=outcome,
            features=np.stack([tally.features[index] for index in order]),
            start_s=plan.segments.start_s[order],
            end_s=plan.segments.end_s[order],
            provenance=self._provenance | frames | ({"reason": reason} if reason else {}),
        )


def _new_tally(plan: VideoPlan) -> _VideoTally:
    return _VideoTally({name: _tally_of_known(stream) for name, stream in plan.streams.items()})


def _tally_of_known(plan: StreamPlan) -> _Tally:
    features = {index: feature for index, feature in plan.known.items() if feature is not None}
    return _Tally(features=features, without_row=len(plan.known) - len(features))


def _why_no_rows(plan: StreamPlan, tally: _Tally) -> str:
    if tally.without_row:
        return f"nothing found in any of its {tally.without_row} segments (no person, for a person crop)"
    return f"the sound covers none of its {len(plan.segments)} segments"


def _gaps(plan: StreamPlan, tally: _Tally) -> str:
    """What a reader of a done row should know; empty where every segment has its row."""
    lacking = len(plan.segments) - len(tally.features)
    return f"{lacking} of {len(plan.segments)} segments have no row" if lacking else ""
