"""The assembling stage: windows of a video in, whole segments out, each once its last frame and sound are there."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import takewhile
from weakref import WeakValueDictionary

import torch

from ..extractors.protocol import AudioNeed, SegmentInput, Shared
from ..manifests.streams import Geometry
from .decoding.slots import AudioChunk
from .geometries import PreprocessedWindow, WindowFailure
from .sampling import BLANK
from .waveforms import WaveformCursor, WholeTrack
from .work import Passing, SegmentWork, StreamPlan, VideoEnd, VideoPlan


class Assembler:
    """Keeps the unfinished segments of every video in flight; call it with one window or one end at a time.

    Windows of one video must come in their order. Videos may be interleaved.
    """

    def __init__(self) -> None:
        self._videos: dict[VideoPlan, _VideoAssembly] = {}

    def __call__(
        self, item: PreprocessedWindow | WindowFailure | VideoEnd | Passing
    ) -> Iterator[SegmentWork | VideoEnd | Passing]:
        if not isinstance(item, PreprocessedWindow | WindowFailure | VideoEnd):
            yield item
            return
        assembly = self._videos.get(item.plan) or self._videos.setdefault(item.plan, _VideoAssembly(item.plan))
        if isinstance(item, PreprocessedWindow):
            yield from assembly.push(item)
        elif isinstance(item, WindowFailure):
            assembly.failure = assembly.failure or item
        else:
            del self._videos[item.plan]
            yield from assembly.finish(item)


class _VideoAssembly:
    def __init__(self, plan: VideoPlan) -> None:
        self._plan = plan
        self._todo = {name: deque(stream.todo) for name, stream in plan.streams.items()}
        self._frames: dict[Geometry, dict[int, torch.Tensor]] = {geometry: {} for geometry in plan.frames_by_geometry}
        self._shared = WeakValueDictionary[tuple[Geometry, tuple[int, ...]], Shared]()
        self._waveforms = self._open_waveforms()
        self._sent: Counter[str] = Counter()
        self.failure: WindowFailure | None = None

    def push(self, window: PreprocessedWindow) -> Iterator[SegmentWork]:
        for geometry, (indices, frames) in window.frames.items():
            self._frames[geometry].update(zip(indices.tolist(), frames, strict=True))
        if window.audio is not None:
            self._hear(window.audio)
        yield from self._complete_segments()
        self._forget_frames(window)

    def finish(self, end: VideoEnd) -> Iterator[SegmentWork | VideoEnd]:
        """Segments that were only waiting for sound that never comes, and the end with all that was sent."""
        if not (end.broke or end.sound_broke or end.abandoned):
            for cursors in self._waveforms.values():
                for cursor in cursors.values():
                    cursor.finish()
            yield from self._complete_segments()
        if self.failure is not None:
            end = replace(end, broke=self.failure.reason, transient=True)
        yield replace(end, segments_sent=self._sent)

    def _open_waveforms(self) -> dict[AudioNeed, dict[str, WaveformCursor]]:
        """One cursor for each listening stream: streams may read different intervals of the same sound."""
        cursors: dict[AudioNeed, dict[str, WaveformCursor]] = {}
        track = self._plan.video.probe.audio
        for name, stream in self._plan.streams.items():
            need = stream.stream.extractor.audio
            if need is not None and track is not None:
                listen = WholeTrack if need.needs_whole_track else WaveformCursor
                cursors.setdefault(need, {})[name] = listen(need, track.rate_hz, track.start_s)
        return cursors

    def _hear(self, chunk: AudioChunk) -> None:
        for cursors in self._waveforms.values():
            for cursor in cursors.values():
                cursor.push(chunk.samples)

    def _complete_segments(self) -> Iterator[SegmentWork]:
        for name, todo in self._todo.items():
            stream = self._plan.streams[name]
            while todo and (work := self._segment(stream, todo[0])) is not _NOT_YET:
                todo.popleft()
                if isinstance(work, SegmentWork):  # a segment without sound is left out, and the collector sees it
                    self._sent[name] += 1
                    yield work

    def _segment(self, plan: StreamPlan, index: int) -> SegmentWork | object | None:
        """The segment as work; None where there is no sound to it; `_NOT_YET` while something is missing."""
        extractor = plan.stream.extractor
        start_s, end_s = float(plan.segments.start_s[index]), float(plan.segments.end_s[index])
        segment = SegmentInput(index, start_s, end_s)
        if extractor.frames is not None:
            arrived = self._frames[extractor.frames.geometry]
            needed = _frames_of_segment(plan, index)
            if not all(frame in arrived for frame in needed if frame != BLANK):
                return _NOT_YET
            shared = self._shared.setdefault((extractor.frames.geometry, tuple(needed)), Shared())
            segment = replace(
                segment,
                shared=shared,
                frames=shared.once("frames", partial(_stacked, needed, arrived)),
                frame_times_s=tuple(self._plan.video.probe.frame_times_s[needed].tolist()),
                has_next_frame=len(needed) > plan.segments.frame_indices.shape[1],
                blank_frames=tuple(place for place, frame in enumerate(needed) if frame == BLANK),
            )
        if extractor.audio is not None:
            cursor = self._waveforms[extractor.audio][plan.stream.name]
            if not cursor.reaches(end_s):
                return _NOT_YET
            waveform = _waveform(cursor, plan, index)
            if waveform is None:
                return None
            segment = replace(segment, waveform=waveform)
        return SegmentWork(self._plan, plan.stream, segment)

    def _forget_frames(self, window: PreprocessedWindow) -> None:
        """Keeps the frames that a segment still asks for, without the rest of the window that brought them."""
        for geometry, (indices, frames) in window.frames.items():
            arrived = self._frames[geometry]
            needed = self._frames_of_begun_segments(geometry, max(arrived, default=-1))
            for index in arrived.keys() - needed:
                del arrived[index]
            places = [place for place, index in enumerate(indices.tolist()) if index in needed]
            if len(places) < len(indices):
                arrived.update(zip(indices[places].tolist(), frames[places], strict=True))

    def _frames_of_begun_segments(self, geometry: Geometry, newest: int) -> set[int]:
        """Those that begin with frame ``newest`` or before it and are not complete: later ones need later frames."""
        frames: set[int] = set()
        for name, todo in self._todo.items():
            plan = self._plan.streams[name]
            if _uses(plan, geometry):
                begun = takewhile(lambda index, plan=plan: plan.segments.frame_indices[index, 0] <= newest, todo)
                frames.update(*(_frames_of_segment(plan, index) for index in begun))
        return frames


_NOT_YET = object()


def _stacked(needed: list[int], arrived: Mapping[int, torch.Tensor]) -> torch.Tensor:
    black = torch.zeros_like(arrived[needed[0]])
    return torch.stack([black if frame == BLANK else arrived[frame] for frame in needed])


def _waveform(cursor: WaveformCursor, plan: StreamPlan, index: int) -> torch.Tensor | None:
    segments, need = plan.segments, plan.stream.extractor.audio
    if isinstance(cursor, WholeTrack) and need is not None and need.windows == "equal-split":
        return cursor.share(index, len(segments))
    return cursor.take(float(segments.start_s[index]), float(segments.end_s[index]))


def _uses(plan: StreamPlan, geometry: Geometry) -> bool:
    need = plan.stream.extractor.frames
    return need is not None and need.geometry == geometry


def _frames_of_segment(plan: StreamPlan, index: int) -> list[int]:
    need, segments = plan.stream.extractor.frames, plan.segments
    frames = segments.frame_indices[index].tolist()
    if need is not None and need.next_frame and (following := int(segments.next_frame_index[index])) >= 0:
        frames.append(following)
    return frames
