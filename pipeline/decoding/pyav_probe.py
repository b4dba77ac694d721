"""Probing with PyAV: the container's packets, a few decoded frames at its head, and the timeline that follows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ...manifests.errors import DecodeError
from ..records import AudioTrack, Probe
from .containers import audio_stream, open_container, packets, video_stream
from .coverage import ends_midway, lost_stretches
from .picture_stream import PictureStream
from .probing import Packet, Timeline, check_gaps, timeline_of_frames, timeline_of_packets

NUM_HEAD_FRAMES = 8
"""Frames that every probe decodes: the first tells size and rotation, their times whether packets are frames."""


def probe_file(path: Path, *, thorough: bool, alive: Callable[[], None]) -> Probe:
    """See `Decoder.probe`. Probes thoroughly of its own accord where the head shows that packets are not frames."""
    found = _demux(path, alive)
    head = _decode(path, NUM_HEAD_FRAMES, found.lost_at, alive)
    if head.first is None:
        raise DecodeError(f"{path}: decoding broke at frame 0 of {len(found.packets)}: {head.trouble}")
    try:
        timeline = None if thorough else timeline_of_packets(found.packets, found.nominal_ticks)
        if timeline is None or not (head.trouble or timeline.ticks[: len(head.ticks)].tolist() == head.ticks):
            thorough = True
            whole = _decode(path, None, found.lost_at, alive)
            broken = bool(whole.trouble)
            timeline = timeline_of_frames(whole.ticks, found.packets, found.nominal_ticks, broken=broken)
        return _probe(found, head.first, timeline, thorough)
    except DecodeError as error:
        raise DecodeError(f"{path}: {error}") from error


@dataclass
class _Demuxed:
    """What headers and packets tell; times are the container's."""

    container: str
    codec: str
    time_base: Fraction
    nominal_ticks: Fraction
    """Between frames at the container's rate."""
    packets: list[Packet] = field(default_factory=list[Packet])
    num_discarded: int = 0
    num_declared: int = 0
    """Packets that header (AVI) or index (MP4) count; 0 where they do not."""
    last_indexed: int = 0
    """When the last packet of MP4's index is decoded, in ticks."""
    declared_end_s: float | None = None
    """Matroska's."""
    reach_s: float = 0.0
    """When the last packet of either stream ends."""
    unreadable: bool = False
    """The packets break off, with an error or in the midst of one."""
    places: list[tuple[int, int]] = field(default_factory=list["tuple[int, int]"])
    """Position and size in the file of every packet of every stream."""
    lost_at: tuple[int, ...] = ()
    audio: AudioTrack | None = None
    has_packets_of_audio: bool = False


@dataclass
class _Decoded:
    ticks: list[int | None] = field(default_factory=list["int | None"])
    first: VideoFrame | None = None
    trouble: str = ""


def _decode(path: Path, limit: int | None, lost_at: tuple[int, ...], alive: Callable[[], None]) -> _Decoded:
    decoded = _Decoded()
    with open_container(path) as container:
        pictures = PictureStream(container, video_stream(container, path), alive, lost_at)
        for frame in pictures:
            decoded.first = decoded.first or frame
            decoded.ticks.append(frame.pts)
            if len(decoded.ticks) == limit:
                break
        decoded.trouble = pictures.trouble
    return decoded


def _demux(path: Path, alive: Callable[[], None]) -> _Demuxed:
    with open_container(path) as container:
        video, audio = video_stream(container, path), audio_stream(container, path)
        time_base = video.time_base or Fraction(1, 1000)
        rate = video.guessed_rate or video.average_rate or Fraction(25)
        found = _Demuxed(container.format.name, video.codec_context.name, time_base, 1 / rate / time_base)
        sound_from_s = _read_packets(found, container, video, audio, alive)
        found.has_packets_of_audio = sound_from_s is not None
        if audio is not None:
            found.audio = AudioTrack(audio.rate, audio.channels, sound_from_s or 0.0, _stated_duration_s(audio))
        found.lost_at = lost_stretches(path, found.container, found.places)
        if not video.frames and found.places:  # the header counts no frames
            found.unreadable = found.unreadable or ends_midway(path, found.container, found.places)
        found.num_declared, found.last_indexed = _declared_packets(container, video)
        found.declared_end_s = _declared_end_s(container, video, found.reach_s)
    if not found.packets:
        raise DecodeError(f"{path}: its video stream holds no frame; it was cut off, or never recorded")
    return found


def _read_packets(
    found: _Demuxed,
    container: InputContainer,
    video: VideoStream,
    audio: AudioStream | None,
    alive: Callable[[], None],
) -> float | None:
    """Fills ``found``; returns when the sound begins, None where there is none."""
    sound_from_s: float | None = None
    try:
        for packet in packets(container, *container.streams, alive=alive):
            if packet.pos is not None:
                found.places.append((packet.pos, packet.size))
            if packet.stream_index not in (video.index, None if audio is None else audio.index):
                continue
            start_s = None if packet.pts is None else float(packet.pts * packet.time_base)
            if start_s is not None:
                found.reach_s = max(found.reach_s, start_s + float((packet.duration or 0) * packet.time_base))
            if packet.stream_index == video.index:
                _take(found, packet)
            elif start_s is not None and not packet.is_discard:
                sound_from_s = start_s if sound_from_s is None else min(sound_from_s, start_s)
    except FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        found.unreadable = True
    return sound_from_s


