"""Search for athletes in frames: detection, order, colors and camera motion. Used by all extractors that need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ..manifests.streams import Geometry, Record, ShortSide, Size
from .athlete_motion import camera_between
from .athletes import LOOK_BINS, LOOK_SIZE, Choice, SeenFrame
from .crops import Crop, cut_and_resize
from .detectors import Detector, load_detector
from .device_copies import download
from .geometry import apply_geometry
from .person import Box
from .protocol import SegmentInput
from .weight_sources import Weights

MAX_CANDIDATES = 4
"""Number of people of a frame, the most prominent ones, who may be the athlete with ``athlete = "track"``."""
_CAMERA_GEOMETRY = Geometry(steps=(ShortSide(short_side_px=144),), gray=True)
_LOOK_GEOMETRY = Geometry(steps=(Size(size_px=(64, 32)),))


class AthleteSettings(Record):
    """Settings of the search, part of the settings of a stream."""

    detector: Detector = "ultralytics"
    """Kind of the detector; ``weights.detector`` names its checkpoint. ``"ultralytics"`` (YOLOv8 and later, AGPL-3.0),
    ``"yolov3"`` (ACTION-NET's paper; public domain) or ``"transformers"`` (D-FINE, Apache-2.0)."""
    person_threshold: float = Field(default=0.25, ge=0, le=1)
    """Least confidence of a detected person, 0 to 1."""
    athlete: Choice = "largest"
    """``"largest"``: the largest person of each frame (ACTION-NET). ``"central"``: the person nearest to the middle
    of the frame. ``"track"``: one person, followed through the video by position, camera motion and colors."""
    num_athletes: Annotated[int, Field(ge=1, le=4)] = 1
    """Number of athletes, e.g. 2 for pairs. A frame's features are the mean over the athletes that were found."""
    link_threshold: float = Field(default=0.1, ge=0, le=1)
    """With ``athlete = "track"``: least confidence of a box that continues a track. Other boxes need
    ``person_threshold``."""


@dataclass(frozen=True, eq=False)
class SearchedFrames:
    """The frames of a segment."""

    frames: Tensor
    """``uint8 [time, 3, height, width]``, without the frame after the segment."""
    camera: NDArray[np.float32]
    """``[time, 4]``: motion of the scene to the next frame; zeros for the last frame"""


class AthleteSearch:
    """Finds the people of frames and orders them.

    Args:
        settings: See `AthleteSettings`.
        weights: Checkpoint of the detector, or a seed.
        device: Device of the detector.
    """

    def __init__(self, settings: AthleteSettings, weights: Weights, device: torch.device) -> None:
        self._settings = settings
        self.follows = settings.athlete == "track"
        threshold = settings.person_threshold
        if self.follows:
            threshold = min(threshold, settings.link_threshold)
        self._detector = load_detector(settings.detector, weights, device, threshold)

    @property
    def num_candidates(self) -> int:
        """Number of people of a frame who may be an athlete."""
        return max(MAX_CANDIDATES, 2 * self._settings.num_athletes) if self.follows else self._settings.num_athletes

    def prepare(self, segment: SegmentInput) -> SearchedFrames:
        """Measure the camera's motion, if the athlete is followed."""
        assert segment.frames is not None
        frames = segment.frames
        camera = np.zeros((len(frames), 4), np.float32)
        if self.follows and len(frames) > 1:
            gray = apply_geometry(frames, _CAMERA_GEOMETRY)[:, 0].cpu().numpy()
            camera[:-1] = camera_between(gray)
        count = len(frames) - segment.has_next_frame
        return SearchedFrames(frames[:count], camera[:count])

    def people(self, frames: Sequence[Tensor]) -> list[list[Box]]:
        """Return the people of each frame ``uint8 [3, height, width]``, in order of preference."""
        return [self._ordered(boxes, frame) for boxes, frame in zip(self._detector.people(frames), frames, strict=True)]

    def looks(self, frames: Sequence[Tensor], candidates: Sequence[Sequence[Box]]) -> list[NDArray[np.float32]]:
        """Return the color histograms ``[candidates, LOOK_SIZE]`` of each frame; no rows if they are not needed."""
        if not self.follows:
            return [_NO_LOOKS] * len(frames)
        crops = [crop_around(frames, number, box, 0.0) for number, boxes in enumerate(candidates) for box in boxes]
        pictures = iter(download(cut_and_resize(frames, crops, _LOOK_GEOMETRY)))
        found = [[_look(next(pictures).numpy()) for _ in boxes] for boxes in candidates]
        return [np.stack(looks) if looks else _NO_LOOKS for looks in found]

    def seen_frame(
        self,
        frame: Tensor,
        boxes: Sequence[Box],
        camera: NDArray[np.float32],
        looks: NDArray[np.float32],
        features: NDArray[np.float32],
        whole: NDArray[np.float32],
    ) -> SeenFrame:
        """Return the record of a frame.

        Args:
            frame: ``uint8 [3, height, width]``
            boxes: Result of `people`.
            camera: Motion of the scene to the next frame.
            looks: Result of `looks`.
            features: ``[candidates, dim]``: features of the first `num_candidates` people.
            whole: Features of the whole frame; empty if they are not needed.
        """
        edges = [(box.left, box.top, box.right, box.bottom, box.confidence) for box in boxes]
        return SeenFrame(
            height_px=frame.shape[-2],
            width_px=frame.shape[-1],
            boxes=np.array(edges, np.float32).reshape(-1, 5),
            looks=looks,
            features=features,
            whole=whole,
            camera=camera,
        )

    def _ordered(self, boxes: Sequence[Box], frame: Tensor) -> list[Box]:
        height, width = frame.shape[-2:]

        def off_center(box: Box) -> float:
            off_x = (box.left + box.right) / 2 / width - 0.5
            return off_x**2 + ((box.top + box.bottom) / 2 / height - 0.5) ** 2

        if self._settings.athlete == "largest":
            return sorted(boxes, key=lambda box: -box.area_px)
        if self._settings.athlete == "central":
            return sorted(boxes, key=off_center)
        return sorted(boxes, key=lambda box: -((box.confidence * box.area_px) ** 0.5) * (1 - off_center(box)))


_NO_LOOKS = np.zeros((0, LOOK_SIZE), np.float32)


def _look(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the color histogram of the upper and the lower half of ``[3, 64, 32]``, with sum 1."""
    # only the middle half of the width, because the corners of a box show the background
    level = picture[:, :, 8:24].astype(np.int64) * LOOK_BINS // 256
    code = (level[0] * LOOK_BINS + level[1]) * LOOK_BINS + level[2]
    halves = [np.bincount(half.ravel(), minlength=LOOK_BINS**3) for half in np.split(code, 2)]
    return (np.concatenate(halves) / code.size).astype(np.float32)


def crop_around(frames: Sequence[Tensor], number: int, box: Box, margin: float) -> Crop:
    """Return the crop of a frame inside the box and its margin, at the nearest whole pixels, at least one by one."""
    height, width = frames[number].shape[-2:]
    more_x, more_y = margin * (box.right - box.left), margin * (box.bottom - box.top)
    left, right = _span(box.left - more_x, box.right + more_x, width)
    top, bottom = _span(box.top - more_y, box.bottom + more_y, height)
    return Crop(number, top, left, bottom - top, right - left)


def _span(first: float, last: float, limit: int) -> tuple[int, int]:
    start = min(max(round(first), 0), limit - 1)
    return start, max(min(round(last), limit), start + 1)
