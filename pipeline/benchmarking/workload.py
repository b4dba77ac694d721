"""Workload of a set of videos from their plans: frames, pixels and segments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...manifests.errors import ArabesqueError
from ..items import Stream, VideoPlan
from ..planning.plan import plan_video
from ..records import VideoFile, VideoMetadata, VideoRecord

ProbedVideo = tuple[VideoFile, VideoMetadata]
"""A video or clip, and the metadata of its frames. ``start_s`` of a clip is the time of its first frame."""
Probed = list[ProbedVideo]


class UnsuitableVideo(ArabesqueError):
    """A video that cannot be processed completely and would make a benchmark wrong."""


@dataclass(frozen=True)
class Workload:
    num_videos: int
    duration_s: float
    frames: int
    """Frames that at least one stream needs."""
    frame_pixels: int
    """Pixels of these frames at their original size."""
    decoded_pixels: int
    """Pixels of all frames up to the last needed one, which the decoder must decode."""
    segments: Mapping[str, int]
    """Stream → number of segments; 0 if there are none."""
    rows: Mapping[str, int]
    """Stream → videos with at least one segment."""

    def per_video_s(self, unit: str, stream: str = "") -> float:
        """Return the number of frames, or of segments of one stream, per second of video."""
        if unit == "frames":
            return self.frames / self.duration_s
        return (self.segments[stream] if stream else sum(self.segments.values())) / self.duration_s

    def times(self, share: float) -> Workload:
        """Return the workload multiplied by ``share``."""
        return Workload(
            num_videos=round(self.num_videos * share),
            duration_s=self.duration_s * share,
            frames=round(self.frames * share),
            frame_pixels=round(self.frame_pixels * share),
            decoded_pixels=round(self.decoded_pixels * share),
            segments={name: round(count * share) for name, count in self.segments.items()},
            rows={name: round(count * share) for name, count in self.rows.items()},
        )


def plan_of(file: VideoFile, metadata: VideoMetadata, streams: Sequence[Stream]) -> VideoPlan:
    """Return the plan of a video for all of these streams, as if it were new."""
    record = VideoRecord(
        file.video_id, file.local_path, size_bytes=0, modified_ns=0, content_digest="", metadata=metadata
    )
    return plan_video(record, streams, {})[0]


def streams_in(video: ProbedVideo, streams: Sequence[Stream]) -> set[str]:
    """Return the streams that have segments in a video."""
    return set(plan_of(*video, streams).streams)


def covering_streams(videos: Iterable[ProbedVideo], streams: Sequence[Stream]) -> Probed:
    """Choose few videos that together cover every stream that any video has, by a greedy search."""
    remaining_videos = [(streams_in(video, streams), video) for video in videos]
    chosen: Probed = []
    missing = {stream.name for stream in streams}
    while remaining_videos:
        shown, video = max(remaining_videos, key=lambda entry: len(entry[0] & missing))
        if not shown & missing:
            break
        chosen.append(video)
        missing -= shown
    return chosen


def workload(
    videos: Iterable[ProbedVideo],
    streams: Sequence[Stream],
    remaining: Mapping[str, Sequence[Stream]] | None = None,
) -> Workload:
    """Compute the workload of videos.

    Args:
        videos: The videos with their metadata.
        streams: The streams to compute.
        remaining: Video id → streams that are not done yet; all of ``streams`` by default.
    """
    segments: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    num_videos = frames = frame_pixels = decoded_pixels = 0
    duration_s = 0.0
    for file, metadata in videos:
        plan = plan_of(file, metadata, streams if remaining is None else remaining[file.video_id])
        for name, stream in plan.streams.items():
            segments[name] += len(stream.segments)
            rows[name] += 1
        area = metadata.width_px * metadata.height_px
        num_videos += 1
        duration_s += metadata.end_s
        frames += len(plan.wanted)
        frame_pixels += len(plan.wanted) * area
        decoded_pixels += (int(plan.wanted[-1]) + 1) * area if len(plan.wanted) else 0
    names = [stream.name for stream in streams]
    return Workload(
        num_videos=num_videos,
        duration_s=duration_s,
        frames=frames,
        frame_pixels=frame_pixels,
        decoded_pixels=decoded_pixels,
        segments={name: segments[name] for name in names},
        rows={name: rows[name] for name in names},
    )
