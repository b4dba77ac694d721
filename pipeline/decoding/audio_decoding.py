"""Decoding of an audio track into consecutive samples with correct times, and holes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from numpy.typing import NDArray

from ..records import AudioTrack, Hole, VideoMetadata
from .audio_reader import first_sample
from .containers import WITHOUT_MEMORY, audio_stream, open_container, packets, reason, rejection
from .decoders import MAX_GAP_S
from .packet_marks import PacketMarks

JITTER_S = 0.01
"""A smaller deviation of a time stamp is rounding, and not a gap or an overlap. This is half of a packet of AAC or
MP3."""
ROUNDED_S = 0.001
DAMAGED_JITTER_S = 0.002
"""The same limit after damage, where only the rounding of Matroska's times is accepted."""
SILENCE_BLOCK_S = 1.0
PREROLL_S = 0.25
"""Duration of audio that is decoded and discarded after damage, for codecs with memory: MP3 frames use bits of the nine
previous frames, Opus requires 80 ms, and all such codecs add overlapping windows."""
SEEK_PREROLL_S = 1.0
"""Duration of audio that is decoded and discarded after a seek."""
MIN_SKIP_S = 10.0
"""A longer part of the audio that is not needed is skipped."""
MARGIN_S = 0.05
"""A hole is extended by this time on both sides, because resampling mixes neighboring samples."""


def decode_audio(
    path: Path, metadata: VideoMetadata, until_s: float, alive: Callable[[], None], from_s: float | None = None
) -> Iterator[NDArray[np.float32] | Hole]:
    """See `Decoder.audio`."""
    track = metadata.audio
    num_wanted = 0 if track is None else round((until_s - track.start_s) * track.rate_hz)
    if track is None or num_wanted <= 0:
        return
    first = first_sample(track, from_s)
    seeks_to_s = track.start_s + first / track.rate_hz - SEEK_PREROLL_S
    is_intact = not (metadata.lost_at or metadata.clock or track.lost_at or track.clock) and metadata.can_resume
    if is_intact and seeks_to_s - track.start_s > MIN_SKIP_S:
        begins, blocks = _from(path, metadata, track, num_wanted, alive, seeks_to_s)
        if begins is not None and begins <= first - round(PREROLL_S * track.rate_hz):
            yield from _without_first(blocks, first - begins)
            return
    _, blocks = _from(path, metadata, track, num_wanted, alive)
    yield from _without_first(blocks, first)


def _from(
    path: Path,
    metadata: VideoMetadata,
    track: AudioTrack,
    num_wanted: int,
    alive: Callable[[], None],
    seek_s: float | None = None,
) -> tuple[int | None, Iterator[NDArray[np.float32] | Hole]]:
    """Return the position of the first decoded sample, None if it is unknown, and the blocks from this position on."""
    found = _blocks(path, metadata, track, num_wanted, alive, seek_s)
    begins = next(found, None)
    return (begins if isinstance(begins, int) else None), cast("Iterator[NDArray[np.float32] | Hole]", found)


def _without_first(
    blocks: Iterator[NDArray[np.float32] | Hole], num_samples: int
) -> Iterator[NDArray[np.float32] | Hole]:
    """Yield the blocks without the first ``num_samples`` samples."""
    for block in blocks:
        if isinstance(block, Hole):
            yield block
            continue
        if num_samples < block.shape[1]:
            yield block[:, num_samples:]
        num_samples = max(0, num_samples - block.shape[1])


