"""What every scoring model promises: a batch of segment features goes in, a judgement comes out.

A scoring model is a `torch.nn.Module`. It is built from keyword arguments, the first of which are the streams and
their dims, and it works in fractions of the score range, so that it knows no dataset. Whatever it wants to add to the
loss (a triplet term, an orthogonality penalty) it returns as a number: a trainer needs to know no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..manifests.errors import ManifestError
from ..manifests.streams import Record


@dataclass(frozen=True, eq=False)
class SegmentBatch:
    """Routines side by side; each stream has its own number of segments."""

    features: Mapping[str, Tensor]
    """stream → ``float32 [routines, segments, dim]``, zeros where a routine has ended or has no such stream"""
    masks: Mapping[str, Tensor]
    """stream → ``bool [routines, segments]``, True where there is a segment"""

    def __len__(self) -> int:
        return len(next(iter(self.features.values())))


@dataclass(frozen=True, eq=False)
class Judgement:
    """What a model makes of a batch."""

    score: Tensor
    """``float32 [routines]``, in fractions of the score range"""
    penalty: Tensor = field(default_factory=lambda: torch.zeros(()))
    """A number that training adds to the loss."""
    importance: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """stream → ``float32 [routines, segments]``: the weight each segment had, where the model has such a thing"""


def only_stream(dims: Mapping[str, int], model: str) -> str:
    """The stream of a model that reads one; ManifestError where there are more."""
    if len(dims) != 1:
        raise ManifestError(f"{model} reads one stream, not {', '.join(dims)}; choose it with --streams")
    return next(iter(dims))


class ScoringModel(Protocol):
    """What the classes of `arabesque.models.table` have beside being a `torch.nn.Module`."""

    Settings: ClassVar[type[Record]]
    """What a user may set; its fields are the constructor's keyword arguments after the streams' dims."""
    one_stream: ClassVar[bool]
    """It reads a single stream."""
    one_grid: ClassVar[bool]
    """Its streams must have the same segments."""

    def __call__(self, batch: SegmentBatch) -> Judgement: ...


@runtime_checkable
class Solvable(Protocol):
    """A model that is fitted in one go instead of by gradients."""

    def solve(self, batch: SegmentBatch, fractions: Tensor) -> None:
        """``fractions float32 [routines]``: the scores as fractions of the range."""
        ...
