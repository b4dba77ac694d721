"""Follow one athlete through the people that a detector found in the frames of a video.

Dynamic programming finds the sequence of boxes, at most one for each frame, with the greatest sum of

- *prominence*: size, position, completeness and confidence of each box (`prominence`), and
- *links*: similarity of each box to the one before (`link_scores`): overlap and distance after the camera's motion has
  been removed, size, and the colors of clothes and skin.

A sequence may leave out frames, e.g. while the athlete is hidden, and may continue after a cut. The decision on a frame
is made `LAG_FRAMES` frames later, so that memory does not grow with the video. The result depends only on the frames
and their order, not on segments and batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .camera_motion import apply_similarity

Array = NDArray[np.floating]

LAG_FRAMES = 240
"""Frames after which a decision is final: four minutes at 1 frame per second."""
REACH_FRAMES = 12
"""A box is linked to boxes in this many frames before it. After a longer absence only its prominence counts."""
LINK_WEIGHT = 0.8
LINK_LEVEL = 0.5
"""A link adds ``LINK_WEIGHT × (score − LINK_LEVEL)`` to the sum, which is negative for lower scores. Positive values
are reduced between boxes of low prominence, so that many doubtful boxes are not preferred to a few good ones."""
UNCERTAIN_COST = 0.1
"""Cost of a box whose confidence is below the threshold of a person; only good links can compensate it."""
SWITCH_COST = 2.0
"""Additional cost of a step between boxes without common colors, because a path should follow one person. One more box
adds up to 1.4, so the path changes to another person only if that person is alone for several frames."""
SAME_LOOK = 0.75
"""Least similarity of the colors of two boxes of one person. Between neighboring frames of six clips it was ≥ 0.79."""
SAME_PERSON_IOU = 0.5
"""Two boxes of one frame with a larger overlap, or one inside the other, show the same person unless their colors
differ."""
_LARGE = 0.5
"""Box height, in frame heights, above which prominence does not increase, because boxes around several people are also
large."""
_BORDER = 0.02
"""A box nearer to a border than this share of the frame's size is considered cut off."""


@dataclass(frozen=True, eq=False)
class PeopleInFrame:
    """The people of one frame who may be the athlete."""

    time_s: float
    boxes: NDArray[np.float32]
    """``[people, 4]``: center x, center y, width, height in frame heights, from the middle of the frame."""
    confidence: NDArray[np.float32]
    """``[people]``"""
    looks: NDArray[np.float32]
    """``[people, bins]``: color histogram of each box, with sum 1."""
    camera: NDArray[np.float32]
    """``[4]``: motion of the scene from this frame to the next one (`camera_motion`), in frame heights."""
    aspect: float
    """Width ÷ height of the frame."""
    place: NDArray[np.int64]
    """``[people]``: index of each person among the boxes of the frame"""

    def without(self, chosen: int | None) -> PeopleInFrame:
        """Return the frame without one person and other boxes of the same person."""
        if chosen is None:
            return self
        same_colors = look_similarity(self.looks, self.looks[chosen]) > SAME_LOOK
        kept = ~(same_person(self.boxes, self.boxes[chosen]) & same_colors)
        kept[chosen] = False
        return self.only(kept)

    def only(self, kept: NDArray[np.bool_] | slice) -> PeopleInFrame:
        """Return the frame with only these people."""
        return replace(
            self,
            boxes=self.boxes[kept],
            confidence=self.confidence[kept],
            looks=self.looks[kept],
            place=self.place[kept],
        )


Decision = tuple[PeopleInFrame, int | None]
"""A frame and the index of the athlete among its people; None if the athlete was not found."""


@dataclass(eq=False)
class _Step:
    frame: PeopleInFrame
    moved: NDArray[np.float32]
    """Boxes moved to the newest frame by the camera's motion"""
    velocity: NDArray[np.float32]
    """``[people, 2]``: velocity from the box before, in frame heights per second"""
    prominence: NDArray[np.float64]
    score: NDArray[np.float64]
    before: list[tuple[int, int] | None]
    """For each person the (frame, person) before it on the best path"""


