"""Collect stage: combines the segments of each (video, stream), in any order, into a row and an outcome."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...extractors.protocol import FinishedVideo, PersonBoxes, VideoParts
from ..items import BatchResult, SegmentFailure, SegmentFeature, StreamPlan, VideoEnd, VideoPlan, VideoSettled
from ..planning.holes import describe, intervals_of, lost_share, touched
from ..planning.plan import needs_next_frame, outcome_of
from ..planning.sampling import ROUNDING, Segments
from ..records import FeatureRow, Hole, Outcome, VideoBoxes


@dataclass
class _StreamTally:
    """The segments of one (video, stream) so far."""

    features: dict[int, NDArray[np.float32]]
    arrived: int = 0
    without_row: int = 0
    compute_s: float = 0.0
    failure: SegmentFailure | None = None
    parts: _Parts | None = None
    """For extractors whose `forward` returns parts. ``features`` is empty until they are combined."""


class _Parts:
    """Passes on the parts of a (video, stream) in the order of segments. They may be added in any order."""

    def __init__(self, video: VideoParts, plan: StreamPlan, frame_times_s: NDArray[np.float64]) -> None:
        self._video = video
        self._indices = plan.segments.frame_indices
        self._times_s = frame_times_s
        self._waiting: dict[int, NDArray[np.float32]] = {}
        self.num_parts = 0
        self._expected = deque(index for index in range(len(plan.segments)) if index not in plan.lost | plan.masked)

    def add(self, index: int, part: NDArray[np.float32]) -> None:
        self._waiting[index] = part
        self.num_parts += 1
        while self._expected and self._expected[0] in self._waiting:
            self._pass_on(self._expected.popleft())

    def finish(self) -> FinishedVideo:
        for index in sorted(self._waiting):
            self._pass_on(index)
        return self._video.finish()

    def _pass_on(self, index: int) -> None:
        self._video.add(index, self._waiting.pop(index), self._times_s[self._indices[index]].tolist())


@dataclass
class _VideoTally:
    streams: dict[str, _StreamTally]
    end: VideoEnd | None = None
    done: set[str] = field(default_factory=set[str])


@dataclass(eq=False)
class RowCollector:
    """Holds the finished segments of all videos in progress. A stream is done with its last segment.

    A video's end marker may be received before its last segments, and states how many were sent.
    """

    provenance: Mapping[str, str]
    """Facts about the run that are stored with each row."""
    videos: dict[VideoPlan, _VideoTally] = field(default_factory=dict[VideoPlan, _VideoTally])
    """Videos in progress; empty at the end of a run."""

    def __call__(
        self, item: BatchResult | SegmentFailure | VideoEnd
    ) -> Iterator[SegmentFeature | FeatureRow | VideoBoxes | Outcome | VideoSettled]:
        for part in item.results if isinstance(item, BatchResult) else (item,):
            if part.plan not in self.videos:
                self.videos[part.plan] = _VideoTally(
                    {name: _tally_of(part.plan, stream) for name, stream in part.plan.streams.items()}
                )
            video = self.videos[part.plan]
            if isinstance(part, VideoEnd):
                video.end = part
            else:
                tally = video.streams[part.stream.name]
                tally.arrived += 1
                if isinstance(part, SegmentFailure):
                    tally.failure = tally.failure or part
                else:
                    tally.compute_s += part.compute_s
                    if tally.parts is not None and part.feature is not None:
                        tally.parts.add(part.index, part.feature)
                    elif part.feature is None:
                        tally.without_row += 1
                    else:
                        tally.features[part.index] = part.feature
                    yield part
            if video.end is not None:
                yield from self._finished_streams(video, video.end)

    def _finished_streams(
        self, video: _VideoTally, end: VideoEnd
    ) -> Iterator[FeatureRow | VideoBoxes | Outcome | VideoSettled]:
        for name, plan in end.plan.streams.items():
            tally = video.streams[name]
            if name in video.done or tally.arrived != end.segments_sent.get(name, 0):
                continue
            video.done.add(name)
            if end.abandoned:
                continue
            try:
                yield from list(self._result(plan, tally, end))
            except MemoryError as error:
                reason = f"out of memory while its row was assembled: {error}"
                yield outcome_of(end.plan.video, plan.stream, "failed", reason, key=plan.key, transient=True)
        if len(video.done) == len(end.plan.streams):
            del self.videos[end.plan]
            if not end.abandoned:
                yield VideoSettled(end.plan.video.video_id)

    def _result(
        self, plan: StreamPlan, tally: _StreamTally, end: VideoEnd
    ) -> Iterator[FeatureRow | VideoBoxes | Outcome]:
        """Yield the boxes and the row, if there are any, then the outcome."""
        boxes: PersonBoxes | None = None
        if tally.parts is not None:  # combine the parts into features
            finished = tally.parts.finish()
            boxes = finished.boxes
            tally.features.update(finished.features)
            tally.without_row += tally.parts.num_parts - len(finished.features)
        facts: dict[str, object] = {
            "key": plan.key,
            "frames_delivered": end.frames_delivered,
            "segments": len(tally.features),
            "decode_s": round(end.decode_s, 3),
            "compute_s": round(tally.compute_s, 3),
        }
        if boxes is not None:
            facts |= {"frames_seen": boxes.num_frames, "frames_with_person": boxes.num_frames_with_person}
        video = end.plan.video
        loss, is_partial = "", False
        if holes := _holes_of(plan, end):
            total_s = max(video.metadata.end_s, video.metadata.declared_end_s or 0.0)
            intervals = intervals_of(holes)
            facts |= {"holes": intervals, "lost_share": lost_share(intervals, total_s)}
            loss, is_partial = describe(holes, total_s), _leave_out(plan, tally, holes, end)
            facts["segments"] = len(tally.features)
        if boxes is not None and tally.failure is None and not end.error:
            yield VideoBoxes(video.video_id, plan.stream.name, plan.key, plan.stream.settings_digest, boxes)
        if tally.failure is not None:
            facts |= {"frames_seen": 0, "frames_with_person": 0}
            reason, transient = tally.failure.reason, tally.failure.transient
            yield outcome_of(video, plan.stream, "failed", reason, **facts | {"segments": 0, "transient": transient})
        elif end.error:
            facts |= {"frames_seen": 0, "frames_with_person": 0}
            yield outcome_of(
                video, plan.stream, "failed", end.error, **facts | {"segments": 0, "transient": end.transient}
            )
        elif is_partial and not tally.features:
            whole = "needs the whole audio track" if _lacks_whole_track(plan, end) else "all segments overlap holes"
            yield outcome_of(video, plan.stream, "failed", f"{whole}; {loss}", **facts)
        elif is_partial:
            yield self._row(plan, tally, end, "partial", loss, boxes)
            yield outcome_of(video, plan.stream, "partial", loss, **facts)
        elif not tally.features:
            why = f"the audio track covers none of its {len(plan.segments)} segments"
            if tally.without_row:
                why = f"nothing found in any of its {tally.without_row} segments (with a person crop: no person)"
            yield outcome_of(video, plan.stream, "empty", why, **facts)
        else:
            lacking = len(plan.segments) - len(tally.features) - len(plan.masked)
            notes = [f"{lacking} of {len(plan.segments)} segments have no row"] if lacking else []
            if plan.masked:
                notes.append(f"{len(plan.masked)} of {len(plan.segments)} segments are masked")
            if loss:
                notes.append(f"{loss}, outside of all segments")
            yield self._row(plan, tally, end, "done", "; ".join(notes), boxes)
            yield outcome_of(video, plan.stream, "done", "; ".join(notes), **facts)

    def _row(
        self,
        plan: StreamPlan,
        tally: _StreamTally,
        end: VideoEnd,
        outcome: Literal["done", "partial"],
        reason: str,
        boxes: PersonBoxes | None,
    ) -> FeatureRow:
        """Return the row.

        Its provenance repeats the outcome, so that it can be rebuilt if the process dies before the outcome is written.
        """
        order = sorted(tally.features)
        video = end.plan.video
        frames = {"frames_expected": str(video.metadata.num_frames), "frames_delivered": str(end.frames_delivered)}
        if tracks := video.metadata.tracks(with_audio=plan.stream.extractor.audio is not None):
            frames["tracks"] = tracks
        if video.source:
            frames |= {"source": video.source, "input_root": video.input_root}
        if end.decoded_on_cpu:
            frames["decoded_on_cpu"] = end.decoded_on_cpu
        if video.offset_s:
            frames["offset_s"] = repr(video.offset_s)
        if plan.masked:
            frames["masked_s"] = json.dumps(_intervals(plan.segments, sorted(plan.masked)))
        if boxes is not None:
            frames["frames_seen"] = str(boxes.num_frames)
            frames["frames_with_person"] = str(boxes.num_frames_with_person)
        if reason:
            frames["reason"] = reason
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
            provenance={**self.provenance, **frames},
        )


def _intervals(segments: Segments, indices: Sequence[int]) -> list[list[float]]:
    return np.stack([segments.start_s[indices], segments.end_s[indices]], axis=1).tolist()


def _tally_of(video: VideoPlan, plan: StreamPlan) -> _StreamTally:
    if hasattr(plan.stream.extractor, "start_video"):
        start: Callable[[], VideoParts] = getattr(plan.stream.extractor, "start_video")  # noqa: B009
        parts = _Parts(start(), plan, video.video.metadata.frame_times_s)
        for index, part in plan.known.items():
            if part is not None:
                parts.add(index, part)
        return _StreamTally(features={}, parts=parts)
    features = {index: feature for index, feature in plan.known.items() if feature is not None}
    return _StreamTally(features=features, without_row=len(plan.known) - len(features))


def _holes_of(plan: StreamPlan, end: VideoEnd) -> list[Hole]:
    """Return the holes in the frames or audio that a stream needs."""
    extractor = plan.stream.extractor
    holes = [*(end.holes if extractor.frames is not None else ()), *(end.audio_holes if extractor.audio else ())]
    if extractor.frames is None:  # the missing end of a truncated file has no audio either
        holes += [hole for hole in end.holes if hole.start_s >= end.plan.video.metadata.end_s]
    return holes


def _leave_out(plan: StreamPlan, tally: _StreamTally, holes: Sequence[Hole], end: VideoEnd) -> bool:
    """Remove the segments that a hole touches. Return whether the row lacks segments of the undamaged file."""
    found = np.flatnonzero(touched(plan.segments, holes, next_frame=needs_next_frame(plan.stream))).tolist()
    lost = [index for index in found if index not in plan.masked]
    for index in lost:
        tally.features.pop(index, None)
    if _lacks_whole_track(plan, end):
        tally.features.clear()
        return True
    return len(lost) > 0 or any(hole.end_s > end.plan.video.metadata.end_s + ROUNDING for hole in holes)


def _lacks_whole_track(plan: StreamPlan, end: VideoEnd) -> bool:
    """Return whether a stream needs the whole audio track, and a part of the track is lost."""
    need = plan.stream.extractor.audio
    return need is not None and need.needs_whole_track and bool(end.audio_holes)
