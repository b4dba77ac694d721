"""Replays that directly follow their shot. The cut alone is not detected, because both pictures are almost equal."""

from __future__ import annotations

import numpy as np

from ...manifests.shot_rules import ReplayRules
from .boundaries import Boundary, change_of_few_cells
from .measures import FrameMeasures
from .replays import Match, Stretch, earlier_match, evidence, is_replay, repeated_frames

_SHORTEST_S = 0.8
"""Shortest shot, and shortest replay."""
_BEGINNING_S = 1.2
"""Beginning of a replay that is compared first."""
_LEAST_AT_BEGINNING = 0.7
"""Least correlation of the beginning. Only then the whole replay is compared."""
_APART_S = 0.3
_BREAK = 2.0
"""Least ratio of the difference between the frames before replay and original to that between the frames after."""
_ENOUGH = 0.85
"""The last end of a replay with at least this share of the largest evidence of all ends is used."""
_LEAST_CHANGE = 3.0
"""Least change at a cut: third largest difference in gray levels among the cells."""


def direct_replays(frames: FrameMeasures, start: int, end: int, rules: ReplayRules) -> list[Boundary]:
    """Find small jumps within a shot after which an earlier stretch of the shot is repeated.

    Args:
        frames: The frames of the video.
        start: First frame of the shot.
        end: The frame after its last one.
        rules: Speeds and thresholds.

    Returns:
        The boundaries before and after the replays inside the shot, ascending.
    """
    # an enlarged replay differs in the whole picture, so its cut is detected elsewhere
    rules = rules.model_copy(update={"zooms": (1.0,)})
    shortest, apart = frames.frames_of(_SHORTEST_S), frames.frames_of(_APART_S)
    if end - start < 2 * shortest:
        return []
    every = np.arange(start, end - 1)
    moved = change_of_few_cells(frames, every, every + 1)
    places = [
        start + at
        for at in range(shortest, end - start - shortest + 1)
        if moved[at - 1] >= max(_LEAST_CHANGE, float(moved[max(at - 1 - apart, 0) : at + apart].max()))
    ]
    found, replays = list[Boundary](), list[tuple[Stretch, Stretch]]()
    done = start
    for place in places:
        if place < done + (0 if found else shortest):
            continue
        last = min(place + frames.frames_of(_BEGINNING_S), end) - 1
        match = earlier_match(frames, place + 1, last, rules, begin=start)
        if match is None or match.correlation < _LEAST_AT_BEGINNING or not _begins(frames, place, match):
            continue
        ends = [each for each in (*places, end) if each >= place + shortest]
        matches = {
            each: earlier_match(frames, place + 1, each - 2, rules, begin=start, replays=replays) for each in ends
        }
        good = {each: match for each, match in matches.items() if match is not None and is_replay(match, rules)}
        if good:
            most = max(map(evidence, good.values()))
            done = max(each for each, match in good.items() if evidence(match) >= _ENOUGH * most)
            replays.append(((place, done), repeated_frames(frames, good[done])))
            found += [Boundary(each, "cut", float(moved[each - 1 - start])) for each in (place, done) if each < end]
    return [each for number, each in enumerate(found) if number == 0 or each.frame != found[number - 1].frame]


def _begins(frames: FrameMeasures, place: int, match: Match) -> bool:
    """Return whether the similarity begins at a frame. In a spin, frames before it are also similar to earlier ones."""
    shifts = np.arange(1, frames.frames_of(_APART_S) + 1)
    source = int(np.searchsorted(frames.times_s, match.start_s))
    unlike: list[float] = []
    for sign in (-1, 1):
        original = source + np.rint(sign * match.speed * shifts).astype(np.int64)
        unlike.append(float(change_of_few_cells(frames, place + sign * shifts, np.maximum(original, 0)).mean()))
    return unlike[0] >= _BREAK * max(unlike[1], _LEAST_CHANGE / 2)
