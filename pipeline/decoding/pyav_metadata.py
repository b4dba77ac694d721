"""Read a file's metadata with PyAV, from the container's packets and its first decoded frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ...manifests.errors import DecodeError
from ..records import AudioTrack, FieldOrder, VideoMetadata
from .clocks import (
    END_OF_FILE,
    Clock,
    apart_from_joins,
    audio_losses,
    beside_gaps,
    by_counting,
    by_index,
    corrected,
    follow,
    restarts,
    spans_of,
    within_packets,
    without,
    without_stamps,
)
from .containers import (
    WITHOUT_MEMORY,
    audio_stream,
    choose_audio,
    choose_video,
    open_container,
    packets,
    video_candidates,
)
from .coverage import (
    AVI_CHUNK_HEADER_BYTES,
    StreamLosses,
    broken_chunks,
    ends_midway,
    lost_stretches,
    separate_video_bytes,
    transport_stream_losses,
)
from .decoders import MAX_JUMP_S
from .picture_stream import PictureStream
from .timelines import NO_STAMP, Packets, Timeline, check_gaps, timeline_of_frames, timeline_of_packets

DURATION_SLACK_S = {"asf": 1.0, "flv": 1.0, "live_flv": 1.0, "mxf": 0.0}
"""Container whose header states a duration → seconds by which this may exceed the end of the last packet. A larger
difference means that the file was truncated. Some recorders round or pad the duration."""
FIELD_ORDERS: dict[int, FieldOrder] = {2: "top-first", 3: "bottom-first", 4: "bottom-first", 5: "top-first"}
"""FFmpeg's ``AVFieldOrder`` → the order in which fields are shown."""
NUM_HEAD_FRAMES = 8
"""Number of first frames that are decoded to get the size and the rotation, and to check that each packet is a
frame."""
INTERPOLATED_TIMES = ("mpeg", "ogg", "mxf", "dv")
"""Containers in which not every packet has a time stamp. FFmpeg counts the others, and may count wrongly after
damage."""
MAX_FORWARD_S = 10.0
"""Forward jump in seconds above which a clock counts as restarted, in containers whose clocks may jump. FFmpeg's
value."""
VERIFY_COMPLETENESS = {"h264", "mpeg2video", "mpeg1video", "mpeg4"}
"""Codecs for which FFmpeg's decoder reports truncated pictures."""
MAX_ENCODER_DELAY_S = 0.25
"""Maximal time that the decoder may discard at the start of a track as the encoder's delay. A longer start is
damaged."""
MIN_RECORDING_S = 0.5
"""Minimal duration of another recording in separate tracks. The tables and audio after the last frame are shorter."""
_TIMES_MAY_JUMP = 0x0200  # FFmpeg's AVFMT_TS_DISCONT
_FIELDS = ("stream", "pts", "dts", "duration", "position", "size", "keyframe", "discarded")
_BLOCK_PACKETS = 65_536


def probe_file(path: Path, *, thorough: bool, audio_track: int | str, alive: Callable[[], None]) -> VideoMetadata:
    """Read a file's metadata; see `Decoder.probe`. Decodes all frames if the first ones do not match the packets."""
    found = _demux(path, audio_track, alive)
    if found.audio is not None and found.has_packets_of_audio:
        delay_s = _encoder_delay_s(path, found.audio, alive)
        found.audio = replace(found.audio, start_s=found.audio.start_s + delay_s)
    head = _decode(path, NUM_HEAD_FRAMES, found, alive)
    if head.first is None:
        raise DecodeError(f"{path}: decoding broke at frame 0 of {len(found.packets)}: {head.damage}")
    try:
        timeline = None
        if not thorough:
            timeline = timeline_of_packets(found.packets, found.nominal_ticks, found.missing)
        if timeline is None or not _is_index_of(timeline, head):
            thorough = True
            whole = _decode(path, None, found, alive)
            timeline = timeline_of_frames(
                whole.ticks,
                found.packets,
                found.nominal_ticks,
                broken=bool(whole.damage),
                missing=[*found.missing, *whole.damaged_spans],
            )
        if head.interlaced and found.field_order == "progressive":
            found.field_order = "interlaced"
        if found.grid is not None:
            timeline = _on_grid(timeline, found.grid, found.packets)
        return _probe(found, head.first, timeline, thorough)
    except DecodeError as error:
        raise DecodeError(f"{path}: {error}") from error


