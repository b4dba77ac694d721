"""Files with several video or audio tracks, for the tests."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from clips import TS_PACKET_BYTES, picture

RATE_HZ = 44100
SILENT, DESCRIPTION, LOUD = 0.0, 0.1, 0.5


@dataclass(frozen=True)
class Sound:
    """An audio track: a tone with the amplitude ``level``."""

    level: float
    disposition: Disposition | None = None
    language: str = ""


def write_tracks(path: Path, sounds: Sequence[Sound], first: int = 0, num_frames: int = 12, **muxer: str) -> Path:
    """Write frames with numbers from ``first`` on, and half a second of each track in their order."""
    with av.open(path, "w", options=muxer) as container:
        video: Any = container.add_stream("libx264", rate=25, options={"g": "12", "x264-params": "log-level=none"})
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        tracks: list[Any] = []
        for sound in sounds:
            track: Any = container.add_stream("aac", rate=RATE_HZ)
            track.layout = "mono"
            track.disposition = sound.disposition or Disposition(0)
            if sound.language:
                track.metadata["language"] = sound.language
            tracks.append(track)
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(first + number, 96, 128), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        for sound, track in zip(sounds, tracks, strict=True):
            wave = sound.level * np.sin(np.arange(RATE_HZ // 2) * 2 * np.pi * 440 / RATE_HZ)
            for start in range(0, len(wave), 1024):
                samples = av.AudioFrame.from_ndarray(
                    wave[None, start : start + 1024].astype(np.float32), "fltp", "mono"
                )
                samples.sample_rate, samples.pts, samples.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
                container.mux(track.encode(samples))
        for stream in (video, *tracks):
            container.mux(stream.encode(None))
    return path


def write_two_recordings(path: Path, num_frames: tuple[int, int], same_pids: bool = False) -> Path:
    """Write a transport stream of two recordings, one after the other: frames from 0 and from 100."""
    parts: list[bytes] = []
    for recording, number in enumerate(num_frames):
        pid = 0 if same_pids else recording
        part = write_tracks(
            path.with_suffix(f".{recording}.ts"),
            [Sound(LOUD)],
            first=100 * recording,
            num_frames=number,
            mpegts_pmt_start_pid=str(0x1000 + pid),
            mpegts_start_pid=str(0x100 + 0x10 * pid),
        )
        parts.append(part.read_bytes())
        part.unlink()
    path.write_bytes(b"".join(parts))
    return path


def write_two_programs(path: Path) -> Path:
    """Write a transport stream with two programs: few frames from 0 with silence, more frames from 100 with a tone."""
    packets: list[list[bytes]] = []
    for program, sounds in enumerate(([Sound(SILENT, Disposition.default)], [Sound(LOUD)])):
        one = write_tracks(
            path.with_suffix(f".{program}.ts"),
            sounds,
            first=100 * program,
            num_frames=6 + 6 * program,
            mpegts_service_id=str(program + 1),
            mpegts_pmt_start_pid=str(0x1000 + program),
            mpegts_start_pid=str(0x100 + 0x10 * program),
        ).read_bytes()
        cut = [one[at : at + TS_PACKET_BYTES] for at in range(0, len(one), TS_PACKET_BYTES)]
        packets.append([packet for packet in cut if _pid(packet) not in (0, 0x11)])
    body = b"".join(b"".join(pair) for pair in zip(*packets, strict=False))
    longest = max(packets, key=len)
    path.write_bytes(_program_table() + body + b"".join(longest[min(map(len, packets)) :]))
    return path


def _pid(packet: bytes) -> int:
    return int.from_bytes(packet[1:3], "big") & 0x1FFF


def _program_table() -> bytes:
    """Return a PAT of programs 1 and 2."""
    section = bytes([0x00, 0xB0, 5 + 8 + 4, 0, 1, 0xC1, 0, 0])
    for program in range(2):
        section += (program + 1).to_bytes(2, "big") + (0xE000 | 0x1000 + program).to_bytes(2, "big")
    packet = bytes([0x47, 0x40, 0x00, 0x10, 0x00]) + section + _crc32_mpeg(section).to_bytes(4, "big")
    return packet.ljust(TS_PACKET_BYTES, b"\xff")


def _crc32_mpeg(data: bytes) -> int:
    """Return the CRC-32 without the reflection that `zlib` applies."""
    mirrored = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)
    return int(f"{zlib.crc32(mirrored) ^ 0xFFFFFFFF:032b}"[::-1], 2)
