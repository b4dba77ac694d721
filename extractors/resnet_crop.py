"""ResNet-50 on the crop around the athlete, 2048-d: ACTION-NET's static stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from ..manifests.streams import Geometry, Normalization, Precision, Size
from .athlete_search import AthleteSearch, AthleteSettings, SearchedFrames, crop_around
from .athletes import AthleteVideo, SeenFrame, is_part, packed
from .checkpoints import Weights
from .crops import Crop, cut_and_resize
from .device_copies import download, upload
from .geometry import normalize
from .network_runner import NetworkRunner
from .person import Box
from .protocol import FrameNeed, SegmentInput
from .resnet import DIM, IMAGENET, FcBias, load_resnet50


class CropSettings(AthleteSettings):
    """Settings of every network on crops around the athlete."""

    crop_geometry: Geometry = Geometry(steps=(Size(size_px=(224, 224)),))
    """From the crop, of any shape, to the input of the network."""
    normalization: Normalization = IMAGENET
    """``(x / 255 - mean) / std``."""
    margin: float = Field(default=0.0, ge=0)
    """Widens the box on each of its four sides by this share of its width or height."""
    no_person: Literal["whole-frame", "drop"] = "whole-frame"
    """Handling of frames without an athlete. ``drop``: leave the frame out, as ACTION-NET does; its position in time is
    then lost. ``whole-frame``: use the whole frame, so that every segment has a row, streams stay aligned and videos
    without people have features. The outcome and the side table of boxes contain the number of frames with an
    athlete."""


class ResNetCrop:
    """ResNet-50 on crops at the resolution of the file. A row is the mean over the frames that were not dropped."""

    class _Settings(CropSettings):
        fc_bias_seed: FcBias = "none"
        """Seed of a random bias that is added to the row, as in ACTION-NET's code; none: no bias."""

    Settings: ClassVar[Any] = _Settings
    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ("network", "detector")
    takes_float_frames: ClassVar[bool] = True

    def __init__(
        self,
        *,
        settings: Any,
        weights: Mapping[str, Weights],
        device: torch.device,
        precision: Precision,
    ) -> None:
        network, self.dim = self._load(settings, weights["network"])
        self._search = AthleteSearch(settings, weights["detector"], device)
        self.frames = FrameNeed(Geometry(steps=()), next_frame=self._search.follows)
        self.audio = None
        self.batch_size = 8 if device.type == "cpu" else 32
        self._settings: CropSettings = settings
        self.runner = NetworkRunner(network, device, precision)

    def _load(self, settings: Any, weights: Weights) -> tuple[nn.Module, int]:
        """Return the network, ``[n, 3, height, width] → [n, dim]``, and dim."""
        return load_resnet50(weights, settings.fc_bias_seed), DIM

    def start_video(self) -> AthleteVideo:
        """Return the object that combines the parts of one video (`VideoParts`)."""
        settings = self._settings
        return AthleteVideo(settings.athlete, settings.num_athletes, self.dim, settings.person_threshold)

    @staticmethod
    def is_part(values: NDArray[np.float32]) -> bool:
        """Return whether an array of the write-ahead log is a part of this version."""
        return is_part(values)

    def prepare(self, segment: SegmentInput) -> SearchedFrames:
        """Measure the camera's motion, if the athlete is followed."""
        return self._search.prepare(segment)

    def forward(self, prepared: Sequence[SearchedFrames]) -> list[Tensor | None]:
        """Return the part of each segment; see `athletes`."""
        on_device = [upload(segment.frames, self.runner.device) for segment in prepared]
        frames = [frame for segment in on_device for frame in segment]
        people = self._search.people(frames)
        candidates = [boxes[: self._search.num_candidates] for boxes in people]
        crops: list[Crop] = []
        for number, boxes in enumerate(candidates):
            crops += [crop_around(frames, number, box, self._settings.margin) for box in boxes]
            crops += [Crop(number, 0, 0, *frames[number].shape[-2:])] * self._needs_whole(boxes)
        seen = cut_and_resize(frames, crops, self._settings.crop_geometry)
        normalized = partial(normalize, normalization=self._settings.normalization)
        rows = download(self.runner.rows(seen, normalized, most=self.batch_size))
        features = iter(row.numpy() for row in rows)

        def seen_frame(
            frame: Tensor,
            boxes: Sequence[Box],
            first: Sequence[Box],
            camera: NDArray[np.float32],
            looks: NDArray[np.float32],
        ) -> SeenFrame:
            of_people = [next(features) for _ in first]
            rows = np.stack(of_people) if of_people else np.zeros((0, self.dim), np.float32)
            whole = next(features) if self._needs_whole(first) else np.zeros(0, np.float32)
            return self._search.seen_frame(frame, boxes, camera, looks, rows, whole)

        cameras = [camera for segment in prepared for camera in segment.camera]
        looks = self._search.looks(frames, candidates)
        found = iter([seen_frame(*each) for each in zip(frames, people, candidates, cameras, looks, strict=True)])
        return [torch.as_tensor(packed([next(found) for _ in segment.frames])) for segment in prepared]

    def _needs_whole(self, candidates: Sequence[Box]) -> bool:
        """Return whether the features of the whole frame may be needed because it may have no athlete."""
        return self._settings.no_person == "whole-frame" and (self._search.follows or not candidates)
