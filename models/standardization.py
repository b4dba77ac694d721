"""Standardize features by the statistics of the training videos, as part of the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .samples import Samples
from .scoring import ScorePrediction, SegmentBatch


class Standardized(nn.Module):
    """Wrapper that scales each feature to mean 0 and deviation 1 over the segments of the training videos.

    The statistics are buffers and are saved in checkpoints. Constant features are not changed.
    """

    def __init__(self, network: nn.Module, dims: dict[str, int]) -> None:
        super().__init__()
        self.network = network
        for stream, dim in dims.items():
            self.register_buffer(f"mean_{stream}", torch.zeros(dim))
            self.register_buffer(f"deviation_{stream}", torch.ones(dim))

    @property
    def masks_padding(self) -> bool:
        """Whether the network ignores padding."""
        return getattr(self.network, "masks_padding", False)

    def learn(self, samples: Samples, rows: Tensor) -> None:
        """Compute the statistics of these videos. A stream without segments keeps its values."""
        batch = samples.whole(rows)
        for stream, values in batch.features.items():
            segments = values[batch.masks[stream]].double()
            if not len(segments):
                continue
            mean, deviation = segments.mean(0), segments.std(0, correction=0)
            varies = deviation > 1e-6 * mean.abs().clamp(min=1e-6)
            getattr(self, f"mean_{stream}").copy_(torch.where(varies, mean, 0))
            getattr(self, f"deviation_{stream}").copy_(torch.where(varies, deviation, 1))

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        scaled = {
            stream: (values - getattr(self, f"mean_{stream}"))
            / getattr(self, f"deviation_{stream}")
            * batch.masks[stream].unsqueeze(-1)
            for stream, values in batch.features.items()
        }
        return self.network(SegmentBatch(scaled, batch.masks))


def without_standardization(network: nn.Module) -> nn.Module:
    """Return the network inside of the wrapper `Standardized`; any other network is returned unchanged."""
    return network.network if isinstance(network, Standardized) else network
