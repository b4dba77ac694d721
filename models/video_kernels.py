"""Similarities of videos (kernels) in one stream, from pooled statistics or from pairs of segments at similar times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .fitted import Fitted
from .pooled_statistics import PARTS, STATISTICS, pooled_statistics, relative_bounds

Array = NDArray[np.float64]


class VideoKernels(Protocol):
    """Kernels between the videos of one stream. All videos have at least one segment."""

    def fit(self, features: Tensor, mask: Tensor) -> dict[str, Array]:
        """Store the training videos; return name → kernel ``[videos, videos]``."""
        ...

    def keep(self, duals: Mapping[str, Array]) -> None:
        """Store the weight of each training video in each kernel."""
        ...

    def weighted(self, features: Tensor, mask: Tensor) -> Tensor:
        """Return ``float64 [samples]``: the weighted sum of the kernels with the training videos."""
        ...


SETS: Mapping[str, Sequence[str]] = {
    name: name.split(" + ")
    for name in (
        "mean",
        "2 parts",
        "4 parts",
        "8 parts",
        "deviation",
        "step",
        "mean + deviation",
        "mean + deviation + step",
        "4 parts + deviation",
        "4 parts + deviation + step",
        "8 parts + deviation + step",
    )
}
"""Name → statistics of `pooled_statistics` that a kernel compares together"""
NUM_PARTS = {"mean": 1, "2 parts": 2, "4 parts": 4, "8 parts": PARTS}


class StatisticsKernels(Fitted):
    """Gaussian kernels on standardized pooled statistics: ``exp(-width · distance² / median distance²)``.

    Means of parts are weighted so that each statistic has the same influence.

    Args:
        sets: Names of `SETS`.
        widths: Factors on the inverse of the median squared distance.
    """

    statistics: Tensor
    """``[videos, 10, dim]``: statistics of the training videos"""
    medians: Tensor
    """``[sets]``: median squared distance of training videos"""
    duals: Tensor
    """``[sets, widths, videos]``"""

    def __init__(self, sets: Sequence[str] = tuple(SETS), widths: Sequence[float] = (0.5, 1.0, 2.0)) -> None:
        super().__init__()
        self.sets = tuple(sets)
        self.widths = tuple(widths)
        self.empty_buffers(statistics=3, medians=1, duals=3)

    def fit(self, features: Tensor, mask: Tensor) -> dict[str, Array]:
        self.statistics = pooled_statistics(features, mask)
        found: dict[str, Array] = {}
        medians: list[float] = []
        for name in self.sets:
            train = self._standardized(self.statistics, name)
            distances = _squared_distances(train, train)
            off_diagonal = distances[~torch.eye(len(train), dtype=torch.bool)]
            medians.append(max(float(off_diagonal.median()), 1e-12) if len(off_diagonal) else 1.0)
            for width in self.widths:
                found[f"{name}, width {width:g}"] = torch.exp(-width / medians[-1] * distances).numpy()
        self.medians = torch.tensor(medians, dtype=torch.float64)
        return found

    def keep(self, duals: Mapping[str, Array]) -> None:
        none = np.zeros(len(self.statistics))
        self.duals = torch.as_tensor(
            np.array([[duals.get(f"{name}, width {width:g}", none) for width in self.widths] for name in self.sets])
        )

    def weighted(self, features: Tensor, mask: Tensor) -> Tensor:
        statistics = pooled_statistics(features, mask)
        total = torch.zeros(len(statistics), dtype=torch.float64)
        for number, name in enumerate(self.sets):
            if not self.duals[number].any():
                continue
            distances = (
                _squared_distances(self._standardized(statistics, name), self._standardized(self.statistics, name))
                / self.medians[number].double()
            )
            for width, duals in zip(self.widths, self.duals[number].double(), strict=True):
                total += torch.exp(-width * distances) @ duals
        return total

    def _standardized(self, statistics: Tensor, name: str) -> Tensor:
        """Return the statistics of the set, standardized over the training videos: ``float64 [samples, values]``."""
        return torch.cat(
            [_scaled(_select(statistics, part), _select(self.statistics, part)) for part in SETS[name]], dim=1
        )


def _select(statistics: Tensor, name: str) -> Tensor:
    if name in NUM_PARTS:
        count = NUM_PARTS[name]
        parts = statistics[:, :PARTS]
        return parts.reshape(len(parts), count, PARTS // count, -1).mean(2).double() / count**0.5
    return statistics[:, [PARTS if name == "deviation" else STATISTICS - 1]].double()


def _scaled(values: Tensor, train: Tensor) -> Tensor:
    factor = values.shape[1] ** 0.5  # remove the weight of parts from the deviation, keep it in the result
    center, spread = train.mean(0), train.std(0, correction=0) * factor
    spread = torch.where(spread > 1e-6 * center.abs().clamp(min=1e-6), spread, torch.inf)
    return ((values - center) / spread).flatten(1)


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp(min=0)


class SegmentKernels(Fitted):
    """Kernels that compare each segment of one video with the segments of the other at similar times.

    ``k(x, y) = mean_st exp(-‖x_s − y_t‖² / (2 · width · m)) · exp(-(s − t)² / 2 span²)``, divided by
    ``√(k(x, x) k(y, y))``; ``s`` and ``t`` are relative times (0 to 1), ``m`` is the median squared norm. First,
    features are rotated to their principal components, of which the first 512 are divided by the fourth root of their
    variance, i.e. half of a whitening.

    The first factor is approximated with landmarks, which are segments of the training videos (Nyström's method), and
    the second by sums over windows. A kernel is then a scalar product of ``[windows · landmarks]`` values per video.

    Args:
        width: Factor on the squared distance at which two segments are similar.
        spans: Standard deviations of the time difference, as fractions of the program; there is one kernel for each.
        num_landmarks: Maximum number of landmarks.
        components: Maximum number of principal components.
        seed: Seed of the choice of landmarks.
    """

    center: Tensor
    projection: Tensor
    """``[dim, components]``"""
    landmarks: Tensor
    """``[landmarks, components]``"""
    scale: Tensor
    """``2 · width · m``"""
    root: Tensor
    """``[landmarks, rank]``: inverse square root of the similarities between landmarks"""
    weights: Tensor
    """``[windows of all spans, rank]``: the score is a scalar product with these"""

    def __init__(
        self,
        width: float = 0.6,
        spans: Sequence[float] = (0.05, 0.09, 0.15),
        *,
        num_landmarks: int = 2048,
        components: int = 512,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.width = width
        self.spans = tuple(spans)
        self.num_landmarks = num_landmarks
        self.components = components
        self.seed = seed
        self.empty_buffers(center=1, projection=2, landmarks=2, scale=0, root=2, weights=2)
        self._train: list[Tensor] = []

    @property
    def names(self) -> list[str]:
        """Names of the kernels, one for each span."""
        return [f"segments, seed {self.seed}, width {self.width:g}, span {span:g}" for span in self.spans]

    def fit(self, features: Tensor, mask: Tensor) -> dict[str, Array]:
        segments = features[mask]
        self._learn_projection(segments)
        order = torch.randperm(len(segments), generator=torch.Generator().manual_seed(self.seed))
        projected = (segments - self.center) @ self.projection
        self.landmarks = projected[order[: self.num_landmarks].sort().values]
        self.scale = (2 * self.width * projected.square().sum(1).median()).clamp(min=1e-12)
        values, vectors = _eigenvectors(self._similarities(self.landmarks).double())
        used = values > 1e-6 * values[-1]
        self.root = (vectors[:, used] / values[used].sqrt()).to(features.dtype)
        self._train = list(self._maps(features, mask))
        grams = [(maps.flatten(1) @ maps.flatten(1).T).double().numpy() for maps in self._train]
        return dict(zip(self.names, grams, strict=True))

    def keep(self, duals: Mapping[str, Array]) -> None:
        none = np.zeros(len(self._train[0]))
        weights = [
            torch.einsum("v,v...->...", torch.as_tensor(duals.get(name, none)).to(maps.dtype), maps)
            for name, maps in zip(self.names, self._train, strict=True)
        ]
        self.weights = torch.cat(weights)
        self._train = []

    def weighted(self, features: Tensor, mask: Tensor) -> Tensor:
        maps = torch.cat(list(self._maps(features.to(self.root.dtype), mask)), dim=1)
        return (maps.double() * self.weights.double()).sum((1, 2))

    def _learn_projection(self, segments: Tensor) -> None:
        self.center = segments.double().mean(0).to(segments.dtype)
        centered = (segments - self.center).double()
        variances, axes = _eigenvectors(centered.T @ centered / len(centered))
        used = (variances > 1e-6 * variances[-1].clamp(min=1e-12)).nonzero().flatten()[-self.components :]
        self.projection = (axes[:, used] / variances[used] ** 0.25).to(segments.dtype)

    def _similarities(self, segments: Tensor) -> Tensor:
        """Return the first factor of the kernel, ``[segments, landmarks]``."""
        return torch.exp(-_squared_distances(segments, self.landmarks) / self.scale)

    def _maps(self, features: Tensor, mask: Tensor) -> Iterator[Tensor]:
        """Yield for each span the features whose scalar products are the kernel, ``[videos, windows, rank]``."""
        begin, end = relative_bounds(mask)
        times = (begin + end) / 2
        windows = [_windows(times, mask, span).to(features.dtype) for span in self.spans]
        pooled: list[list[Tensor]] = [[] for _ in self.spans]
        for row, (video, present) in enumerate(zip(features, mask, strict=True)):
            similar = self._similarities((video[present] - self.center) @ self.projection)
            for found, weights in zip(pooled, windows, strict=True):
                found.append(weights[row][:, present] @ similar)
        for found in pooled:
            maps = torch.stack(found) @ self.root
            yield maps / maps.square().sum((1, 2), keepdim=True).sqrt().clamp(min=1e-12)


def _windows(times: Tensor, mask: Tensor, span: float) -> Tensor:
    """Return Gaussian windows over the program, ``[videos, windows, segments]``; zeros for masked segments.

    The product of two windows, summed over all of them, is nearly proportional to ``exp(-(s − t)² / 2 span²)``.
    """
    step = 0.7 * span
    centers = step * torch.arange(math.ceil(1 / step) + 1, dtype=torch.float64)
    weights = torch.exp(-((times[:, None] - centers[:, None]) ** 2) / span**2)
    return weights * mask[:, None] / mask.sum(1)[:, None, None]


def _eigenvectors(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, ascending, and eigenvectors as columns."""
    values, vectors = cast("tuple[Tensor, Tensor]", torch.linalg.eigh(symmetric))  # pyright: ignore[reportUnknownMemberType]
    return values, vectors
