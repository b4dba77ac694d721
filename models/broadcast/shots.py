"""The shots of a video: boundaries, kinds, and the evidence for both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...extractors.frame_signatures import HEIGHT_PX, WIDTH_PX
from ...manifests.shot_rules import KindRules, ShotRules
from .boundaries import Boundary, Change, change_of_few_cells
from .direct_replays import direct_replays
from .measures import FrameMeasures, PeopleMeasures
from .replays import Match, Stretch, agrees, between_logos, earlier_match, is_replay, logo_boundaries, repeated_frames

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
    """Score of the boundary at its start; 0 for the first shot."""
    kind: Kind
    reason: str
    """The deciding rule, with the measured values."""
    match: Match | None = None
    """The most similar earlier stretch; None without motion."""
    has_logo: bool = False
    """Whether it begins with a wipe logo."""
    motion: float = 0.0
    """Median change after compensation of the camera's motion, in gray levels."""
    texture: float = 0.0
    """Share of the picture with detail."""
    face_share: float = 0.0
    """Share of the frames with a face-like region of skin color."""
    still_share: float = 0.0
    """Share of still frames, see ``still_change``."""
    black_share: float = 0.0
    """Share of black frames."""
    flicker_share: float = 0.0
    """Share of the frames after which the picture changes as at a cut."""
    person_height: float | None = None
    """Median height of the largest person, as a share of the frame's height; None without a detector or a person."""
    close_share: float | None = None
    """Share of the frames with a close person among those that a detector processed; None without a detector."""


def counts_of_kinds(shots: Iterable[Shot]) -> str:
    """Count the shots of each kind, the most frequent first: ``8 action, 4 replay``."""
    return ", ".join(f"{number} {kind}" for kind, number in Counter(shot.kind for shot in shots).most_common())


def shots_of(
    frames: FrameMeasures, boundaries: Sequence[Boundary], rules: ShotRules, people: PeopleMeasures | None = None
) -> list[Shot]:
    """Divide a video into shots and classify them.

    Args:
        frames: The frames.
        boundaries: The boundaries after frame 0, ascending.
        rules: The thresholds.
        people: Result of a detector; None without a detector.

    Returns:
        The shots in order; they cover the video. Empty for a video without frames.
    """
    if len(frames) == 0:
        return []
    boundaries = _with_direct_replays(frames, boundaries, rules)
    logos = logo_boundaries(frames, boundaries, rules.replays, rules.boundaries)
    entries = [Boundary(0, "start", 0.0), *boundaries]
    edges = [*(entry.frame for entry in entries), len(frames)]
    shots: list[Shot] = []
    replays = list[tuple[Stretch, Stretch]]()
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
        if people is not None:
            shot = _with_people(shot, people, rules.kinds)
        if _without_athlete(shot, rules.kinds) is None:
            match = earlier_match(frames, inner.start, inner.stop - 1, rules.replays, replays=replays)
            if match is not None and is_replay(match, rules.replays):
                replays.append(((first, end), repeated_frames(frames, match)))
            shot = replace(shot, match=match)
        shots.append(shot)
    repeats = [agrees(shot.match, rules.replays) for shot in shots]
    inside = between_logos([shot.start_s for shot in shots], [shot.has_logo for shot in shots], repeats, rules.replays)
    return [_with_kind(shot, rules, between=between) for shot, between in zip(shots, inside, strict=True)]


def _with_direct_replays(frames: FrameMeasures, boundaries: Sequence[Boundary], rules: ShotRules) -> list[Boundary]:
    """Divide shots that may show an athlete and contain a direct replay."""
    entries, found = [Boundary(0, "start", 0.0), *boundaries], list(boundaries)
    for index, (first, end) in enumerate(pairwise([*(entry.frame for entry in entries), len(frames)])):
        inner = _without_transitions(frames, entries, index, end, rules)
        shot = Shot(index, 0.0, 0.0, first, entries[index].change, 0.0, "action", "")
        if _without_athlete(_measured(shot, frames, inner, rules), rules.kinds) is not None:
            continue
        added = direct_replays(frames, inner.start, inner.stop, rules.replays)
        # a replay in slow motion has jumps between its frames, but is one shot
        if added and not is_replay(earlier_match(frames, inner.start, inner.stop - 1, rules.replays), rules.replays):
            found += added
    return sorted(found, key=lambda boundary: boundary.frame)


