"""Plan of a video: the remaining segments of each stream, the frames to decode and the required audio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...extractors.geometry import largest_px
from ...extractors.protocol import shape_of
from ...manifests.streams import Geometry, Size
from ..digests import row_key
from ..items import Stream, StreamPlan, VideoPlan
from ..records import Hole, Outcome, OutcomeKind, VideoMetadata, VideoRecord
from ..store.write_ahead_log import FinishedSegment
from .holes import gap_holes, touched
from .sampling import BLANK, Segments, cut_segments, remaining_frames

AUDIO_TRAIL_S = 60.0
"""Seconds of audio that are decoded after the last frame and after the stated end of the track, for whole-track
streams."""

USUAL_FRAME_PX = (1080, 1920)
MAX_GROWTH, MAX_GROWTH_WITH_LIMIT = 64, 4
"""Maximum size of a geometry's frames relative to those of a 1920 × 1080 video. With a memory limit it is 4, which is a
4K video in its original size, because the limit is planned for that size."""
MAX_ROW_BYTES = 1 << 30
"""Maximum size of the features of one video and stream with several rows for each segment. They stay in memory until
the video is finished, and a page of a Parquet file is limited to 2 GiB."""
MAX_PIXEL_ASPECT = 16.0
"""No known format uses pixel aspect ratios beyond this."""

Progress = Mapping[str, Mapping[int, FinishedSegment]]
"""Row key → segment index → segment from an interrupted run."""


def plan_video(
    video: VideoRecord, streams: Iterable[Stream], progress: Progress, *, limited_memory: bool = False
) -> tuple[VideoPlan, list[Outcome]]:
    """Plan a video.

    Args:
        video: The video.
        streams: Streams without an outcome for this video.
        progress: Segments from interrupted runs.
        limited_memory: Whether the run has a ``--memory`` limit, which is planned for frames of usual size.

    Returns:
        The plan, and the outcomes of streams without work: those with nothing to extract, and those whose geometry
        would result in too large frames.
    """
    plans: dict[str, StreamPlan] = {}
    outcomes: list[Outcome] = []
    metadata = video.metadata
    may_resize = 1 / MAX_PIXEL_ASPECT <= metadata.pixel_aspect <= MAX_PIXEL_ASPECT
    may_resize = may_resize and metadata.display_px != (metadata.height_px, metadata.width_px)
    for stream in streams:
        need, tracks = stream.extractor.frames, metadata.tracks(with_audio=stream.extractor.audio is not None)
        key = row_key(video.content_digest, stream.settings_digest, tracks)
        segments, masked = _segments_and_masks(metadata, stream)
        shape = (-1,) if hasattr(stream.extractor, "start_video") else shape_of(stream.extractor)
        holes = gap_holes(metadata) if need is not None else ()
        is_lost = touched(segments, holes, next_frame=needs_next_frame(stream)) if holes else np.zeros(0, np.bool_)
        known = {  # with exactly the intervals of this plan; the file may have been indexed again
            index: None if segment.feature is None else segment.feature.reshape(shape)
            for index, segment in progress.get(key, {}).items()
            if index < len(segments)
            and _is_usable(stream, segment.feature)
            and (segment.start_s, segment.end_s) == (segments.start_s[index], segments.end_s[index])
        }
        geometry = None if need is None else need.geometry
        if geometry is not None and stream.spec.pixel_aspect != "ignore" and may_resize:
            geometry = geometry.model_copy(update={"steps": (Size(size_px=metadata.display_px), *geometry.steps)})
        plan = StreamPlan(stream, key, segments, known, frozenset(np.flatnonzero(is_lost).tolist()), masked, geometry)
        if reason := _nothing_to_extract(video, plan):
            outcomes.append(outcome_of(video, stream, "empty", reason, key=key))
        elif reason := _cannot_extract(plan, video):
            outcomes.append(outcome_of(video, stream, "failed", reason, key=key))
        elif reason := _too_large(plan, video, limited_memory=limited_memory):
            outcomes.append(outcome_of(video, stream, "failed", reason, key=key, transient=limited_memory))
        else:
            plans[stream.name] = plan
    return _video_plan(video, plans), outcomes


def _segments_and_masks(metadata: VideoMetadata, stream: Stream) -> tuple[Segments, frozenset[int]]:
    """Return the segments of a stream, and the indices of those that touch an excluded stretch."""
    times_s, end_s, sampling = metadata.frame_times_s, metadata.end_s, stream.spec.sampling
    if metadata.exclude == "cut":
        return cut_segments(times_s, end_s, sampling, metadata.excluded_frames, metadata.tick_s), frozenset()
    segments = cut_segments(times_s, end_s, sampling)
    edges_s, masked = np.append(times_s, end_s), np.zeros(len(segments), np.bool_)
    following = segments.next_frame_index.copy()
    for first, last in metadata.excluded_frames:
        excluded = Hole(float(edges_s[first]), float(edges_s[last]), "excluded")
        masked |= touched(segments, [excluded], next_frame=False)
        masked |= ((segments.frame_indices >= first) & (segments.frame_indices < last)).any(axis=1)
        following[(following >= first) & (following < last)] = -1
    return replace(segments, next_frame_index=following), frozenset(np.flatnonzero(masked).tolist())


def with_segments(plan: VideoPlan, chosen: Mapping[str, Iterable[int]]) -> VideoPlan:
    """Return the plan with only these segments of each stream.

    Args:
        plan: A plan from `plan_video`.
        chosen: Stream → indices of its segments.
    """
    streams = {
        name: replace(each, lost=each.lost | (set(range(len(each.segments))) - set(chosen[name])))
        for name, each in plan.streams.items()
    }
    return _video_plan(plan.video, streams)


def _video_plan(video: VideoRecord, plans: Mapping[str, StreamPlan]) -> VideoPlan:
    """Collect the frames and the audio that the remaining segments of all streams need."""
    frames: dict[Geometry, list[NDArray[np.int64]]] = {}
    audio_ends_s: list[float] = []
    for plan in plans.values():
        segments, todo, audio = plan.segments, plan.todo, plan.stream.extractor.audio
        if plan.geometry is not None:
            own = frames.setdefault(plan.geometry, [])
            indices = segments.frame_indices[todo].ravel()
            own.append(indices[indices != BLANK])
            if needs_next_frame(plan.stream):
                following = segments.next_frame_index[todo]
                own.append(following[following >= 0])
        if audio is not None and video.metadata.audio is not None and todo:
            audio_ends_s.append(float(segments.end_s[todo[-1]]))
            if audio.needs_whole_track:
                stated_end_s = video.metadata.audio.start_s + (video.metadata.audio.duration_s or 0.0)
                audio_ends_s.append(max(video.metadata.end_s, stated_end_s) + AUDIO_TRAIL_S)
    by_geometry = {geometry: np.unique(np.concatenate(parts)) for geometry, parts in frames.items()}
    wanted = np.unique(np.concatenate([np.zeros(0, np.int64), *by_geometry.values()]))
    return VideoPlan(video, plans, by_geometry, wanted, max(audio_ends_s, default=None))


def _cannot_extract(plan: StreamPlan, video: VideoRecord) -> str:
    """Return why a stream cannot exclude stretches, or has too many features for a row; otherwise an empty text."""
    audio = plan.stream.extractor.audio
    if audio is not None and audio.windows == "equal-split" and video.metadata.excluded_frames:
        return (
            f'{video.path}: windows = "equal-split" divides the whole audio track, including excluded stretches; '
            'use windows = "interval", or exclude = keep in the table of clips'
        )
    segments, dim = len(plan.segments), plan.stream.extractor.dim
    num_bytes = segments * dim * 4
    if num_bytes <= MAX_ROW_BYTES or len(shape_of(plan.stream.extractor)) == 1:
        return ""
    return (
        f"{video.path}: {segments} segments of {dim:,} values are {num_bytes / 2**30:.1f} GiB, but the maximum is "
        f'{MAX_ROW_BYTES >> 30} GiB; set output = "time" or "pooled", or cut it into clips (--clips)'
    )


def _too_large(plan: StreamPlan, video: VideoRecord, *, limited_memory: bool) -> str:
    """Return why the frames of a stream are too large; empty if they are not."""
    metadata, need = video.metadata, plan.stream.extractor.frames
    if need is None or plan.geometry is None:
        return ""
    if plan.stream.spec.pixel_aspect == "display" and not (
        1 / MAX_PIXEL_ASPECT <= metadata.pixel_aspect <= MAX_PIXEL_ASPECT
    ):
        return (
            f"{video.path}: its header states pixels {metadata.pixel_aspect:.3g} times as wide as high; correct it, or "
            'set pixel_aspect = "ignore" in the recipe'
        )
    growth = MAX_GROWTH_WITH_LIMIT if limited_memory else MAX_GROWTH
    allowed = growth * largest_px(*USUAL_FRAME_PX, need.geometry)
    largest = largest_px(metadata.height_px, metadata.width_px, plan.geometry)
    if not need.geometry.steps or largest <= max(allowed, growth * 4096):
        return ""
    frame = f"a frame of {metadata.width_px}×{metadata.height_px} pixels"
    what = f"{frame} would become one of {largest / 1e6:,.1f} megapixels"
    hint = ", or allow more --memory" if limited_memory else ""
    return (
        f"{video.path}: {what}, more than {growth} times that of a usual video; "
        f"crop it (ffmpeg -i IN -vf crop=WIDTH:HEIGHT OUT.mp4){hint}"
    )


def outcome_of(video: VideoRecord, stream: Stream, kind: OutcomeKind, reason: str = "", **facts: object) -> Outcome:
    """Return an outcome with the fields of the video and the stream; ``facts`` are its key and further fields."""
    known: dict[str, object] = {
        "content_digest": video.content_digest,
        "settings_digest": stream.settings_digest,
        "size_bytes": video.size_bytes,
        "modified_ns": video.modified_ns,
        "frames_expected": video.metadata.num_frames,
        "source": video.source,
        "input_root": video.input_root,
    }
    return Outcome(video.video_id, stream.name, kind, reason, **(known | facts))  # type: ignore[arg-type]


def _nothing_to_extract(video: VideoRecord, plan: StreamPlan) -> str:
    """Return why a stream has nothing to extract; empty if it has work."""
    if plan.stream.extractor.audio is not None and video.metadata.audio is None:
        return "no audio track"
    if len(plan.masked) == len(plan.segments) > 0:
        return f"each of its {len(plan.segments)} segments touches an excluded stretch"
    if len(plan.segments) == 0:
        sampling = plan.stream.spec.sampling
        remaining = remaining_frames(video.metadata.num_frames, video.metadata.excluded_frames)
        edges_s = np.append(video.metadata.frame_times_s, video.metadata.end_s)
        longest_s = max((float(edges_s[last] - edges_s[first]) for first, last in remaining), default=0.0)
        what = "the stretches that are not excluded, of at most " if video.metadata.excluded_frames else ""
        rate = "its own rate" if sampling.fps == "native" else f"{sampling.fps:g} fps"
        return (
            f"{what}{longest_s:.2f} s at {rate} are shorter than one segment of {sampling.frames_per_segment} "
            'frames; a recipe with remainder = "pad-last" would pad it'
        )
    return ""


def _is_usable(stream: Stream, stored: NDArray[np.float32] | None) -> bool:
    """Return whether a segment of the write-ahead log has the form that this version of the extractor writes."""
    is_part = getattr(stream.extractor, "is_part", None)
    if is_part is None:
        return stored is None or stored.size == stream.extractor.dim
    return stored is not None and is_part(stored)


def needs_next_frame(stream: Stream) -> bool:
    """Return whether a segment needs the next sampled frame, for optical flow."""
    return stream.extractor.frames is not None and stream.extractor.frames.next_frame
