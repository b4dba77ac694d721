"""Replays, i.e. shots whose motion repeats an earlier stretch at another speed, and the wipe logos around them."""

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
"""Number of frames of a shot that are compared with an earlier stretch."""
_SPEED_STEP = 1.08
_CANDIDATES = 24
"""Number of positions per speed, those with the smallest difference in gray levels, whose motion is compared."""
_SHORTEST_FRAMES = 6
"""Shortest stretch that a replay can repeat."""
_ELSEWHERE_S = 1.0
_PERHAPS_ENLARGED = 0.3
"""Least correlation without enlargement; only then enlargements are tried."""
_LOGO_OFFSET_S = 0.12
"""Largest distance between a boundary and the middle of its logo."""

_LIVE_TO_LIVE, _REPLAY_TO_REPLAY, _REPLAY, _KNOWN_REPLAY_IS_LIVE = 3.0, 1.0, 0.5, 2.0
"""Costs in `between_logos`: a logo between two live stretches, and between two replays; a stretch that is a replay; and
a shot that repeats an earlier one in a live stretch."""

Stretch = tuple[int, int]
"""First frame, and the frame after the last."""
_Candidate = tuple[float, int, int, float]
"""Correlation, first frame, number of frames, speed."""


@dataclass(frozen=True)
class Match:
    """The earlier stretch that is most similar to a shot."""

    start_s: float
    end_s: float
    speed: float
    """Speed of the shot relative to the earlier stretch."""
    correlation: float
    """Correlation of the differences from the mean picture, over all cells and frames."""
    margin: float
    """Difference of ``correlation`` to that of the best stretch elsewhere."""


def earlier_match(
    frames: FrameMeasures,
    first: int,
    last: int,
    rules: ReplayRules,
    *,
    begin: int = 0,
    replays: Sequence[tuple[Stretch, Stretch]] = (),
) -> Match | None:
    """Find the earlier stretch whose motion a shot repeats at a constant speed, possibly enlarged.

    Candidates are stretches with similar pictures. They are ranked by the correlation of the changes in them.

    Args:
        frames: The frames of the video.
        first: First frame of the shot, without a transition.
        last: Last frame of the shot.
        rules: Speeds, and length of the search.
        begin: First frame of the search.
        replays: Earlier replays, each with the stretch that it repeats. Both do not reduce each other's margin.

    Returns:
        The best candidate, even if it is not good enough; None for a shot without motion or without earlier frames.
    """
    anchors = np.unique(np.linspace(first, last, NUM_ANCHORS).round().astype(np.int64))
    since_s = frames.times_s[anchors] - frames.times_s[first]
    shown = _without_brightness(trusted_cells(frames.cells[anchors]))
    changes: NDArray[np.float32] = shown - shown.mean(axis=0)
    if len(anchors) < 8 or float(np.square(changes).mean()) < rules.least_motion**2:
        return None
    since: float = float(frames.times_s[first]) - rules.search_s
    begin = max(begin, int(np.searchsorted(frames.times_s, since)))
    found: list[_Candidate] = []
    for zoom in rules.zooms:
        earlier = _without_brightness(trusted_cells(zoomed(frames.cells[begin:first], zoom)))
        distances = (np.square(earlier).sum(axis=1) - 2 * (shown @ earlier.T)).astype(np.float64)
        search = _Search(changes, earlier, distances, since_s / frames.period_s)
        speed = rules.slowest
        while speed < rules.fastest * _SPEED_STEP:
            found += search.candidates(min(speed, rules.fastest), begin)
            speed *= _SPEED_STEP
        if not found:
            return None
        _, place, _, speed = max(found)
        for factor in (_SPEED_STEP**-0.5, _SPEED_STEP**0.5):
            near = min(max(speed * factor, rules.slowest), rules.fastest)
            found += search.candidates(near, begin, np.arange(place - begin - 3, place - begin + 4))
        if not _PERHAPS_ENLARGED <= max(found)[0] < rules.least_match:
            break
    correlation, place, length, speed = max(found)
    same = _same_places((place, place + length), replays)
    apart = round(_ELSEWHERE_S / frames.period_s)
    others = [
        each[0]
        for each in found
        if abs(each[1] - place) > apart
        and not any(each[1] < end and each[1] + each[2] > start for start, end in same[1:])
    ]
    return Match(
        start_s=float(frames.times_s[place]),
        end_s=float(frames.times_s[min(place + length, first - 1)]),
        speed=speed,
        correlation=correlation,
        margin=correlation - max(others, default=0.0),
    )


