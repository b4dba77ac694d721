"""Shot boundaries from the changes between frames, or from the probabilities of TransNetV2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...manifests.shot_rules import BoundaryRules
from .measures import FrameMeasures, trusted_cells

Method = Literal["content", "transnet"]
Change = Literal["start", "cut", "gradual"]


@dataclass(frozen=True)
class Boundary:
    """The beginning of a shot."""

    frame: int
    """First frame of the shot, or the middle of a fade, dissolve or wipe."""
    change: Change
    score: float
    """The evidence: the change in gray levels, or TransNetV2's probability."""


_MOST_UNLIKE = 0.15
"""Limit of `_unlike_blend` for dissolves. Dissolves between moving shots have less than 0.05, pans up to 0.5."""


_JUMP_REACH_S = 0.3
"""Time before and after a jump with which it is compared. It is long because frames are repeated in slow motion."""
_NOISE_LEVELS = 0.5
"""Change in gray levels of a cell without motion."""
_LOGO_HALF_S = 0.2
"""Half the time in which a wipe logo moves across the picture."""
_COVERED_HALF_S = 0.12
"""Half the time in which a wipe logo covers the picture."""


@dataclass(frozen=True)
class _Gradual:
    boundary: Boundary
    hides: bool
    """Whether the picture in its middle is not a blend of both shots."""


def content_boundaries(frames: FrameMeasures, rules: BoundaryRules) -> list[Boundary]:
    """Find cuts by PySceneDetect's content score on 48 × 27 pixels, and gradual transitions by the pictures before and
    after.

    At a cut, the change is larger than between the frames around it, and the picture does not return, unlike after a
    flash. A cut within one scene changes only a few cells, at the athlete. Cuts are not found in a video in which every
    frame differs from the next one.

    Returns:
        The boundaries after frame 0, ascending.
    """
    cuts = _cuts(frames, rules)
    edges = [0, *(cut.frame for cut in cuts), len(frames)]
    gradual = [each for start, end in pairwise(edges) for each in _gradual(frames, start, end, rules)]
    return _apart([*cuts, *_fades_and_logos(frames, gradual, rules)], frames, rules)


def network_boundaries(
    probabilities: NDArray[np.float32], frames: FrameMeasures, rules: BoundaryRules
) -> list[Boundary]:
    """Find boundaries where TransNetV2's probability exceeds the threshold, and add those of `content_boundaries`.

    A boundary is at the largest probability of a short run above the threshold, or in the middle of a longer run. The
    boundaries of `content_boundaries` are added because the network does not detect wipes and cuts within one scene.

    Args:
        probabilities: ``[frames]``: probability that a new shot begins after each frame.
        frames: The frames. There may be more frames than probabilities.
        rules: The thresholds.
    """
    is_high = np.append(probabilities[: len(frames) - 1] > rules.probability, False)
    found: list[Boundary] = []
    for start, end in runs(is_high):
        peak = start + int(probabilities[start:end].argmax())
        is_cut = end - start <= 3
        frame = peak + 1 if is_cut else (start + end + 1) // 2
        found.append(Boundary(frame, "cut" if is_cut else "gradual", float(probabilities[peak])))
    return _apart([*found, *content_boundaries(frames, rules)], frames, rules)


