"""Objective of a training: the loss of a batch, the predictions for videos, and the metric that selects an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .metrics import spearman
from .prediction import predict
from .samples import Samples
from .scoring import ScorePrediction, SegmentBatch


class Objective(Protocol):
    """Loss and metric of a `Trainer`. `ScoreRegression` is the objective of all scoring models."""

    metric: str
    """Name of the metric of `quality`, e.g. ``spearman``"""
    targets: Tensor
    """Targets of each video, ``float32 [videos, …]`` on the device of the features"""

    def loss(self, prediction: ScorePrediction, batch: SegmentBatch, rows: Tensor) -> Tensor:
        """Return the loss of a training batch, a float32 scalar.

        Args:
            prediction: Output of the network for the batch.
            batch: The features.
            rows: Indices of the videos of the batch.
        """
        ...

    def predict(self, network: nn.Module, samples: Samples, rows: Tensor) -> dict[str, Any]:
        """Return video_id → prediction for the videos of these rows, as JSON values."""
        ...

    def quality(self, predictions: Mapping[str, Any], rows: Tensor) -> float:
        """Return the metric of the predictions for the videos of these rows; the epoch with the highest is selected."""
        ...


class ScoreRegression:
    """Mean squared error on fractions of the score range; the metric is Spearman's correlation.

    Args:
        scores: Score of each video, ``[videos]``.
        score_range: Scores that correspond to the fractions 0 and 1.
        device: Device of the features.
    """

    metric = "spearman"

    def __init__(self, scores: np.ndarray, score_range: tuple[float, float], device: torch.device) -> None:
        self._scores = scores
        self._low, self._high = score_range
        self.targets = torch.as_tensor((scores - self._low) / (self._high - self._low)).float().to(device)

    def loss(self, prediction: ScorePrediction, batch: SegmentBatch, rows: Tensor) -> Tensor:
        """Return the mean squared error in squared fractions."""
        return nn.functional.mse_loss(prediction.score.float(), self.targets[rows.to(self.targets.device)])

    def predict(self, network: nn.Module, samples: Samples, rows: Tensor) -> dict[str, float]:
        """Return video_id → score."""
        scores = self._low + (self._high - self._low) * predict(network, samples, rows)
        return dict(zip(samples.names(rows), scores.numpy().tolist(), strict=True))

    def quality(self, predictions: Mapping[str, float], rows: Tensor) -> float:
        """Return Spearman's correlation; NaN if all predictions are equal."""
        return spearman(list(predictions.values()), self._scores[rows.numpy()])
