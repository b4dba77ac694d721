"""Streams ``pose`` and ``key_points``: the athlete's key points, and named features of their movement.

A pose network expects upright people, and athletes often are not. If the network finds no person in the upright crop of
a box, turned crops in steps of 45° are tried, and the best one is turned once more to the direction of the body found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ..manifests.errors import ConfigError
from ..manifests.streams import Geometry, Precision, StreamSpec
from .athlete_search import AthleteSearch, AthleteSettings, SearchedFrames
from .athletes import AthleteVideo, Choice, SeenFrame, ToRow, is_part, packed
from .checkpoints import Weights
from .device_copies import upload
from .person import Box
from .pose_crops import PoseCrop, angle_between, body_direction, cut_crops
from .pose_features import FRAME_SIZE, NAMES, frame_features, has_key_points, segment_features
from .pose_networks import COCO_POINTS, PoseNetworkName, load_pose_network
from .protocol import FrameNeed, SegmentInput

TURNS = tuple(float(turn) for turn in np.arange(1, 8) * np.pi / 4)
"""Directions of the head that are tried after upright."""
ALIGNED = np.pi / 12
"""Largest angle between a body and its crop. Beyond it, the network runs again on a crop in the body's direction."""
KEY_POINT_NAMES = tuple(f"{point}.{number}" for point in COCO_POINTS for number in ("x", "y", "confidence"))


