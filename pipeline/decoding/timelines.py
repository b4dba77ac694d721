"""Computation of a `VideoMetadata`'s timeline from a container's time stamps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import DecodeError
from .decoders import MAX_JUMP_S

MAX_REORDERING = 16
"""Maximal number of frames that a decoder reorders: the largest picture buffer of H.264 and HEVC."""


NO_STAMP = int(np.iinfo(np.int64).min)
MAX_MISSING_FRAMES = 1_000_000
"""Maximum number of missing frames in one gap; a larger number indicates a damaged time stamp."""


@dataclass(frozen=True, eq=False)
class Packets:
    """The packets of a stream in the order of the file, as arrays ``[packets]``; times in ticks of its time base."""

    pts: NDArray[np.int64]
    """`NO_STAMP` if a packet has no stamp, also in ``dts``."""
    dts: NDArray[np.int64]
    duration: NDArray[np.int64]
    keyframe: NDArray[np.bool_]
    position: NDArray[np.int64]
    """Position in the file; that of the previous packet if the container does not state it."""
    size: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pts)


@dataclass(frozen=True, eq=False)
class Timeline:
    """Presentation times of frames, in ticks, ascending."""

    ticks: NDArray[np.int64]
    end: int
    """End of the last frame."""
    counted: bool = False
    """The frames have no time stamps, or shuffled ones, so that only their order identifies them."""

    def seconds(self, time_base: Fraction) -> tuple[NDArray[np.float64], float]:
        """Return ``frame_times_s`` and ``end_s``, relative to the first frame."""
        first = int(self.ticks[0])
        times = (self.ticks - first).astype(np.float64) * time_base.numerator / time_base.denominator
        return times, float((self.end - first) * time_base)


def timeline_of_packets(
    packets: Packets, nominal: Fraction, missing: Sequence[tuple[int, int]] = ()
) -> Timeline | None:
    """Return the timeline if each packet is a frame; None if a packet has no presentation time.

    ``nominal``: ticks between frames at the container's rate. ``missing``: see `with_missing`.
    """
    if (packets.pts == NO_STAMP).any():
        return None
    ticks = np.unique(packets.pts) if missing else np.sort(packets.pts)  # damage may split a packet, at the same time
    return _timeline(with_missing(ticks, missing), packets, nominal)


def with_missing(ticks: NDArray[np.int64], missing: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Return ascending times of all frames, including missing ones, so that later frames keep their indices.

    ``missing``: ``(first, last)`` times between which packets are lost. Each gap between them that is longer than one
    and a half of the usual distance is filled with frames at the usual distance.
    """
    if len(ticks) < 2 or not missing:
        return ticks
    gaps = np.diff(ticks)
    usual = float(np.median(gaps))
    wide = np.flatnonzero(gaps > 1.5 * max(usual, 1.0))
    added: list[NDArray[np.int64]] = []
    for index in wide.tolist():
        begin, end = int(ticks[index]), int(ticks[index + 1])
        number = round((end - begin) / usual) - 1
        if number < MAX_MISSING_FRAMES and any(first <= begin and end <= last for first, last in missing):
            added.append(np.rint(np.linspace(begin, end, number + 2)[1:-1]).astype(np.int64))
    return np.sort(np.concatenate([ticks, *added])) if added else ticks


def timeline_of_frames(
    frames: Sequence[int | None],
    packets: Packets,
    nominal: Fraction,
    *,
    broken: bool,
    missing: Sequence[tuple[int, int]] = (),
) -> Timeline:
    """Return the timeline of the frames that a decoder presented, in their order, and of the frames that it lost.

    A packet without a frame is not a loss if the frames around it are close together (second fields, invisible
    reference frames, placeholders), or if it is before the first keyframe (a recording that was cut from a longer one).
    The frame of any other packet stays in the timeline, so that decoding reports a hole there. ``broken``: decoding
    ended before the packets did.
    """
    known = [tick for tick in frames if tick is not None]
    if len(known) < len(frames) or (packets.pts == NO_STAMP).any():
        num_frames = max(len(frames), len(packets)) if broken else len(frames)
        return _counted(num_frames, packets, nominal, missing)
    presented = sorted(known)
    _check_order(known, presented)
    if known != presented:
        num_frames = max(len(frames), len(packets)) if broken else len(frames)
        return _counted(num_frames, packets, nominal, missing)
    ticks = np.array(sorted(presented + _lost(presented, packets)), np.int64)
    return _timeline(with_missing(ticks, missing), packets, nominal)


def _counted(num_frames: int, packets: Packets, nominal: Fraction, missing: Sequence[tuple[int, int]]) -> Timeline:
    """Return the timeline of frames without time stamps: the decoding times, or times at the nominal rate."""
    ticks = np.sort(packets.dts[packets.dts != NO_STAMP])
    if len(ticks) != num_frames:
        ticks = np.array([round(number * nominal) for number in range(num_frames)], np.int64)
    return replace(_timeline(with_missing(ticks, missing), packets, nominal), counted=True)


def _check_order(ticks: list[int], ordered: list[int]) -> None:
    """Raise DecodeError for shuffled times. Containers with decoding times only (AVI) may shuffle them a little."""
    for position, tick in enumerate(ticks):
        if abs(bisect_right(ordered, tick) - 1 - position) > MAX_REORDERING:
            raise DecodeError(
                f"time stamps run backwards at frame {position}; rewrite the file (ffmpeg -i IN -c copy OUT.mkv)"
            )


def _lost(presented: list[int], packets: Packets) -> list[int]:
    first_key = int(np.argmax(packets.keyframe))
    key_tick = int(packets.pts[first_key])
    usual = float(np.median(np.diff(presented))) if len(presented) > 1 else 0.0
    there = set(presented)
    lost: list[int] = []
    for number, tick in enumerate(packets.pts.tolist()):
        if tick in there:
            continue
        after = bisect_right(presented, tick)
        if after == 0:
            is_loss = number >= first_key and tick >= key_tick
        elif after == len(presented):
            is_loss = True
        else:
            is_loss = presented[after] - presented[after - 1] > 1.5 * usual
        if is_loss:
            lost.append(tick)
    return lost


def _timeline(ticks: NDArray[np.int64], packets: Packets, nominal: Fraction) -> Timeline:
    """Return the timeline. The last frame has the duration of its packet, or the usual duration of frames."""
    usual = round(float(np.median(np.diff(ticks)))) if len(ticks) > 1 else round(nominal)
    last = np.flatnonzero(packets.pts == ticks[-1])
    stated = int(packets.duration[last[0]]) if len(last) else 0
    return Timeline(ticks, int(ticks[-1]) + max(1, stated or usual))


def check_gaps(times_s: NDArray[np.float64], end_s: float) -> None:
    """Raise `DecodeError` for a gap of hours, which indicates a damaged time stamp."""
    gaps = np.diff(times_s, append=end_s)
    widest = int(np.argmax(gaps))
    if gaps[widest] > MAX_JUMP_S:
        raise DecodeError(
            f"time stamps jump by {gaps[widest]:,.0f} s after frame {widest} of {len(times_s)}; "
            "rewrite the file (ffmpeg -i IN -c copy OUT.mkv)"
        )
