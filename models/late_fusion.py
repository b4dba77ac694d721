"""Late fusions: each stream goes through a branch of its own, and only what they conclude is combined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from ..manifests.streams import Record
from .masking import masked_softmax
from .pamfn_branch import WIDTH, ModalityBranch
from .scoring import Judgement, SegmentBatch

Combination = Literal["average", "concatenation", "weighted", "attention"]


class LateFusionSettings(Record):
    combination: Combination = "average"
    dropout: NonNegativeFloat = 0.5


class LateFusion(nn.Module):
    """PAMFN's branches, one per stream, trained together.

    ``average`` and ``weighted`` combine the branches' scores, the latter with one learned weight per stream;
    ``concatenation`` and ``attention`` combine their summaries, the latter with weights that depend on the routine.
    A stream that a routine lacks has no part in it.
    """

    Settings: ClassVar[type[Record]] = LateFusionSettings
    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = False

    def __init__(self, dims: Mapping[str, int], *, combination: Combination = "average", dropout: float = 0.5) -> None:
        super().__init__()
        self.combination: Combination = combination
        self.branches = nn.ModuleDict({stream: ModalityBranch(dim, dropout) for stream, dim in dims.items()})
        if combination == "weighted":
            self.weights = nn.Parameter(torch.zeros(len(dims)))
        if combination == "attention":
            self.attention = nn.Sequential(nn.Linear(WIDTH, 64), nn.Tanh(), nn.Linear(64, 1, bias=False))
        if combination in ("concatenation", "attention"):
            width = WIDTH * (len(dims) if combination == "concatenation" else 1)
            self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, 1), nn.Sigmoid())
            for branch in self.branches.values():
                branch.fc.requires_grad_(False)  # summaries alone are used

    def forward(self, batch: SegmentBatch) -> Judgement:
        found = [branch(batch.features[stream], batch.masks[stream]) for stream, branch in self.branches.items()]
        present = torch.stack([batch.masks[stream].any(1) for stream in self.branches], dim=1)
        scores = torch.stack([score for score, _ in found], dim=1)
        summaries = torch.stack([levels.features[3].squeeze(-1) for _, levels in found], dim=1)
        return Judgement(self._combined(scores, summaries, present))

    def _combined(self, scores: Tensor, summaries: Tensor, present: Tensor) -> Tensor:
        """``scores, present [routines, streams]``, ``summaries [routines, streams, 256]`` → ``[routines]``."""
        if self.combination == "average":
            return (scores * present).sum(1) / present.sum(1).clamp(min=1)
        if self.combination == "weighted":
            return (scores * masked_softmax(self.weights.expand_as(scores), present)).sum(1)
        if self.combination == "attention":
            weights = masked_softmax(self.attention(summaries).squeeze(-1), present)
            return self.head((weights.unsqueeze(1) @ summaries).squeeze(1)).squeeze(-1)
        return self.head((summaries * present.unsqueeze(-1)).flatten(1)).squeeze(-1)