class Pose:
    """Features of `pose_features.NAMES` for each segment in which two neighboring frames show the athlete."""

    class Settings(AthleteSettings):
        athlete: Choice = "track"
        """As in `resnet_crop`, but the default is to follow one person."""
        network: PoseNetworkName = "vitpose"
        """Kind of the network: ``"vitpose"`` or ``"blazepose"``; ``weights.network`` names its checkpoint."""
        presence_threshold: float = Field(default=0.5, ge=0, le=1)
        """Least presence of a person, 0 to 1. Below, turned crops are tried, and then the person has no key points."""
        turned: bool = True
        """Whether turned crops are tried."""

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ("network", "detector")
    shows_network: ClassVar[bool] = True
    to_row: ClassVar[ToRow] = staticmethod(segment_features)

    def __init__(
        self, *, settings: Settings, weights: Mapping[str, Weights], device: torch.device, precision: Precision
    ) -> None:
        self.dim = len(self.feature_names())
        self._settings = settings
        self._device = device
        self._search = AthleteSearch(settings, weights["detector"], device)
        self._network = load_pose_network(settings.network, weights["network"], device)
        self.frames = FrameNeed(Geometry(steps=()), next_frame=self._search.follows)
        self.audio = None
        self.batch_size = 1 if device.type == "cpu" else 4

    @staticmethod
    def feature_names() -> tuple[str, ...]:
        """Return the names of the numbers of a row."""
        return NAMES

    @staticmethod
    def check(spec: StreamSpec) -> None:
        """Raise `ConfigError` for a stream whose segments are too short for speeds, or with several athletes."""
        if spec.settings["num_athletes"] != 1:
            raise ConfigError("num_athletes: key points are those of one athlete; set num_athletes = 1")
        if spec.sampling.frames_per_segment < 2:
            raise ConfigError("sampling.frames_per_segment: speeds need two frames of a segment; set it to 2 or more")

    def start_video(self) -> AthleteVideo:
        """Return the object that combines the parts of one video (`VideoParts`)."""
        settings = self._settings
        return AthleteVideo(settings.athlete, 1, FRAME_SIZE, settings.person_threshold, type(self).to_row)

    @staticmethod
    def is_part(values: NDArray[np.float32]) -> bool:
        """Return whether an array of the write-ahead log is a part of this version."""
        return is_part(values)

    def prepare(self, segment: SegmentInput) -> SearchedFrames:
        """Measure the camera's motion, if the athlete is followed."""
        return self._search.prepare(segment)

    def forward(self, prepared: Sequence[SearchedFrames]) -> list[Tensor | None]:
        """Return the part of each segment; see `athletes`."""
        on_device = [upload(segment.frames, self._device) for segment in prepared]
        frames = [frame for segment in on_device for frame in segment]
        people = self._search.people(frames)
        first = [boxes[: self._search.num_candidates] for boxes in people]
        shown = [frame for frame, boxes in zip(frames, first, strict=True) for _ in boxes]
        poses = iter(self._poses(shown, [box for boxes in first for box in boxes]))
        cameras = [camera for segment in prepared for camera in segment.camera]
        looks = self._search.looks(frames, first)

        def seen_frame(
            frame: Tensor,
            boxes: Sequence[Box],
            candidates: Sequence[Box],
            camera: NDArray[np.float32],
            looks: NDArray[np.float32],
        ) -> SeenFrame:
            height, width = frame.shape[-2:]
            rows = [frame_features(*next(poses), height, width, camera) for _ in candidates]
            features = np.stack(rows) if rows else np.zeros((0, FRAME_SIZE), np.float32)
            return self._search.seen_frame(frame, boxes, camera, looks, features, np.zeros(0, np.float32))

        found = iter([seen_frame(*each) for each in zip(frames, people, first, cameras, looks, strict=True)])
        return [torch.as_tensor(packed([next(found) for _ in segment.frames])) for segment in prepared]

    def _poses(
        self, frames: Sequence[Tensor], boxes: Sequence[Box]
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Return points ``[17, 2]`` in pixels of the frame and confidence ``[17]`` of each box; NaN if not found."""
        best = _BestPoses(len(boxes))
        self._look(best, frames, boxes, [(number, 0.0) for number in range(len(boxes))])
        if self._settings.turned:
            unseen: list[int] = np.flatnonzero(best.presence < self._settings.presence_threshold).tolist()
            self._look(best, frames, boxes, [(number, turn) for number in unseen for turn in TURNS])
            self._look(best, frames, boxes, best.misaligned())
        best.points[best.presence < self._settings.presence_threshold] = np.nan
        return list(zip(best.points, best.confidence, strict=True))

    def _look(
        self, best: _BestPoses, frames: Sequence[Tensor], boxes: Sequence[Box], turned: Sequence[tuple[int, float]]
    ) -> None:
        """Find the key points in crops, each given by the number of its box and the direction of the head."""
        height, width = self._network.height_px, self._network.width_px
        for first in range(0, len(turned), 32):
            some = turned[first : first + 32]
            crops = [PoseCrop.around(boxes[number], up, width / height) for number, up in some]
            pictures = cut_crops([frames[number] for number, _ in some], crops, height, width)
            found = self._network.find(pictures)
            for (number, up), crop, *pose in zip(some, crops, *found, strict=True):
                best.offer(number, up, crop.to_frame(pose[0], height, width), pose[1], float(pose[2]))


class _BestPoses:
    """The pose of each box with the greatest presence so far."""

    def __init__(self, count: int) -> None:
        self.points = np.zeros((count, len(COCO_POINTS), 2), np.float32)
        self.confidence = np.zeros((count, len(COCO_POINTS)), np.float32)
        self.presence = np.full(count, -1.0)
        self._up = np.zeros(count)

    def offer(
        self, number: int, up: float, points: NDArray[np.float32], confidence: NDArray[np.float32], presence: float
    ) -> None:
        if presence > self.presence[number]:
            self.points[number], self.confidence[number] = points, confidence
            self.presence[number], self._up[number] = presence, up

    def misaligned(self) -> list[tuple[int, float]]:
        """Return the boxes whose body is not in the direction of its crop, and the direction of the body."""
        directions = [body_direction(points) for points in self.points]
        return [
            (number, direction)
            for number, direction in enumerate(directions)
            if angle_between(direction, float(self._up[number])) > ALIGNED
        ]


def _points_of_frame(
    times_s: Sequence[float], values: Sequence[NDArray[np.float32] | None]
) -> NDArray[np.float32] | None:
    """Return the key points of a segment's only frame, without the camera's motion."""
    [value] = values
    return value[1:-4] if value is not None and has_key_points(value) else None


class KeyPoints(Pose):
    """The key points of one frame in each row. Frames without the athlete have no row.

    Positions are in frame heights from the middle of the frame, y down.
    """

    to_row: ClassVar[ToRow] = staticmethod(_points_of_frame)

    @staticmethod
    def feature_names() -> tuple[str, ...]:
        """Return the names of the numbers of a row."""
        return KEY_POINT_NAMES

    @staticmethod
    def check(spec: StreamSpec) -> None:
        """Raise `ConfigError` for a stream whose segments are not single frames, or with several athletes."""
        if spec.settings["num_athletes"] != 1:
            raise ConfigError("num_athletes: key points are those of one athlete; set num_athletes = 1")
        if spec.sampling.frames_per_segment != 1:
            raise ConfigError("sampling.frames_per_segment: a row has the key points of one frame; set it to 1")