@dataclass
class _Demuxed:
    """Facts from headers and packets, with the container's times."""

    container: str
    codec: str
    time_base: Fraction
    nominal_ticks: Fraction
    """Ticks between frames at the container's frame rate."""
    packets: Packets
    """Packets of the video stream with corrected stamps, except those that are discarded or have damaged stamps."""
    missing: list[tuple[int, int]]
    """See `with_missing`."""
    lost_at: tuple[int, ...]
    clock: Clock
    can_resume: bool
    grid: NDArray[np.int64] | None
    """Decoding times of all packets of a damaged AVI file, including lost ones, from its index."""
    num_discarded: int
    num_declared: int
    """Number of packets in the header (AVI) or index (MP4); 0 for other containers."""
    last_indexed: int
    """Decoding time of the last packet in MP4's index, in ticks."""
    declared_end_s: float | None
    """End of the video, in seconds, if a header states it."""
    other_recording_s: float
    """See `_other_recording_s`."""
    unreadable: bool
    """Whether the packets end with an error or with a truncated packet."""
    audio: AudioTrack | None
    has_packets_of_audio: bool
    field_order: FieldOrder
    sample_aspect: float
    """Width of a stored pixel divided by its height."""
    video_index: int
    num_video_tracks: int
    num_audio_tracks: int


@dataclass
class _Decoded:
    ticks: list[int | None] = field(default_factory=list["int | None"])
    first: VideoFrame | None = None
    interlaced: bool = False
    """Whether any of the frames is interlaced."""
    damage: str = ""
    damaged_spans: list[tuple[int, int]] = field(default_factory=list["tuple[int, int]"])
    """Times of the frames before and after each damaged part."""


def _is_index_of(timeline: Timeline, head: _Decoded) -> bool:
    """Return whether the first frames belong to the first packets or, if some are damaged, to any packets."""
    if head.damage:
        return set(head.ticks) <= set(timeline.ticks.tolist())
    return timeline.ticks[: len(head.ticks)].tolist() == head.ticks


def _decode(path: Path, limit: int | None, found: _Demuxed, alive: Callable[[], None]) -> _Decoded:
    decoded = _Decoded()
    with open_container(path) as container:
        stream = choose_video(container, path)
        pictures = PictureStream(container, stream, alive, found.lost_at, found.clock, can_resume=found.can_resume)
        for shown in pictures:
            decoded.first = decoded.first or shown.frame
            decoded.interlaced = decoded.interlaced or bool(shown.frame.interlaced_frame)
            if shown.damage:
                decoded.damage = decoded.damage or shown.damage
                last = decoded.ticks[-1] if decoded.ticks else None
                if last is not None and shown.frame.pts is not None:
                    decoded.damaged_spans.append((last, shown.frame.pts))
            decoded.ticks.append(shown.frame.pts)
            if len(decoded.ticks) == limit:
                break
        decoded.damage = decoded.damage or pictures.damage
    return decoded


