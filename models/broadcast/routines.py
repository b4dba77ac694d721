"""Find the routines of a recording from the music, the athlete's motion and the kinds of the shots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...manifests.shot_rules import RoutineRules
from .boundaries import runs
from .measures import FrameMeasures, SoundMeasures
from .shots import Shot

AGREE_S = 1.5
"""Largest time difference at which music and motion agree."""
_MUSIC_FLOOR_DB = -50.0
"""Least level of music, also for recordings without a quiet part."""


@dataclass(frozen=True)
class Edge:
    """The start or the end of a routine."""

    time_s: float
    confidence: float
    """0 to 1: .9 if music and motion agree, .6 for music alone, .4 for motion alone, .2 for a cut alone."""
    evidence: str


@dataclass(frozen=True)
class Routine:
    """One routine of a recording."""

    start: Edge
    end: Edge
    shots: tuple[int, ...]
    """Indices of its action shots."""
    excluded_s: tuple[tuple[float, float], ...]
    """Stretches within it that do not show the athlete's routine, ascending."""
    music_s: tuple[float, float] | None
    """Start and end of its music; None without music."""


def music_stretches(sound: SoundMeasures | None, rules: RoutineRules) -> list[tuple[float, float]]:
    """Find stretches with music: tonal audio that is louder than the quiet parts of the recording.

    Returns:
        Start and end of each piece in seconds; empty without audio.
    """
    if sound is None or len(sound.times_s) < 8:
        return []
    audible = sound.level_db[sound.level_db > -90]
    if len(audible) == 0:
        return []
    quiet_db, loud_db = (float(each) for each in np.percentile(audible, (10, 90)))
    has_quiet = loud_db - quiet_db >= rules.music_db or len(audible) < 0.9 * len(sound.level_db)
    threshold_db = max(quiet_db + rules.music_db, _MUSIC_FLOOR_DB) if has_quiet else _MUSIC_FLOOR_DB
    part_s = float(np.median(np.diff(sound.times_s)))
    is_music = (sound.level_db >= threshold_db) & (sound.tonality >= rules.least_tonality)
    joined = list[tuple[float, float]]()
    for first, end in runs(is_music):
        start_s, end_s = np.round((sound.times_s[first] - part_s / 2, sound.times_s[end - 1] + part_s / 2), 6).tolist()
        if joined and start_s - joined[-1][1] <= rules.music_gap_s:
            joined[-1] = (joined[-1][0], end_s)
        else:
            joined.append((start_s, end_s))
    return [(max(start_s, 0.0), end_s) for start_s, end_s in joined if end_s - start_s >= rules.shortest_music_s]


def routines_of(
    frames: FrameMeasures, sound: SoundMeasures | None, shots: Sequence[Shot], rules: RoutineRules
) -> list[Routine]:
    """Find the routines.

    Each piece of music with action shots is a routine. Without such a piece, each run of action shots is a
    routine.

    Args:
        frames: The frames.
        sound: The audio; None for a video without audio.
        shots: The shots, as `shots_of` returns them.
        rules: The thresholds.

    Returns:
        The routines in order.
    """
    pieces = music_stretches(sound, rules)
    action = [shot for shot in shots if shot.kind == "action"]
    found: list[Routine] = []
    for onset_s, end_s in pieces:
        inside = [shot for shot in action if min(shot.end_s, end_s) - max(shot.start_s, onset_s) > 0.5]
        runs_inside = _runs_of(inside, rules)
        if runs_inside:
            best = max(runs_inside, key=_action_s)
            routine = _with_music(frames, best, (onset_s, end_s), shots, rules)
            if routine.end.time_s - routine.start.time_s >= rules.shortest_s:
                found.append(routine)
    if found:
        return found
    return [
        _without_music(frames, run, shots, rules)
        for run in _runs_of(action, rules)
        if run[-1].end_s - run[0].start_s >= rules.shortest_s
    ]


def _action_s(run: Sequence[Shot]) -> float:
    return sum(shot.end_s - shot.start_s for shot in run)