class AthletePath:
    """Finds the path of the most prominent person. Frames are added and returned in the order of time.

    Args:
        person_confidence: Confidence from which a box is certainly a person.

    Example:
        >>> path = AthletePath(person_confidence=0.25)
        >>> path.finish()
        []
    """

    def __init__(self, person_confidence: float) -> None:
        self._person_confidence = person_confidence
        self._steps: deque[_Step] = deque()
        self._first = 0  # number of the oldest frame in `_steps`
        self._best: tuple[float, tuple[int, int] | None] = (0.0, None)
        self._best_look = np.zeros(0, np.float32)

    def push(self, frame: PeopleInFrame) -> list[Decision]:
        """Add a frame; return the frames that this decides."""
        number = self._first + len(self._steps)
        if self._steps:
            self._follow_camera(self._steps[-1].frame.camera)
        self._steps.append(self._step(frame))
        for person, score in enumerate(self._steps[-1].score.tolist()):
            if score > self._best[0]:
                self._best, self._best_look = (score, (number, person)), frame.looks[person]
        return [self._decide()] if len(self._steps) > LAG_FRAMES else []

    def finish(self) -> list[Decision]:
        """Return the remaining frames."""
        return [self._decide() for _ in range(len(self._steps))]

    def _step(self, frame: PeopleInFrame) -> _Step:
        shown = prominence(frame)
        own = shown - UNCERTAIN_COST * (frame.confidence < self._person_confidence)
        score, before = own.astype(np.float64), list[tuple[int, int] | None]([None] * len(own))
        velocity = np.zeros((len(own), 2), np.float32)
        # the best path may continue without a link, e.g. after a cut or a long absence
        earlier, pointer = self._best
        if pointer is not None and len(own):
            after = earlier - LINK_WEIGHT * LINK_LEVEL - switch_costs(self._best_look, frame.looks)
            score += np.maximum(after, 0)
            before = [pointer if gain > 0 else None for gain in after.tolist()]
        for back in range(1, min(REACH_FRAMES, len(self._steps)) + 1):
            step, number = self._steps[-back], self._first + len(self._steps) - back
            if not len(step.score) or not len(own):
                continue
            links = LINK_WEIGHT * (link_scores(step, frame) - LINK_LEVEL)
            certainty = np.minimum(2 * np.minimum(step.prominence[:, None], shown[None]), 1)
            gains = step.score[:, None] + np.where(links > 0, links * certainty, links)
            gains -= switch_costs(step.frame.looks[:, None], frame.looks[None])
            best = gains.argmax(axis=0)
            for person, previous in enumerate(best.tolist()):
                if own[person] + gains[previous, person] > score[person]:
                    score[person] = own[person] + gains[previous, person]
                    before[person] = number, previous
                    elapsed_s = max(frame.time_s - step.frame.time_s, 1e-3)
                    velocity[person] = (frame.boxes[person, :2] - step.moved[previous, :2]) / elapsed_s
        return _Step(frame, frame.boxes.copy(), velocity, shown, score, before)

    def _follow_camera(self, camera: NDArray[np.float32]) -> None:
        for step in list(self._steps)[-REACH_FRAMES:]:
            step.moved = moved_by_camera(step.moved, camera)

    def _decide(self) -> Decision:
        """Return the oldest frame, with its person on the current best path."""
        pointer, chosen = self._best[1], None
        while pointer is not None and pointer[0] >= self._first:
            number, person = pointer
            if number == self._first:
                chosen = person
            pointer = self._steps[number - self._first].before[person]
        self._first += 1
        return self._steps.popleft().frame, chosen


def prominence(frame: PeopleInFrame) -> NDArray[np.float64]:
    """Return for each person a score of being the athlete in this single frame, ``[people]``, 0 to 1."""
    x, y, width, height = frame.boxes.astype(np.float64).T
    size = np.maximum(width, height)
    off_center = np.square(x / frame.aspect) + np.square(y)
    edge_x, edge_y = frame.aspect * (0.5 - _BORDER), 0.5 - _BORDER
    sides = [x - width / 2 < -edge_x, x + width / 2 > edge_x, y - height / 2 < -edge_y, y + height / 2 > edge_y]
    cut_off = np.sum(sides, axis=0)
    central = np.exp(-off_center / (2 * 0.35**2)).clip(0.2)
    large = np.sqrt(np.minimum(size, _LARGE) / _LARGE)
    return np.sqrt(frame.confidence) * large * central * 0.5**cut_off


def link_scores(earlier: _Step, frame: PeopleInFrame) -> NDArray[np.float64]:
    """Return scores of two boxes showing the same person, ``[people before, people now]``, 0 to 1."""
    before, now = earlier.moved.astype(np.float64)[:, None], frame.boxes.astype(np.float64)[None]
    elapsed_s = max(frame.time_s - earlier.frame.time_s, 0.0)
    size_before, size_now = before[..., 2:].max(axis=-1), now[..., 2:].max(axis=-1)
    drift = earlier.velocity.astype(np.float64)[:, None] * elapsed_s
    off = np.minimum(
        np.linalg.norm(now[..., :2] - before[..., :2], axis=-1),
        np.linalg.norm(now[..., :2] - before[..., :2] - drift, axis=-1),
    ) / np.maximum(size_before, size_now)
    tolerance = 0.4 + min(elapsed_s, 2.0)  # in body lengths
    near = np.maximum(np.exp(-np.square(off / tolerance) / 2), overlap(before, now))
    same_size = np.exp(-np.square(np.log(size_now / size_before) / 0.6) / 2)
    same_look = look_similarity(earlier.frame.looks[:, None], frame.looks[None])
    return near * same_size * np.square(same_look)


