"""One stage of PAMFN's mixed branch: base path, modality-specific (MSFD) and cross-modal (CMFD) decoders."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from ..manifests.streams import Record
from .fusion_policy import NEVER, Ordering, attention_bias, choose
from .masked_layers import ConvOverTime, MaskedBatchNorm1d, MaskedSequential, Pooling
from .masking import masked_softmax
from .pamfn_branch import WIDTH

Decoder = Literal["attention", "weighted", "none"]
"""A feature decoder: the published cross-attention, learnable weights instead, or no decoder (Table VI)"""


class FusionSettings(Record):
    """Settings of the fusion. The defaults are ``rg-feats2`` of `pamfn.PUBLISHED` (18.06 M parameters in the paper)."""

    num_nets: PositiveInt = 6
    """Number of FusionNets, K"""
    ms_heads: PositiveInt = 4
    """Attention heads of the modality-specific decoder"""
    cm_heads: PositiveInt = 2
    """Attention heads of the cross-modal decoder"""
    fc_ratio: PositiveInt = 1
    """The regressor has ``256 // fc_ratio`` channels."""
    fc_dropout: NonNegativeFloat = 0.3
    """Dropout before the regressor"""
    feature_dropout: NonNegativeFloat = 0.3
    """Dropout on the features of the branches"""
    branch_dropout: NonNegativeFloat = 0.3
    """Dropout before the regressors of the branches"""
    ordering: Ordering = "ranked"
    """Policy of the FusionNets, see `fusion_policy`"""
    msfd: Decoder = "attention"
    """The modality-specific feature decoder"""
    cmfd: Decoder = "attention"
    """The cross-modal feature decoder, which consists of the FusionNets"""
    fusion_stages: Literal[1, 2, 3] = 3
    """Number of stages that fuse modalities (Table VIII); later stages have the base path only"""
    stochastic: bool = False
    """Whether the policy is also sampled in evaluation, as in the released code, instead of using the arg max"""


@dataclass(frozen=True, eq=False)
class Level:
    """Features of all modalities at one time scale."""

    features: list[Tensor]
    """One ``[samples, 256, T]`` per modality"""
    present: Tensor | None
    """``bool [samples, modalities, T]``; None if padding counts as segments"""

    @property
    def mask(self) -> Tensor | None:
        """``bool [samples, T]``: True where any modality is present."""
        return None if self.present is None else self.present.any(1)


