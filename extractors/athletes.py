"""Choose the athlete among the people in the frames of one video, and record the boxes.

A segment's *part* contains the results of a detector and a network for its frames, as one vector of float32 numbers
that can be stored in the write-ahead log. `AthleteVideo` receives the parts of a video in order and returns its rows
and boxes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .athlete_path import AthletePath, OtherTracks, PeopleInFrame
from .protocol import FinishedVideo, PersonBoxes

Choice = Literal["largest", "central", "track"]

ToRow = Callable[[Sequence[float], Sequence[NDArray[np.float32] | None]], "NDArray[np.float32] | None"]

LOOK_BINS = 4
"""Levels of each color channel in the histogram of a box; upper and lower half have separate histograms."""
LOOK_SIZE = 2 * LOOK_BINS**3
_MARK = 190_001.0
"""First number of a part. Another number means that the part was written by another version."""
_FRAME_HEAD = 9


@dataclass(frozen=True, eq=False)
class SeenFrame:
    """Results for one frame. People with features are first, in order of preference."""

    height_px: int
    width_px: int
    boxes: NDArray[np.float32]
    """``[people, 5]``: left, top, right, bottom in pixels, and confidence"""
    looks: NDArray[np.float32]
    """``[people with features, LOOK_SIZE]``: color histograms; no rows if they are not needed"""
    features: NDArray[np.float32]
    """``[people with features, dim]``"""
    whole: NDArray[np.float32]
    """``[dim]``: features of the whole frame; ``[0]`` if they are not needed"""
    camera: NDArray[np.float32]
    """``[4]``: motion of the scene to the next sampled frame, in frame heights; zeros if it is unknown"""


def packed(frames: Sequence[SeenFrame]) -> NDArray[np.float32]:
    """Return the part of a segment with these frames."""
    numbers: list[NDArray[np.float32]] = [np.array([_MARK, len(frames)], np.float32)]
    for frame in frames:
        sizes = (len(frame.boxes), len(frame.looks), len(frame.features), len(frame.whole) > 0)
        numbers.append(np.array([frame.height_px, frame.width_px, *sizes[:3], *frame.camera], np.float32))
        numbers += [frame.boxes.ravel(), frame.looks.ravel(), frame.features.ravel()]
        numbers += [np.array([sizes[3]], np.float32), frame.whole]
    return np.concatenate(numbers).astype(np.float32)


def unpacked(part: NDArray[np.float32], dim: int) -> list[SeenFrame]:
    """Return the frames of a part."""
    at = 2

    def take(*shape: int) -> NDArray[np.float32]:
        nonlocal at
        size = int(np.prod(shape))
        at += size
        return part[at - size : at].reshape(shape).copy()

    frames: list[SeenFrame] = []
    for _ in range(int(part[1])):
        head = take(_FRAME_HEAD)
        height, width, people, looks, features = (int(number) for number in head[:5])
        boxes, look, feature = take(people, 5), take(looks, LOOK_SIZE), take(features, dim)
        whole = take(dim if take(1)[0] else 0)
        frames.append(SeenFrame(height, width, boxes, look, feature, whole, head[5:]))
    return frames


def is_part(values: NDArray[np.float32]) -> bool:
    """Return whether an array is a part of this version."""
    return values.ndim == 1 and len(values) >= 2 and float(values[0]) == _MARK


class AthleteVideo:
    """Chooses the athletes of one video and averages the features of their crops.

    Args:
        choice: How athletes are chosen. ``"track"`` follows them (`AthletePath`); with the other choices the people
            with features are the athletes of their frame.
        num_athletes: Number of athletes; the features of a frame are the mean over those that were found.
        dim: Length of a feature row.
        person_confidence: See `AthletePath`.
        to_row: Function from the times of a segment's frames and their features (None for a frame without an athlete)
            to the row of the segment or None. By default, the mean over the frames with an athlete.
    """

    def __init__(
        self, choice: Choice, num_athletes: int, dim: int, person_confidence: float, to_row: ToRow | None = None
    ) -> None:
        self._paths = [AthletePath(person_confidence) for _ in range(num_athletes)] if choice == "track" else []
        self._others = OtherTracks(num_athletes)
        self._dim = dim
        self._to_row = to_row or _mean_of_found
        self._newest_s = -np.inf
        self._frames: dict[float, tuple[SeenFrame, list[int]]] = {}  # time → frame and the athletes found so far
        self._values: dict[float, NDArray[np.float32] | None] = {}  # time → mean over its athletes, once decided
        self._waiting: deque[tuple[int, tuple[float, ...]]] = deque()  # segments with undecided frames
        self._rows: dict[int, NDArray[np.float32]] = {}
        self._boxes: list[PersonBoxes] = []

    def add(self, index: int, part: NDArray[np.float32], frame_times_s: Sequence[float]) -> None:
        """Add the part of a segment. Segments must be added in the order of time."""
        times_s = tuple(float(time_s) for time_s in frame_times_s)
        self._waiting.append((index, times_s))
        for time_s, frame in zip(times_s, unpacked(part, self._dim), strict=True):
            if time_s > self._newest_s:  # overlapping segments and padding contain a frame again
                self._newest_s = time_s
                self._add_frame(time_s, frame)
        self._complete_rows()

    def finish(self) -> FinishedVideo:
        """Decide the remaining frames; return the rows and the boxes of the video."""
        for athlete, path in enumerate(self._paths):
            for frame, chosen in path.finish():
                self._decide(athlete, frame, chosen)
        self._complete_rows()
        return FinishedVideo(self._rows, joined(self._boxes) if self._boxes else None)

    def _add_frame(self, time_s: float, frame: SeenFrame) -> None:
        if not self._paths:
            chosen = list(range(len(frame.features)))
            self._settle(time_s, frame, dict(zip(chosen, [-1] * len(chosen), strict=True)), [-1] * len(frame.boxes))
            return
        self._frames[time_s] = frame, []
        self._push(0, _people(time_s, frame))

    def _push(self, athlete: int, frame: PeopleInFrame) -> None:
        """Add a frame to the path of an athlete, and frames that it decides to the path of the next athlete."""
        for decided, chosen in self._paths[athlete].push(frame):
            self._decide(athlete, decided, chosen)

    def _decide(self, athlete: int, frame: PeopleInFrame, chosen: int | None) -> None:
        seen, athletes = self._frames[frame.time_s]
        athletes.append(-1 if chosen is None else int(frame.place[chosen]))
        remaining = frame.without(chosen)
        if athlete + 1 < len(self._paths):
            self._push(athlete + 1, remaining)
            return
        del self._frames[frame.time_s]
        tracks = [-1] * len(seen.boxes)
        for place, track in zip(remaining.place.tolist(), self._others.push(remaining), strict=True):
            tracks[place] = track
        chosen_tracks = {place: number for number, place in enumerate(athletes) if place >= 0}
        self._settle(frame.time_s, seen, chosen_tracks, tracks)

    def _settle(self, time_s: float, frame: SeenFrame, chosen: dict[int, int], tracks: list[int]) -> None:
        """Record a decided frame: its boxes, and the mean over its athletes."""
        for place, track in chosen.items():
            tracks[place] = track
        self._boxes.append(_boxes_of(time_s, frame, chosen, tracks))
        if chosen:
            self._values[time_s] = frame.features[sorted(chosen)].mean(axis=0)
        else:
            self._values[time_s] = frame.whole if len(frame.whole) else None

    def _complete_rows(self) -> None:
        while self._waiting and all(time_s in self._values for time_s in self._waiting[0][1]):
            index, times_s = self._waiting.popleft()
            row = self._to_row(times_s, [self._values[time_s] for time_s in times_s])
            if row is not None:
                self._rows[index] = row
            for time_s in [each for each in self._values if each < times_s[0]]:  # no later segment contains them
                del self._values[time_s]


def _mean_of_found(
    times_s: Sequence[float], values: Sequence[NDArray[np.float32] | None]
) -> NDArray[np.float32] | None:
    found = [value for value in values if value is not None]
    return np.stack(found).mean(axis=0, dtype=np.float32) if found else None


def joined(parts: Sequence[PersonBoxes]) -> PersonBoxes:
    """Join the boxes of several frames of the same size."""
    return PersonBoxes(
        time_s=np.concatenate([part.time_s for part in parts]),
        edges_px=np.concatenate([part.edges_px for part in parts]),
        confidence=np.concatenate([part.confidence for part in parts]),
        track=np.concatenate([part.track for part in parts]),
        chosen=np.concatenate([part.chosen for part in parts]),
        height_px=parts[0].height_px,
        width_px=parts[0].width_px,
    )


def _boxes_of(time_s: float, frame: SeenFrame, chosen: Iterable[int], tracks: Sequence[int]) -> PersonBoxes:
    if not len(frame.boxes):
        return PersonBoxes.without_people([time_s], frame.height_px, frame.width_px)
    return PersonBoxes(
        np.full(len(frame.boxes), time_s),
        frame.boxes[:, :4],
        frame.boxes[:, 4],
        np.array(tracks, np.int32),
        np.isin(np.arange(len(frame.boxes)), list(chosen)),
        frame.height_px,
        frame.width_px,
    )


def _people(time_s: float, frame: SeenFrame) -> PeopleInFrame:
    """Return the people with features, in frame heights."""
    left, top, right, bottom, confidence = frame.boxes[: len(frame.features)].T
    height = np.float32(frame.height_px)
    boxes = np.stack(
        [
            ((left + right) / 2 - frame.width_px / 2) / height,
            ((top + bottom) / 2 - height / 2) / height,
            (right - left) / height,
            (bottom - top) / height,
        ],
        axis=1,
    )
    aspect = frame.width_px / frame.height_px
    return PeopleInFrame(
        time_s, boxes.astype(np.float32), confidence, frame.looks, frame.camera, aspect, np.arange(len(boxes))
    )
