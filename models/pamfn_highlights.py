"""PAMFN and its branches as highlight detectors (Zeng & Zheng, TIP 2024, section IV-G).

"To apply our method, we remove all pooling layers and replace the regression layer with a classification head." The
head has the layers of the regression layer, applied to each segment: its sigmoid is the probability of a highlight, and
its loss is the binary cross-entropy. The released code has no highlight detection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import NonNegativeFloat
from torch import Tensor, nn

from ..manifests.streams import Record
from .masked_layers import NONE
from .masking import masked_mean
from .pamfn import Pamfn
from .pamfn_branch import ModalityBranch, Poolings
from .pamfn_fusion import FusionSettings, StageOutput
from .scoring import ScorePrediction, SegmentBatch, only_stream

NO_POOLING: Poolings = (NONE, NONE, NONE)


class PamfnHighlights(Pamfn):
    """PAMFN as a highlight detector.

    It can also be trained on scores of videos like any scoring model: the score is the mean probability, and the
    importance of a segment is its share of the sum.
    """

    Settings: ClassVar[type[Record]] = FusionSettings
    detects_highlights: ClassVar[bool] = True
    poolings: ClassVar[Poolings] = NO_POOLING

    def highlights(self, batch: SegmentBatch) -> tuple[Tensor, Tensor]:
        """Return probabilities ``float32 [samples, segments]`` with zeros in the padding, and the mask."""
        return self._highlights(*self._mixed(batch))

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        stages, mask = self._mixed(batch)
        prediction = highlight_prediction(*self._highlights(stages, mask), tuple(self.branches))
        return replace(prediction, traces=self._traces(stages))

    def _highlights(self, stages: Sequence[StageOutput], mask: Tensor | None) -> tuple[Tensor, Tensor]:
        assert mask is not None
        return self.fc(stages[-1].state, mask).squeeze(1) * mask, mask


class BranchHighlightsSettings(Record):
    dropout: NonNegativeFloat = 0.5
    """Dropout before the classification head"""


class PamfnBranchHighlights(nn.Module):
    """One branch of PAMFN as a highlight detector: the rows of single modalities in Table IX."""

    Settings: ClassVar[type[Record]] = BranchHighlightsSettings
    detects_highlights: ClassVar[bool] = True
    one_stream: ClassVar[bool] = True
    one_grid: ClassVar[bool] = False
    order_invariant: ClassVar[bool] = False

    def __init__(self, dims: Mapping[str, int], settings: BranchHighlightsSettings) -> None:
        super().__init__()
        self.stream = only_stream(dims, "pamfn-branch-highlights")
        self.branch = ModalityBranch(dims[self.stream], settings.dropout, NO_POOLING)

    def highlights(self, batch: SegmentBatch) -> tuple[Tensor, Tensor]:
        """Return probabilities ``float32 [samples, segments]`` with zeros in the padding, and the mask."""
        mask = batch.masks[self.stream]
        _, levels = self.branch(batch.features[self.stream], mask)
        return self.branch.fc(levels.features[-1]).squeeze(1) * mask, mask

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        return highlight_prediction(*self.highlights(batch), (self.stream,))


def highlight_prediction(found: Tensor, mask: Tensor, streams: tuple[str, ...]) -> ScorePrediction:
    """Return probabilities of highlights as a prediction.

    Args:
        found: ``float32 [samples, segments]``.
        mask: ``bool [samples, segments]``.
        streams: Streams of the model.
    """
    share = found / found.sum(1, keepdim=True).clamp(min=1e-12)
    score = masked_mean(found.unsqueeze(-1), mask).squeeze(-1)
    return ScorePrediction(score, importance=dict.fromkeys(streams, share), highlights=found)


def highlight_loss(found: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Return the mean binary cross-entropy over unpadded segments.

    Args:
        found: Probabilities ``float32 [samples, segments]``.
        wanted: 0 or 1, ``[samples, segments]``.
        mask: ``bool [samples, segments]``.
    """
    return nn.functional.binary_cross_entropy(found[mask], wanted[mask].to(found.dtype))
