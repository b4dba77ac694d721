"""Kernel ridge regression with several kernels, selected and averaged by nested cross-validation on training videos."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
from scipy.stats import rankdata  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from .metrics import spearman_rows

Array = NDArray[np.float64]
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Ridge as a multiple of the mean squared norm of the centered training videos in feature space"""
NUM_FOLDS = 5


@dataclass(frozen=True)
class Candidate:
    """A kernel machine that was tried."""

    kernel: str
    ridge: float
    target: str
    """Target of the fit: ``score``, ``ranks`` (normal quantiles of the scores' ranks) or another score"""
    spearman: float
    """Correlation on held-out training videos, see `fold_spearman`"""


@dataclass(frozen=True, eq=False)
class Blend:
    """A weighted sum of kernel machines: ``score = bias + Σ_kernel k(video, training videos) @ duals[kernel]``."""

    bias: float
    duals: Mapping[str, Array]
    """Kernel → ``[training videos]``; kernels without weight are left out"""


@dataclass(frozen=True, eq=False)
class Fit:
    """Result of `fit_blend`."""

    blend: Blend
    chosen: tuple[Candidate, ...]
    """The machines of the blend, best first"""
    tried: tuple[Candidate, ...]
    """All machines, best first"""
    held_out: Array
    """``[training videos]``: prediction of each video by a blend that was selected and fitted without its fold"""
    spearman: float
    """Correlation of ``held_out``, see `fold_spearman`"""


def deal_folds(groups: Sequence[int], num_folds: int = NUM_FOLDS) -> list[NDArray[np.intp]]:
    """Distribute videos over folds in a fixed random order, with videos of the same group in the same fold.

    Args:
        groups: Group of each video. Copies of a video are one group.
        num_folds: Largest number of folds; there are fewer if there are fewer groups.

    Returns:
        The sorted row indices of each fold.
    """
    labels = np.asarray(groups)
    order = np.random.default_rng(0).permutation(np.unique(labels))
    folds: list[list[int]] = [[] for _ in range(min(num_folds, len(order)))]
    for group in order:
        min(folds, key=len).extend(np.flatnonzero(labels == group).tolist())
    return [np.sort(np.array(fold, dtype=np.intp)) for fold in folds]


def fold_spearman(predicted: Array, true: Array, folds: Sequence[NDArray[np.intp]]) -> Array:
    """Return the mean of the folds' rank correlations, or the correlation over all videos if a fold has less than ten.

    The mean is preferred because machines of different folds have different offsets, which influence a correlation
    over all videos.

    Args:
        predicted: ``[..., videos]``.
        true: ``[videos]``.
        folds: Indices of the videos of each fold.

    Returns:
        ``[...]``; a correlation with constant predictions counts as 0.
    """
    parts = _parts(folds)
    found = [
        spearman_rows(predicted[..., part], np.broadcast_to(true[part], predicted[..., part].shape)) for part in parts
    ]
    return np.mean(np.nan_to_num(found), axis=0)


def _parts(folds: Sequence[NDArray[np.intp]]) -> Sequence[NDArray[np.intp]]:
    return [np.concatenate(folds)] if min(map(len, folds)) < 10 else folds


def clear_gain(changed: Array, plain: Array, true: Array, folds: Sequence[NDArray[np.intp]]) -> bool:
    """Return whether changed predictions are better than plain ones by more than the standard error of the gain.

    The gain is the difference in `fold_spearman`; its standard error is that of a jackknife that leaves out one fold at
    a time. For a mean over folds this is the usual standard error of the mean.

    Args:
        changed: ``[videos]``: held-out predictions.
        plain: ``[videos]``: held-out predictions of the simpler choice.
        true: ``[videos]``.
        folds: Indices of the videos of each fold. With a single fold the result is False.
    """
    if len(folds) < 2:
        return False

    def gain(parts: Sequence[NDArray[np.intp]]) -> float:
        both = np.stack([changed, plain])
        better, worse = np.mean(
            [np.nan_to_num(spearman_rows(both[:, part], np.stack([true[part]] * 2))) for part in parts], axis=0
        )
        return float(better - worse)

    pooled = len(_parts(folds)) == 1
    kept = [[*folds[:number], *folds[number + 1 :]] for number in range(len(folds))]
    left_out = np.array([gain([np.concatenate(each)] if pooled else each) for each in kept])
    standard_error = float(np.sqrt((len(folds) - 1) * left_out.var()))
    return gain(_parts(folds)) > standard_error


