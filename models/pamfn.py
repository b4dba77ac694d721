"""PAMFN (Zeng & Zheng, TIP 2024): modality branches, and a mixed branch that fuses them stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from ..manifests.streams import Record
from .fusion_policy import Ordering, last_enabled
from .masked_layers import ConvOverTime, MaskedBatchNorm1d, MaskedSequential
from .pamfn_branch import SCORE, WIDTH, Levels, ModalityBranch, Poolings
from .pamfn_fusion import FusionStage, Level, stack_masks
from .scoring import Judgement, SegmentBatch


class FusionSettings(Record):
    """The released configurations are in `PUBLISHED`; these defaults are its ``rg-feats2``, the paper's 18.06 M."""

    num_nets: PositiveInt = 6
    ms_heads: PositiveInt = 4
    cm_heads: PositiveInt = 2
    fc_ratio: PositiveInt = 1
    fc_dropout: NonNegativeFloat = 0.3
    feature_dropout: NonNegativeFloat = 0.3
    branch_dropout: NonNegativeFloat = 0.3
    ordering: Ordering = "ranked"
    frozen: tuple[str, ...] = ()
    stochastic: bool = False


class PamfnSettings(FusionSettings):
    released: bool = False


PUBLISHED: Mapping[str, PamfnSettings] = {
    "rg-feats1": PamfnSettings(
        num_nets=10, ms_heads=1, cm_heads=1, fc_ratio=2, fc_dropout=0, feature_dropout=0.5, branch_dropout=0.5
    ),
    "fisv-feats1": PamfnSettings(
        num_nets=6, ms_heads=1, cm_heads=1, fc_ratio=2, fc_dropout=0, feature_dropout=0.5, branch_dropout=0.5
    ),
    "rg-feats2": PamfnSettings(),
    "fisv-feats2": PamfnSettings(num_nets=8, ms_heads=2, cm_heads=4),
}
"""The four configurations of the released code; streams, and which of them are frozen, are the user's."""


class Pamfn(nn.Module):
    """Any subset of modalities, on one time grid.

    ``frozen``: streams whose branch the fusion does not train (stage two of the paper's training freezes RGB and flow).
    ``stochastic``: sample the policy in evaluation, too, as the released code does; the arg max otherwise.
    ``released``: padding counts as segments, and frozen branches keep their dropout and moving statistics.
    """

    Settings: ClassVar[type[Record]] = PamfnSettings
    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = True
    poolings: ClassVar[Poolings] = SCORE
    c: Tensor

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        num_nets: int = 6,
        ms_heads: int = 4,
        cm_heads: int = 2,
        fc_ratio: int = 1,
        fc_dropout: float = 0.3,
        feature_dropout: float = 0.3,
        branch_dropout: float = 0.3,
        ordering: Ordering = "ranked",
        frozen: Sequence[str] = (),
        stochastic: bool = False,
        released: bool = False,
    ) -> None:
        super().__init__()
        if strangers := set(frozen) - dims.keys():
            raise ValueError(f"frozen names {sorted(strangers)}, which are not among the streams {sorted(dims)}")
        self.frozen = tuple(frozen)
        self.ordering: Ordering = ordering
        self.stochastic = stochastic
        self.released = released
        self.branches = nn.ModuleDict(
            {stream: ModalityBranch(dim, branch_dropout, self.poolings) for stream, dim in dims.items()}
        )
        stage = (len(dims), num_nets, ms_heads, cm_heads, ordering)
        self.stage1, self.stage2, self.stage3 = (FusionStage(*stage, pooling) for pooling in self.poolings)
        self.drop = nn.Dropout(feature_dropout)
        narrow = WIDTH // fc_ratio
        self.fc = MaskedSequential(
            nn.Dropout(fc_dropout),
            ConvOverTime(3 * WIDTH, narrow, 1),
            MaskedBatchNorm1d(narrow),
            nn.ReLU(),
            nn.Dropout(0.5),
            ConvOverTime(narrow, 1, 1),
            nn.Sigmoid(),
        )
        self.register_buffer("c", torch.zeros(3 * WIDTH))
        self.tau = nn.Parameter(torch.tensor(10.0))

    def train(self, mode: bool = True) -> Pamfn:
        super().train(mode)
        if not self.released:
            for stream in self.frozen:
                self.branches[stream].eval()
        return self

    def forward(self, batch: SegmentBatch) -> Judgement:
        return Judgement(self.fuse(batch)[0])

    def fuse(self, batch: SegmentBatch) -> tuple[Tensor, list[Tensor]]:
        """Score ``[routines]``, and the index of the last FusionNet asked, ``[routines, T_i]`` for each stage."""
        state, _, choices = self._mixed(batch)
        return self.fc(state).flatten(), choices

    def _mixed(self, batch: SegmentBatch) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """The mixed branch's last state ``[routines, 768, T_3]``, its mask, and the stages' choices."""
        levels = self._levels(batch)
        tau = self.tau if self.training or self.stochastic else None
        state = self.c.view(1, -1, 1).expand(len(batch), -1, levels[1].features[0].shape[-1])
        choices: list[Tensor] = []
        for number, stage in enumerate((self.stage1, self.stage2, self.stage3)):
            if number:
                state = self.poolings[number].values(state, levels[number].mask)
            state, choice = stage(state, levels[number], levels[number + 1], tau)
            choices.append(last_enabled(choice, self.ordering))
        return state, levels[3].mask, choices

    def _levels(self, batch: SegmentBatch) -> list[Level]:
        lengths = {values.shape[1] for values in batch.features.values()}
        if len(lengths) > 1:
            raise ValueError(f"streams of {sorted(lengths)} segments; PAMFN needs them on one time grid")
        found = [self._branch(stream, batch) for stream in self.branches]
        return [self._level(found, scale) for scale in range(4)]

    def _level(self, branches: Sequence[Levels], scale: int) -> Level:
        features = [self.drop(levels.features[scale]) for levels in branches]
        return Level(features, stack_masks([levels.masks[scale] for levels in branches]))

    def _branch(self, stream: str, batch: SegmentBatch) -> Levels:
        _, levels = self.branches[stream](batch.features[stream], None if self.released else batch.masks[stream])
        if stream not in self.frozen:
            return levels
        return Levels(tuple(values.detach() for values in levels.features), levels.masks)
