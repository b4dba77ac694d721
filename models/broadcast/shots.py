"""The shots of a video: where they begin, what they show, and the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...manifests.shot_rules import KindRules, ShotRules
from .boundaries import Boundary, Change, change_of_few_cells
from .measures import FrameMeasures
from .replays import Match, between_logos, earlier_match, is_replay, logo_boundaries

Kind = Literal["action", "replay", "close-up", "no-athlete"]


@dataclass(frozen=True)
class Shot:
    """One shot. Times are in seconds since the first frame of the file."""

    index: int
    start_s: float
    end_s: float
    first_frame: int
    enters_by: Change
    boundary_score: float
    """The evidence of the boundary at its start; 0 for the first shot."""
    kind: Kind
    reason: str
    """Which rule decided, with the measured values."""
    match: Match | None = None
    """The earlier stretch that it resembles most; None where nothing moves."""
    has_logo: bool = False
    """Whether it begins with a wipe logo."""
    motion: float = 0.0
    """Median change against the camera, in gray levels."""
    texture: float = 0.0
    """Share of the picture with detail."""
    face_share: float = 0.0
    """Share of the frames with a face-like region of skin color."""
    still_share: float = 0.0
    """Share of the frames that repeat the one before."""
    black_share: float = 0.0
    """Share of black frames."""


def shots_of(frames: FrameMeasures, boundaries: Sequence[Boundary], rules: ShotRules) -> list[Shot]:
    """Divide a video into shots and classify what each shows.

    Args:
        frames: The frames.
        boundaries: The boundaries after frame 0, ascending.
        rules: The thresholds.

    Returns:
        The shots in order; they cover the video. Empty for a video without frames.
    """
    if len(frames) == 0:
        return []
    logos = logo_boundaries(frames, boundaries, rules.replays, rules.boundaries)
    entries = [Boundary(0, "start", 0.0), *boundaries]
    edges = [*(entry.frame for entry in entries), len(frames)]
    shots: list[Shot] = []
    for index, (first, end) in enumerate(pairwise(edges)):
        inner = _without_transitions(frames, entries, index, end, rules)
        shot = Shot(
            index=index,
            start_s=float(frames.times_s[first]),
            end_s=float(frames.edges_s[end]),
            first_frame=first,
            enters_by=entries[index].change,
            boundary_score=entries[index].score,
            kind="action",
            reason="",
            has_logo=index - 1 in logos,
        )
        shot = _measured(shot, frames, inner, rules)
        if _without_athlete(shot, rules.kinds) is None:
            shot = replace(shot, match=earlier_match(frames, inner.start, inner.stop - 1, rules.replays))
        shots.append(shot)
    inside = between_logos([shot.start_s for shot in shots], [shot.has_logo for shot in shots], rules.replays)
    return [_with_kind(shot, rules, between=between) for shot, between in zip(shots, inside, strict=True)]


def _without_transitions(
    frames: FrameMeasures, entries: Sequence[Boundary], index: int, end: int, rules: ShotRules
) -> slice:
    """The frames of a shot without its fades, dissolves and wipes, at least the frame in its middle."""
    first, margin = entries[index].frame, frames.frames_of(rules.boundaries.gradual_s) + 1
    start = first + (margin if entries[index].change == "gradual" else 1)
    stop = end - (margin if index + 1 < len(entries) and entries[index + 1].change == "gradual" else 1)
    if stop - start < 2:
        middle = (first + end) // 2
        return slice(middle, middle + 1)
    return slice(start, stop)


def _active_share(frames: FrameMeasures, inner: slice, rules: ShotRules) -> float:
    """Share of the picture that is not black throughout a shot: less than 1 between pillars and in letterboxes."""
    return max(float((frames.cells[inner].max(axis=0) >= rules.boundaries.black_level).mean()), 0.1)


def _measured(shot: Shot, frames: FrameMeasures, inner: slice, rules: ShotRules) -> Shot:
    kinds = rules.kinds
    height, width = frames["skin_height"][inner], frames["skin_width"][inner]
    fill = frames["skin_area"][inner] / np.maximum(height * width, 1e-6)
    face = (height >= kinds.face_height) & (width <= kinds.face_width) & (fill >= kinds.face_fill)
    active = _active_share(frames, inner, rules)
    # over a quarter of a second: in slow motion frames are repeated, in a still picture all of them
    first: NDArray[np.int64] = np.arange(inner.start, inner.stop, dtype=np.int64)
    later = np.minimum(first + frames.frames_of(0.24), inner.stop - 1)
    change = change_of_few_cells(frames, first, later)[: max(len(first) - frames.frames_of(0.24), 1)]
    black = (frames.cells[inner] < rules.boundaries.black_level).mean(axis=1) >= kinds.black_share
    return replace(
        shot,
        motion=float(np.median(frames["motion"][inner])),
        texture=min(float(np.median(frames["texture"][inner])) / active, 1.0),
        face_share=float(face.mean()),
        still_share=float((change < kinds.still_change).mean()),
        black_share=float(black.mean()),
    )


def _without_athlete(shot: Shot, rules: KindRules) -> str | None:
    """Return why a shot shows no athlete; None if it may show one."""
    if shot.black_share >= 0.5:
        return f"black in {shot.black_share:.0%} of the frames"
    if shot.still_share >= rules.still_share:
        return f"still in {shot.still_share:.0%} of the frames: a board or a picture"
    if shot.texture >= rules.crowd_texture:
        return f"detail in {shot.texture:.0%} of the picture: a crowd"
    return None


def _with_kind(shot: Shot, rules: ShotRules, *, between: bool) -> Shot:
    reason = _without_athlete(shot, rules.kinds)
    if reason is not None:
        return replace(shot, kind="no-athlete", reason=reason)
    match = shot.match
    if match is not None and is_replay(match, rules.replays):
        where = f"{match.start_s:.2f} to {match.end_s:.2f} s at {match.speed:.2f} × speed"
        return replace(shot, kind="replay", reason=f"repeats {where} (correlation {match.correlation:.2f})")
    if between:
        return replace(shot, kind="replay", reason="between two wipe logos that repeat")
    if shot.face_share >= rules.kinds.face_share:
        return replace(shot, kind="close-up", reason=f"a face in {shot.face_share:.0%} of the frames")
    return replace(shot, kind="action", reason=f"motion of {shot.motion:.2f} gray levels, none of the other kinds")