@dataclass(frozen=True, eq=False)
class _Search:
    """A shot, and the earlier frames with which it is compared."""

    changes: NDArray[np.float32]
    """``[anchors, cells]``: differences of the anchors from their mean."""
    earlier: NDArray[np.float32]
    """``[frames, cells]``"""
    distances: NDArray[np.float64]
    """``[anchors, frames]``: squared distances of anchors and earlier frames, except for a constant in each row."""
    since: NDArray[np.float64]
    """``[anchors]``: frames since the first anchor."""

    def candidates(self, speed: float, begin: int, places: NDArray[np.int64] | None = None) -> list[_Candidate]:
        """Return the stretches that begin at ``places``, by default those with the most similar pictures."""
        steps = np.rint(speed * self.since).astype(np.int64)
        length = int(steps[-1])
        num_places = len(self.earlier) - length
        if num_places <= 0 or length < _SHORTEST_FRAMES:
            return []
        if places is None:
            distance = np.zeros(num_places)
            for row, step in zip(self.distances, steps.tolist(), strict=True):
                distance += row[step : step + num_places]
            places = np.argpartition(distance, min(_CANDIDATES, num_places) - 1)[:_CANDIDATES]
        else:
            places = places[(places >= 0) & (places < num_places)]
        others = self.earlier.take((places[:, None] + steps).ravel(), axis=0).reshape(len(places), len(steps), -1)
        others -= others.mean(axis=1, keepdims=True)
        others = others.reshape(len(places), -1)
        sizes = np.sqrt(np.square(self.changes).sum() * np.einsum("pc,pc->p", others, others))
        correlations = others @ self.changes.ravel() / np.maximum(sizes, 1e-6)
        return [
            (float(correlation), begin + int(place), length, speed)
            for place, correlation in zip(places, correlations, strict=True)
        ]


def repeated_frames(frames: FrameMeasures, match: Match) -> Stretch:
    """Return the frames of the earlier stretch."""
    first, last = np.searchsorted(frames.times_s, (match.start_s, match.end_s)).tolist()
    return first, last + 1


def _same_places(stretch: Stretch, replays: Sequence[tuple[Stretch, Stretch]]) -> list[Stretch]:
    """Return the stretch and all stretches with the same content, by following replays in both directions."""
    same = [stretch]
    for start, end in same:  # the list grows in the loop
        for pair in replays:
            for one, other in (pair, pair[::-1]):
                if one[0] < end and one[1] > start and other not in same:
                    same.append(other)
    return same


def zoomed(cells: NDArray[np.float32], zoom: float) -> NDArray[np.float32]:
    """Return the middle of the pictures, enlarged, ``[frames, 144]``."""
    if zoom == 1:
        return cells
    rows, columns = (_enlarging(num_cells, zoom) for num_cells in (9, 16))
    return np.einsum("ij,fjk,lk->fil", rows, cells.reshape(-1, 9, 16), columns, optimize=True).reshape(cells.shape)


def _enlarging(num_cells: int, zoom: float) -> NDArray[np.float32]:
    """Return the weights ``[cells, cells]`` that compute enlarged cells from cells by linear interpolation."""
    middle = (num_cells - 1) / 2
    places = middle + (np.arange(num_cells) - middle) / zoom
    distance = np.abs(places[:, None] - np.arange(num_cells))
    return np.maximum(1 - distance, 0).astype(np.float32)


