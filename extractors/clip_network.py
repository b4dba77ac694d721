"""What extractors of colour clips have in common; each adds its network and how that is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..manifests.streams import Geometry, Normalisation, Precision
from .batching import rows_by_shape
from .blank_frames import around_blanks, normalise_rest
from .onednn_layers import to_device
from .precision import DTYPES, inference
from .protocol import FrameNeed, SegmentInput


class ClipNetwork:
    """Prepared: ``uint8 [time, 3, height, width]``, or the same normalised where some frames are blank.

    ``network`` takes ``[n, 3, time, height, width]`` to ``[n, dim]``. Clips of one shape share a batch.
    """

    weight_roles: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(
        self,
        network: nn.Module,
        *,
        dim: int,
        batch_size: int,
        device: torch.device,
        precision: Precision,
        geometry: Geometry,
        normalisation: Normalisation,
    ) -> None:
        self.dim = dim
        self.audio = None
        self.frames = FrameNeed(geometry)
        self.batch_size = batch_size
        self._network = to_device(network, device)
        self._device = device
        self._precision: Precision = precision
        self._normalisation = normalisation

    def prepare(self, segment: SegmentInput) -> Tensor:
        return around_blanks(segment, self._normalisation)

    def forward(self, prepared: Sequence[Tensor]) -> list[Tensor | None]:
        with inference(self._device, self._precision):
            return [*rows_by_shape(prepared, self._features)]

    def _features(self, clips: Tensor) -> Tensor:
        clips = normalise_rest(clips.to(self._device), self._normalisation).to(DTYPES[self._precision])
        return self._network(clips.transpose(1, 2))
