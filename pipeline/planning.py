"""From a probed video to the exact work that it owes: segments, frames, and how far its sound is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from ..manifests.streams import Geometry
from .keys import row_key
from .records import Outcome, OutcomeKind, Probe, VideoRecord
from .sampling import BLANK, Segments, cut_segments
from .store.progress_journal import FinishedSegment
from .work import Stream, StreamPlan, VideoPlan

SOUND_TRAIL_S = 60.0
"""How long sound that is heard as a whole may go on after the pictures, and after the end that its header states."""

Progress = Mapping[str, Mapping[int, FinishedSegment]]
"""Row key → what an interrupted run had finished of that row, by segment index."""


def plan_video(video: VideoRecord, streams: Iterable[Stream], progress: Progress) -> tuple[VideoPlan, list[Outcome]]:
    """The work for ``streams``, and the outcomes that need none: streams that find nothing to extract."""
    plans: dict[str, StreamPlan] = {}
    outcomes: list[Outcome] = []
    for stream in streams:
        key = row_key(video.content_digest, stream.settings_digest)
        segments = cut_segments(video.probe.frame_times_s, video.probe.end_s, stream.spec.sampling)
        plan = StreamPlan(stream, key, segments, _known(segments, progress.get(key, {})))
        if reason := _nothing_to_extract(video, plan):
            outcomes.append(outcome_of(video, stream, "empty", reason, key=key))
        else:
            plans[stream.name] = plan
    by_geometry = _frames_by_geometry(plans.values())
    wanted = np.unique(np.concatenate([np.zeros(0, np.int64), *by_geometry.values()]))
    return VideoPlan(video, plans, by_geometry, wanted, _audio_until_s(video.probe, plans.values())), outcomes


def outcome_of(video: VideoRecord, stream: Stream, kind: OutcomeKind, reason: str = "", **facts: object) -> Outcome:
    """An outcome with what the video's record and the stream tell of it; ``facts`` fill or replace further fields."""
    known: dict[str, object] = {
        "key": row_key(video.content_digest, stream.settings_digest),
        "content_digest": video.content_digest,
        "settings_digest": stream.settings_digest,
        "size_bytes": video.size_bytes,
        "modified_ns": video.modified_ns,
        "frames_expected": video.probe.num_frames,
    }
    return Outcome(video.video_id, stream.name, kind, reason, **(known | facts))  # type: ignore[arg-type]


def _known(segments: Segments, finished: Mapping[int, FinishedSegment]) -> dict[int, NDArray[np.float32] | None]:
    """Journalled segments that cover the very intervals of this plan; a file may have been indexed anew since."""
    return {
        index: segment.feature
        for index, segment in finished.items()
        if index < len(segments)
        and (segment.start_s, segment.end_s) == (segments.start_s[index], segments.end_s[index])
    }


def _nothing_to_extract(video: VideoRecord, plan: StreamPlan) -> str:
    """Why a stream has no row for this video; empty where it has work to do."""
    if plan.stream.extractor.audio is not None and video.probe.audio is None:
        return "no audio track"
    if len(plan.segments) == 0:
        sampling = plan.stream.spec.sampling
        rate = "its own rate" if sampling.fps == "native" else f"{sampling.fps:g} fps"
        return (
            f"{video.probe.end_s:.2f} s at {rate} are shorter than one segment of {sampling.frames_per_segment} "
            'frames; a recipe with remainder = "pad-last" would fill it up'
        )
    return ""


def _frames_by_geometry(plans: Iterable[StreamPlan]) -> dict[Geometry, NDArray[np.int64]]:
    parts: dict[Geometry, list[NDArray[np.int64]]] = {}
    for plan in plans:
        if plan.stream.extractor.frames is not None:
            parts.setdefault(plan.stream.extractor.frames.geometry, []).append(_frames_of(plan))
    return {geometry: np.unique(np.concatenate(frames)) for geometry, frames in parts.items()}


def _frames_of(plan: StreamPlan) -> NDArray[np.int64]:
    """Frames that the segments still to be computed need, the next frame of each included where it is asked for."""
    todo = plan.todo
    frames = plan.segments.frame_indices[todo].ravel()
    frames = frames[frames != BLANK]
    need = plan.stream.extractor.frames
    if need is not None and need.next_frame:
        following = plan.segments.next_frame_index[todo]
        frames = np.concatenate([frames, following[following >= 0]])
    return frames


def _audio_until_s(probe: Probe, plans: Iterable[StreamPlan]) -> float | None:
    ends_s: list[float] = []
    for plan in plans:
        need = plan.stream.extractor.audio
        if need is None or probe.audio is None or not plan.todo:
            continue
        ends_s.append(float(plan.segments.end_s[plan.todo[-1]]))
        if need.needs_whole_track:
            stated_end_s = probe.audio.start_s + (probe.audio.duration_s or 0.0)
            ends_s.append(max(probe.end_s, stated_end_s) + SOUND_TRAIL_S)
    return max(ends_s, default=None)