def _without_brightness(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    return cells - cells.mean(axis=1, keepdims=True)


def is_replay(match: Match | None, rules: ReplayRules) -> bool:
    """Return whether a match is good enough. Shorter stretches need a higher correlation."""
    return match is not None and agrees(match, rules) and evidence(match) >= rules.least_evidence


def agrees(match: Match | None, rules: ReplayRules) -> bool:
    """Return whether a match is good enough for a shot next to a wipe logo, independent of the stretch's length."""
    return match is not None and match.correlation >= rules.least_match and match.margin >= rules.least_margin


def evidence(match: Match) -> float:
    """Return Fisher's z of the correlation × √(seconds that are repeated)."""
    return float(np.arctanh(np.clip(match.correlation, 0, 0.9999)) * np.sqrt(match.end_s - match.start_s))


def logo_boundaries(
    frames: FrameMeasures, boundaries: Sequence[Boundary], rules: ReplayRules, cuts: BoundaryRules
) -> set[int]:
    """Find boundaries with a wipe logo: a picture that hides both shots and also occurs at another boundary.

    Returns:
        Indices of the boundaries.
    """
    half, reach = max(frames.frames_of(rules.logo_s) // 2, 1), frames.frames_of(_LOGO_OFFSET_S)
    places = np.array([boundary.frame for boundary in boundaries], np.int64)
    is_logo = _hides_as_logo(frames, boundaries, cuts) & (frames.cells[places].mean(axis=1) >= cuts.black_level)
    margin = half + reach
    is_logo &= (places > margin) & (places < len(frames) - margin - 1)
    covering = np.flatnonzero(is_logo).tolist()
    found: set[int] = set()
    window = np.arange(-half, half + 1)
    for place, index in enumerate(covering):
        for other in covering[place + 1 :]:
            here = boundaries[index].frame + window
            least = min(
                float(difference(frames, here, boundaries[other].frame + window + shift).mean())
                for shift in range(-reach, reach + 1)
            )
            if least <= cuts.logo_difference:
                found |= {index, other}
    return found


def _hides_as_logo(frames: FrameMeasures, boundaries: Sequence[Boundary], cuts: BoundaryRules) -> NDArray[np.bool_]:
    """Return whether the picture differs from those before and after, and from a blend of both, ``[boundaries]``."""
    places = np.array([boundary.frame for boundary in boundaries], np.int64)
    reach = frames.frames_of(cuts.gradual_s)
    before, after = (
        frames.cells[np.clip(places + shift, 0, len(frames) - 1)].astype(np.float64) for shift in (-reach, reach)
    )
    shown, change = frames.cells[places] - before, after - before
    share = (shown * change).sum(axis=1) / np.maximum((change**2).sum(axis=1), 1.0)
    rest = np.sqrt(np.square(shown - share[:, None] * change).mean(axis=1))
    # at a cut, the picture always differs from those before, so it must also differ clearly from those after
    sides = np.abs(np.stack([shown, frames.cells[places] - after])).mean(axis=2).min(axis=0)
    is_cut = np.array([boundary.change == "cut" for boundary in boundaries], np.bool_)
    least = np.where(is_cut, cuts.gradual_least, cuts.logo_difference)
    return hides_both(frames, places, cuts) & (rest >= cuts.gradual_least) & (sides >= least)


def between_logos(
    start_s: Sequence[float], logos: Sequence[bool], repeats: Sequence[bool], rules: ReplayRules
) -> list[bool]:
    """Find the shots between an opening and a closing logo, by the arrangement with the least cost.

    Logos are between a live stretch and a replay, sometimes between two replays, and very rarely between two live
    stretches. A stretch with a shot that repeats an earlier one is probably a replay; a stretch longer than
    ``longest_s`` is not a replay. Otherwise the shorter stretches are the replays.

    Args:
        start_s: Start of each shot.
        logos: Whether each shot begins with a logo.
        repeats: Whether each shot probably repeats an earlier one.
        rules: Rules with the length of the longest replay.

    Example:
        >>> from arabesque.manifests.shot_rules import load_shot_rules
        >>> rules = load_shot_rules().replays
        >>> between_logos([0, 10, 14, 18, 60], [False, True, True, True, False], [False] * 5, rules)
        [False, True, True, False, False]
    """
    edges = [index for index, is_logo in enumerate(logos) if is_logo]
    # a logo next to a known replay has no cost, even if the logo at the other end of the replay was not found
    between_live = [0.0 if repeats[edge] or (edge > 0 and repeats[edge - 1]) else _LIVE_TO_LIVE for edge in edges]
    # cost and replays of the best arrangement if the last stretch is live, and if it is a replay
    live, replay = (0.0, list[int]()), (np.inf, list[int]())
    for number, (first, end) in enumerate(pairwise(edges)):
        length = (start_s[end] - start_s[first]) / rules.longest_s
        live_cost = _KNOWN_REPLAY_IS_LIVE if any(repeats[first:end]) else 0.0
        replay_cost = np.inf if length > 1 else _REPLAY + length / 4
        live, replay = (
            min((live[0] + between_live[number] + live_cost, live[1]), (replay[0] + live_cost, replay[1])),
            min(
                (live[0] + replay_cost, [*live[1], number]),
                (replay[0] + _REPLAY_TO_REPLAY + replay_cost, [*replay[1], number]),
            ),
        )
    if edges:
        live = live[0] + between_live[-1], live[1]
    inside = [False] * len(start_s)
    for number in min(live, replay)[1]:
        first, end = edges[number], edges[number + 1]
        inside[first:end] = [True] * (end - first)
    return inside