def _demux(path: Path, audio_track: int | str, alive: Callable[[], None]) -> _Demuxed:
    with open_container(path) as container:
        video = choose_video(container, path)
        audio = choose_audio(container, path, video, audio_track)
        time_base = video.time_base or Fraction(1, 1000)
        rate = video.guessed_rate or video.average_rate or Fraction(25)
        # FFmpeg adds packets that it reads to an index that lacks them, so the index is copied first
        indices = {stream.index: _avi_index(stream) for stream in (video, audio) if stream}
        is_indexed = _is_complete(indices[video.index], video)
        read = _read_packets(container, alive)
        packets, num_discarded = read.of(video.index)
        if not len(packets):
            raise DecodeError(
                f"{path}: its video stream has no frame: it was truncated or not recorded; get the file again"
            )
        audio_packets, _ = read.of(-1 if audio is None else audio.index)
        name = container.format.name
        if name == "mpeg":
            packets = by_counting(packets)
        losses: dict[int, StreamLosses] = {}
        if name == "mpegts":
            losses = transport_stream_losses(path, [stream.id for stream in (video, audio) if stream], alive)
        lost_at = lost_stretches(path, name, read.places)
        if name == "avi":
            lost_at = tuple(sorted({*lost_at, *broken_chunks(path, read.places)}))
        can_resume = is_indexed if name == "avi" else name not in INTERPOLATED_TIMES
        clock, lost, grid = (), [], None
        if name == "avi" and can_resume:
            clock, lost = by_index(packets, indices[video.index])
            grid = np.sort(indices[video.index][:, 2])
            places = corrected(packets, clock).dts[lost]
            if not np.isin(places[places < grid[-1]], grid).all():  # the file has packets that are not in the index
                clock, lost, grid, can_resume = (), [], None, False
        elif name != "avi":
            clock, lost = _restarts(container, video, packets, losses[video.id].own if losses else [])
        codec = video.codec_context.name
        if name == "mpegts":
            verifies = codec in VERIFY_COMPLETENESS
            own = losses[video.id].at
            if audio is not None:
                others = apart_from_joins(losses[audio.id].at, audio_packets, clock)
                own = sorted({*own, *beside_gaps(others, corrected(packets, clock))})
            lost_at = within_packets(own, packets, whole_before_keyframe=verifies, clock=clock)
        lost = sorted({*lost, *without_stamps(packets, lost_at)})
        lost_at = sorted({*lost_at, *(int(packets.position[number]) + 1 for number in lost)})
        whole = without(corrected(packets, clock), lost)
        track = None
        if audio is not None:
            own_clock: Clock = ()
            if name == "avi" and can_resume:
                own_clock, _ = by_index(audio_packets, indices[audio.index])
            elif len(audio_packets):
                own_clock = follow(audio_packets, clock, float((video.time_base or 1) / (audio.time_base or 1)))
            audio_lost_at = lost_at
            if name == "mpegts":
                joins = sorted(set(lost_at) & set(packets.position.tolist()))
                restarts_at = {position for position, _ in own_clock}
                audio_lost_at = audio_losses(losses[audio.id].at, audio_packets, joins)
                audio_lost_at = [lost for lost in audio_lost_at if lost not in restarts_at]
            audio_packets = corrected(audio_packets, own_clock)
            track = _audio_track(audio, audio_packets, tuple(audio_lost_at), own_clock)
        reach_s = max(_reach_s(whole, video), _reach_s(audio_packets, audio))
        unreadable = read.is_broken
        if not video.frames and len(read.places):  # the header counts no frames
            unreadable = unreadable or ends_midway(path, name, int(read.places[:, 0].min()))
        num_declared, last_indexed = _declared_packets(container, video)
        return _Demuxed(
            container=name,
            codec=codec,
            time_base=time_base,
            nominal_ticks=1 / rate / time_base,
            packets=whole,
            missing=spans_of([*lost_at, *([END_OF_FILE] if unreadable else [])], whole) if grid is None else [],
            lost_at=tuple(lost_at),
            clock=clock,
            can_resume=can_resume,
            grid=grid if lost_at or clock else None,
            num_discarded=num_discarded,
            num_declared=num_declared,
            last_indexed=last_indexed,
            declared_end_s=_declared_end_s(container, video, reach_s),
            other_recording_s=_other_recording_s(path, whole, time_base, alive) if name == "mpegts" else 0.0,
            unreadable=unreadable,
            audio=track,
            has_packets_of_audio=len(audio_packets) > 0,
            field_order=FIELD_ORDERS.get(video.codec_context.field_order, "progressive"),
            sample_aspect=float(video.sample_aspect_ratio or 1),
            video_index=video.index,
            num_video_tracks=len(video_candidates(container)),
            num_audio_tracks=len(container.streams.audio),
        )