def look_similarity(one: Array, other: Array) -> Array:
    """Return the similarity of color histograms ``[…, bins]``, broadcast: 0 for no common color, 1 for equal ones."""
    return np.sqrt(one * other).sum(axis=-1).clip(0, 1)


def switch_costs(one: Array, other: Array) -> Array:
    """Return the cost of a step between boxes with these color histograms, broadcast."""
    return SWITCH_COST * (1 - look_similarity(one, other) / SAME_LOOK).clip(0)


def overlap(one: Array, other: Array) -> Array:
    """Return the intersection over union of boxes ``[…, 4]`` (center x, center y, width, height), broadcast."""
    shared = np.minimum(one[..., :2] + one[..., 2:] / 2, other[..., :2] + other[..., 2:] / 2)
    shared = (shared - np.maximum(one[..., :2] - one[..., 2:] / 2, other[..., :2] - other[..., 2:] / 2)).clip(0)
    common = shared.prod(axis=-1)
    return common / (one[..., 2:].prod(axis=-1) + other[..., 2:].prod(axis=-1) - common)


def same_person(boxes: Array, box: Array) -> NDArray[np.bool_]:
    """Return which boxes of a frame show the person of ``box``: they overlap it, or one lies within the other."""
    shared = np.minimum(boxes[:, :2] + boxes[:, 2:] / 2, box[:2] + box[2:] / 2)
    shared = (shared - np.maximum(boxes[:, :2] - boxes[:, 2:] / 2, box[:2] - box[2:] / 2)).clip(0)
    lesser = np.minimum(boxes[:, 2:].prod(axis=1), box[2:].prod())
    return (overlap(boxes, box) > SAME_PERSON_IOU) | (shared.prod(axis=1) > 0.8 * lesser)


def moved_by_camera(boxes: NDArray[np.float32], camera: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return where boxes lie in the next frame if only the camera moves."""
    if not len(boxes):
        return boxes
    shift = apply_similarity(camera[None], boxes[:, :1].T[None], boxes[:, 1:2].T[None])[0, 0]
    grown = boxes[:, 2:] * (1 + camera[2])
    return np.concatenate([boxes[:, :2] + shift, grown], axis=1).astype(np.float32)


class OtherTracks:
    """Numbers the tracks of the people who are not athletes, by links to earlier frames.

    The boxes of each new frame are linked greedily, the best pair first. A track without a box for `REACH_FRAMES` ends.

    Args:
        first: Number of the first track.
    """

    LEAST_LINK = 0.35

    def __init__(self, first: int) -> None:
        self._next = first
        self._open: dict[int, tuple[int, _Step]] = {}  # track → frames since it was seen, and the person there

    def push(self, frame: PeopleInFrame) -> list[int]:
        """Return the track of each person of the next frame."""
        scores = {track: link_scores(step, frame)[0] for track, (_, step) in self._open.items()}
        pairs = sorted(
            (-float(score), track, person)
            for track, of_track in scores.items()
            for person, score in enumerate(of_track)
            if score >= self.LEAST_LINK
        )
        found: dict[int, int] = {}
        for _, track, person in pairs:
            if track not in found.values() and person not in found:
                found[person] = track
        for person in range(len(frame.boxes)):
            if person not in found:
                found[person], self._next = self._next, self._next + 1
        for track, (since, step) in list(self._open.items()):
            if since >= REACH_FRAMES:
                del self._open[track]
            else:
                step.moved = moved_by_camera(step.moved, frame.camera)
                self._open[track] = since + 1, step
        for person, track in found.items():
            alone = frame.only(slice(person, person + 1))
            still = np.zeros((1, 2), np.float32)
            self._open[track] = (
                0,
                _Step(alone, moved_by_camera(alone.boxes, frame.camera), still, np.zeros(1), np.zeros(1), []),
            )
        return [found[person] for person in range(len(frame.boxes))]


def follow(frames: Sequence[PeopleInFrame], person_confidence: float) -> list[int | None]:
    """Return the index of the athlete in each frame of a whole video."""
    path = AthletePath(person_confidence)
    decided = [decision for frame in frames for decision in path.push(frame)]
    return [chosen for _, chosen in [*decided, *path.finish()]]
