"""I3D on colour frames: 1024-d, one row for each clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import PositiveFloat
from torch import Tensor

from ..manifests.streams import CenterCrop, Geometry, Normalisation, Precision, Record, ShortSide
from .batching import rows_by_shape
from .blank_frames import around_blanks, normalise_rest
from .checkpoints import Weights
from .i3d import FEATURE_DIM, load_i3d
from .precision import DTYPES, inference
from .protocol import FrameNeed, SegmentInput


class I3DRgb:
    """Prepared: ``uint8 [time, 3, height, width]``, or the same normalised where some frames are blank."""

    class Settings(Record):
        """Defaults: what the weights were trained with, and ACTION-NET as printed."""

        geometry: Geometry = Geometry(steps=(ShortSide(short_side_px=256), CenterCrop(center_crop_px=(224, 224))))
        normalisation: Normalisation = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        batch_norm_eps: PositiveFloat = 1e-3

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(
        self,
        *,
        weights: Mapping[str, Weights],
        device: torch.device,
        precision: Precision,
        geometry: Geometry,
        normalisation: Normalisation,
        batch_norm_eps: float,
    ) -> None:
        self.dim = FEATURE_DIM
        self.audio = None
        self.frames = FrameNeed(geometry)
        self.batch_size = 16 if device.type == "cuda" else 4
        self._device = device
        self._precision: Precision = precision
        self._normalisation = normalisation
        self._network = load_i3d(weights["network"], in_channels=3, batch_norm_eps=batch_norm_eps).to(device)

    def prepare(self, segment: SegmentInput) -> Tensor:
        return around_blanks(segment, self._normalisation)

    def forward(self, prepared: Sequence[Tensor]) -> list[Tensor | None]:
        with inference(self._device, self._precision):
            return [*rows_by_shape(prepared, self._features)]

    def _features(self, clips: Tensor) -> Tensor:
        clips = normalise_rest(clips.to(self._device), self._normalisation).to(DTYPES[self._precision])
        return self._network(clips.transpose(1, 2))
