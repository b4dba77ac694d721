"""Progress of a run in seconds of video: finished part, speed, and remaining time."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .items import Event, PhaseStarted, SegmentFeature, VideoOpened, VideoSettled, WorkerProgress
from .records import VideoFile

Phase = Literal["loading networks", "extracting", "merging shards"]
RATE_S = 120.0
"""Period over which the speed is measured."""
MIN_RATE_S = 3.0
"""Minimal computing time before a remaining time is estimated."""


@dataclass(frozen=True)
class RunProgress:
    """State of a run at one time.

    Example:
        >>> RunProgress("extracting", 30.0, 120.0, 1, 4, ("b",), 12.0, 3.0, 30.0).share
        0.25
    """

    phase: Phase
    video_s: float
    """Seconds of video that are computed, for all streams."""
    total_video_s: float
    """Seconds of video in this run, from metadata; estimated from the size of files that are not open yet. 0 if
    unknown."""
    num_videos: int
    """Number of videos with an outcome for each stream."""
    total_videos: int
    current: tuple[str, ...]
    """Ids of the videos that are open, oldest first."""
    elapsed_s: float
    """Time since the start of the run."""
    speed: float
    """Seconds of video per second; 0 if it is not known yet."""
    left_s: float | None
    """Estimated remaining time; None if it is not known yet."""

    @property
    def share(self) -> float:
        """Share of the video that has been computed, 0 to 1."""
        return min(1.0, self.video_s / self.total_video_s) if self.total_video_s else 0.0


class ProgressTracker:
    """Computes the progress of a run from its events.

    Args:
        files: Videos of the run.
        durations_s: Video id → duration in seconds of videos with known metadata.
        sizes: Video id → size in bytes; used for the other videos.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        files: Sequence[VideoFile],
        durations_s: Mapping[str, float],
        sizes: Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._began_s = clock()
        self._first: tuple[float, float] | None = None
        """Time and seconds of video after the first computed segment; before it, code is compiled."""
        self._phase: Phase = "loading networks"
        self._durations_s = dict(durations_s)
        self._sizes = {file.video_id: sizes.get(file.video_id, 0.0) for file in files}
        self._open: dict[str, VideoOpened] = {}
        self._computed: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._settled = set[str]()
        self._samples: deque[tuple[float, float]] = deque()
        self._unknown_bytes = sum(size for name, size in self._sizes.items() if name not in self._durations_s)
        self._known_bytes = sum(size for name, size in self._sizes.items() if name in self._durations_s)

    def add(self, event: Event) -> None:
        """Update the progress with an event of the run."""
        match event:
            case PhaseStarted(phase=phase):
                self._phase = phase
            case VideoOpened(video_id=video_id) if video_id in self._sizes:
                self._open[video_id] = event
                if video_id not in self._durations_s:
                    self._unknown_bytes -= self._sizes[video_id]
                    self._known_bytes += self._sizes[video_id]
                self._durations_s[video_id] = event.duration_s
            case SegmentFeature(plan=plan, stream=stream):
                self._computed[plan.video.video_id][stream.name] += 1
            case WorkerProgress(segments=segments):
                for (video_id, stream), number in segments.items():
                    self._computed[video_id][stream] += number
            case VideoSettled(video_id=video_id) if video_id in self._sizes:
                self._settled.add(video_id)
                if self._open.pop(video_id, None) is None:  # it could not be opened, or another run has computed it
                    if video_id in self._durations_s:
                        self._known_bytes -= self._sizes[video_id]
                    else:
                        self._unknown_bytes -= self._sizes[video_id]
                    self._durations_s[video_id] = 0.0
                self._computed.pop(video_id, None)
            case _:
                pass

    @property
    def now(self) -> RunProgress:
        """Progress at the current time."""
        now_s = self._clock()
        done_s = sum(self._durations_s[name] for name in self._settled)
        done_s += sum(self._share_of(opened) * opened.duration_s for opened in self._open.values())
        total_s = sum(self._durations_s.values()) + self._unknown_bytes * self._s_per_byte
        self._samples.append((now_s, done_s))
        while len(self._samples) > 2 and self._samples[1][0] < now_s - RATE_S:
            self._samples.popleft()
        if self._first is None and done_s:
            self._first = now_s, done_s
        speed, left_s = 0.0, None
        if self._first is not None and now_s - self._first[0] >= MIN_RATE_S:
            for then_s, before_s in (
                max(self._samples[0], self._first),
                self._first,
            ):  # the second one if nothing was computed recently
                if done_s > before_s and now_s > then_s:
                    speed = (done_s - before_s) / (now_s - then_s)
                    break
            if speed and total_s:
                left_s = max(0.0, total_s - done_s) / speed
        return RunProgress(
            phase=self._phase,
            video_s=done_s,
            total_video_s=total_s,
            num_videos=len(self._settled),
            total_videos=len(self._sizes),
            current=tuple(self._open),
            elapsed_s=now_s - self._began_s,
            speed=speed,
            left_s=left_s,
        )

    @property
    def _s_per_byte(self) -> float:
        """Seconds of video per byte, for the videos with known duration; 0 if there are none."""
        known_s = sum(self._durations_s.values())
        return known_s / self._known_bytes if self._known_bytes else 0.0

    def _share_of(self, opened: VideoOpened) -> float:
        """Return the computed share of a video, which is that of the slowest stream."""
        computed = self._computed[opened.video_id]
        shares = (min(1.0, computed[name] / number) for name, number in opened.segments.items() if number)
        return min(shares, default=0.0)
