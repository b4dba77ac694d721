"""Clips with known frames and beeps, written with PyAV for the tests.

A frame encodes its number in a grid of 3 × 4 black and white blocks, which are robust to compression. The first block
is always white and the last always black (to detect rotated frames); the ten blocks between them are the bits of the
number, highest first. A strip at the bottom is red, green and blue (to detect swapped channels).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

ROWS, COLUMNS = 3, 4
STRIP = (255, 0, 0), (0, 255, 0), (0, 0, 255)
GRAIN = 24
"""Levels of noise on every frame. Without noise, a frame takes only a few bytes, and damage rarely hits it."""
BEEP_S = 0.05
TS_PACKET_BYTES = 188
X264 = {"bf": "2", "g": "12", "x264-params": "b-adapt=0:scenecut=0:log-level=none"}
"""Always two B-frames after each P-frame, a keyframe every twelve frames, and no log output."""


class Unreadable(AssertionError):
    """The picture does not contain a frame number: it is damaged or wrongly rotated."""


@dataclass(frozen=True)
class Clip:
    """Contents of a clip. ``times``: ascending presentation time of each frame in units of ``time_base``."""

    num_frames: int = 50
    width_px: int = 128
    height_px: int = 96
    fps: Fraction = Fraction(25)
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=lambda: X264)
    time_base: Fraction | None = None
    times: Sequence[int] | None = None
    rotation_deg: int = 0
    beeps_s: Sequence[float] | None = None
    """Times of beeps of ``BEEP_S``, relative to the first frame; None for a clip without audio track."""
    audio_codec: str = "aac"
    audio_rate_hz: int = 44100
    audio_options: Mapping[str, str] = field(default_factory=dict[str, str])
    audio_layout: str = "mono"
    """All channels have the same samples."""
    audio_from_s: float = 0.0
    audio_until_s: float | None = None
    holes_s: Sequence[tuple[float, float]] = ()
    """Intervals of audio that are not written."""
    repeats_s: Sequence[tuple[float, float]] = ()
    """Intervals of audio whose packets are written twice."""


def picture(number: int, height_px: int, width_px: int) -> NDArray[np.uint8]:
    """``uint8 [height, width, 3]`` that `number_of` decodes."""
    bits = [1, *(number >> shift & 1 for shift in range(9, -1, -1)), 0]
    grid = np.array(bits, np.uint8).reshape(ROWS, COLUMNS) * 255
    strip_px = height_px // 6
    rows = np.arange(height_px - strip_px) * ROWS // (height_px - strip_px)
    columns = np.arange(width_px) * COLUMNS // width_px
    blocks = np.repeat(grid[rows][:, columns, None], 3, axis=2)
    strip = np.array(STRIP, np.uint8)[np.arange(width_px) * 3 // width_px]
    plain = np.concatenate([blocks, np.repeat(strip[None], strip_px, axis=0)]).astype(np.int16)
    grain = np.random.default_rng(number).integers(-GRAIN, GRAIN + 1, (height_px, width_px, 1))
    return np.clip(plain + grain, 0, 255).astype(np.uint8)


def number_of(frame: NDArray[np.uint8]) -> int:
    """Return the number in a decoded frame; raise `Unreadable` if there is none."""
    height_px, width_px, _ = frame.shape
    strip_px = height_px // 6
    middles = [(2 * row + 1) * (height_px - strip_px) // (2 * ROWS) for row in range(ROWS)]
    centers = [(2 * column + 1) * width_px // (2 * COLUMNS) for column in range(COLUMNS)]
    values = [_mean(frame, y, x).mean() for y in middles for x in centers]
    for position, color in enumerate(STRIP):
        seen = _mean(frame, height_px - strip_px // 2 - 1, (2 * position + 1) * width_px // 6)
        if np.abs(seen - color).max() > 90:
            raise Unreadable(f"strip {position} is {seen}, not {color}")
    if any(60 < value < 195 for value in values) or values[0] < 128 or values[-1] > 128:
        raise Unreadable(f"blocks are {[round(float(value)) for value in values]}")
    return sum(int(value > 128) << shift for value, shift in zip(values[1:-1], range(9, -1, -1), strict=True))


def _mean(frame: NDArray[np.uint8], y: int, x: int) -> NDArray[np.float64]:
    return frame[y - 1 : y + 2, x - 1 : x + 2].astype(np.float64).mean(axis=(0, 1))


_encoded: dict[str, bytes] = {}
"""Files that this process has encoded: many tests take the same clip, and encoding costs more than their assertions."""


def write_clip(path: Path, clip: Clip, numbers: Sequence[int] | None = None, **muxer_options: str) -> Path:
    """Encode ``clip``; ``numbers`` are the numbers of the frames, by default from 0."""
    content = repr((path.suffix, clip, numbers, muxer_options))
    if content not in _encoded:
        _encode(path, clip, numbers, muxer_options)
        _encoded[content] = path.read_bytes()
    else:
        path.write_bytes(_encoded[content])
    return path


def _encode(path: Path, clip: Clip, numbers: Sequence[int] | None, muxer_options: dict[str, str]) -> None:
    with av.open(path, "w", options=muxer_options) as container:
        video = _add_video(container, clip) if clip.num_frames else None
        audio = _add_audio(container, clip) if clip.beeps_s is not None else None
        if video is not None:
            frames = _frames(clip, numbers if numbers is not None else range(clip.num_frames))
            for frame in frames:
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if audio is not None:
            for frame in _sound(clip, audio):
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


def write_size_change(path: Path, clip: Clip, width_px: int, height_px: int) -> Path:
    """Write the frames of ``clip`` in one stream, the second half in another size."""
    with av.open(path, "w") as container:
        stream = _add_video(container, clip)
        encoder: Any = av.CodecContext.create(clip.codec, "w")  # pyright: ignore
        encoder.width, encoder.height, encoder.pix_fmt = width_px, height_px, clip.pix_fmt
        encoder.time_base, encoder.framerate, encoder.options = 1 / clip.fps, clip.fps, dict(clip.options)
        half = clip.num_frames // 2
        for frame in _frames(clip, range(half)):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        other = replace(clip, width_px=width_px, height_px=height_px, times=range(half, clip.num_frames))
        for frame in [*_frames(other, range(half, clip.num_frames)), None]:
            for packet in encoder.encode(frame):
                packet.stream = stream
                container.mux(packet)
    return path


def write_cut_transport_stream(path: Path, clip: Clip, missing: float) -> Path:
    """Write a recording that starts in the middle of a stream: the tables, then the packets without the first part."""
    content = write_clip(path, clip).read_bytes()
    num_packets = len(content) // TS_PACKET_BYTES
    tables = content[: 3 * TS_PACKET_BYTES]
    path.write_bytes(tables + content[int(num_packets * missing) * TS_PACKET_BYTES :])
    return path


def set_edit_list(path: Path, skipped_frames: int, shown_frames: int, clip: Clip) -> Path:
    """Rewrite the edit list of an MP4 file: skip the first frames, show this number of frames."""
    content = bytearray(path.read_bytes())
    entry = content.index(b"elst") + 12
    _, media_time = struct.unpack(">Ii", content[entry : entry + 8])
    with av.open(path) as container:
        ticks = round(1 / clip.fps / container.streams.video[0].time_base)  # pyright: ignore
    duration_ms = round(1000 * shown_frames / clip.fps)
    content[entry : entry + 8] = struct.pack(">Ii", duration_ms, media_time + skipped_frames * ticks)
    path.write_bytes(content)
    return path


def _add_video(container: OutputContainer, clip: Clip) -> VideoStream:
    stream: VideoStream = container.add_stream(clip.codec, rate=clip.fps, options=dict(clip.options))  # pyright: ignore
    upright = clip.rotation_deg % 180 == 0
    stream.width = clip.width_px if upright else clip.height_px
    stream.height = clip.height_px if upright else clip.width_px
    stream.pix_fmt = clip.pix_fmt
    if clip.time_base is not None:
        stream.codec_context.time_base = clip.time_base
    if clip.rotation_deg:
        stream.set_display_rotation(clip.rotation_deg)
    return stream


def _add_audio(container: OutputContainer, clip: Clip) -> AudioStream:
    stream: AudioStream = container.add_stream(clip.audio_codec, rate=clip.audio_rate_hz)  # pyright: ignore
    stream.layout = clip.audio_layout  # pyright: ignore
    stream.codec_context.options = dict(clip.audio_options)
    return stream


def _frames(clip: Clip, numbers: Sequence[int]) -> Iterator[av.VideoFrame]:
    for position, number in enumerate(numbers):
        upright = picture(number, clip.height_px, clip.width_px)
        stored = np.ascontiguousarray(np.rot90(upright, -clip.rotation_deg // 90))
        frame = av.VideoFrame.from_ndarray(stored, format="rgb24")
        frame.time_base = clip.time_base or 1 / clip.fps
        frame.pts = clip.times[position] if clip.times is not None else position
        yield frame


def _sound(clip: Clip, stream: AudioStream) -> Iterator[av.AudioFrame]:
    rate = clip.audio_rate_hz
    until_s = clip.audio_until_s if clip.audio_until_s is not None else float(clip.num_frames / clip.fps)
    first, last = round(clip.audio_from_s * rate), round(until_s * rate)
    wave = beeps(clip.beeps_s or (), last, rate)[first:]
    size = stream.codec_context.frame_size or 1024
    for start in range(0, len(wave), size):
        samples = (wave[None, start : start + size] * 32767).astype(np.int16)
        channels = np.repeat(samples, len(av.AudioLayout(clip.audio_layout).channels), axis=0)
        packed = np.ascontiguousarray(channels.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=clip.audio_layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), first + start
        time_s = (first + start) / rate
        if not any(begin <= time_s < end for begin, end in clip.holes_s):
            yield frame
        if any(begin <= time_s < end for begin, end in clip.repeats_s):
            yield frame


def beeps(times_s: Sequence[float], num_samples: int, rate_hz: int) -> NDArray[np.float32]:
    """``float32 [samples]``: a 1 kHz tone of ``BEEP_S`` at each time, silence between them."""
    wave = np.zeros(num_samples, np.float32)
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(round(BEEP_S * rate_hz)) / rate_hz)
    for time_s in times_s:
        start = round(time_s * rate_hz)
        room = wave[start : start + len(tone)]
        room += tone[: len(room)].astype(np.float32)
    return wave


def beep_times(wave: NDArray[np.float32], rate_hz: int) -> list[float]:
    """Return the start of each loud interval of ``float32 [samples]``, in seconds."""
    loud = np.flatnonzero(np.abs(wave) > 0.1)
    starts = loud[np.diff(loud, prepend=-rate_hz) > BEEP_S * rate_hz]
    return [float(start) / rate_hz for start in starts]
