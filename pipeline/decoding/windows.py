"""How a video is cut into windows: frames that fit a buffer, and the sound that goes with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..records import AudioTrack, Probe

MAX_SPAN_S = 10.0
MAX_SOUND_BYTES = 8 << 20


@dataclass(frozen=True, eq=False)
class WindowCut:
    """Frames of one window, possibly none, and how far the sound that comes with it reaches (None: no sound)."""

    indices: NDArray[np.int64]
    sound_until_s: float | None


def cut_windows(
    probe: Probe, wanted: NDArray[np.int64], max_frames: int, sound_until_s: float | None
) -> Iterator[WindowCut]:
    """Windows of at most ``max_frames`` frames and `MAX_SPAN_S`, each with its sound up to the end of its last frame.

    Where frames lie far apart, and after the last one, windows without frames bring the sound between them, so that
    no window brings more sound than `MAX_SOUND_BYTES`.
    """
    track = probe.audio if sound_until_s is not None else None
    span_s = MAX_SPAN_S if track is None else min(MAX_SPAN_S, sound_span_s(track))
    ends_s = np.append(probe.frame_times_s[1:], probe.end_s)
    heard_s = 0.0 if track is None else track.start_s
    for indices in _runs(probe.frame_times_s, ends_s, wanted, max_frames, span_s):
        if track is None or sound_until_s is None:
            yield WindowCut(indices, None)
            continue
        until_s = min(float(ends_s[indices[-1]]), sound_until_s)
        for step_s in _steps(heard_s, until_s - span_s, span_s):
            heard_s = step_s
            yield WindowCut(wanted[:0], step_s)
        heard_s = max(heard_s, until_s)
        yield WindowCut(indices, heard_s)
    if track is not None and sound_until_s is not None:
        for step_s in _steps(heard_s, sound_until_s, span_s):
            yield WindowCut(wanted[:0], step_s)


def sound_span_s(track: AudioTrack) -> float:
    """How long a stretch of this track takes `MAX_SOUND_BYTES`."""
    return MAX_SOUND_BYTES / (4 * track.rate_hz * track.channels)


def _runs(
    starts_s: NDArray[np.float64],
    ends_s: NDArray[np.float64],
    wanted: NDArray[np.int64],
    max_frames: int,
    span_s: float,
) -> Iterator[NDArray[np.int64]]:
    first = 0
    while first < len(wanted):
        candidates = wanted[first : first + max_frames]
        fitting = int(np.searchsorted(ends_s[candidates], starts_s[candidates[0]] + span_s, side="right"))
        run = candidates[: max(1, fitting)]
        yield run
        first += len(run)


def _steps(from_s: float, until_s: float, span_s: float) -> Iterator[float]:
    """Ends of stretches of at most ``span_s`` that lead from ``from_s`` to ``until_s``."""
    while from_s < until_s:
        from_s = min(from_s + span_s, until_s)
        yield from_s
