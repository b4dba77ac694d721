"""Sound as one unbroken run of samples with true times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from numpy.typing import NDArray

from ..records import AudioTrack, Probe
from .containers import audio_stream, open_container, packets, reason
from .decoders import MAX_GAP_S, SoundBroken

JITTER_S = 0.01
"""Time stamps that stray less are rounded, not gaps or overlaps: half of what a lost packet of AAC or MP3 leaves."""
SILENCE_BLOCK_S = 1.0


def decode_sound(path: Path, probe: Probe, until_s: float, alive: Callable[[], None]) -> Iterator[NDArray[np.float32]]:
    """See `Decoder.sound`."""
    track = probe.audio
    num_wanted = 0 if track is None else round((until_s - track.start_s) * track.rate_hz)
    if track is None or num_wanted <= 0:
        return
    position = 0
    with open_container(path) as container:
        stream = audio_stream(container, path)
        if stream is None:
            return
        try:
            for frame in _decoded(container, stream, alive):
                for block in _aligned(_samples(frame, track), _begins(frame, stream, probe), position, track):
                    yield block[:, : num_wanted - position]
                    position += block.shape[1]
                    if position >= num_wanted:
                        return
        except _Damage as damage:
            at_s = track.start_s + position / track.rate_hz
            raise SoundBroken(f"{path}: the sound breaks off at {at_s:.2f} s: {damage}") from damage


class _Damage(Exception):
    """Why the sound breaks off."""


def _decoded(container: InputContainer, stream: AudioStream, alive: Callable[[], None]) -> Iterator[AudioFrame]:
    """Frames up to the first damage. Before the first good frame there is none: cut recordings begin with scraps."""
    has_begun = False
    num_packets = 0
    try:
        for packet in packets(container, stream, alive=alive):
            num_packets += 1
            try:
                frames = _decode(stream, cast("Packet[AudioStream]", packet))
            except _Damage:
                if has_begun:
                    raise
                continue
            for frame in frames:
                has_begun = True
                yield frame
    except FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        raise _Damage(f"the container cannot be read on: {reason(error)}") from error
    yield from _decode(stream, None)
    if container.format.name.startswith("mov") and num_packets < len(stream.index_entries):
        raise _Damage(f"the file ends after {num_packets} of the track's {len(stream.index_entries)} packets")


def _decode(stream: AudioStream, packet: Packet[AudioStream] | None) -> list[AudioFrame]:
    if packet is not None and packet.is_corrupt:
        raise _Damage("the file is damaged or cut off here")
    try:
        frames = stream.decode(packet)
    except FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        raise _Damage(reason(error)) from error
    if any(frame.is_corrupt for frame in frames):
        raise _Damage("the samples are damaged")
    return frames


def _begins(frame: AudioFrame, stream: AudioStream, probe: Probe) -> int | None:
    """Which sample of the track a frame's first one is, by its time stamp."""
    if frame.pts is None or stream.time_base is None or probe.audio is None:
        return None
    return round((float(frame.pts * stream.time_base) - probe.start_s - probe.audio.start_s) * probe.audio.rate_hz)


def _aligned(
    samples: NDArray[np.float32], begins: int | None, position: int, track: AudioTrack
) -> Iterator[NDArray[np.float32]]:
    """What follows the track's first ``position`` samples: silence where there is a gap, and what is new."""
    gap = 0 if begins is None else begins - position
    if gap > MAX_GAP_S * track.rate_hz:
        raise _Damage(f"time stamps jump by {gap / track.rate_hz:,.0f} s")
    if position and abs(gap) <= JITTER_S * track.rate_hz:
        gap = 0
    while gap > 0:
        block = min(gap, round(SILENCE_BLOCK_S * track.rate_hz))
        yield np.zeros((track.channels, block), np.float32)
        gap -= block
    yield samples[:, -gap:]


def _samples(frame: AudioFrame, track: AudioTrack) -> NDArray[np.float32]:
    """``float32 [channels, samples]`` in −1 … 1."""
    channels = frame.layout.nb_channels
    if (frame.sample_rate, channels) != (track.rate_hz, track.channels):
        raise _Damage(
            f"it changes from {track.rate_hz} Hz × {track.channels} to {frame.sample_rate} Hz × {channels} channels"
        )
    stored: Any = frame.to_ndarray()
    if not frame.format.is_planar:
        stored = stored.reshape(-1, channels).T
    if stored.dtype == np.uint8:
        return ((stored.astype(np.float32) - 128) / 128).astype(np.float32)
    if np.issubdtype(stored.dtype, np.integer):
        return (stored / -float(np.iinfo(stored.dtype).min)).astype(np.float32)
    if not np.isfinite(stored).all():
        raise _Damage("it holds samples that are no numbers")
    return stored.astype(np.float32)