def _blocks(
    path: Path,
    metadata: VideoMetadata,
    track: AudioTrack,
    num_wanted: int,
    alive: Callable[[], None],
    seek_s: float | None,
) -> Iterator[int | NDArray[np.float32] | Hole | None]:
    """Yield the position of the first sample (None: unknown), then the samples and holes.

    ``seek_s``: time at or before which decoding starts, at a packet; None: at the start of the track.
    """
    with open_container(path) as container:
        stream = audio_stream(container, path, track.stream_index)
        has_memory = not stream.codec_context.name.startswith(WITHOUT_MEMORY)
        line = _Line(track, num_wanted, PREROLL_S if has_memory else 0.0)
        if seek_s is not None and stream.time_base is not None:
            container.seek(round((metadata.start_s + seek_s) / stream.time_base), stream=stream)
        else:
            yield 0
        is_first = seek_s is not None
        for item in _decoded(container, stream, track, alive, is_whole=seek_s is None):
            if isinstance(item, str):
                line.damage = line.damage or item
                if not metadata.can_resume:
                    break
                continue
            begins = _begins(item, stream, metadata)
            if is_first:
                if begins is None or line.damage:
                    yield None
                    return
                yield begins
                line.position, is_first = begins, False
            yield from line.add(_samples(item, track), begins)
            if line.position >= num_wanted:
                return
        if line.damage:
            start_s = track.start_s + line.position / track.rate_hz
            end_s = max(metadata.end_s, metadata.declared_end_s or 0.0, track.start_s + (track.duration_s or 0.0))
            reason = f"the audio stops at {start_s:.2f} s: {line.damage}"
            yield Hole(start_s - MARGIN_S, max(end_s, start_s), reason)


class _Damage(Exception):
    """Damage of a packet or frame."""


def _decoded(
    container: InputContainer, stream: AudioStream, track: AudioTrack, alive: Callable[[], None], *, is_whole: bool
) -> Iterator[AudioFrame | str]:
    """Yield frames at the rate of the track, and descriptions of damage between them.

    Damage before the first good frame is ignored: recordings that were cut from longer ones begin with incomplete data.
    """
    decoder = _AudioPackets(stream, track)
    marks = PacketMarks(container, track.lost_at, track.clock)
    num_packets = 0
    try:
        for packet in packets(container, stream, alive=alive):
            num_packets += 1
            mark = marks.read(packet)
            if mark.is_inside:
                yield from decoder.interrupt(mark.damage)
            elif mark.damage:  # bytes were lost before this packet, in this or another stream: the time stamps decide
                yield mark.damage
            if not mark.is_inside:
                yield from decoder.decode(cast("Packet[AudioStream]", packet))
    except FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        yield f"the container cannot be read on: {reason(error)}"
        return
    yield from decoder.decode(None)
    if is_whole and container.format.name.startswith("mov") and num_packets < len(stream.index_entries):
        yield f"the file ends after {num_packets} of the track's {len(stream.index_entries)} packets"


class _AudioPackets:
    """Decodes packets and reports the damaged ones."""

    def __init__(self, stream: AudioStream, track: AudioTrack) -> None:
        self._stream = stream
        self._rate_hz = track.rate_hz
        self._has_begun = False
        self._resampler: av.AudioResampler | None = None
        self._resampled_rate_hz = 0

    def interrupt(self, damage: str) -> Iterator[AudioFrame | str]:
        if self._has_begun:
            yield from self._resampled(None)
            self._stream.codec_context.flush_buffers()
            yield damage

    def decode(self, packet: Packet[AudioStream] | None) -> Iterator[AudioFrame | str]:
        try:
            frames = self._stream.decode(packet)  # pyright: ignore[reportUnknownMemberType]
            for frame in frames:
                _check(frame)
        except FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            yield from self.interrupt(rejection(error))
            return
        except _Damage as damage:
            yield from self.interrupt(str(damage))
            return
        for frame in frames:
            self._has_begun = True
            yield from self._resampled(frame)
        if packet is None:
            yield from self._resampled(None)

    def _resampled(self, frame: AudioFrame | None) -> Iterator[AudioFrame]:
        """Convert a frame to the track's rate, as FFmpeg does if a stream changes its rate; None flushes."""
        rate_hz = 0 if frame is None or frame.sample_rate == self._rate_hz else frame.sample_rate
        if self._resampler is not None and rate_hz != self._resampled_rate_hz:
            yield from self._resampler.resample(None)
            self._resampler = None
        if frame is None:
            return
        if not rate_hz:
            yield frame
            return
        if self._resampler is None:
            self._resampler = av.AudioResampler("fltp", frame.layout, self._rate_hz)
            self._resampled_rate_hz = rate_hz
        yield from self._resampler.resample(frame)


def _check(frame: AudioFrame) -> None:
    """Raise `_Damage` for samples that are marked as damaged or are not finite."""
    if frame.is_corrupt:
        raise _Damage("the samples are damaged")
    if frame.format.name in ("flt", "fltp", "dbl", "dblp") and not np.isfinite(frame.to_ndarray()).all():
        raise _Damage("it holds samples that are not numbers")


