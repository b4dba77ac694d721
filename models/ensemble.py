"""A model of this project: an average over kernels of different features, time scales, landmarks and targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import NonNegativeFloat

from ..manifests.streams import Record
from .kernel_blend import KernelBlend
from .video_kernels import SegmentKernels, StatisticsKernels

STATISTICS = ("4 parts", "8 parts", "4 parts + deviation + step", "8 parts + deviation + step")


class EnsembleSettings(Record):
    others_weight: NonNegativeFloat = 0.5
    """Weight of the prediction of the data set's other scores, e.g. PCS for TES, if cross-validation selects them"""


class Ensemble(KernelBlend):
    """Average of kernel machines on pairs of segments at similar times and on pooled statistics.

    Kernels on segments have twice the weight of those on statistics. Cross-validation on the training videos selects
    the ridge of each kernel, whether it is fitted to scores or to their ranks, and whether predictions of the other
    scores of the data set are used. Outer folds repeat these choices (`arabesque.models.kernel_ridge.fit_blend`); the
    intervals are computed from their errors.
    """

    Settings: ClassVar[type[Record]] = EnsembleSettings
    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = False
    order_invariant: ClassVar[bool] = False

    def __init__(self, dims: Mapping[str, int], settings: EnsembleSettings) -> None:
        kernels = {
            stream: [SegmentKernels(seed=0), SegmentKernels(seed=1), StatisticsKernels(STATISTICS, widths=(0.5, 1.0))]
            for stream in dims
        }
        super().__init__(
            kernels, average_best=None, kind_weights=(1, 1, 1), ranks=True, others_weight=settings.others_weight
        )