def normal_quantiles(scores: Array) -> Array:
    """Return the normal quantiles of the scores' ranks: mean 0, deviation about 1, no outliers."""
    return np.asarray(ndtri((np.asarray(rankdata(scores), np.float64) - 0.5) / len(scores)), np.float64)


def solve_path(kernels: Array, targets: Array, ridges: Sequence[float]) -> tuple[Array, Array]:
    """Solve centered kernel ridge regression for all ridges with one eigendecomposition per kernel.

    Args:
        kernels: ``[kernels, videos, videos]`` between training videos.
        targets: ``[videos, targets]``.
        ridges: See `RIDGES`.

    Returns:
        ``duals [kernels, ridges, targets, videos]`` and ``biases [kernels, ridges, targets]``: the prediction of a
        video is ``bias + k(video, training videos) @ duals``.
    """
    row_means = kernels.mean(-1)
    centered = kernels - row_means[:, None] - row_means[:, :, None] + row_means.mean(-1)[:, None, None]
    scales = np.trace(centered, axis1=1, axis2=2).clip(1e-12) / len(targets)
    values, vectors = np.linalg.eigh(centered / scales[:, None, None])
    projected = (targets - targets.mean(0)).T @ vectors  # [kernels, targets, videos]
    shrunk = projected[:, None] / (values.clip(0)[:, None, None] + np.array(ridges)[:, None, None])
    duals = shrunk @ vectors.transpose(0, 2, 1)[:, None] / scales[:, None, None, None]
    return duals, targets.mean(0) - (duals * row_means[:, None, None]).sum(-1)


def fit_blend(
    kernels: Mapping[str, Array],
    scores: Array,
    groups: Sequence[int],
    *,
    average_best: int | None = None,
    weights: Mapping[str, float] | None = None,
    ridges: Sequence[float] = RIDGES,
    ranks: bool = False,
    others: Mapping[str, Array] | None = None,
    others_weight: float = 0.0,
) -> Fit:
    """Average the best kernel machines in cross-validation, and estimate their quality by nested folds.

    Each kernel has its best ridge and target. The outer folds repeat the whole selection without the videos that they
    predict, so that the held-out predictions are unbiased.

    Args:
        kernels: Name → ``[videos, videos]`` between training videos.
        scores: ``[videos]``.
        groups: Group of each video; copies of a video are one group.
        average_best: Number of kernels to average; None for all.
        weights: Weight of each kernel; None for equal weights.
        ridges: Ridges to try.
        ranks: Also fit to the ranks of the scores.
        others: Other scores of the same videos, ``[videos]`` each.
        others_weight: Weight of the mean of the other scores' predictions, in units of standard deviations; the weight
            of the score itself is 1. They are used only if they improve the held-out predictions by more than the
            standard error of the gain (`clear_gain`).
    """
    weights = weights or dict.fromkeys(kernels, 1.0)
    chooser = _Chooser(kernels, weights, average_best, ridges, ranks, others_weight if others else 0.0)
    others = others or dict[str, Array]()
    folds = deal_folds(groups)
    held_out = np.empty_like(scores)
    for fold in folds:
        rest = np.setdiff1d(np.arange(len(scores)), fold)
        blend, *_ = chooser.fit(rest, scores[rest], [groups[int(row)] for row in rest], _part(others, rest))
        held_out[fold] = blend.bias + sum(
            kernels[name][np.ix_(fold, rest)] @ duals for name, duals in blend.duals.items()
        )
    blend, chosen, tried = chooser.fit(np.arange(len(scores)), scores, groups, others)
    return Fit(blend, chosen, tried, held_out, float(fold_spearman(held_out, scores, folds)))


def _part(values: Mapping[str, Array], rows: NDArray[np.intp]) -> dict[str, Array]:
    return {name: value[rows] for name, value in values.items()}