def _without_transitions(
    frames: FrameMeasures, entries: Sequence[Boundary], index: int, end: int, rules: ShotRules
) -> slice:
    """Return the frames of a shot without its fades, dissolves and wipes; at least the frame in its middle."""
    first, margin = entries[index].frame, frames.frames_of(rules.boundaries.gradual_s) + 1
    start = first + (margin if entries[index].change == "gradual" else 1)
    stop = end - (margin if index + 1 < len(entries) and entries[index + 1].change == "gradual" else 1)
    if stop - start < 2:
        middle = (first + end) // 2
        return slice(middle, middle + 1)
    return slice(start, stop)


def _active_share(frames: FrameMeasures, inner: slice, rules: ShotRules) -> float:
    """Return the share of the picture that is not always black, which is less than 1 with pillars or letterboxes."""
    return max(float((frames.cells[inner].max(axis=0) >= rules.boundaries.black_level).mean()), 0.1)


def _measured(shot: Shot, frames: FrameMeasures, inner: slice, rules: ShotRules) -> Shot:
    kinds = rules.kinds
    height, width = frames["skin_height"][inner], frames["skin_width"][inner]
    fill = frames["skin_area"][inner] / np.maximum(height * width, 1e-6)
    aspect = height * HEIGHT_PX / np.maximum(width * WIDTH_PX, 1e-6)
    face = (height >= kinds.face_height) & (width <= kinds.face_width) & (fill >= kinds.face_fill)
    face &= (aspect >= kinds.face_aspect[0]) & (aspect <= kinds.face_aspect[1])
    active = _active_share(frames, inner, rules)
    # over a quarter of a second, because frames are repeated in slow motion, too
    first: NDArray[np.int64] = np.arange(inner.start, inner.stop, dtype=np.int64)
    later = np.minimum(first + frames.frames_of(0.24), inner.stop - 1)
    change = change_of_few_cells(frames, first, later)[: max(len(first) - frames.frames_of(0.24), 1)]
    change_to_next = np.mean([frames[f"{name}_change"][inner] for name in ("hue", "saturation", "value")], axis=0)
    flicker = change_to_next >= kinds.flicker_change
    black = (frames.cells[inner] < rules.boundaries.black_level).mean(axis=1) >= kinds.black_share
    return replace(
        shot,
        motion=float(np.median(frames["motion"][inner])),
        texture=min(float(np.median(frames["texture"][inner])) / active, 1.0),
        face_share=float(face.mean()),
        still_share=float((change < kinds.still_change).mean()),
        black_share=float(black.mean()),
        flicker_share=float(flicker.mean()),
    )


def _with_people(shot: Shot, people: PeopleMeasures, rules: KindRules) -> Shot:
    seen = (people.times_s >= shot.start_s) & (people.times_s < shot.end_s)
    if not seen.any():
        return shot
    height, bottom, shape = people.height[seen], people.bottom[seen], people.width_to_height[seen]
    close = (height >= rules.person_height) & (bottom >= rules.person_bottom) & (shape >= rules.person_width)
    found = height[height > 0]
    return replace(
        shot,
        person_height=float(np.median(found)) if len(found) else None,
        close_share=float(close.mean()),
    )


def _without_athlete(shot: Shot, rules: KindRules) -> str | None:
    """Return the reason why a shot does not show an athlete; None if it may show one."""
    if shot.black_share >= 0.5:
        return f"black in {shot.black_share:.0%} of the frames"
    if shot.still_share >= rules.still_share:
        return f"still in {shot.still_share:.0%} of the frames: a board or a picture"
    if shot.flicker_share >= rules.flicker_share:
        return f"another picture after {shot.flicker_share:.0%} of the frames: flashes or noise"
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
    close_up = _close_up(shot, rules.kinds)
    if close_up is not None:
        return replace(shot, kind="close-up", reason=close_up)
    return replace(shot, kind="action", reason=f"motion of {shot.motion:.2f} gray levels, none of the other kinds")


def _close_up(shot: Shot, rules: KindRules) -> str | None:
    """Return the reason why a shot is a close-up: people if a detector found some, otherwise the color of a face."""
    if shot.person_height is not None and shot.close_share is not None:
        person = f"a person of {shot.person_height:.0%} of the height, cut off by the lower edge"
        is_close = shot.close_share >= rules.person_share
        return f"{person} in {shot.close_share:.0%} of the searched frames" if is_close else None
    return f"a face in {shot.face_share:.0%} of the frames" if shot.face_share >= rules.face_share else None
