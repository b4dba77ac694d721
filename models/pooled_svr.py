"""Baseline: average or maximum pooling over time and linear support vector regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from ..manifests.optional_packages import require_package
from ..manifests.streams import Record
from .masking import masked_max, masked_mean
from .metrics import spearman
from .scoring import ScorePrediction, SegmentBatch

Pooling = Literal["average", "max"]
COSTS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)


class PooledSvrSettings(Record):
    pooling: Pooling = "average"
    cost: PositiveFloat | None = None
    """Parameter C of the SVR for features and scores of standard deviation 1; None selects one of `COSTS` by five-fold
    cross-validation on the training videos."""
    epsilon: NonNegativeFloat = 0.1


class PooledSvr(nn.Module):
    """Linear regression on pooled features, fitted by scikit-learn (`solve`)."""

    Settings: ClassVar[type[Record]] = PooledSvrSettings
    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = False
    order_invariant: ClassVar[bool] = True
    weight: Tensor
    bias: Tensor

    def __init__(self, dims: Mapping[str, int], settings: PooledSvrSettings) -> None:
        super().__init__()
        self.dims = dict(dims)
        self.settings = settings
        self.register_buffer("weight", torch.zeros(sum(dims.values()), dtype=torch.float64))
        self.register_buffer("bias", torch.zeros((), dtype=torch.float64))

    def forward(self, batch: SegmentBatch) -> ScorePrediction:
        return ScorePrediction((self._pooled(batch).double() @ self.weight + self.bias).float())

    def solve(self, batch: SegmentBatch, fractions: Tensor) -> None:
        """Fit to all training videos; ``fractions [samples]`` are their scores."""
        require_package("sklearn", "scoring model pooled-svr")
        pooled, wanted = self._pooled(batch).cpu().double().numpy(), fractions.cpu().double().numpy()
        center, spread = pooled.mean(0), pooled.std(0)
        spread[spread < 1e-9] = 1
        scaled = (pooled - center) / spread
        middle, deviation = wanted.mean(), wanted.std() or 1.0
        targets = (wanted - middle) / deviation
        cost = self.settings.cost if self.settings.cost is not None else self._best_cost(scaled, targets)
        slope, intercept = self._fit(scaled, targets, cost)
        weight = deviation * slope / spread
        self.weight.copy_(torch.as_tensor(weight))
        self.bias.copy_(torch.tensor(middle + deviation * intercept - weight @ center))

    def _best_cost(self, features: np.ndarray, targets: np.ndarray) -> float:
        parts = np.arange(len(targets)) % 5
        quality: list[float] = []
        for cost in COSTS:
            predicted = np.empty_like(targets)
            for part in range(5):
                slope, intercept = self._fit(features[parts != part], targets[parts != part], cost)
                predicted[parts == part] = features[parts == part] @ slope + intercept
            quality.append(np.nan_to_num(spearman(predicted, targets), nan=-1.0))
        return COSTS[int(np.argmax(quality))]

    def _fit(self, features: np.ndarray, targets: np.ndarray, cost: float) -> tuple[np.ndarray, float]:
        from sklearn.svm import SVR  # pyright: ignore[reportMissingTypeStubs]

        regression: Any = SVR(kernel="linear", C=cost, epsilon=self.settings.epsilon)
        regression.fit(features, targets)
        return np.asarray(regression.coef_)[0], float(np.asarray(regression.intercept_)[0])

    def _pooled(self, batch: SegmentBatch) -> Tensor:
        pool = masked_mean if self.settings.pooling == "average" else masked_max
        return torch.cat([pool(batch.features[stream], batch.masks[stream]) for stream in self.dims], dim=-1)
