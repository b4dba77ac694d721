"""Shift and scale features by the statistics of the training videos, as part of the network that they trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .routines import Routines
from .scoring import Judgement, SegmentBatch


class Standardised(nn.Module):
    """A scoring model that first brings each feature to mean 0 and deviation 1 over the training videos' segments.

    The statistics are buffers, so that a checkpoint carries them; a feature that never varies is left as it is.
    """

    def __init__(self, network: nn.Module, dims: dict[str, int]) -> None:
        super().__init__()
        self.network = network
        for stream, dim in dims.items():
            self.register_buffer(f"mean_{stream}", torch.zeros(dim))
            self.register_buffer(f"deviation_{stream}", torch.ones(dim))

    @property
    def masks_padding(self) -> bool:
        return getattr(self.network, "masks_padding", False)

    def learn(self, routines: Routines, rows: Tensor) -> None:
        """Take the statistics of these videos; of nothing where they have no segment of a stream."""
        batch = routines.whole(rows)
        for stream, values in batch.features.items():
            segments = values[batch.masks[stream]].double()
            if not len(segments):
                continue
            mean, deviation = segments.mean(0), segments.std(0, correction=0)
            varies = deviation > 1e-6 * mean.abs().clamp(min=1e-6)
            getattr(self, f"mean_{stream}").copy_(torch.where(varies, mean, 0))
            getattr(self, f"deviation_{stream}").copy_(torch.where(varies, deviation, 1))

    def forward(self, batch: SegmentBatch) -> Judgement:
        scaled = {
            stream: (values - getattr(self, f"mean_{stream}"))
            / getattr(self, f"deviation_{stream}")
            * batch.masks[stream].unsqueeze(-1)
            for stream, values in batch.features.items()
        }
        return self.network(SegmentBatch(scaled, batch.masks))
