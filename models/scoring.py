"""Interface of scoring models: a batch of segment features is the input, a `ScorePrediction` the output.

A scoring model is a `torch.nn.Module`. The arguments of its constructor are the mapping from streams to their dims and
its settings, a record of the class attribute ``Settings``. It predicts fractions of the score range and is therefore
independent of the data set. Additional terms of the loss (a triplet loss, an orthogonality penalty) are part of its
output, so that the training loop is independent of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..manifests.errors import InputError
from ..manifests.streams import Record


@dataclass(frozen=True, eq=False)
class SegmentBatch:
    """A batch of videos. Each stream has its own number of segments."""

    features: Mapping[str, Tensor]
    """stream → ``float32 [samples, segments, dim]``, zeros in the padding and for missing streams"""
    masks: Mapping[str, Tensor]
    """stream → ``bool [samples, segments]``, True for segments"""

    def __len__(self) -> int:
        return len(next(iter(self.features.values())))


@dataclass(frozen=True, eq=False)
class ScorePrediction:
    """Output of a scoring model for a batch."""

    score: Tensor
    """``float32 [samples]``, in fractions of the score range"""
    penalty: Tensor = field(default_factory=lambda: torch.zeros(()))
    """A scalar that training adds to the loss."""
    importance: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """stream → ``float32 [samples, segments]``: the weight of each segment, for models that compute weights"""
    highlights: Tensor | None = None
    """``float32 [samples, segments]``: probability that a segment is a highlight, of highlight detectors only"""
    traces: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """name → ``[samples, time, …]``: other inner values for figures, e.g. PAMFN's decisions"""
    interval: tuple[Tensor, Tensor] | None = None
    """Lowest and highest score, ``float32 [samples]`` each, for models with intervals. The share
    `CrossValidation.coverage` of all new videos has a score in its interval."""


@dataclass(frozen=True)
class CrossValidation:
    """Quality of a solved model, estimated from its training videos. Scores are fractions of the range."""

    spearman: float
    """Correlation of predictions by models that were selected and fitted without the video; mean over the folds"""
    held_out: tuple[float, ...]
    """These predictions, one per training video"""
    chosen: tuple[str, ...]
    """The averaged configurations, best first"""
    tried: tuple[tuple[str, float], ...]
    """All configurations, with their cross-validated Spearman correlation, best first"""
    coverage: float
    """Intended share of new videos within the intervals"""
    held_out_coverage: float
    """Share of the training videos within intervals that were computed without their fold"""


def only_stream(dims: Mapping[str, int], model: str) -> str:
    """Return the stream of a model that reads one stream.

    Raises:
        InputError: There are several streams.
    """
    if len(dims) != 1:
        raise InputError(f"{model} reads one stream, not {', '.join(dims)}; choose one with --streams")
    return next(iter(dims))


class ScoringModel(Protocol):
    """Attributes of a scoring model, in addition to those of `torch.nn.Module`.

    A class may also have a method ``is_idle(parameter)``, which returns whether the parameter of this name receives no
    gradient by design.
    """

    Settings: ClassVar[type[Record]]
    """Record of the settings, the constructor's second argument"""
    one_stream: ClassVar[bool]
    """Whether the model reads a single stream"""
    one_grid: ClassVar[bool]
    """Whether all streams must have the same segments"""
    order_invariant: bool
    """Whether the score is independent of the order of segments; set in the constructor if it depends on settings"""

    def __call__(self, batch: SegmentBatch) -> ScorePrediction: ...


@runtime_checkable
class Solvable(Protocol):
    """A model that is fitted in closed form instead of by gradient descent."""

    def solve(self, batch: SegmentBatch, fractions: Tensor) -> None:
        """Fit to the batch; ``fractions float32 [samples]`` are the scores as fractions of the range."""
        ...


@runtime_checkable
class CrossValidating(Protocol):
    """A solvable model that selects its configurations by cross-validation on the training videos."""

    cross_validation: CrossValidation | None
    """The result of the last `solve`"""

    def solve(
        self,
        batch: SegmentBatch,
        fractions: Tensor,
        groups: Sequence[int] | None = None,
        others: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Fit to the batch.

        Args:
            batch: The training videos.
            fractions: ``float32 [samples]``, the scores as fractions of the range.
            groups: Group of each video; copies of a video are one group and are in the same fold. None: no copies.
            others: Other scores of the same videos, ``[samples]`` each, in any unit.
        """
        ...
