"""Sequential decoding with PyAV (FFmpeg's libraries)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from av.codec.hwaccel import HWAccel
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from ..records import Deinterlace, Hole, VideoMetadata
from .audio_decoding import decode_audio
from .chunks import Span
from .containers import open_container, video_stream
from .decoders import IndexMismatch, Picture
from .deinterlacing import Deinterlacer
from .picture_stream import PictureStream, Shown
from .planes import planes_of, upright
from .pyav_metadata import probe_file

SAME_TIME_S = 1e-4
"""Time stamps are whole ticks. Times that differ by less than this differ only by rounding."""
MAX_UNWANTED_FRAMES = 128
"""Maximum number of frames after the last wanted one that are decoded to check that the file ends as its metadata
states. Segments that drop a tail leave fewer frames."""


MIN_SKIP_S = 10.0
"""A longer gap between two spans is skipped by a seek. Usual encoder settings have keyframes up to 10 s apart."""
_PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le"}
"""Pixel format of a graphics card → pixel format of CPU decoders with the same samples, for the conversion to RGB."""
SEEK_BACK_S = 0.5, 3.0, 12.0, 60.0
"""Times before a span, in seconds, at which a keyframe is searched, one after the other."""


class PyAvDecoder:
    def __init__(self, alive: Callable[[], None], planar: bool = False) -> None:
        self._alive = alive
        self._planar = planar
        self._card: HWAccel | None = None

    def probe(self, path: Path, thorough: bool = False, audio_track: int | str = "best") -> VideoMetadata:
        return probe_file(path, thorough=thorough, audio_track=audio_track, alive=self._alive)

    def frames(
        self,
        path: Path,
        metadata: VideoMetadata,
        wanted: NDArray[np.int64],
        deinterlace: Deinterlace = "none",
        spans: Sequence[Span] = (),
    ) -> Iterator[tuple[int, Picture] | Hole]:
        todo = wanted.tolist()[::-1]
        if not todo:
            return
        reformatter = VideoReformatter()
        places = _Places(path, metadata)
        is_split = deinterlace == "bwdif" and metadata.field_order != "progressive"
        with _Reader(path, metadata, self._alive, self._card) as reader:
            fields = Deinterlacer(reader.stream) if is_split else None
            for span in spans or (Span(0, metadata.num_frames),):
                if not todo:
                    return
                if reader.seek(span.first, places):
                    fields = Deinterlacer(reader.stream) if is_split else None
                for shown in reader.presented:
                    index, hole = places.place(shown, reader.stream.time_base)
                    if places.lost_silently:
                        reader.pictures.distrust()
                        continue
                    if hole is not None:
                        yield from self._wanted(todo, fields.flush() if fields else (), reformatter, metadata)
                        yield hole
                    if index is not None:
                        frames = fields.push(index, shown.frame) if fields else ((index, shown.frame),)
                        yield from self._wanted(todo, frames, reformatter, metadata)
                    if not todo:
                        if index is not None and metadata.num_frames - index <= MAX_UNWANTED_FRAMES:
                            places.check_end(reader.presented, reader.stream.time_base)
                        return
                    if todo[-1] >= span.last:
                        break  # the remaining frames are in later spans
                else:
                    yield from self._wanted(todo, fields.flush() if fields else (), reformatter, metadata)
                    if (hole := places.rest(reader.pictures.damage)) is not None:
                        yield hole
                    return

    def _wanted(
        self,
        todo: list[int],
        frames: Iterable[tuple[int, VideoFrame]],
        reformatter: VideoReformatter,
        metadata: VideoMetadata,
    ) -> Iterator[tuple[int, Picture]]:
        """Yield the pictures of the frames that remain in ``todo``, a list in descending order."""
        for index, frame in frames:
            while todo and todo[-1] < index:
                todo.pop()
            if todo and todo[-1] == index:
                # no reference to a picture may remain when the next one is made, because allocating new memory takes as
                # long as the conversion
                planes = planes_of(frame, metadata.rotation_deg, metadata.mirrored) if self._planar else None
                yield todo.pop(), planes or _picture(frame, reformatter, metadata)
                del planes

    def audio(
        self, path: Path, metadata: VideoMetadata, until_s: float, from_s: float | None = None
    ) -> Iterator[NDArray[np.float32] | Hole]:
        return decode_audio(path, metadata, until_s, self._alive, from_s)


class _Reader:
    """Iterates over the pictures of a file from its start or, after `seek`, from a keyframe. A context manager."""

    def __init__(
        self, path: Path, metadata: VideoMetadata, alive: Callable[[], None], card: HWAccel | None = None
    ) -> None:
        self._path = path
        self._metadata = metadata
        self._alive = alive
        self._card = card
        self._opened = ExitStack()
        self._open()

    def seek(self, first: int, places: _Places) -> bool:
        """Continue at a keyframe at or before a frame far ahead. Returns False if no seek was done.

        The time of the first picture after the keyframe determines its index, because indices of containers are not
        reliable. If no keyframe is found, the file is decoded from its start.
        """
        metadata, stream = self._metadata, self.stream
        times_s, base = metadata.frame_times_s, stream.time_base
        ahead_s = float(times_s[first] - times_s[min(places.position, metadata.num_frames - 1)])
        if not can_seek(metadata) or base is None or ahead_s <= MIN_SKIP_S:
            return False
        for back_s in SEEK_BACK_S:
            if back_s >= ahead_s:
                break
            at = round((metadata.start_s + float(times_s[first]) - back_s) / base)
            try:
                self._container.seek(at, stream=stream)
            except FFmpegError:
                break
            self._begin(after_seek=True)
            shown = next(self.presented, None)
            if shown is None or shown.damage or shown.frame.pts is None:
                continue
            index = places.index_of(float(shown.frame.pts * base) - metadata.start_s)
            if index is not None and index <= first:
                self.presented = chain((shown,), self.presented)
                places.jump(index)
                return True
        self._open()
        places.jump(0)
        return True

    def _open(self) -> None:
        self._opened.close()
        self._container = self._opened.enter_context(open_container(self._path, self._card))
        self.stream = video_stream(self._container, self._path, self._metadata.video_index)
        self._begin()

    def _begin(self, *, after_seek: bool = False) -> None:
        metadata = self._metadata
        self.pictures = PictureStream(
            self._container,
            self.stream,
            self._alive,
            metadata.lost_at,
            metadata.clock,
            counted=metadata.timed_by == "counting",
            can_resume=metadata.can_resume,
            after_seek=after_seek,
        )
        self.presented: Iterator[Shown] = iter(self.pictures)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._opened.close()


def can_seek(metadata: VideoMetadata) -> bool:
    """Return whether frames after a seek have certain times: in intact files whose packets have time stamps."""
    is_intact = not metadata.lost_at and not metadata.clock and metadata.can_resume
    return is_intact and metadata.timed_by == "packets"


class _Places:
    """Finds the index of each frame that a decoder presents, and the holes between them."""

    def __init__(self, path: Path, metadata: VideoMetadata) -> None:
        self._path = path
        self._metadata = metadata
        self._times_s = metadata.frame_times_s
        self._usual_s = float(np.median(np.diff(self._times_s))) if len(self._times_s) > 1 else metadata.end_s
        self._next = 0  # index after the last frame with a known index
        self._num_counted = 0
        self._damage = ""  # damage since then
        self.lost_silently = False
        """Whether frames are missing before the last frame although no damage was reported."""

    @property
    def position(self) -> int:
        """Index after the last frame with a known index."""
        return self._next

    def jump(self, index: int) -> None:
        """Expect the frame with this index next."""
        self._next, self._damage = index, ""

    def index_of(self, time_s: float) -> int | None:
        """Return the index of the frame at this time; None if there is none."""
        index = self._nearest(time_s)
        return index if abs(time_s - self._times_s[index]) <= SAME_TIME_S else None

    def place(self, shown: Shown, time_base: Fraction | None) -> tuple[int | None, Hole | None]:
        """Return the frame's index, None if it has none, and the hole before it. Raises `IndexMismatch`."""
        self._damage = shown.damage or self._damage
        self.lost_silently = False
        if self._metadata.timed_by == "counting":
            index = self._count(shown, time_base)
        else:
            index = self._find(shown.frame, time_base)
        if index is not None and (change := _change_of_size(shown.frame, self._metadata)):
            self._damage = self._damage or change
            return None, None
        if index is None:
            return None, None
        hole = self._hole(index)
        self._next, self._damage = index + 1, ""
        return index, hole

    def rest(self, damage: str) -> Hole | None:
        """Return the hole after the last frame. Raises `IndexMismatch`."""
        if self._next >= self._metadata.num_frames:
            return None
        damage = self._damage or damage
        if not damage and self._metadata.timed_by == "packets":
            raise IndexMismatch(f"{self._path}: {self._where(self._next)}: no further frame is decoded")
        return Hole(
            float(self._times_s[self._next]),
            self._metadata.end_s,
            f"{self._where(self._next)}: {damage or 'no further frame is decoded'}",
        )

    def check_end(self, presented: Iterator[Shown], time_base: Fraction | None) -> None:
        """Raise `IndexMismatch` if the last frame of the metadata is followed by frames without damage."""
        if self._metadata.timed_by != "packets" or time_base is None:
            return
        for shown in presented:
            if shown.damage or shown.frame.pts is None:
                return
            time_s = float(shown.frame.pts * time_base) - self._metadata.start_s
            if time_s > self._times_s[-1] + SAME_TIME_S:
                end = f"{self._metadata.num_frames} frames are known, but there is another one at {time_s:.3f} s"
                raise IndexMismatch(f"{self._path}: {end}")

    def _count(self, shown: Shown, time_base: Fraction | None) -> int | None:
        if shown.damage and shown.resumed_at is not None and time_base is not None:
            time_s = float(shown.resumed_at * time_base) - self._metadata.start_s
            self._num_counted = self._nearest(time_s)
        index = self._num_counted
        self._num_counted += 1
        return index if index < self._metadata.num_frames else None

    def _find(self, frame: VideoFrame, time_base: Fraction | None) -> int | None:
        """Return the frame's index by its time, in the stream's time base: the last frames of a file have none."""
        time_s = math.nan
        if frame.pts is not None and time_base is not None:
            time_s = float(frame.pts * time_base) - self._metadata.start_s
        has_time = not math.isnan(time_s)
        index = self._next
        if has_time and (index >= len(self._times_s) or abs(time_s - self._times_s[index]) > SAME_TIME_S):
            index = self._nearest(time_s)
        is_found = has_time and index >= self._next and abs(time_s - self._times_s[index]) <= SAME_TIME_S
        if is_found and (index == self._next or self._damage):
            return index
        came = f"the next frame comes at {time_s:.3f} s" if has_time else "the next frame comes without a time stamp"
        if not self._damage and self._metadata.timed_by == "packets":
            raise IndexMismatch(f"{self._path}: {self._where(self._next)}: {came}")
        self._damage = self._damage or came
        self.lost_silently = is_found
        return None

    def _nearest(self, time_s: float) -> int:
        right = min(int(np.searchsorted(self._times_s, time_s)), len(self._times_s) - 1)
        if right and time_s - self._times_s[right - 1] < self._times_s[right] - time_s:
            return right - 1
        return right

    def _hole(self, index: int) -> Hole | None:
        """Return the hole from the last frame with a known index to this one: lost frames, or time without frames."""
        first, end_s = self._next, float(self._times_s[index])
        if not self._damage:
            return None
        start_s = float(self._times_s[first])
        if first:
            start_s = min(start_s, float(self._times_s[first - 1]) + self._usual_s)
        if first == index and end_s - start_s <= 0.5 * self._usual_s:
            return None  # damaged bytes, but no lost frame
        span = f"{start_s:.2f} s to {end_s:.2f} s"
        if first < index:
            span = f"frames {first} to {index - 1} of {self._metadata.num_frames} ({span})"
        return Hole(start_s, end_s, f"{span}: {self._damage}")

    def _where(self, position: int) -> str:
        metadata = self._metadata
        time_s = metadata.frame_times_s[position] if position < metadata.num_frames else metadata.end_s
        return (
            f"decoding broke at frame {position} of {metadata.num_frames} "
            f"({time_s:.2f} s of {max(metadata.end_s, metadata.declared_end_s or 0):.2f} s)"
        )


def _change_of_size(frame: VideoFrame, metadata: VideoMetadata) -> str:
    stored_px = (frame.width, frame.height)
    expected_px = (
        (metadata.width_px, metadata.height_px)
        if metadata.rotation_deg % 180 == 0
        else (metadata.height_px, metadata.width_px)
    )
    if stored_px == expected_px:
        return ""
    change = "the picture changes from {}×{} to {}×{}".format(*expected_px, *stored_px)
    return f"{change} here, which recipes do not support; split the file or scale it (ffmpeg -i IN OUT.mp4)"


def _picture(frame: VideoFrame, reformatter: VideoReformatter, metadata: VideoMetadata) -> NDArray[np.uint8]:
    """Return ``uint8 [height, width, 3]``, upright. Chroma of interlaced pictures is converted field by field.

    The flags of swscale are its defaults, which give the same pixels as decord: for 8-bit 4:2:0 video of even height
    both repeat chroma samples. For other video they interpolate chroma differently, and the luma is equal.
    """
    if (planar := _PLANAR.get(frame.format.name)) is not None:
        frame = reformatter.reformat(frame, format=planar, threads=1)
    stored: Any = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    return upright(stored, metadata.rotation_deg, metadata.mirrored)