class Attention(nn.Module):
    """Multi-head attention with negated scores, so that values that differ from the query have high weights.

    ``norm`` is not used, but released checkpoints contain it.
    """

    def __init__(self, num_heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.linear_layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(3)])
        self.norm = nn.LayerNorm(WIDTH).requires_grad_(False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, values: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attend to the choices at each step.

        Args:
            query: ``[n, 256]``.
            values: ``[n, choices, 256]``.
            bias: ``[n, choices]``, added to the scores.

        Returns:
            ``[n, 256]``, and the weights without dropout, averaged over the heads: ``[n, choices]``.
        """
        heads = (self.num_heads, WIDTH // self.num_heads)
        to_query, to_key, to_value = self.linear_layers
        asked = to_query(query).unflatten(-1, heads)
        keys = to_key(values).unflatten(-1, heads)
        offered = to_value(values).unflatten(-1, heads)
        scores = -torch.einsum("nhd,nchd->nhc", asked, keys) / math.sqrt(heads[1])
        if bias is not None:
            scores = scores + bias.unsqueeze(1)
        weights = torch.softmax(scores, dim=-1)
        return torch.einsum("nhc,nchd->nhd", self.dropout(weights), offered).flatten(1), weights.mean(1)


class ModalitySpecificDecoder(nn.Module):
    """MSFD: features of the modalities, weighted at each time step by their difference from the mixed features.

    ``weighted`` replaces the attention by one learnable weight per modality, with a softmax over the modalities.
    """

    def __init__(self, num_modalities: int, num_heads: int, decoder: Decoder) -> None:
        super().__init__()
        self.decoder: Decoder = decoder
        if decoder == "weighted":
            self.weights = nn.Parameter(torch.zeros(num_modalities))
        else:
            self.fusion_s = Attention(num_heads)
            self.proj = nn.Sequential(ConvOverTime(WIDTH, WIDTH, 1))

    def forward(self, mixed: Tensor, upper: Level) -> tuple[Tensor, Tensor]:
        """Return features of the shape of ``mixed [samples, 256, T]``, and weights ``[samples, T, modalities]``."""
        choices = torch.stack(upper.features, dim=1).permute(0, 3, 1, 2).flatten(0, 1)
        present = upper.present
        bias = None if present is None else (~present.transpose(1, 2).flatten(0, 1)) * NEVER
        if self.decoder == "weighted":
            found, weights = weighted_sum(self.weights, choices, bias)
        else:
            found, weights = self.fusion_s(_per_step(self.proj(mixed)), choices, bias)
        return _per_sample(found, len(mixed)), torch.unflatten(weights, 0, (len(mixed), -1))


def weighted_sum(logits: Tensor, values: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sum choices weighted by a softmax of learnable numbers, the same at every step.

    Args:
        logits: ``[choices]``.
        values: ``[n, choices, 256]``.
        bias: ``[n, choices]``, added to the logits.

    Returns:
        ``[n, 256]`` and the weights ``[n, choices]``.
    """
    weights = torch.softmax(logits.expand(values.shape[:2]) + (0.0 if bias is None else bias), dim=-1)
    return torch.einsum("nc,ncd->nd", weights, values), weights


class FusionNets(nn.Module):
    """CMFD: K networks that fuse the modalities, and a policy that selects networks at each time step.

    ``weighted`` replaces the attention by one learnable weight per network, with a softmax over the enabled ones.
    """

    def __init__(self, num_modalities: int, settings: FusionSettings, pooling: Pooling) -> None:
        super().__init__()
        num_nets = settings.num_nets
        self.ordering: Ordering = settings.ordering
        self.decoder: Decoder = settings.cmfd
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
        if settings.cmfd == "weighted":
            self.weights = nn.Parameter(torch.zeros(num_nets))
        else:
            self.fusion_f = Attention(settings.cm_heads)
            self.proj2 = nn.Sequential(ConvOverTime(2 * WIDTH, WIDTH, 1))
        if settings.ordering != "free":
            self.policy = nn.Sequential(ConvOverTime(num_modalities * WIDTH, num_nets, 1))

    def forward(
        self, mixed: Tensor, specific: Tensor | None, lower: Level, tau: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return ``[samples, 256, T]`` and the decision, ``[samples, K, T]`` of 0 and 1.

        ``specific``: output of the MSFD, zeros if there is none; ``lower``: modalities before the pooling of the stage;
        ``tau``: temperature of the sampled policy, None for the arg max.
        """
        fused = torch.stack([self.pooling.values(net, lower.mask) for net in self._fuse(lower)], dim=2)
        nets = fused.permute(0, 3, 2, 1)
        if self.ordering == "free":
            choice = torch.ones_like(fused[:, 0])
            bias = None
        else:
            logits = self.pooling.values(self.policy(torch.cat(lower.features, dim=1)), lower.mask)
            choice = choose(logits, tau)
            if self.ordering == "unranked":
                # a softmax over one net has no gradient, so the gradient of the decision is passed by the product
                nets = nets * choice.transpose(1, 2).unsqueeze(-1)
            bias = attention_bias(choice, self.ordering).transpose(1, 2).flatten(0, 1)
        if self.decoder == "weighted":
            found, _ = weighted_sum(self.weights, nets.flatten(0, 1), bias)
        else:
            other = torch.zeros_like(mixed) if specific is None else specific
            query = -_per_step(self.proj2(torch.cat([mixed, other], dim=1)))
            found, _ = self.fusion_f(query, nets.flatten(0, 1), bias)
        return _per_sample(found, len(mixed)), choice

    def _fuse(self, lower: Level) -> list[Tensor]:
        """Return the output of each FusionNet on its weighted sum of the modalities: K of ``[samples, 256, 2T]``."""
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


@dataclass(frozen=True, eq=False)
class StageOutput:
    """Output of one stage of the mixed branch."""

    state: Tensor
    """``[samples, width_out, T]``"""
    choice: Tensor | None
    """Decision of the policy, ``[samples, K, T]`` of 0 and 1; None without a CMFD"""
    modality_weights: Tensor | None
    """Weights of the modalities in the MSFD, ``[samples, T, modalities]``; None without an MSFD"""


class FusionStage(nn.Module):
    """One stage of the mixed branch: the concatenated outputs of base path, MSFD and CMFD.

    The width of the output is 256 for each of these parts that the stage has.
    """

    def __init__(
        self, num_modalities: int, width_in: int, settings: FusionSettings, pooling: Pooling, *, fuses: bool = True
    ) -> None:
        super().__init__()
        self.conv = two_convolutions(width_in)
        self.short_cut = MaskedSequential(ConvOverTime(width_in, WIDTH, 1), MaskedBatchNorm1d(WIDTH), nn.ReLU())
        self.s_fusion = self.f_fusion = None
        if fuses and settings.msfd != "none":
            self.s_fusion = ModalitySpecificDecoder(num_modalities, settings.ms_heads, settings.msfd)
        if fuses and settings.cmfd != "none":
            self.f_fusion = FusionNets(num_modalities, settings, pooling)
        self.width_out = WIDTH * (1 + (self.s_fusion is not None) + (self.f_fusion is not None))

    def forward(self, state: Tensor, lower: Level, upper: Level, tau: Tensor | None) -> StageOutput:
        """Return next state, choice and weights for ``state [samples, width_in, T]``, T that of ``upper``."""
        mixed = self.conv(state, upper.mask) + self.short_cut(state, upper.mask)
        specific = weights = choice = None
        parts = [mixed]
        if self.s_fusion is not None:
            specific, weights = self.s_fusion(mixed, upper)
            parts.append(specific)
        if self.f_fusion is not None:
            fused, choice = self.f_fusion(mixed, specific, lower, tau)
            parts.append(fused)
        return StageOutput(torch.cat(parts, dim=1), choice, weights)


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
    """Stack masks ``[samples, segments]`` to ``[samples, modalities, segments]``; None without masks."""
    known = [mask for mask in masks if mask is not None]
    return torch.stack(known, dim=1) if known else None


def _per_step(values: Tensor) -> Tensor:
    """Reshape ``[samples, channels, T]`` to ``[samples · T, channels]``."""
    return values.transpose(1, 2).flatten(0, 1)


def _per_sample(values: Tensor, num_samples: int) -> Tensor:
    return values.reshape(num_samples, -1, values.shape[1]).transpose(1, 2)