class _ReadPackets:
    """The packets of all streams of a file, as integers."""

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.int64]] = []
        self._rows: list[tuple[int, ...]] = []
        self.is_broken = False
        """Whether the packets end with an error."""

    def add(self, row: tuple[int, ...]) -> None:
        self._rows.append(row)
        if len(self._rows) == _BLOCK_PACKETS:
            self.close_block()

    def close_block(self) -> None:
        """Convert the rows to an array: rows of Python integers take ten times the memory."""
        self._blocks.append(np.array(self._rows, np.int64).reshape(-1, len(_FIELDS)))
        self._rows = []

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        return np.concatenate(self._blocks)

    @property
    def places(self) -> NDArray[np.int64]:
        """``[packets, 2]``: position and size in the file of the packets of all streams."""
        known = self._table[:, _FIELDS.index("position")] >= 0
        return self._table[known][:, [_FIELDS.index("position"), _FIELDS.index("size")]]

    def of(self, stream_index: int) -> tuple[Packets, int]:
        """Return the packets of a stream that are presented, and the number of its other packets."""
        table = self._table[self._table[:, _FIELDS.index("stream")] == stream_index]
        shown = table[table[:, _FIELDS.index("discarded")] == 0]
        columns = dict(zip(_FIELDS, shown.T, strict=True))
        position = columns["position"]
        if len(position):
            before = np.maximum.accumulate(np.where(position >= 0, np.arange(len(position)), 0))
            position = np.maximum(position[before], 0)
        packets = Packets(
            pts=columns["pts"],
            dts=columns["dts"],
            duration=columns["duration"],
            keyframe=columns["keyframe"] > 0,
            position=position,
            size=columns["size"],
        )
        return packets, len(table) - len(shown)


def _read_packets(container: InputContainer, alive: Callable[[], None]) -> _ReadPackets:
    """Read the packets with little work for each one, because files may have millions of them."""
    read = _ReadPackets()
    add = read.add
    try:
        for packet in packets(container, *container.streams, alive=alive):
            pts, dts, position = packet.pts, packet.dts, packet.pos
            add(
                (
                    packet.stream_index,
                    NO_STAMP if pts is None else pts,
                    NO_STAMP if dts is None else dts,
                    packet.duration or 0,
                    -1 if position is None else position,
                    packet.size,
                    packet.is_keyframe,
                    packet.is_discard,
                )
            )
    except FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        read.is_broken = True
    read.close_block()
    return read


def _avi_index(stream: VideoStream | AudioStream) -> NDArray[np.int64]:
    """Return the index of a stream, ``[packets, 3]``: position, size and decoding time."""
    entries = [entry for entry in stream.index_entries if entry.size]
    places = [(entry.pos + AVI_CHUNK_HEADER_BYTES, entry.size, entry.timestamp) for entry in entries]
    return np.array(places, np.int64).reshape(-1, 3)


def _is_complete(index: NDArray[np.int64], video: VideoStream) -> bool:
    """Return whether an AVI file's index has all packets that its header counts, so that it proves their positions."""
    return len(index) > 0 and int(index[:, 2].max()) + 1 == video.frames


def _on_grid(timeline: Timeline, grid: NDArray[np.int64], packets: Packets) -> Timeline:
    """Return the timeline of a damaged AVI file from its index: FFmpeg's presentation times are wrong near losses."""
    delay = 0
    if not timeline.counted and packets.pts[0] != NO_STAMP:
        delay = int(packets.pts[:NUM_HEAD_FRAMES].min() - packets.dts[0])
    length = timeline.end - int(timeline.ticks[-1])
    return replace(timeline, ticks=grid + delay, end=int(grid[-1]) + delay + length)


