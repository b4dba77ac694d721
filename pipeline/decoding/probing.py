"""A file's identity, and the arithmetic that turns a container's time stamps into a `Probe`'s timeline."""

from __future__ import annotations

import hashlib
import os
import stat
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import DecodeError
from .decoders import MAX_GAP_S

MAX_REORDERING = 16
"""Frames that may overtake one another on their way through a decoder: H.264's and HEVC's largest picture buffer."""


MAX_ZEROS_BYTES = 1 << 30
"""FFmpeg looks through nothing at 50 to 100 MB/s, and in silence; a slot is taken for hung after a minute."""
_BLOCK_BYTES = 1 << 20
_FEW_ZEROS_BYTES = 16 << 20
"""Containers reserve less room than this for tables that they write later."""


@dataclass(frozen=True)
class Content:
    """What one reading of a file's bytes tells."""

    digest: str
    """SHA-256, hexadecimal."""
    size_bytes: int
    longest_zeros_bytes: int
    """The longest stretch of whole MiB in which every byte is zero."""

    @property
    def never_written(self) -> str:
        """Why the file is no video yet, where zeros stand in place of most of it; else empty.

        Downloaders reserve the whole length at once. Uncompressed black pictures are zeros, too, but have headers
        between them.
        """
        zeros = self.longest_zeros_bytes
        if zeros <= MAX_ZEROS_BYTES and (zeros <= _FEW_ZEROS_BYTES or 2 * zeros <= self.size_bytes):
            return ""
        return (
            f"{zeros / 2**20:,.0f} MiB of its {self.size_bytes / 2**20:,.0f} are zeros in a row: it was never written "
            "to its end; get the whole file and run again"
        )


def read_content(path: Path) -> Content:
    digest, block, nothing = hashlib.sha256(), memoryview(bytearray(_BLOCK_BYTES)), bytes(_BLOCK_BYTES)
    size = zeros = longest = 0
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
            size += count
            zeros = zeros + count if block[:count] == nothing[:count] else 0
            longest = max(longest, zeros)
    return Content(digest.hexdigest(), size, longest)


def content_digest(path: Path) -> str:
    """SHA-256 of the bytes, hexadecimal."""
    return read_content(path).digest


