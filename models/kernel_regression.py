"""Deterministic baseline: kernel ridge regression on pooled statistics, averaged over the best in cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import PositiveInt

from ..manifests.streams import Record
from .kernel_blend import KernelBlend
from .video_kernels import StatisticsKernels


class KernelRegressionSettings(Record):
    average_best: PositiveInt = 10


class KernelRegression(KernelBlend):
    """Gaussian kernel ridge regression on means of parts, deviations and steps of the segments.

    There are no epochs and no random numbers. Cross-validation on the training videos compares 33 kernels and 5 ridges,
    and the machines of the ``average_best`` best kernels are averaged.
    """

    Settings: ClassVar[type[Record]] = KernelRegressionSettings
    one_stream: ClassVar[bool] = False
    one_grid: ClassVar[bool] = False
    order_invariant: ClassVar[bool] = False

    def __init__(self, dims: Mapping[str, int], settings: KernelRegressionSettings) -> None:
        super().__init__({stream: [StatisticsKernels()] for stream in dims}, average_best=settings.average_best)
