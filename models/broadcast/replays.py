"""Replays: shots whose motion repeats an earlier stretch at another speed, and the wipe logos around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ...manifests.shot_rules import BoundaryRules, ReplayRules
from .boundaries import Boundary, difference, hides_both
from .measures import FrameMeasures, trusted_cells

NUM_ANCHORS = 32
"""Frames of a shot that are compared with an earlier stretch."""
_SPEED_STEP = 1.04
_CANDIDATES = 24
"""Places of each speed, those with the least difference in gray levels, whose motion is compared."""
_ELSEWHERE_S = 1.0


@dataclass(frozen=True)
class Match:
    """The earlier stretch that a shot resembles most."""

    start_s: float
    end_s: float
    speed: float
    """Speed of the shot relative to the earlier stretch."""
    correlation: float
    """Of the changes against the mean picture, over all cells and frames."""
    margin: float
    """By which ``correlation`` exceeds that of the best other place."""


def earlier_match(frames: FrameMeasures, first: int, last: int, rules: ReplayRules) -> Match | None:
    """Find the earlier stretch whose motion a shot repeats at a constant speed.

    Candidates are stretches with similar pictures; what counts is the correlation of what changes in them.

    Args:
        frames: The frames of the video.
        first: First frame of the shot, without a transition.
        last: Last frame.
        rules: Speeds, and how far back to search.

    Returns:
        The best candidate, whether or not it is good enough; None for a shot in which nothing moves or that has no
        earlier frames.
    """
    anchors = np.unique(np.linspace(first, last, NUM_ANCHORS).round().astype(np.int64))
    since_s = frames.times_s[anchors] - frames.times_s[first]
    shown = trusted_cells(frames.cells[anchors])
    changes: NDArray[np.float32] = shown - shown.mean(axis=0)
    if len(anchors) < 8 or float(np.square(changes).mean()) < rules.least_motion**2:
        return None
    since: float = float(frames.times_s[first]) - rules.search_s
    begin = int(np.searchsorted(frames.times_s, since))
    earlier = trusted_cells(frames.cells[begin:first])
    products, sizes = shown @ earlier.T, (earlier**2).sum(axis=1)
    found: list[tuple[float, int, int, float]] = []
    speed = rules.slowest
    while speed <= rules.fastest * _SPEED_STEP:
        steps = np.rint(min(speed, rules.fastest) * since_s / frames.period_s).astype(np.int64)
        num_places = len(earlier) - int(steps[-1])
        if num_places > 0 and steps[-1] >= 6:
            distance = np.zeros(num_places)
            for row, step in zip(products, steps, strict=True):
                distance += sizes[step : step + num_places] - 2 * row[step : step + num_places]
            nearest = np.argsort(distance)[:_CANDIDATES]
            for place in map(int, nearest):
                other = earlier[place + steps]
                found.append((_correlation(changes, other - other.mean(axis=0)), place, int(steps[-1]), speed))
        speed *= _SPEED_STEP
    if not found:
        return None
    correlation, place, length, speed = max(found)
    apart = round(_ELSEWHERE_S / frames.period_s)
    others = [each[0] for each in found if abs(each[1] - place) > apart]
    times_s = frames.times_s[begin:first]
    return Match(
        start_s=float(times_s[place]),
        end_s=float(times_s[min(place + length, len(times_s) - 1)]),
        speed=float(min(speed, rules.fastest)),
        correlation=correlation,
        margin=correlation - max(others, default=0.0),
    )


def is_replay(match: Match | None, rules: ReplayRules) -> bool:
    """Whether a match is good enough. The shorter the stretch that is repeated, the better it must agree."""
    if match is None or match.correlation < rules.least_match or match.margin < rules.least_margin:
        return False
    z = np.arctanh(min(match.correlation, 0.9999))
    return bool(z * np.sqrt(match.end_s - match.start_s) >= rules.least_evidence)


def logo_boundaries(
    frames: FrameMeasures, boundaries: Sequence[Boundary], rules: ReplayRules, cuts: BoundaryRules
) -> set[int]:
    """Find boundaries with a wipe logo: a picture that hides both shots and that comes at another boundary, too.

    Returns:
        Indices of the boundaries.
    """
    half = max(frames.frames_of(rules.logo_s) // 2, 1)
    places = np.array([boundary.frame for boundary in boundaries], np.int64)
    is_logo = _hides_as_logo(frames, boundaries, cuts) & (frames.cells[places].mean(axis=1) >= cuts.black_level)
    margin = half + half // 2
    is_logo &= (places > margin) & (places < len(frames) - margin - 1)
    covering = np.flatnonzero(is_logo).tolist()
    found: set[int] = set()
    window = np.arange(-half, half + 1)
    for place, index in enumerate(covering):
        for other in covering[place + 1 :]:
            here = boundaries[index].frame + window
            least = min(
                float(difference(frames, here, boundaries[other].frame + window + shift).mean())
                for shift in range(-(half // 2), half // 2 + 1)
            )
            if least <= cuts.logo_difference:
                found |= {index, other}
    return found


def _hides_as_logo(frames: FrameMeasures, boundaries: Sequence[Boundary], cuts: BoundaryRules) -> NDArray[np.bool_]:
    """``[boundaries]``: whether the picture differs from those before and after, and from a blend of both."""
    places = np.array([boundary.frame for boundary in boundaries], np.int64)
    reach = frames.frames_of(cuts.gradual_s)
    before, after = (
        frames.cells[np.clip(places + shift, 0, len(frames) - 1)].astype(np.float64) for shift in (-reach, reach)
    )
    shown, change = frames.cells[places] - before, after - before
    share = (shown * change).sum(axis=1) / np.maximum((change**2).sum(axis=1), 1.0)
    rest = np.sqrt(np.square(shown - share[:, None] * change).mean(axis=1))
    # a cut by itself changes the picture before it: only the picture after it shows that something was hidden
    sides = np.abs(np.stack([shown, frames.cells[places] - after])).mean(axis=2).min(axis=0)
    is_cut = np.array([boundary.change == "cut" for boundary in boundaries], np.bool_)
    least = np.where(is_cut, cuts.gradual_least, cuts.logo_difference)
    return hides_both(frames, places, cuts) & (rest >= cuts.gradual_least) & (sides >= least)


def between_logos(start_s: Sequence[float], logos: Sequence[bool], rules: ReplayRules) -> list[bool]:
    """Tell which shots lie between an opening and a closing logo.

    Logos that are at most ``longest_s`` apart form a group. In a group of an even number they open and close in turn;
    in one of an odd number each separates two replays.

    Args:
        start_s: Start of each shot.
        logos: Whether each shot begins with a logo.
        rules: The longest replay.

    Example:
        >>> from arabesque.manifests.shot_rules import load_shot_rules
        >>> between_logos([0, 10, 14, 18, 60], [False, True, True, True, False], load_shot_rules().replays)
        [False, True, True, False, False]
    """
    inside = [False] * len(start_s)
    group: list[int] = []
    for index in [*(at for at, logo in enumerate(logos) if logo), None]:
        if group and (index is None or start_s[index] - start_s[group[-1]] > rules.longest_s):
            for place, (first, end) in enumerate(pairwise(group)):
                if len(group) % 2 or place % 2 == 0:
                    inside[first:end] = [True] * (end - first)
            group = []
        if index is not None:
            group.append(index)
    return inside


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / size if size > 0 else 0.0
