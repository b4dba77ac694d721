"""Stream ``optical_flow``: displacements on a grid of fixed resolution, rounded to float16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional

from ..manifests.streams import Precision
from .checkpoints import Weights
from .optical_flow import METHODS, make_flow
from .optical_flow.stream_settings import FlowStreamSettings
from .protocol import FrameNeed, SegmentInput


class FlowField:
    """A row is ``[2, height, width]``: displacements to the right and down, in pixels of frames after `geometry`.

    A cell of the grid is the mean over its pixels, and a row is the mean over the frames of its segment. With
    ``frames_per_segment = 1`` a row is the flow from one frame to the next. Reshape a row with
    ``row.reshape(2, *grid)``. The last frame of a video repeats the flow of the frame before. If it is the only frame
    of a segment, the flow is zero.
    """

    class Settings(FlowStreamSettings):
        grid: tuple[PositiveInt, PositiveInt] = (32, 32)
        """Height and width of the field. Frames of any aspect ratio are resampled to it."""

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, *, settings: Settings, weights: Mapping[str, Weights], device: torch.device, precision: Precision
    ) -> None:
        self.dim = 2 * settings.grid[0] * settings.grid[1]
        self.frames = FrameNeed(settings.geometry, next_frame=True)
        self.audio = None
        self.batch_size = 4
        self._grid = settings.grid
        self._flow = make_flow(settings.flow, weights, device)
        self._runs_in_prepare = METHODS[settings.flow.method].runs_in == "prepare"

    def prepare(self, segment: SegmentInput) -> Tensor:
        """Return the row, or the frames if the method runs on the device."""
        assert segment.frames is not None
        return self._rows([segment.frames])[0] if self._runs_in_prepare else segment.frames

    def forward(self, prepared: Sequence[Tensor]) -> list[Tensor | None]:
        return [*(prepared if self._runs_in_prepare else self._rows(prepared))]

    def _rows(self, clips: Sequence[Tensor]) -> list[Tensor]:
        flows = iter(self._flow([frames for frames in clips if len(frames) > 1]))
        still = torch.zeros(self.dim, device=clips[0].device)
        return [self._row(next(flows)) if len(frames) > 1 else still for frames in clips]

    def _row(self, flow: Tensor) -> Tensor:
        field = functional.adaptive_avg_pool2d(flow, self._grid).mean(dim=0)
        return field.flatten().half().float()
