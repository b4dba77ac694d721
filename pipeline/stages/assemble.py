"""Assemble stage: builds segments from the chunks of a video; a segment is complete with its last frame and audio."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from weakref import WeakValueDictionary

import torch

from ...extractors.protocol import SegmentInput, Shared
from ...manifests.streams import Geometry
from ..items import ChunkFailure, PreprocessedChunk, SegmentTask, StreamPlan, VideoEnd, VideoPlan
from ..planning.sampling import BLANK
from ..system.accelerators import is_out_of_memory, on_device, on_input_stream
from .waveforms import WaveformCursor, WholeTrack


@dataclass(eq=False)
class SegmentBuilder:
    """Holds the incomplete segments of all videos in progress, and yields each segment when it is complete.

    Call it with one item at a time. Chunks of one video must be in order; those of different videos may alternate.
    """

    videos: dict[VideoPlan, _VideoAssembly] = field(default_factory=lambda: dict[VideoPlan, _VideoAssembly]())

    def __call__(self, item: PreprocessedChunk | ChunkFailure | VideoEnd) -> Iterator[SegmentTask | VideoEnd]:
        assembly = self.videos.get(item.plan) or self.videos.setdefault(item.plan, _VideoAssembly(item.plan))
        if isinstance(item, ChunkFailure):
            assembly.failure = assembly.failure or item
            return
        try:
            if isinstance(item, PreprocessedChunk):
                if assembly.failure is None:
                    yield from assembly.push(item)
                return
            yield from assembly.complete(item)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            assembly.failure = ChunkFailure(item.plan, f"out of memory while segments were assembled: {error}")
            assembly.clear()
        if isinstance(item, VideoEnd):
            del self.videos[item.plan]
            if assembly.failure is not None:
                item = replace(item, error=assembly.failure.reason, transient=True)
            yield replace(item, segments_sent=assembly.sent)


class _VideoAssembly:
    def __init__(self, plan: VideoPlan) -> None:
        self._plan = plan
        self._todo = {name: deque(stream.todo) for name, stream in plan.streams.items()}
        self._frames: dict[Geometry, dict[int, torch.Tensor]] = {geometry: {} for geometry in plan.frames_by_geometry}
        self._shared = WeakValueDictionary[tuple[Geometry, tuple[int, ...]], Shared]()
        self._waveforms: dict[str, WaveformCursor] = {}  # one per stream, because streams may read different intervals
        track = plan.video.metadata.audio
        for name, stream in plan.streams.items():
            need = stream.stream.extractor.audio
            if need is not None and track is not None:
                cursor = WholeTrack if need.needs_whole_track else WaveformCursor
                self._waveforms[name] = cursor(need, track.rate_hz, track.start_s)
        self._newest = -1  # latest frame so far; earlier frames that are missing are lost
        self.sent: Counter[str] = Counter()
        self.failure: ChunkFailure | None = None

    def push(self, chunk: PreprocessedChunk) -> Iterator[SegmentTask]:
        for geometry, (indices, frames) in chunk.frames.items():
            self._frames[geometry].update(zip(indices.tolist(), frames, strict=True))
            self._newest = max(self._newest, int(indices.max(initial=-1)))
        if chunk.audio is not None:
            for cursor in self._waveforms.values():
                cursor.push(chunk.audio.samples)
        yield from self._complete_segments()
        self._forget_frames(chunk)

    def complete(self, end: VideoEnd) -> Iterator[SegmentTask]:
        """Yield the segments that were incomplete only because the audio track ended.

        A stream that needs the whole audio track gets no segment if a part of the track is lost.
        """
        if not (end.error or end.abandoned or self.failure):
            self._newest = self._plan.video.metadata.num_frames
            for name, stream in self._plan.streams.items():
                need = stream.stream.extractor.audio
                if need is not None and need.needs_whole_track and end.audio_holes:
                    self._todo[name].clear()
            for cursor in self._waveforms.values():
                cursor.finish()
            yield from self._complete_segments()

    def clear(self) -> None:
        """Free all frames and audio. No further segment of the video is built."""
        self._todo = {name: deque[int]() for name in self._todo}
        self._frames = {geometry: {} for geometry in self._frames}
        self._waveforms = {}

    def _complete_segments(self) -> Iterator[SegmentTask]:
        for name, todo in self._todo.items():
            stream = self._plan.streams[name]
            while todo and (task := self._segment(stream, todo[0])) is not _NOT_YET:
                todo.popleft()
                if isinstance(task, SegmentTask):  # None: no audio, or lost frames
                    self.sent[name] += 1
                    yield task

    def _segment(self, plan: StreamPlan, index: int) -> SegmentTask | object | None:
        """Return the segment; None if it has no audio or a lost frame; `_NOT_YET` while it is incomplete."""
        extractor = plan.stream.extractor
        start_s, end_s = float(plan.segments.start_s[index]), float(plan.segments.end_s[index])
        segment = SegmentInput(index, start_s, end_s)
        if extractor.frames is not None:
            assert plan.geometry is not None
            arrived = self._frames[plan.geometry]
            needed = _frames_of_segment(plan, index)
            missing = [frame for frame in needed if frame != BLANK and frame not in arrived]
            if missing:
                return None if missing[0] <= self._newest else _NOT_YET
            shared = self._shared.setdefault((plan.geometry, tuple(needed)), Shared())
            stacked = partial(on_device, arrived[needed[0]].device, "assemble", partial(_stacked, needed, arrived))
            segment = replace(
                segment,
                shared=shared,
                frames=shared.once("frames", stacked),
                frame_times_s=tuple(self._plan.video.metadata.frame_times_s[needed].tolist()),
                has_next_frame=len(needed) > plan.segments.frame_indices.shape[1],
                blank_frames=tuple(place for place, frame in enumerate(needed) if frame == BLANK),
            )
        if extractor.audio is not None:
            cursor = self._waveforms[plan.stream.name]
            if not cursor.reaches(end_s):
                return _NOT_YET
            if isinstance(cursor, WholeTrack) and extractor.audio.windows == "equal-split":
                waveform = cursor.share(index, len(plan.segments))
            else:
                waveform = cursor.take(start_s, end_s)
            if waveform is None:
                return None
            segment = replace(segment, waveform=waveform)
        return SegmentTask(self._plan, plan.stream, segment)

    def _forget_frames(self, chunk: PreprocessedChunk) -> None:
        """Keep only the frames that incomplete segments need, as copies, so that their chunk can be freed."""
        for geometry, (indices, frames) in chunk.frames.items():
            arrived = self._frames[geometry]
            newest = max(arrived, default=-1)
            needed: set[int] = set()  # of segments that have started and are incomplete
            for name, todo in self._todo.items():
                plan = self._plan.streams[name]
                for segment in todo if plan.geometry == geometry else ():
                    if plan.segments.frame_indices[segment, 0] > newest:
                        break
                    needed.update(_frames_of_segment(plan, segment))
            for index in arrived.keys() - needed:
                del arrived[index]
            places = [place for place, index in enumerate(indices.tolist()) if index in needed]
            if places and len(places) < len(indices):
                with on_input_stream(frames.device):
                    # indexing would copy the index to the device
                    kept = torch.stack([frames[place] for place in places])
                arrived.update(zip(indices[places].tolist(), kept, strict=True))


_NOT_YET = object()


def _stacked(needed: list[int], arrived: Mapping[int, torch.Tensor]) -> torch.Tensor:
    black = torch.zeros_like(arrived[needed[0]])
    return torch.stack([black if frame == BLANK else arrived[frame] for frame in needed])


def _frames_of_segment(plan: StreamPlan, index: int) -> list[int]:
    need, segments = plan.stream.extractor.frames, plan.segments
    frames = segments.frame_indices[index].tolist()
    if need is not None and need.next_frame and (following := int(segments.next_frame_index[index])) >= 0:
        frames.append(following)
    return frames