def _runs_of(action: Sequence[Shot], rules: RoutineRules) -> list[list[Shot]]:
    """Group action shots with gaps of at most ``longest_gap_s``."""
    found: list[list[Shot]] = []
    for shot in action:
        if found and shot.start_s - found[-1][-1].end_s <= rules.longest_gap_s:
            found[-1].append(shot)
        else:
            found.append([shot])
    return found


def _with_music(
    frames: FrameMeasures,
    run: Sequence[Shot],
    music_s: tuple[float, float],
    shots: Sequence[Shot],
    rules: RoutineRules,
) -> Routine:
    first_s, last_s = _moving(frames, run[0], run[-1], rules)
    start = _edge("music begins", music_s[0], "first motion", first_s, run[0].start_s)
    end = _edge("music ends", music_s[1], "last motion", last_s, run[-1].end_s)
    return _routine(start, end, run, music_s, shots)


def _without_music(frames: FrameMeasures, run: Sequence[Shot], shots: Sequence[Shot], rules: RoutineRules) -> Routine:
    first_s, last_s = _moving(frames, run[0], run[-1], rules)
    start = Edge(first_s, 0.4, f"first motion at {first_s:.2f} s; no music")
    end = Edge(last_s, 0.4, f"last motion at {last_s:.2f} s; no music")
    return _routine(start, end, run, None, shots)


def _edge(music: str, music_s: float, motion: str, motion_s: float, shot_s: float) -> Edge:
    """Combine the time of the music, that of the motion, and the edge of the outer action shot."""
    if abs(motion_s - music_s) <= AGREE_S:
        return Edge(music_s, 0.9, f"{music} at {music_s:.2f} s, {motion} at {motion_s:.2f} s")
    is_outside = shot_s > music_s + AGREE_S if "begins" in music else shot_s < music_s - AGREE_S
    if is_outside:  # there is music without a picture of the athlete
        return Edge(shot_s, 0.2, f"{music} at {music_s:.2f} s, the athlete is shown from or until {shot_s:.2f} s")
    return Edge(music_s, 0.6, f"{music} at {music_s:.2f} s; {motion} at {motion_s:.2f} s differs")


def _moving(frames: FrameMeasures, first: Shot, last: Shot, rules: RoutineRules) -> tuple[float, float]:
    """Return the time of the first motion in the first shot, and that of the last motion in the last shot."""
    begin, end = first.first_frame, int(np.searchsorted(frames.times_s, last.end_s))
    motion = _smooth(frames["motion"][begin:end].astype(np.float64), frames.frames_of(0.3))
    camera = np.hypot(frames["camera_x"][begin:end], frames["camera_y"][begin:end])
    usual = float(np.percentile(motion, 60))
    is_moving = (motion >= rules.still_motion * usual) | (camera >= 0.01)
    moving = [stretch for stretch in runs(is_moving) if stretch[1] - stretch[0] >= frames.frames_of(0.2)]
    if not moving:
        return first.start_s, last.end_s
    return float(frames.times_s[begin + moving[0][0]]), float(frames.edges_s[begin + moving[-1][1]])


def _smooth(curve: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    padded = np.pad(curve, (width // 2, width - 1 - width // 2), mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)


def _routine(
    start: Edge, end: Edge, run: Sequence[Shot], music_s: tuple[float, float] | None, shots: Sequence[Shot]
) -> Routine:
    inside = [shot for shot in shots if shot.end_s > start.time_s and shot.start_s < end.time_s]
    excluded = list[tuple[float, float]]()
    for shot in inside:
        if shot.kind == "action":
            continue
        stretch = max(shot.start_s, start.time_s), min(shot.end_s, end.time_s)
        if excluded and excluded[-1][1] == stretch[0]:
            excluded[-1] = (excluded[-1][0], stretch[1])
        else:
            excluded.append(stretch)
    action = tuple(shot.index for shot in inside if shot.kind == "action")
    return Routine(start, end, action, tuple(excluded), music_s)
