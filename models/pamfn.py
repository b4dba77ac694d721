"""PAMFN (Zeng & Zheng, TIP 2024): one branch per modality and a mixed branch that fuses them in three stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..manifests.streams import Record
from .fusion_policy import Ordering, last_enabled
from .masked_layers import ConvOverTime, MaskedBatchNorm1d, MaskedSequential
from .pamfn_branch import SCORE, WIDTH, Levels, ModalityBranch, Poolings
from .pamfn_fusion import FusionSettings, FusionStage, Level, StageOutput, stack_masks
from .scoring import ScorePrediction, SegmentBatch

START_WIDTH = 3 * WIDTH
"""Width of the initial state of the mixed branch; the state is zero"""


class PamfnSettings(FusionSettings):
    released: bool = False
    """Whether padding counts as segments, as in the released code"""


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
"""The four configurations of the released code. They do not include the streams."""


class Pamfn(nn.Module):
    """PAMFN with any number of modalities on one time grid.

    Args:
        dims: Stream name → feature dim.
        settings: Sizes of the fusion and options of its policy.
    """

    Settings: ClassVar[type[Record]] = PamfnSettings
    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = True
    order_invariant: ClassVar[bool] = False
    poolings: ClassVar[Poolings] = SCORE
    c: Tensor
    stage1: FusionStage
    stage2: FusionStage
    stage3: FusionStage

    def __init__(self, dims: Mapping[str, int], settings: FusionSettings) -> None:
        super().__init__()
        self.ordering: Ordering = settings.ordering
        self.stochastic = settings.stochastic
        self.released = isinstance(settings, PamfnSettings) and settings.released
        self.branches = nn.ModuleDict(
            {stream: ModalityBranch(dim, settings.branch_dropout, self.poolings) for stream, dim in dims.items()}
        )
        width = START_WIDTH
        for number, pooling in enumerate(self.poolings, start=1):
            fuses = number <= settings.fusion_stages
            stage = FusionStage(len(dims), width, settings, pooling, fuses=fuses)
            self.add_module(f"stage{number}", stage)
            width = stage.width_out
        self.drop = nn.Dropout(settings.feature_dropout)
        narrow = WIDTH // settings.fc_ratio
        self.fc = MaskedSequential(
            nn.Dropout(settings.fc_dropout),
            ConvOverTime(width, narrow, 1),
            MaskedBatchNorm1d(narrow),
            nn.ReLU(),
            nn.Dropout(0.5),
            ConvOverTime(narrow, 1, 1),
            nn.Sigmoid(),
        )
        self.register_buffer("c", torch.zeros(START_WIDTH))
        self.num_used_blocks = settings.fusion_stages - (settings.msfd == "none")
        self.has_policy = settings.ordering != "free" and settings.cmfd != "none"
        if self.has_policy:
            self.tau = nn.Parameter(torch.tensor(10.0))

    def is_idle(self, parameter: str) -> bool:
        """Return whether a parameter receives no gradient by design.

        There are four cases: weights on the initial state of the mixed branch, which is zero; the scores of the
        branches, which are not used; the attention over a single FusionNet; and blocks of the branches after the last
        fusion (the MSFD of a stage reads the branches' blocks of that stage, the CMFD the blocks before).
        """
        if parameter.startswith("branches.") and int(parameter.partition(".stage")[2][:1] or 0) > self.num_used_blocks:
            return True
        choosing = (".proj2.", "fusion_f.linear_layers", "f_fusion.weights")
        single = self.ordering == "unranked" and any(part in parameter for part in choosing)
        start = parameter in ("stage1.conv.0.weight", "stage1.short_cut.0.weight")
        return single or start or ".fc." in parameter

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        stages, _ = self._mixed(batch)
        return ScorePrediction(self.fc(stages[-1].state).flatten(), traces=self._traces(stages))

    def fuse(self, batch: SegmentBatch) -> tuple[Tensor, list[Tensor]]:
        """Return the score ``[samples]`` and, per stage, the index of the last active FusionNet ``[samples, T_i]``."""
        stages, _ = self._mixed(batch)
        return self.fc(stages[-1].state).flatten(), list(self._decisions(stages).values())

    def _mixed(self, batch: SegmentBatch) -> tuple[list[StageOutput], Tensor | None]:
        """Return the outputs of the three stages and the mask of the last state."""
        levels = self._levels(batch)
        tau = self.tau if self.has_policy and (self.training or self.stochastic) else None
        state = self.c.view(1, -1, 1).expand(len(batch), -1, levels[1].features[0].shape[-1])
        stages: list[StageOutput] = []
        for number, stage in enumerate((self.stage1, self.stage2, self.stage3)):
            if number:
                state = self.poolings[number].values(state, levels[number].mask)
            stages.append(stage(state, levels[number], levels[number + 1], tau))
            state = stages[-1].state
        return stages, levels[3].mask

    def _decisions(self, stages: Sequence[StageOutput]) -> dict[str, Tensor]:
        """Return the index of the last active FusionNet at each step of the stages that have FusionNets."""
        return {
            f"decision_{number}": last_enabled(stage.choice, self.ordering)
            for number, stage in enumerate(stages, start=1)
            if stage.choice is not None
        }

    def _traces(self, stages: Sequence[StageOutput]) -> dict[str, Tensor]:
        """Return decisions, and the weights of the modalities in the MSFD in the order of the streams."""
        weights = {f"modalities_{number}": stage.modality_weights for number, stage in enumerate(stages, start=1)}
        return {
            **self._decisions(stages),
            **{name: values.detach() for name, values in weights.items() if values is not None},
        }

    def _levels(self, batch: SegmentBatch) -> list[Level]:
        lengths = {values.shape[1] for values in batch.features.values()}
        if len(lengths) > 1:
            raise ValueError(f"streams: have {sorted(lengths)} segments; PAMFN needs one time grid for all streams")
        found: list[Levels] = []
        for stream, branch in self.branches.items():
            _, levels = branch(batch.features[stream], None if self.released else batch.masks[stream])
            found.append(levels)
        return [self._level(found, scale) for scale in range(4)]

    def _level(self, branches: Sequence[Levels], scale: int) -> Level:
        features = [self.drop(levels.features[scale]) for levels in branches]
        return Level(features, stack_masks([levels.masks[scale] for levels in branches]))