def runs(chosen: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return ``(start, end)`` of each run of True.

    Example:
        >>> runs(np.array([True, False, True, True]))
        [(0, 1), (2, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def content_change(frames: FrameMeasures) -> NDArray[np.float64]:
    """Return the mean change of hue, saturation and value to the next frame, ``[frames]``; 0 for the last one."""
    total = frames["hue_change"].astype(np.float64) + frames["saturation_change"] + frames["value_change"]
    return np.append(total[:-1] / 3, 0.0)[: len(frames)]


def difference(frames: FrameMeasures, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean difference in gray levels between the cells of n pairs of frames, ``[n]``."""
    found = [change.mean(axis=1) for change in _cell_changes(frames, first, second)]
    return np.concatenate([np.zeros(0), *found]).astype(np.float64)


def change_of_few_cells(
    frames: FrameMeasures, first: NDArray[np.int64], second: NDArray[np.int64], *, without_clocks: bool = False
) -> NDArray[np.float64]:
    """Return the third largest difference in gray levels among the cells of each pair of frames, ``[n]``.

    It is sensitive to a small athlete, who changes only a few cells.
    """
    changes = _cell_changes(frames, first, second)
    looked_at = map(trusted_cells, changes) if without_clocks else changes
    found = [np.partition(change, -3, axis=1)[:, -3] for change in looked_at]
    return np.concatenate([np.zeros(0), *found]).astype(np.float64)


def _cell_changes(
    frames: FrameMeasures, first: NDArray[np.int64], second: NDArray[np.int64]
) -> Iterator[NDArray[np.float32]]:
    """Yield absolute differences ``[≤ 4096, 144]`` in batches, because an hour has 90,000 frames."""
    for at in range(0, len(first), 4096):
        yield np.abs(frames.cells[first[at : at + 4096]] - frames.cells[second[at : at + 4096]])


def _cuts(frames: FrameMeasures, rules: BoundaryRules) -> list[Boundary]:
    change, reach = content_change(frames), 6
    around = _around_each(change, reach)
    is_cut = (
        (change >= rules.cut_least)
        & (_gray_step(frames) >= rules.cut_gray_least)
        & (change >= rules.cut_ratio * np.median(around, axis=1))
        & (change >= around[:, reach - 2 : reach + 2].max(axis=1))
    )
    jumps = _jumps(frames, max(reach, frames.frames_of(_JUMP_REACH_S)), rules)
    peaks = np.flatnonzero(is_cut & _is_one_step(frames, rules) | jumps)
    if len(peaks) == 0:
        return []
    last, num_flash = len(frames) - 1, frames.frames_of(rules.flash_s)
    step = difference(frames, peaks, peaks + 1)
    returns, came_from = np.full(len(peaks), np.inf), np.full(len(peaks), np.inf)
    for later in range(2, num_flash + 2):
        is_inside = peaks + later <= last
        returns[is_inside] = np.minimum(returns, difference(frames, peaks, np.minimum(peaks + later, last)))[is_inside]
        is_inside = peaks + 1 - later >= 0
        came_from[is_inside] = np.minimum(came_from, difference(frames, np.maximum(peaks + 1 - later, 0), peaks + 1))[
            is_inside
        ]
    is_flash = np.minimum(returns, came_from) < rules.flash_return * step
    # the colors of nearly black frames are not reliable: frames of a fade may differ only in hue
    level = np.quantile(frames.cells, 0.8, axis=1)  # instead of the mean, because pillars are also black
    is_fade = (np.minimum(level[peaks], level[peaks + 1]) < rules.black_level) & (step < rules.cut_least)
    return [Boundary(int(peak) + 1, "cut", float(change[peak])) for peak in peaks[~is_flash & ~is_fade]]


def _gray_step(frames: FrameMeasures) -> NDArray[np.float64]:
    """Return the mean change in gray levels of the half of the cells with the largest change, ``[frames]``.

    The other cells may be black bars.
    """
    every: NDArray[np.int64] = np.arange(len(frames), dtype=np.int64)
    half = frames.cells.shape[1] // 2
    found = [
        np.partition(change, half, axis=1)[:, half:].mean(axis=1)
        for change in _cell_changes(frames, every, _next(every))
    ]
    return np.concatenate([np.zeros(0), *found]).astype(np.float64)


def _is_one_step(frames: FrameMeasures, rules: BoundaryRules) -> NDArray[np.bool_]:
    """Return whether ``cut_share`` of the change within five frames is in one step, ``bool [frames]``."""
    every, last = np.arange(len(frames), dtype=np.int64), len(frames) - 1
    step = difference(frames, every, np.minimum(every + 1, last))
    around = difference(frames, np.maximum(every - 2, 0), np.minimum(every + 3, last))
    return step >= rules.cut_share * around


def _jumps(frames: FrameMeasures, reach: int, rules: BoundaryRules) -> NDArray[np.bool_]:
    """Return whether there is a cut within one scene after each frame, ``bool [frames]``.

    Clocks change as many cells as an athlete, but only near the edges of the picture, which are also left out.
    """
    moved, ratio = jump_measures(frames, reach)
    every: NDArray[np.int64] = np.arange(len(frames), dtype=np.int64)
    usual = [np.median(change, axis=1) for change in _cell_changes(frames, every, _next(every))]
    is_local = moved >= rules.local_jump_share * np.maximum(np.concatenate([np.zeros(0), *usual]), _NOISE_LEVELS)
    least = np.where(is_local, rules.local_jump_least, rules.jump_least)
    has_both_sides = (every >= reach) & (every < len(frames) - reach)
    return (moved >= least) & (ratio >= rules.jump_ratio) & has_both_sides


def jump_measures(frames: FrameMeasures, reach: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the change of few cells to the next frame in gray levels, and its ratio to the largest change around it.

    Both are ``[frames]``, and the minimum with and without the cells of clocks.
    """
    every: NDArray[np.int64] = np.arange(len(frames), dtype=np.int64)
    both = [
        change_of_few_cells(frames, every, _next(every), without_clocks=without_clocks)
        for without_clocks in (False, True)
    ]
    ratios = [moved / np.maximum(_around_each(moved, reach).max(axis=1), _NOISE_LEVELS) for moved in both]
    return np.minimum(*both), np.minimum(*ratios)


def _next(every: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.minimum(every + 1, len(every) - 1)


def _around_each(curve: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Return the values before and after each value, ``[frames, 2 · reach]``."""
    padded = np.pad(curve, reach, mode="edge")
    return np.delete(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1), reach, axis=1)


def _gradual(frames: FrameMeasures, start: int, end: int, rules: BoundaryRules) -> list[_Gradual]:
    """Find fades, dissolves and wipes between two cuts.

    The pictures before and after differ, or the middle differs from both. The difference must be larger than that
    within the shots before and after in the same time, which excludes pans.
    """
    reach = frames.frames_of(rules.gradual_s)
    middle = np.arange(start + reach // 2, end - reach // 2)
    if end - start < 2 * reach or len(middle) == 0:
        return []
    left, right = np.maximum(middle - reach, start), np.minimum(middle + reach, end - 1)
    across = difference(frames, left, right)
    covered = np.minimum(difference(frames, left, middle), difference(frames, middle, right))
    usual_covered = _change_within(frames, left, right, reach, start, end - 1)
    usual_across = _change_within(frames, left, right, 2 * reach, start, end - 1)
    # a transition takes several frames, a flash one or two
    across, covered = (_lasting(np.where(each >= rules.gradual_ratio * usual, each, 0.0))
                       for each, usual in ((across, usual_across), (covered, usual_covered)))  # fmt: skip
    found: list[_Gradual] = []
    for evidence, other in ((covered, across), (across, covered)):
        for first, last in runs(evidence >= rules.gradual_least):
            if evidence is across and other[first:last].max() >= rules.gradual_least:
                continue  # already found, with a better middle
            rests = [_unlike_blend(frames, middle[at], left[at], right[at]) for at in range(first, last)]
            is_blend = min(rests) <= _MOST_UNLIKE
            if is_blend:
                place = first + int(np.argmin(rests))
            elif evidence is covered:
                plateau = np.flatnonzero(evidence[first:last] >= 0.9 * evidence[first:last].max())
                place = first + round(float(plateau.mean()))
            else:  # a fast pan
                continue
            score = float(evidence[first:last].max())
            found.append(_Gradual(Boundary(int(middle[place]), "gradual", score), hides=not is_blend))
    return found


def _unlike_blend(frames: FrameMeasures, middle: int, left: int, right: int) -> float:
    """Return the difference of a picture from an equal blend of two others; near 0 in the middle of a dissolve."""
    before, shown, after = (frames.cells[each] for each in (left, middle, right))
    length = max(float(((after - before) ** 2).sum()), 1.0)
    share = float(((shown - before) * (after - before)).sum()) / length
    rest = shown - before - share * (after - before)
    return float((rest**2).sum()) / length + abs(share - 0.5) / 2


def _fades_and_logos(frames: FrameMeasures, candidates: Sequence[_Gradual], rules: BoundaryRules) -> list[Boundary]:
    """Return the transitions among candidates: dissolves, black pictures, and logos, which occur several times.

    This excludes fast pans.
    """
    hiding = [each.boundary for each in candidates if each.hides]
    reach = frames.frames_of(_LOGO_HALF_S)

    def comes_again(boundary: Boundary) -> bool:
        shown = _around(boundary.frame, reach // 2, len(frames))
        return any(
            float(difference(frames, shown.repeat(len(there)), np.tile(there, len(shown))).min())
            <= rules.logo_difference
            for there in (_around(other.frame, 2 * reach, len(frames)) for other in hiding if other is not boundary)
        )

    def is_black(boundary: Boundary) -> bool:
        shown = frames.cells[_around(boundary.frame, reach, len(frames))]
        return float(shown.mean(axis=1).min()) < rules.black_level

    plain = [each.boundary for each in candidates if not each.hides or is_black(each.boundary)]
    logos, further = list[Boundary](), list[Boundary]()
    for boundary in hiding:
        if boundary in plain:
            continue
        others = _further_logos(frames, [boundary], rules)
        if others or comes_again(boundary):
            logos.append(boundary)
            further += others
    return [*plain, *logos, *further]


def _further_logos(frames: FrameMeasures, logos: Sequence[Boundary], rules: BoundaryRules) -> list[Boundary]:
    """Find other occurrences of known logos, which are not found otherwise if the shots around them change much."""
    half, reach = frames.frames_of(_COVERED_HALF_S), frames.frames_of(_LOGO_HALF_S)
    places: NDArray[np.int64] = np.arange(reach, len(frames) - reach, dtype=np.int64)
    window = np.arange(-half, half + 1)
    known, found = [logo.frame for logo in logos], list[Boundary]()
    seen = np.zeros(len(frames), np.bool_)
    for logo in logos:
        if seen[logo.frame] or not reach <= logo.frame < len(frames) - reach:
            continue  # an occurrence of an earlier logo, or cut off
        alike = places[difference(frames, places, np.full(len(places), logo.frame)) <= rules.logo_difference]
        alike = alike[hides_both(frames, alike, rules)]
        distance = np.full(len(frames), np.inf)
        distance[alike] = np.mean(
            [difference(frames, alike + shift, np.full(len(alike), logo.frame + shift)) for shift in window], axis=0
        )
        for start, end in runs(distance <= rules.logo_difference):
            place = start + int(distance[start:end].argmin())
            seen[max(place - reach, 0) : place + reach + 1] = True
            if all(abs(place - frame) > 2 * reach for frame in known):
                found.append(Boundary(place, "gradual", logo.score))
                known.append(place)
    return found


def hides_both(frames: FrameMeasures, places: NDArray[np.int64], rules: BoundaryRules) -> NDArray[np.bool_]:
    """Return whether a picture differs from those before and after it, and clearly from one of them, ``[places]``."""
    reach = frames.frames_of(rules.gradual_s)
    before, after = np.maximum(places - reach, 0), np.minimum(places + reach, len(frames) - 1)
    sides = np.stack([difference(frames, before, places), difference(frames, places, after)])
    return (sides.max(axis=0) >= rules.gradual_least) & (sides.min(axis=0) >= rules.logo_difference)


def _around(frame: int, reach: int, num_frames: int) -> NDArray[np.int64]:
    return np.clip(np.arange(frame - reach, frame + reach + 1), 0, num_frames - 1)


def _change_within(
    frames: FrameMeasures, left: NDArray[np.int64], right: NDArray[np.int64], length: int, start: int, last: int
) -> NDArray[np.float64]:
    """Return the larger change of ``length`` frames before ``left`` and ``length`` frames after ``right``, ``[n]``.

    The change in a shorter stretch is extrapolated. The result is infinite if both stretches are shorter than a quarter
    of ``length``.
    """
    usual = np.full(len(left), -1.0)
    for inner, outer in ((left, np.maximum(left - length, start)), (right, np.minimum(right + length, last))):
        num_frames = np.abs(inner - outer)
        scaled = difference(frames, inner, outer) * length / np.maximum(num_frames, 1)
        usual = np.where(num_frames >= length // 4, np.maximum(usual, scaled), usual)
    return np.where(usual < 0, np.inf, usual)


def _lasting(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the minimum of five neighboring values."""
    padded = np.pad(curve, 2, mode="edge")
    return np.min([padded[shift : shift + len(curve)] for shift in range(5)], axis=0)


def _apart(boundaries: list[Boundary], frames: FrameMeasures, rules: BoundaryRules) -> list[Boundary]:
    """Return the boundaries in order. If two are too close, a cut is preferred, then the one with the higher score."""
    kept: list[Boundary] = []
    closest = {"cut": frames.frames_of(rules.shortest_shot_s), "gradual": frames.frames_of(2 * rules.gradual_s)}
    for boundary in sorted(boundaries, key=lambda each: (each.change != "cut", -each.score)):
        distance = closest[boundary.change]
        if 0 < boundary.frame < len(frames) and all(abs(boundary.frame - other.frame) >= distance for other in kept):
            kept.append(boundary)
    return sorted(kept, key=lambda each: each.frame)
