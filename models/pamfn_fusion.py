"""How PAMFN's mixed branch draws on the modalities: the base path, MSFD and CMFD of one stage."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .fusion_policy import NEVER, Ordering, attention_bias, choose
from .masked_layers import ConvOverTime, MaskedBatchNorm1d, MaskedSequential, Pooling
from .masking import masked_softmax
from .pamfn_branch import WIDTH


@dataclass(frozen=True, eq=False)
class Level:
    """The modalities at one time scale."""

    features: list[Tensor]
    """One ``[routines, 256, T]`` per modality"""
    present: Tensor | None
    """``bool [routines, modalities, T]``; None where padding counts as segments"""

    @property
    def mask(self) -> Tensor | None:
        """``bool [routines, T]``: where there is any modality."""
        return None if self.present is None else self.present.any(1)


class Attention(nn.Module):
    """Multi-head attention that favours what is unlike the query: scores are negated.

    ``norm`` is never used; released checkpoints hold it.
    """

    def __init__(self, num_heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.linear_layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(3)])
        self.norm = nn.LayerNorm(WIDTH).requires_grad_(False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
        """``query [n, 256]``, ``values [n, choices, 256]``, ``bias [n, choices]`` on the scores → ``[n, 256]``."""
        heads = (self.num_heads, WIDTH // self.num_heads)
        to_query, to_key, to_value = self.linear_layers
        asked = to_query(query).unflatten(-1, heads)
        keys = to_key(values).unflatten(-1, heads)
        offered = to_value(values).unflatten(-1, heads)
        scores = -torch.einsum("nhd,nchd->nhc", asked, keys) / math.sqrt(heads[1])
        if bias is not None:
            scores = scores + bias.unsqueeze(1)
        weights = self.dropout(torch.softmax(scores, dim=-1))
        return torch.einsum("nhc,nchd->nhd", weights, offered).flatten(1)


class ModalitySpecificDecoder(nn.Module):
    """MSFD: at each time, the modalities' own features, weighed by how much they differ from the mixed ones."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.fusion_s = Attention(num_heads)
        self.proj = nn.Sequential(ConvOverTime(WIDTH, WIDTH, 1))

    def forward(self, mixed: Tensor, upper: Level) -> Tensor:
        """``[routines, 256, T]``, and the modalities of that length → the same shape."""
        query = _per_step(self.proj(mixed))
        choices = torch.stack(upper.features, dim=1).permute(0, 3, 1, 2).flatten(0, 1)
        present = upper.present
        bias = None if present is None else (~present.transpose(1, 2).flatten(0, 1)) * NEVER
        return _per_routine(self.fusion_s(query, choices, bias), len(mixed))


