"""What a set of videos asks for, by planning them: frames, pixels and segments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...manifests.errors import ArabesqueError
from ..planning import plan_video
from ..records import Probe, VideoFile, VideoRecord
from ..work import Stream, VideoPlan

Probed = list[tuple[VideoFile, Probe]]


class UnfitVideo(ArabesqueError):
    """One that does not go through: a benchmark on it would take its failure for speed."""


@dataclass(frozen=True)
class Workload:
    num_videos: int
    duration_s: float
    frames: int
    """That any stream asks for."""
    frame_pixels: int
    """Of these frames, as they were recorded."""
    decoded_pixels: int
    """Of all frames up to the last of these: what the decoder has to go through."""
    segments: Mapping[str, int]
    """Stream → segments; a stream that finds nothing to extract has 0."""
    rows: Mapping[str, int]
    """Stream → videos with at least one segment."""

    def per_video_s(self, unit: str, stream: str = "") -> float:
        """Frames, or segments (of one stream), in a second of video."""
        if unit == "frames":
            return self.frames / self.duration_s
        return (self.segments[stream] if stream else sum(self.segments.values())) / self.duration_s

    def times(self, share: float) -> Workload:
        """Of which this is a sample: so many times as much."""
        return Workload(
            num_videos=round(self.num_videos * share),
            duration_s=self.duration_s * share,
            frames=round(self.frames * share),
            frame_pixels=round(self.frame_pixels * share),
            decoded_pixels=round(self.decoded_pixels * share),
            segments={name: round(count * share) for name, count in self.segments.items()},
            rows={name: round(count * share) for name, count in self.rows.items()},
        )


def plan_of(file: VideoFile, probe: Probe, streams: Sequence[Stream]) -> VideoPlan:
    """All that ``streams`` ask of a video, as if it were new."""
    record = VideoRecord(file.video_id, file.local_path, size_bytes=0, modified_ns=0, content_digest="", probe=probe)
    return plan_video(record, streams, {})[0]


def streams_in(video: tuple[VideoFile, Probe], streams: Sequence[Stream]) -> set[str]:
    """Those that find something to extract in it."""
    return set(plan_of(*video, streams).streams)


def showing_all(videos: Iterable[tuple[VideoFile, Probe]], streams: Sequence[Stream]) -> Probed:
    """As few of the videos as together show every stream that any of them shows; of equals the first."""
    rest = [(streams_in(video, streams), video) for video in videos]
    chosen: Probed = []
    missing = {stream.name for stream in streams}
    while rest:
        shown, video = max(rest, key=lambda entry: len(entry[0] & missing))
        if not shown & missing:
            break
        chosen.append(video)
        missing -= shown
    return chosen


def workload(
    videos: Iterable[tuple[VideoFile, Probe]],
    streams: Sequence[Stream],
    owed: Mapping[str, Sequence[Stream]] | None = None,
) -> Workload:
    """``owed``: video id → the streams that it owes, where those are not all of ``streams``."""
    segments: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    num_videos = frames = frame_pixels = decoded_pixels = 0
    duration_s = 0.0
    for file, probe in videos:
        plan = plan_of(file, probe, streams if owed is None else owed[file.video_id])
        for name, stream in plan.streams.items():
            segments[name] += len(stream.segments)
            rows[name] += 1
        area = probe.width_px * probe.height_px
        num_videos += 1
        duration_s += probe.end_s
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
