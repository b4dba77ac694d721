"""I3D on colour frames: 1024-d, one row for each clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import PositiveFloat

from ..manifests.streams import CenterCrop, Geometry, Normalisation, Precision, Record, ShortSide
from .checkpoints import Weights
from .clip_network import ClipNetwork
from .i3d import FEATURE_DIM, load_i3d


class I3DRgb(ClipNetwork):
    class Settings(Record):
        """Defaults: what the weights were trained with, and ACTION-NET as printed."""

        geometry: Geometry = Geometry(steps=(ShortSide(short_side_px=256), CenterCrop(center_crop_px=(224, 224))))
        normalisation: Normalisation = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        batch_norm_eps: PositiveFloat = 1e-3

    version: ClassVar[int] = 1

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
        super().__init__(
            load_i3d(weights["network"], in_channels=3, batch_norm_eps=batch_norm_eps),
            dim=FEATURE_DIM,
            batch_size=16 if device.type == "cuda" else 4,
            device=device,
            precision=precision,
            geometry=geometry,
            normalisation=normalisation,
        )
