"""PAMFN as a highlight detector: how much of a highlight each segment is, instead of one score.

The paper (Zeng & Zheng, TIP 2024) reports that PAMFN also detects highlights; neither the head nor its training is in
the released code, and no description of them was at hand. This is our reading: the same network and the same keys
with no pooling over time, so that the head's 1×1 convolutions judge each segment.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..manifests.streams import Record
from .masked_layers import NONE
from .masking import masked_mean
from .pamfn import FusionSettings, Pamfn
from .pamfn_branch import Poolings
from .scoring import Judgement, SegmentBatch


class PamfnHighlights(Pamfn):
    """Where segments have labels, train `highlights` with `highlight_loss`.

    Where only routines have scores it is a scoring model like any other: the score is the mean highlight, and a
    segment's importance its share of that.
    """

    Settings: ClassVar[type[Record]] = FusionSettings
    poolings: ClassVar[Poolings] = (NONE, NONE, NONE)

    def highlights(self, batch: SegmentBatch) -> tuple[Tensor, Tensor]:
        """``float32 [routines, segments]`` in 0 … 1 with zeros in the padding, and its mask."""
        state, mask, _ = self._mixed(batch)
        assert mask is not None
        return self.fc(state, mask).squeeze(1) * mask, mask

    def forward(self, batch: SegmentBatch) -> Judgement:
        found, mask = self.highlights(batch)
        share = found / found.sum(1, keepdim=True).clamp(min=1e-12)
        return Judgement(
            masked_mean(found.unsqueeze(-1), mask).squeeze(-1), importance=dict.fromkeys(self.branches, share)
        )


def highlight_loss(found: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the segments that are there; ``wanted [routines, segments]`` in 0 … 1."""
    return nn.functional.mse_loss(found[mask], wanted[mask])
