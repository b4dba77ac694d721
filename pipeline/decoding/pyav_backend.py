"""Decoding with PyAV (FFmpeg's libraries), strictly sequentially."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ...manifests.errors import DecodeError
from ..records import Probe
from .audio_decoding import decode_sound
from .containers import open_container, video_stream
from .decoders import IndexMismatch, Picture
from .picture_stream import PictureStream
from .planes import planes_of
from .pyav_probe import probe_file

SAME_TIME_S = 1e-4
"""Time stamps are whole ticks; two that differ by less than this differ by rounding."""


class PyAvDecoder:
    def __init__(self, alive: Callable[[], None], planar: bool = False) -> None:
        self._alive = alive
        self._planar = planar

    def probe(self, path: Path, thorough: bool = False) -> Probe:
        return probe_file(path, thorough=thorough, alive=self._alive)

    def frames(self, path: Path, probe: Probe, wanted: NDArray[np.int64]) -> Iterator[tuple[int, Picture]]:
        todo = wanted.tolist()[::-1]
        if not todo:
            return
        reformatter = VideoReformatter()
        with open_container(path) as container:
            stream = video_stream(container, path)
            pictures = PictureStream(container, stream, self._alive, probe.lost_at)
            position = -1
            for position, frame in enumerate(pictures):
                if fault := _fault(frame, _time_s(frame, stream, probe), position, probe, pictures.trouble):
                    raise _broke(path, probe, position, pictures.trouble, fault)
                if position == todo[-1]:
                    # nobody may hold a picture while the next one is made: fresh memory costs as much as conversion
                    planes = planes_of(frame, probe.rotation_deg) if self._planar else None
                    yield todo.pop(), planes or _picture(frame, reformatter, probe.rotation_deg)
                    del planes
                    if not todo:
                        return
            raise _broke(path, probe, position + 1, pictures.trouble, None)

    def sound(self, path: Path, probe: Probe, until_s: float) -> Iterator[NDArray[np.float32]]:
        return decode_sound(path, probe, until_s, self._alive)


def _time_s(frame: VideoFrame, stream: VideoStream, probe: Probe) -> float | None:
    """Relative to the first frame; by the stream's time base, which frames that come last do not know."""
    if frame.pts is None or stream.time_base is None:
        return None
    return float(frame.pts * stream.time_base) - probe.start_s


def _fault(frame: VideoFrame, time_s: float | None, position: int, probe: Probe, trouble: str) -> DecodeError | None:
    """What is wrong with the frame that is presented at this position."""
    stored_px = (frame.width, frame.height)
    expected_px = (
        (probe.width_px, probe.height_px) if probe.rotation_deg % 180 == 0 else (probe.height_px, probe.width_px)
    )
    if stored_px != expected_px:
        change = "the picture changes from {}×{} to {}×{}".format(*expected_px, *stored_px)
        return DecodeError(f"{change} here, which no recipe expects; split the file or scale it (ffmpeg -i IN OUT.mp4)")
    if probe.timed_by == "counting":
        return DecodeError("a frame was lost") if trouble else None  # which one, no time stamp tells
    if position >= probe.num_frames or time_s is None or abs(time_s - probe.frame_times_s[position]) > SAME_TIME_S:
        came = "without a time stamp" if time_s is None else f"at {time_s:.3f} s"
        return IndexMismatch(f"the next frame comes {came}")
    return None


def _broke(path: Path, probe: Probe, position: int, trouble: str, fault: DecodeError | None) -> DecodeError:
    """The decoder's own trouble is the reason where there is any, else the mismatch, which may be no damage at all."""
    time_s = probe.frame_times_s[position] if position < probe.num_frames else probe.end_s
    where = (
        f"{path}: decoding broke at frame {position} of {probe.num_frames} "
        f"({time_s:.2f} s of {max(probe.end_s, probe.declared_end_s or 0):.2f} s)"
    )
    if trouble:
        return DecodeError(f"{where}: {trouble}")
    if fault is not None and (not isinstance(fault, IndexMismatch) or probe.timed_by != "packets"):
        return DecodeError(f"{where}: {fault}")
    return IndexMismatch(f"{where}: {fault or 'no frame comes any more'}")


def _picture(frame: VideoFrame, reformatter: VideoReformatter, rotation_deg: int) -> NDArray[np.uint8]:
    """``uint8 [height, width, 3]``, upright.

    With swscale's default flags, which make decord's pixels (8-bit 4:2:0 of even height repeats chroma samples in both;
    elsewhere the two interpolate chroma differently, the luma is the same).
    """
    stored: Any = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    return np.rot90(stored, rotation_deg // 90)