def _take(found: _Demuxed, packet: av.Packet[Any]) -> None:
    if packet.is_discard:
        found.num_discarded += 1
    else:
        found.packets.append(Packet(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe))


def _declared_packets(container: InputContainer, video: VideoStream) -> tuple[int, int]:
    """How many, and when the last one is decoded, where the container says so.

    AVI's header keeps its count in a file that was cut off, where FFmpeg shortens the duration.
    """
    if container.format.name == "avi":
        return video.frames, 0
    if container.format.name.startswith("mov") and len(video.index_entries):
        return len(video.index_entries), video.index_entries[-1].timestamp
    return 0, 0


def _declared_end_s(container: InputContainer, video: VideoStream, reach_s: float) -> float | None:
    """Matroska tells each stream's end in a tag, or at least its longest stream's in the header."""
    if not container.format.name.startswith("matroska"):
        return None
    stated_s = _stated_duration_s(video)
    if stated_s is None and container.duration is not None and container.duration / av.time_base > reach_s:
        return container.duration / av.time_base
    return stated_s


def _stated_duration_s(stream: VideoStream | AudioStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    for name, value in stream.metadata.items():
        if name.startswith("DURATION"):  # DURATION, DURATION-eng
            try:
                hours, minutes, seconds = value.split(":")
                return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
            except ValueError:
                return None
    return None


def _probe(found: _Demuxed, first: VideoFrame, timeline: Timeline, thorough: bool) -> Probe:
    times_s, end_s = timeline.seconds(found.time_base)
    check_gaps(times_s, end_s)
    start_s = float(int(timeline.ticks[0]) * found.time_base)
    fps = len(times_s) / end_s
    promised_end_s = _promised_end_s(found, start_s, end_s, fps)
    is_whole = promised_end_s is None or promised_end_s - end_s < 1 / fps
    audio = found.audio
    if audio is not None and (found.has_packets_of_audio or audio.duration_s or not is_whole):
        audio = replace(audio, start_s=audio.start_s - start_s)
    else:
        audio = None  # a track without packets is none, unless it says that it has some, or the file was cut
    rotation_deg = rotation_of(first)
    upright = rotation_deg % 180 == 0
    return Probe(
        container=found.container,
        codec=found.codec,
        width_px=first.width if upright else first.height,
        height_px=first.height if upright else first.width,
        rotation_deg=rotation_deg,
        fps=fps,
        frame_times_s=times_s,
        end_s=end_s,
        declared_end_s=promised_end_s,
        audio=audio,
        start_s=start_s,
        timed_by="counting" if timeline.counted else "frames" if thorough else "packets",
        lost_at=found.lost_at,
    )


def _promised_end_s(found: _Demuxed, start_s: float, end_s: float, fps: float) -> float | None:
    promised_s = None
    if found.num_declared and found.container == "avi":
        promised_s = float(found.num_declared * found.time_base)  # one frame a tick
    elif found.num_declared > len(found.packets) + found.num_discarded:
        first = found.packets[0]  # shown so long after it is decoded; so will the last one be
        delay = 0 if first.pts is None or first.dts is None else first.pts - first.dts
        last = found.last_indexed + delay + round(found.nominal_ticks)
        promised_s = max(end_s + 1 / fps, float(last * found.time_base) - start_s)
    elif found.num_declared:
        promised_s = end_s
    elif found.declared_end_s is not None:
        promised_s = found.declared_end_s - start_s
    if found.unreadable:  # nobody can say how much more there was, only that there was more
        promised_s = max(promised_s or 0.0, end_s + 2 / fps)
    return promised_s


def rotation_of(frame: VideoFrame) -> int:
    """Counter-clockwise degrees that bring a stored frame upright, from its display matrix (`av_display_rotation_get`).

    Raises `DecodeError` for what is no quarter turn: nobody's features expect a slanted or mirrored picture.
    """
    sides: Any = frame.side_data
    data = next((bytes(side) for side in sides if side.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return 0
    matrix = np.frombuffer(data, np.int32).astype(np.float64).reshape(3, 3)[:2, :2]
    widths = np.hypot(matrix[0], matrix[1])
    if not widths.all():
        return 0  # says nothing
    if np.linalg.det(matrix) < 0:
        raise DecodeError("is marked as mirrored; write the picture as it is meant (ffmpeg -i IN OUT.mp4)")
    angle_deg = -math.degrees(math.atan2(matrix[0, 1] / widths[1], matrix[0, 0] / widths[0]))
    quarters = round(angle_deg / 90)
    if abs(angle_deg - 90 * quarters) > 1:
        raise DecodeError(f"is marked as turned by {angle_deg:.0f}°; write it upright (ffmpeg -i IN OUT.mp4)")
    return quarters % 4 * 90