class FusionNets(nn.Module):
    """CMFD: K ways to fuse the modalities, and a policy that says for each time which of them are asked."""

    def __init__(
        self, num_modalities: int, num_nets: int, num_heads: int, ordering: Ordering, pooling: Pooling
    ) -> None:
        super().__init__()
        self.ordering: Ordering = ordering
        self.pooling = pooling
        self.proj1 = nn.ModuleList(
            [
                MaskedSequential(
                    ConvOverTime(WIDTH, WIDTH, 1), MaskedBatchNorm1d(WIDTH), nn.ReLU(), ConvOverTime(WIDTH, num_nets, 1)
                )
                for _ in range(num_modalities)
            ]
        )
        self.ffn = nn.ModuleList([two_convolutions(WIDTH) for _ in range(num_nets)])
        self.fusion_f = Attention(num_heads)
        self.proj2 = nn.Sequential(ConvOverTime(2 * WIDTH, WIDTH, 1))
        self.policy = nn.Sequential(ConvOverTime(num_modalities * WIDTH, num_nets, 1))

    def forward(self, mixed: Tensor, specific: Tensor, lower: Level, tau: Tensor | None) -> tuple[Tensor, Tensor]:
        """``lower``: the modalities before the stage's pooling; ``tau``: of the sampled policy, None takes the arg max.

        Returns ``[routines, 256, T]`` and the choice, ``[routines, K, T]`` of 0 and 1.
        """
        fused = torch.stack([self.pooling.values(net, lower.mask) for net in self._fuse(lower)], dim=2)
        logits = self.pooling.values(self.policy(torch.cat(lower.features, dim=1)), lower.mask)
        choice = choose(logits, tau, self.ordering)
        query = -_per_step(self.proj2(torch.cat([mixed, specific], dim=1)))
        nets = fused.permute(0, 3, 2, 1)
        if self.ordering == "unranked":  # a softmax over one net has no gradient: the choice's own must pass by the net
            nets = nets * choice.transpose(1, 2).unsqueeze(-1)
        bias = attention_bias(choice, self.ordering)
        found = self.fusion_f(query, nets.flatten(0, 1), bias.transpose(1, 2).flatten(0, 1))
        return _per_routine(found, len(mixed)), choice

    def _fuse(self, lower: Level) -> list[Tensor]:
        """Each net's weighted sum of the modalities, refined: K of ``[routines, 256, 2T]``."""
        present = lower.present
        masks = [None] * len(self.proj1) if present is None else present.unbind(1)
        logits = [layer(values, mask) for layer, values, mask in zip(self.proj1, lower.features, masks, strict=True)]
        if present is None:
            weights = torch.softmax(torch.stack(logits, dim=1), dim=1)
        else:
            weights = masked_softmax(torch.stack(logits, dim=1), present.unsqueeze(2), dim=1)
        stacked = torch.stack(lower.features, dim=1)
        sums = [(weights[:, :, k : k + 1] * stacked).sum(1) for k in range(len(self.ffn))]
        return [layer(total, lower.mask) + total for layer, total in zip(self.ffn, sums, strict=True)]


class FusionStage(nn.Module):
    """One stage of the mixed branch: base path, MSFD, CMFD, side by side."""

    def __init__(
        self, num_modalities: int, num_nets: int, ms_heads: int, cm_heads: int, ordering: Ordering, pooling: Pooling
    ) -> None:
        super().__init__()
        self.conv = two_convolutions(3 * WIDTH)
        self.short_cut = MaskedSequential(ConvOverTime(3 * WIDTH, WIDTH, 1), MaskedBatchNorm1d(WIDTH), nn.ReLU())
        self.s_fusion = ModalitySpecificDecoder(ms_heads)
        self.f_fusion = FusionNets(num_modalities, num_nets, cm_heads, ordering, pooling)

    def forward(self, state: Tensor, lower: Level, upper: Level, tau: Tensor | None) -> tuple[Tensor, Tensor]:
        """``state [routines, 768, T]``, T being ``upper``'s → the next state, as large, and the policy's choice."""
        mixed = self.conv(state, upper.mask) + self.short_cut(state, upper.mask)
        specific = self.s_fusion(mixed, upper)
        fused, choice = self.f_fusion(mixed, specific, lower, tau)
        return torch.cat([mixed, specific, fused], dim=1), choice


def two_convolutions(width_in: int) -> MaskedSequential:
    return MaskedSequential(
        ConvOverTime(width_in, WIDTH, 3),
        MaskedBatchNorm1d(WIDTH),
        nn.ReLU(),
        ConvOverTime(WIDTH, WIDTH, 3),
        MaskedBatchNorm1d(WIDTH),
        nn.ReLU(),
    )


def stack_masks(masks: list[Tensor | None]) -> Tensor | None:
    """``[routines, modalities, segments]`` of ``[routines, segments]`` each; None where padding counts as segments."""
    known = [mask for mask in masks if mask is not None]
    return torch.stack(known, dim=1) if known else None


def _per_step(values: Tensor) -> Tensor:
    """``[routines, channels, T]`` → ``[routines · T, channels]``."""
    return values.transpose(1, 2).flatten(0, 1)


def _per_routine(values: Tensor, num_routines: int) -> Tensor:
    return values.unflatten(0, (num_routines, -1)).transpose(1, 2)
