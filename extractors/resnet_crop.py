"""ResNet-50 on the crop around the athlete, 2048-d: ACTION-NET's static stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ..manifests.streams import Geometry, Normalization, Precision, Record, ShortSide, Size
from .athlete_motion import camera_between
from .athletes import LOOK_BINS, LOOK_SIZE, AthleteVideo, Choice, SeenFrame, is_part, packed
from .checkpoints import Weights
from .geometry import apply_geometry, normalize
from .network_runner import NetworkRunner
from .person import Box, PersonDetector
from .protocol import FrameNeed, SegmentInput
from .resnet import DIM, IMAGENET, FcBias, load_resnet50

MAX_CANDIDATES = 4
"""People of a frame who may be the athlete when it is followed: the most prominent ones."""
_CAMERA_GEOMETRY = Geometry(steps=(ShortSide(short_side_px=144),), gray=True)
_LOOK_GEOMETRY = Geometry(steps=(Size(size_px=(64, 32)),))


@dataclass(frozen=True, eq=False)
class _Prepared:
    frames: Tensor
    """``uint8 [time, 3, height, width]``, without the frame after the segment."""
    camera: NDArray[np.float32]
    """``[time, 4]``: motion of the scene to the next frame; zeros where there is none."""


class ResNetCrop:
    """Crops at the resolution of the file. A segment's row is the mean over its frames, less those left out."""

    class Settings(Record):
        crop_geometry: Geometry = Geometry(steps=(Size(size_px=(224, 224)),))
        """From the crop, whatever its shape, to what the network sees."""
        normalization: Normalization = IMAGENET
        """``(x / 255 - mean) / std``."""
        fc_bias_seed: FcBias = "none"
        """Seed of a random bias that is added to the row, as in ACTION-NET's code; none: no bias."""
        person_threshold: float = Field(default=0.25, ge=0, le=1)
        """Least confidence of a detected person, 0 to 1."""
        margin: float = Field(default=0.0, ge=0)
        """Widens the box on each of its four sides by this share of its width or height."""
        no_person: Literal["whole-frame", "drop"] = "whole-frame"
        """Replacement for a frame without an athlete. ACTION-NET drops it, and with it its place in time; the
        whole frame keeps every segment, so that streams stay aligned and a video without people still has features.
        The side table of boxes and the outcome state in how many frames an athlete was found."""
        athlete: Choice = "largest"
        """``"largest"``: the largest person of each frame (ACTION-NET). ``"central"``: the one nearest to the middle
        of the frame. ``"track"``: one person, followed through the video by position, camera motion and colors."""
        num_athletes: Annotated[int, Field(ge=1, le=4)] = 1
        """Number of athletes, e.g. 2 for pairs; a frame's features are the mean over those that were found."""
        link_threshold: float = Field(default=0.1, ge=0, le=1)
        """With ``athlete = "track"``: confidence from which a box continues a track. ``person_threshold`` is the
        confidence from which it is a person by itself."""

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ("network", "detector")

    def __init__(
        self,
        *,
        settings: Settings,
        weights: Mapping[str, Weights],
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.dim = DIM
        self._follows = settings.athlete == "track"
        self.frames = FrameNeed(Geometry(steps=()), next_frame=self._follows)
        self.audio = None
        self.batch_size = 8 if device.type == "cpu" else 32
        self._settings = settings
        self.runner = NetworkRunner(load_resnet50(weights["network"], settings.fc_bias_seed), device, precision)
        threshold = settings.person_threshold
        if self._follows:
            threshold = min(threshold, settings.link_threshold)
        self._detector = PersonDetector(weights["detector"], device, threshold)

    def start_video(self) -> AthleteVideo:
        """Return what combines the parts of one video (`VideoParts`)."""
        settings = self._settings
        return AthleteVideo(settings.athlete, settings.num_athletes, self.dim, settings.person_threshold)

    @staticmethod
    def is_part(values: NDArray[np.float32]) -> bool:
        """Return whether an array of the write-ahead log is a part of this version."""
        return is_part(values)

    def prepare(self, segment: SegmentInput) -> _Prepared:
        """Measure the camera's motion, if the athlete is followed."""
        assert segment.frames is not None
        frames = segment.frames
        camera = np.zeros((len(frames), 4), np.float32)
        if self._follows and len(frames) > 1:
            gray = apply_geometry(frames, _CAMERA_GEOMETRY)[:, 0].cpu().numpy()
            camera[:-1] = camera_between(gray)
        count = len(frames) - segment.has_next_frame
        return _Prepared(frames[:count], camera[:count])

    def forward(self, prepared: Sequence[_Prepared]) -> list[Tensor | None]:
        """Return the part of each segment; see `athletes`."""
        frames = [frame.to(self.runner.device) for segment in prepared for frame in segment.frames]
        people = [
            self._ordered(boxes, frame) for boxes, frame in zip(self._detector.people(frames), frames, strict=True)
        ]
        candidates = [boxes[: self._num_candidates] for boxes in people]
        crops: list[Tensor] = []
        for frame, boxes in zip(frames, candidates, strict=True):
            crops += [cut(frame, box, self._settings.margin) for box in boxes]
            crops += [frame] * self._needs_whole(boxes)
        seen = [apply_geometry(crop[None], self._settings.crop_geometry)[0] for crop in crops]
        normalized = partial(normalize, normalization=self._settings.normalization)
        features = iter(row.cpu().numpy() for row in self.runner.rows(seen, normalized, most=self.batch_size))

        def seen_frame(frame: Tensor, boxes: Sequence[Box], camera: NDArray[np.float32]) -> SeenFrame:
            first = boxes[: self._num_candidates]
            of_people = [next(features) for _ in first]
            edges = [(box.left, box.top, box.right, box.bottom, box.confidence) for box in boxes]
            return SeenFrame(
                height_px=frame.shape[-2],
                width_px=frame.shape[-1],
                boxes=np.array(edges, np.float32).reshape(-1, 5),
                looks=np.stack([_look(frame, box) for box in first]) if self._follows and first else _NO_LOOKS,
                features=np.stack(of_people) if of_people else np.zeros((0, self.dim), np.float32),
                whole=next(features) if self._needs_whole(first) else np.zeros(0, np.float32),
                camera=camera,
            )

        cameras = [camera for segment in prepared for camera in segment.camera]
        found = iter([seen_frame(*each) for each in zip(frames, people, cameras, strict=True)])
        return [torch.from_numpy(packed([next(found) for _ in segment.frames])) for segment in prepared]

    @property
    def _num_candidates(self) -> int:
        return max(MAX_CANDIDATES, 2 * self._settings.num_athletes) if self._follows else self._settings.num_athletes

    def _needs_whole(self, candidates: Sequence[Box]) -> bool:
        """Return whether a frame may turn out to have no athlete, and is then used as a whole."""
        return self._settings.no_person == "whole-frame" and (self._follows or not candidates)

    def _ordered(self, boxes: Sequence[Box], frame: Tensor) -> list[Box]:
        """Return the boxes of a frame, the preferred ones first."""
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


def _look(frame: Tensor, box: Box) -> NDArray[np.float32]:
    """Return the color histogram of the upper and the lower half of a box, with sum 1."""
    small = apply_geometry(cut(frame, box, 0.0)[None], _LOOK_GEOMETRY)[0].cpu().numpy().astype(np.int64)
    # the middle half of the width: the corners of a box show the background
    level = small[:, :, 8:24] * LOOK_BINS // 256
    code = (level[0] * LOOK_BINS + level[1]) * LOOK_BINS + level[2]
    halves = [np.bincount(half.ravel(), minlength=LOOK_BINS**3) for half in np.split(code, 2)]
    return (np.concatenate(halves) / code.size).astype(np.float32)


def cut(frame: Tensor, box: Box, margin: float) -> Tensor:
    """``[3, h, w]`` inside the box and its margin, at the nearest whole pixels, at least one by one."""
    height, width = frame.shape[-2:]
    more_x, more_y = margin * (box.right - box.left), margin * (box.bottom - box.top)
    left, right = _span(box.left - more_x, box.right + more_x, width)
    top, bottom = _span(box.top - more_y, box.bottom + more_y, height)
    return frame[:, top:bottom, left:right]


def _span(first: float, last: float, limit: int) -> tuple[int, int]:
    start = min(max(round(first), 0), limit - 1)
    return start, max(min(round(last), limit), start + 1)