class _Line:
    """Places decoded samples on the track's time line."""

    def __init__(self, track: AudioTrack, num_wanted: int, preroll_s: float) -> None:
        self._track = track
        self._preroll = round(preroll_s * track.rate_hz)
        self._resumes_at: int | None = None  # the first sample after damage that is kept
        self._num_wanted = num_wanted
        self.position = 0
        """Number of complete samples of the track."""
        self.damage = ""
        """Damage after these samples."""

    def add(self, samples: NDArray[np.float32], begins: int | None) -> Iterator[NDArray[np.float32] | Hole]:
        """Yield the samples that follow the previous ones: zeros for a gap, then the new samples without overlap.

        ``begins``: position of the first sample in the track; None without a time stamp. After damage, samples without
        a time stamp are discarded.
        """
        rate_hz = self._track.rate_hz
        if begins is None:
            if self.damage:
                return
            begins = self.position
        gap = self._in_whole_frames(begins - self.position, samples.shape[1])
        jitter = DAMAGED_JITTER_S if self.damage else JITTER_S
        if self.damage and gap < -jitter * rate_hz:
            return
        if self.damage and gap > jitter * rate_hz:
            self._resumes_at = begins + self._preroll if self._resumes_at is None else self._resumes_at
            if begins < self._resumes_at:
                return
        self._resumes_at = None
        if (self.position or self.damage) and abs(gap) <= jitter * rate_hz:
            gap = 0
        elif gap > 0 and (self.damage or gap > MAX_GAP_S * rate_hz):
            start_s = self._track.start_s + self.position / rate_hz
            end_s = self._track.start_s + begins / rate_hz
            found = self.damage or f"no samples for more than {MAX_GAP_S:g} s"
            reason = f"the audio from {start_s:.2f} s to {end_s:.2f} s is lost: {found}"
            yield Hole(start_s - MARGIN_S, end_s + MARGIN_S, reason)
        self.damage = ""
        while gap > 0 and self.position < self._num_wanted:
            block = min(gap, round(SILENCE_BLOCK_S * rate_hz), self._num_wanted - self.position)
            yield np.zeros((self._track.channels, block), np.float32)
            gap -= block
            self.position += block
        new = samples[:, max(0, -gap) :][:, : self._num_wanted - self.position]
        if new.shape[1]:
            yield new
            self.position += new.shape[1]

    def _in_whole_frames(self, gap: int, frame_length: int) -> int:
        """Return the gap, rounded to whole frames if it differs from them by Matroska's rounding to milliseconds."""
        whole = round(gap / frame_length) * frame_length if frame_length else gap
        return whole if abs(whole - gap) <= ROUNDED_S * self._track.rate_hz else gap


def _begins(frame: AudioFrame, stream: AudioStream, metadata: VideoMetadata) -> int | None:
    """Return the position of a frame's first sample in the track, from its time stamp."""
    if frame.pts is None or stream.time_base is None or metadata.audio is None:
        return None
    is_resampled = frame.time_base == Fraction(1, metadata.audio.rate_hz)  # the last frames of a file have no time base
    time_base = frame.time_base if is_resampled and frame.time_base is not None else stream.time_base
    return round((float(frame.pts * time_base) - metadata.start_s - metadata.audio.start_s) * metadata.audio.rate_hz)


def _samples(frame: AudioFrame, track: AudioTrack) -> NDArray[np.float32]:
    """Return ``float32 [channels, samples]`` in −1 … 1, with the channels of the track.

    A frame with another number of channels (a broadcast that changes from 5.1 to stereo) is mixed down to the mean of
    its channels, which becomes the value of all channels of the track.
    """
    channels = frame.layout.nb_channels
    stored: Any = frame.to_ndarray()
    if not frame.format.is_planar:
        stored = stored.reshape(-1, channels).T
    if stored.dtype == np.uint8:
        samples = ((stored.astype(np.float32) - 128) / 128).astype(np.float32)
    elif np.issubdtype(stored.dtype, np.integer):
        samples = (stored / -float(np.iinfo(stored.dtype).min)).astype(np.float32)
    else:
        samples = stored.astype(np.float32)
    if channels == track.channels:
        return samples
    return np.repeat(samples.mean(axis=0, dtype=np.float32, keepdims=True), track.channels, axis=0)