@dataclass(frozen=True, eq=False)
class _Chooser:
    kernels: Mapping[str, Array]
    weights: Mapping[str, float]
    average_best: int | None
    ridges: Sequence[float]
    ranks: bool
    others_weight: float

    def fit(
        self, rows: NDArray[np.intp], scores: Array, groups: Sequence[int], others: Mapping[str, Array]
    ) -> tuple[Blend, tuple[Candidate, ...], tuple[Candidate, ...]]:
        """Select and fit machines on these rows. All arrays except the kernels have the length of ``rows``."""
        targets = {"score": _unit(scores)}
        if self.ranks:
            targets["ranks"] = normal_quantiles(scores)
        num_own = len(targets)
        if self.others_weight:
            targets |= {name: _unit(values) for name, values in others.items()}
        wanted = np.stack(list(targets.values()), axis=1)
        kernels = np.stack([kernel[np.ix_(rows, rows)] for kernel in self.kernels.values()])
        folds = deal_folds(groups)
        held_out = self._held_out(kernels, wanted, folds)
        quality = np.stack(
            [fold_spearman(held_out[:, :, column], wanted[:, column], folds) for column in range(len(targets))], axis=-1
        )
        names, titles = list(self.kernels), list(targets)
        tried = [
            Candidate(names[kernel], self.ridges[ridge], titles[column], float(value))
            for (kernel, ridge, column), value in cast(
                "Iterable[tuple[tuple[int, int, int], float]]", np.ndenumerate(quality)
            )
        ]
        tried.sort(key=lambda each: -each.spearman)
        duals, biases = solve_path(kernels, wanted, self.ridges)
        blend = _Sum(held_out, duals, biases)
        self._add(blend, self._best(quality, range(num_own)), 1.0)
        if num_own < len(targets):
            joint = deepcopy(blend)
            for column in range(num_own, len(targets)):
                self._add(joint, self._best(quality, [column]), self.others_weight / (len(targets) - num_own))
            blend = joint if clear_gain(joint.predicted, blend.predicted, scores, folds) else blend
        chosen = [Candidate(names[k], self.ridges[r], titles[c], float(quality[k, r, c])) for k, r, c in blend.members]
        return blend.fitted_to(scores, names), tuple(chosen), tuple(tried)

    def _held_out(self, kernels: Array, wanted: Array, folds: Sequence[NDArray[np.intp]]) -> Array:
        """Return ``[kernels, ridges, targets, videos]``: predictions by machines fitted without the video's fold."""
        predicted = np.empty((len(kernels), len(self.ridges), wanted.shape[1], len(wanted)))
        for fold in folds:
            rest = np.setdiff1d(np.arange(len(wanted)), fold)
            duals, biases = solve_path(kernels[:, rest[:, None], rest], wanted[rest], self.ridges)
            predicted[..., fold] = duals @ kernels[:, None, rest[:, None], fold] + biases[..., None]
        return predicted

    def _add(self, blend: _Sum, machines: Sequence[tuple[int, int, int]], weight: float) -> None:
        """Add machines. Their weights are proportional to those of their kernels, with the sum ``weight``."""
        shares = [self.weights[list(self.kernels)[kernel]] for kernel, _, _ in machines]
        for machine, share in zip(machines, shares, strict=True):
            blend.add(machine, weight * share / sum(shares))

    def _best(self, quality: Array, columns: Sequence[int]) -> list[tuple[int, int, int]]:
        """Return the best machine of each kernel for these targets, best first."""
        found: list[tuple[float, tuple[int, int, int]]] = []
        for kernel, own in enumerate(quality[:, :, list(columns)]):
            ridge, column = np.unravel_index(int(np.argmax(own)), own.shape)
            found.append((float(own[ridge, column]), (kernel, int(ridge), columns[int(column)])))
        found.sort(key=lambda each: -each[0])
        return [machine for _, machine in found[: self.average_best]]


class _Sum:
    """A sum of machines, each divided by the deviation of its held-out predictions."""

    def __init__(self, held_out: Array, duals: Array, biases: Array) -> None:
        self._held_out, self._duals, self._biases = held_out, duals, biases
        self.predicted = np.zeros(held_out.shape[-1])
        """``[videos]``: the sum of the held-out predictions"""
        self._bias = 0.0
        self._sum: dict[int, Array] = {}
        self.members: list[tuple[int, int, int]] = []

    def add(self, machine: tuple[int, int, int], weight: float) -> None:
        predicted = self._held_out[machine]
        scale = weight / max(float(predicted.std()), 1e-12)
        self.predicted += scale * predicted
        self._bias += scale * float(self._biases[machine])
        self._sum[machine[0]] = self._sum.get(machine[0], 0) + scale * self._duals[machine]
        self.members.append(machine)

    def fitted_to(self, scores: Array, names: Sequence[str]) -> Blend:
        """Map the sum to scores by least squares on the held-out predictions."""
        centered = self.predicted - self.predicted.mean()
        slope = max(float(centered @ scores) / max(float(centered @ centered), 1e-12), 0.0)
        intercept = float(scores.mean() - slope * self.predicted.mean())
        duals = {names[kernel]: slope * values for kernel, values in self._sum.items()}
        return Blend(intercept + slope * self._bias, duals)


def _unit(values: Array) -> Array:
    return (values - values.mean()) / (values.std() or 1.0)