def check_file(path: Path) -> None:
    """Raises `DecodeError` for anything but a plain, readable file with something in it.

    Before anyone opens it: opening a FIFO waits for a writer that may never come.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise DecodeError(f"{path}: {error.strerror}; check the path") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no plain file (a pipe, socket or device)"
        raise DecodeError(f"{path}: is {kind}; give video files")
    if status.st_size == 0:
        raise DecodeError(f"{path}: is empty (0 bytes); get the file again")
    if not os.access(path, os.R_OK):
        raise DecodeError(f"{path}: permission denied; make it readable")


@dataclass(frozen=True)
class Packet:
    """What the timeline needs to know of one packet of the video stream, in ticks of its time base."""

    pts: int | None
    dts: int | None
    duration: int
    keyframe: bool


@dataclass(frozen=True, eq=False)
class Timeline:
    """When frames are presented, in ticks; ascending."""

    ticks: NDArray[np.int64]
    end: int
    """When the last frame stops being shown."""
    counted: bool = False
    """The frames carry no time stamps, or shuffled ones: only their order tells which is which."""

    def seconds(self, time_base: Fraction) -> tuple[NDArray[np.float64], float]:
        """``frame_times_s`` and ``end_s``, relative to the first frame."""
        first = int(self.ticks[0])
        times = (self.ticks - first).astype(np.float64) * time_base.numerator / time_base.denominator
        return times, float((self.end - first) * time_base)


def timeline_of_packets(packets: Sequence[Packet], nominal: Fraction) -> Timeline | None:
    """The timeline when each packet becomes a frame; None where a packet does not say when it is presented.

    ``nominal``: ticks between frames by the container's rate.
    """
    ticks = [packet.pts for packet in packets if packet.pts is not None]
    if len(ticks) < len(packets):
        return None
    return _timeline(sorted(ticks), packets, nominal)


def timeline_of_frames(
    frames: Sequence[int | None], packets: Sequence[Packet], nominal: Fraction, *, broken: bool
) -> Timeline:
    """The timeline of frames that a decoder really presented, in their order, and of those that it lost.

    A packet without a frame is no loss where the frames around it follow each other closely (second fields, invisible
    reference frames, place holders), nor before the first keyframe (a recording that was cut from a longer one). Any
    other stays in the timeline, so that decoding breaks there and nobody takes the rest for the whole.

    ``broken``: decoding came to an end before the packets did.
    """
    known = [tick for tick in frames if tick is not None]
    if len(known) < len(frames) or any(packet.pts is None for packet in packets):
        num_frames = max(len(frames), len(packets)) if broken else len(frames)
        return _counted(num_frames, packets, nominal)
    presented = sorted(known)
    _check_order(known, presented)
    timeline = _timeline(sorted(presented + _lost(presented, packets)), packets, nominal)
    return replace(timeline, counted=known != presented)


def _counted(num_frames: int, packets: Sequence[Packet], nominal: Fraction) -> Timeline:
    """Frames without time stamps: at the times of decoding, which are as far apart, or else at the nominal rate."""
    ticks = sorted(packet.dts for packet in packets if packet.dts is not None)
    if len(ticks) != num_frames:
        ticks = [round(number * nominal) for number in range(num_frames)]
    return replace(_timeline(ticks, packets, nominal), counted=True)


def _check_order(ticks: list[int], ordered: list[int]) -> None:
    """A container that knows decoding times only (AVI) shuffles them a little; anything worse is a damaged file."""
    for position, tick in enumerate(ticks):
        if abs(bisect_right(ordered, tick) - 1 - position) > MAX_REORDERING:
            raise DecodeError(
                f"time stamps run backwards at frame {position}; rewrite the file (ffmpeg -i IN -c copy OUT.mkv)"
            )


def _lost(presented: list[int], packets: Sequence[Packet]) -> list[int]:
    first_key = next((number for number, packet in enumerate(packets) if packet.keyframe), 0)
    usual = float(np.median(np.diff(presented))) if len(presented) > 1 else 0.0
    there = set(presented)
    lost: list[int] = []
    for number, packet in enumerate(packets):
        if packet.pts is None or packet.pts in there:
            continue
        after = bisect_right(presented, packet.pts)
        if after == 0:
            is_loss = number >= first_key and packet.pts >= (packets[first_key].pts or 0)
        elif after == len(presented):
            is_loss = True
        else:
            is_loss = presented[after] - presented[after - 1] > 1.5 * usual
        if is_loss:
            lost.append(packet.pts)
    return lost


def _timeline(ticks: list[int], packets: Sequence[Packet], nominal: Fraction) -> Timeline:
    """The last frame is shown as long as its packet says, or else as long as frames usually are."""
    usual = round(float(np.median(np.diff(ticks)))) if len(ticks) > 1 else round(nominal)
    stated = next((packet.duration for packet in packets if packet.pts == ticks[-1]), 0)
    return Timeline(np.array(ticks, np.int64), ticks[-1] + max(1, stated or usual))


def check_gaps(times_s: NDArray[np.float64], end_s: float) -> None:
    """Raises `DecodeError` where a damaged time stamp would make hours of nothing."""
    gaps = np.diff(times_s, append=end_s)
    widest = int(np.argmax(gaps))
    if gaps[widest] > MAX_GAP_S:
        raise DecodeError(
            f"time stamps jump by {gaps[widest]:,.0f} s after frame {widest} of {len(times_s)}; "
            "rewrite the file (ffmpeg -i IN -c copy OUT.mkv)"
        )