def _restarts(
    container: InputContainer, stream: VideoStream | AudioStream, packets: Packets, losses: Sequence[int]
) -> tuple[Clock, list[int]]:
    """Return corrections of a stream's clock, and the packets with damaged stamps. ``losses``: see `restarts`."""
    may_jump = bool(int(container.format.flags) & _TIMES_MAY_JUMP)
    max_forward_s = MAX_FORWARD_S if may_jump else MAX_JUMP_S
    return restarts(packets, max_forward_s / float(stream.time_base or 1), losses)


def _audio_track(audio: AudioStream, packets: Packets, lost_at: tuple[int, ...], clock: Clock) -> AudioTrack:
    """Return the metadata of an audio track. ``packets``: with corrected stamps."""
    stamped = packets.pts[packets.pts != NO_STAMP]
    start_s = float(int(stamped.min()) * (audio.time_base or 1)) if len(stamped) else 0.0
    stated_s = _stated_duration_s(audio)
    return AudioTrack(audio.rate, audio.channels, start_s, stated_s, audio.index, lost_at, clock)


def _encoder_delay_s(path: Path, track: AudioTrack, alive: Callable[[], None]) -> float:
    """Return the time from the first packet of a track to its first decoded sample.

    Encoders add samples before the recording, which players discard: the pre-skip of Opus, the priming samples of AAC
    with an edit list, the delay in the header of LAME. The first packet of Vorbis has no samples at all. FFmpeg
    discards the samples that the container declares.
    """
    first_s = None
    with open_container(path) as container:
        stream = audio_stream(container, path, track.stream_index)
        time_base = stream.time_base
        if time_base is None or stream.codec_context.name.startswith(WITHOUT_MEMORY):
            return 0.0
        try:
            for packet in packets(container, stream, alive=alive):
                if first_s is None and packet.pts is not None and not packet.is_discard:
                    first_s = float(packet.pts * time_base)
                frames = stream.decode(packet)  # pyright: ignore[reportUnknownMemberType]
                position = frames[0].pts if frames else packet.pts
                if first_s is None or position is None:
                    continue
                delay_s = float(position * time_base) - first_s
                if frames or delay_s > MAX_ENCODER_DELAY_S:
                    return delay_s if 0 < delay_s <= MAX_ENCODER_DELAY_S else 0.0
        except FFmpegError as error:  # a damaged beginning is reported when the audio is decoded
            if isinstance(error, MemoryError):
                raise
    return 0.0


def _reach_s(packets: Packets, stream: VideoStream | AudioStream | None) -> float:
    """Return the end time of the last packet of a stream."""
    stamped = packets.pts != NO_STAMP
    if stream is None or not stamped.any():
        return 0.0
    return max(0.0, float(int((packets.pts + packets.duration)[stamped].max()) * (stream.time_base or 1)))


def _other_recording_s(path: Path, packets: Packets, time_base: Fraction, alive: Callable[[], None]) -> float:
    """Estimate the duration of other recordings in a transport stream from their size; 0 if there are none."""
    times = packets.pts[packets.pts != NO_STAMP]
    if not len(times):
        return 0.0
    begin, end = int(packets.position.min()), int((packets.position + packets.size).max())
    s_per_byte = float(int(times.max() - times.min()) * time_base) / max(1, int(packets.size.sum()))
    if (path.stat().st_size - (end - begin)) * s_per_byte < MIN_RECORDING_S:
        return 0.0
    found_s = separate_video_bytes(path, begin, end, alive) * s_per_byte
    return found_s if found_s >= MIN_RECORDING_S else 0.0


