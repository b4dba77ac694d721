"""Average of kernel machines, solved in closed form and selected by cross-validation on the training videos."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .conformal import COVERAGE, half_width, held_out_coverage
from .fitted import Fitted
from .kernel_ridge import Candidate, deal_folds, fit_blend
from .scoring import CrossValidation, ScorePrediction, SegmentBatch
from .video_kernels import VideoKernels

Array = NDArray[np.float64]


class KernelBlend(Fitted):
    """Average of the best kernel machines in cross-validation, with conformal intervals.

    With several streams there are kernels of each stream, and their means as kernels of all streams. For a missing
    stream, a video has the mean similarity to the other videos, so that the stream does not change the score.

    Args:
        kernels: Stream → its kinds of kernels.
        average_best: Number of kernels to average; None for all.
        kind_weights: Weight of each kind of kernels, divided among its kernels; None: all kernels have the same weight.
        ranks: Also fit machines to the ranks of the scores.
        others_weight: Weight of the prediction of the data set's other scores; 0 ignores them.
    """

    bias: Tensor
    neutral: Tensor
    """``[streams, kinds]``: contribution to the score of a video without the stream"""
    errors: Tensor
    """``[training videos]``: errors of predictions by blends that were selected and fitted without the video's fold"""
    cross_validation: CrossValidation | None = None

    def __init__(
        self,
        kernels: Mapping[str, Sequence[VideoKernels]],
        *,
        average_best: int | None = None,
        kind_weights: Sequence[float] | None = None,
        ranks: bool = False,
        others_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.kernels = nn.ModuleDict({stream: nn.ModuleList(kinds) for stream, kinds in kernels.items()})  # type: ignore[arg-type]
        self.streams = tuple(kernels)
        self.average_best = average_best
        self.kind_weights = kind_weights
        self.ranks = ranks
        self.others_weight = others_weight
        self.empty_buffers(bias=0, neutral=2, errors=1)

    def _kinds(self, stream: str) -> list[VideoKernels]:
        return list(self.kernels[stream])  # type: ignore[call-overload]

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        device = next(iter(batch.features.values())).device
        batch = _on_cpu(batch)
        score = self.bias.double().expand(len(batch)).clone()
        for stream, neutral in zip(self.streams, self.neutral.double(), strict=True):
            mask = batch.masks[stream]
            there = mask.any(1)
            for kind, share in zip(self._kinds(stream), neutral, strict=True):
                values = share.repeat(len(batch))
                if there.any():
                    values[there] = kind.weighted(batch.features[stream][there], mask[there]).double()
                score += values
        width = half_width(self.errors.double().numpy())
        score = score.float().to(device)
        # the width is infinite if there are too few training videos for the coverage
        return ScorePrediction(score, interval=(score - width, score + width) if width < math.inf else None)

    def solve(
        self,
        batch: SegmentBatch,
        fractions: Tensor,
        groups: Sequence[int] | None = None,
        others: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Select and fit the kernel machines; see `arabesque.models.scoring.CrossValidating`."""
        batch = _on_cpu(batch)
        scores = fractions.cpu().double().numpy()
        groups = list(range(len(scores))) if groups is None else list(groups)
        grams: dict[tuple[str, int, str], Array] = {}
        """(stream, number of the kind, name) → Gram matrix with deviation 1; missing videos have mean similarities"""
        scales: dict[tuple[str, int, str], float] = {}
        present = {stream: batch.masks[stream].any(1) for stream in self.streams}
        for stream, there in present.items():
            if int(there.sum()) < 2:
                continue
            for number, kind in enumerate(self._kinds(stream)):
                for name, gram in kind.fit(batch.features[stream][there], batch.masks[stream][there]).items():
                    key = stream, number, name
                    full = _with_missing(gram, there.numpy())
                    scales[key] = max(float(np.trace(full) / len(full) - full.mean()), 1e-12)
                    grams[key] = full / scales[key]
        members = _combinations(grams)
        fit = fit_blend(
            {title: np.mean([grams[key] for key in keys], axis=0) for title, keys in members.items()},
            scores,
            groups,
            average_best=self.average_best,
            weights=self._weights(members),
            ranks=self.ranks,
            others=None if others is None else {name: each.double().numpy() for name, each in others.items()},
            others_weight=self.others_weight,
        )
        duals = {key: np.zeros(len(scores)) for key in grams}
        for title, values in fit.blend.duals.items():
            for key in members[title]:
                duals[key] += values / len(members[title])
        self._keep(duals, grams, scales, present)
        self.bias = torch.tensor(fit.blend.bias, dtype=torch.float64)
        self.errors = torch.as_tensor(scores - fit.held_out)
        self.cross_validation = CrossValidation(
            spearman=fit.spearman,
            held_out=tuple(fit.held_out.tolist()),
            chosen=tuple(map(_described, fit.chosen)),
            tried=tuple((_described(each), each.spearman) for each in fit.tried),
            coverage=COVERAGE,
            held_out_coverage=held_out_coverage(scores - fit.held_out, deal_folds(groups)),
        )

    def _weights(self, members: Mapping[str, Sequence[tuple[str, int, str]]]) -> dict[str, float]:
        """Return the weight of each kernel, which is the same for one stream and for all streams."""
        if self.kind_weights is None:
            return dict.fromkeys(members, 1.0)
        kinds = {title: keys[0][1] for title, keys in members.items()}
        sizes = Counter(kinds.values())
        return {title: self.kind_weights[kind] / sizes[kind] for title, kind in kinds.items()}

    def _keep(
        self,
        duals: Mapping[tuple[str, int, str], Array],
        grams: Mapping[tuple[str, int, str], Array],
        scales: Mapping[tuple[str, int, str], float],
        present: Mapping[str, Tensor],
    ) -> None:
        neutral = np.zeros((len(self.streams), max(len(self._kinds(stream)) for stream in self.streams)))
        for row, stream in enumerate(self.streams):
            there = present[stream].numpy()
            for number, kind in enumerate(self._kinds(stream)):
                own: dict[str, Array] = {}
                for key in grams:
                    if key[:2] != (stream, number):
                        continue
                    neutral[row, number] += float(grams[key][there].mean(0) @ duals[key])
                    # the kernel value with a missing video is the mean of the values with the others
                    shared = duals[key][~there].sum() / there.sum()
                    own[key[2]] = (duals[key][there] + shared) / scales[key]
                if own:
                    kind.keep(own)
        self.neutral = torch.as_tensor(neutral)


def _on_cpu(batch: SegmentBatch) -> SegmentBatch:
    """Return the batch on the CPU, because a device is not faster for the small matrices of kernel machines."""
    return SegmentBatch(
        {stream: values.cpu() for stream, values in batch.features.items()},
        {stream: mask.cpu() for stream, mask in batch.masks.items()},
    )


def _with_missing(gram: Array, there: NDArray[np.bool_]) -> Array:
    """Return the matrix with rows and columns for missing videos, whose features are the mean of the others."""
    full = np.empty((len(there), len(there)))
    full[np.ix_(there, there)] = gram
    full[np.ix_(~there, there)] = gram.mean(0)
    full[np.ix_(there, ~there)] = gram.mean(1)[:, None]
    full[np.ix_(~there, ~there)] = gram.mean()
    return full


def _combinations(grams: Mapping[tuple[str, int, str], Array]) -> dict[str, list[tuple[str, int, str]]]:
    """Return title → kernels to average: each single kernel, and each kernel over all streams."""
    streams = list(dict.fromkeys(stream for stream, _, _ in grams))
    found = {f"{stream}: {name}": [(stream, number, name)] for stream, number, name in grams}
    if len(streams) > 1:
        for _, number, name in [key for key in grams if key[0] == streams[0]]:
            found[f"all streams: {name}"] = [(stream, number, name) for stream in streams]
    return found


def _described(candidate: Candidate) -> str:
    return f"{candidate.kernel}, ridge {candidate.ridge:g}, fitted to {candidate.target}"