def _declared_packets(container: InputContainer, video: VideoStream) -> tuple[int, int]:
    """Return the number of packets, and the decoding time of the last one, if the container states them.

    AVI's header has the original number even if the file was truncated, whereas FFmpeg shortens the duration.
    """
    if container.format.name == "avi":
        return video.frames, 0
    if container.format.name.startswith("mov") and len(video.index_entries):
        return len(video.index_entries), video.index_entries[-1].timestamp
    return 0, 0


def _declared_end_s(container: InputContainer, video: VideoStream, reach_s: float) -> float | None:
    """Return the end of the video that the container states.

    Matroska states the end of each stream in a tag, or that of its longest stream in the header. For other containers
    see `DURATION_SLACK_S`.
    """
    slack_s = DURATION_SLACK_S.get(container.format.name)
    if slack_s is not None and container.duration is not None:
        duration_s = container.duration / av.time_base
        return duration_s if duration_s - reach_s > slack_s else None
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


def _probe(found: _Demuxed, first: VideoFrame, timeline: Timeline, thorough: bool) -> VideoMetadata:
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
        audio = None  # a track without packets does not count, unless it states a duration or the file is truncated
    rotation_deg, mirrored = orientation_of(first)
    upright = rotation_deg % 180 == 0
    return VideoMetadata(
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
        clock=found.clock,
        can_resume=found.can_resume,
        mirrored=mirrored,
        field_order=found.field_order,
        pixel_aspect=found.sample_aspect if upright else 1 / found.sample_aspect,
        video_index=found.video_index,
        num_video_tracks=found.num_video_tracks,
        num_audio_tracks=found.num_audio_tracks,
        has_other_recording=found.other_recording_s > 0,
        tick_s=(found.time_base.numerator, found.time_base.denominator),
    )


def _promised_end_s(found: _Demuxed, start_s: float, end_s: float, fps: float) -> float | None:
    promised_s = None
    if found.num_declared and found.container == "avi":
        promised_s = float(found.num_declared * found.time_base)  # one frame per tick
    elif found.num_declared > len(found.packets) + found.num_discarded:
        pts, dts = int(found.packets.pts[0]), int(found.packets.dts[0])
        delay = 0 if NO_STAMP in (pts, dts) else pts - dts  # from decoding to presentation, also for the last packet
        last = found.last_indexed + delay + round(found.nominal_ticks)
        promised_s = max(end_s + 1 / fps, float(last * found.time_base) - start_s)
    elif found.num_declared:
        promised_s = end_s
    elif found.declared_end_s is not None:
        promised_s = found.declared_end_s - start_s
    if found.other_recording_s:
        promised_s = max(promised_s or 0.0, end_s + found.other_recording_s)
    if found.unreadable:  # the length of the lost part is unknown
        promised_s = max(promised_s or 0.0, end_s + 2 / fps)
    return promised_s


def orientation_of(frame: VideoFrame) -> tuple[int, bool]:
    """Return how to turn a stored frame upright, from its display matrix (`av_display_rotation_get`).

    Returns:
        Counter-clockwise rotation in degrees, and whether the rotated picture is then flipped horizontally.

    Raises:
        DecodeError: The angle is not a multiple of 90°.
    """
    sides: Any = frame.side_data
    data = next((bytes(side) for side in sides if side.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return 0, False
    matrix = np.frombuffer(data, np.int32).astype(np.float64).reshape(3, 3)[:2, :2]
    widths = np.hypot(matrix[0], matrix[1])
    if not widths.all():
        return 0, False  # no valid matrix
    mirrored = bool(np.linalg.det(matrix) < 0)
    if mirrored:
        matrix[:, 0] *= -1  # without the flip, which follows the rotation
    angle_deg = -math.degrees(math.atan2(matrix[0, 1] / widths[1], matrix[0, 0] / widths[0]))
    quarters = round(angle_deg / 90)
    if abs(angle_deg - 90 * quarters) > 1:
        raise DecodeError(f"is marked as rotated by {angle_deg:.0f}°; write it upright (ffmpeg -i IN OUT.mp4)")
    return quarters % 4 * 90, mirrored
