"""Highlight detection: labels of segments, their loss, and mean average precision (PAMFN, section IV-G)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ..manifests.errors import ArabesqueError, InputError
from .features import LabeledSamples
from .metrics import average_precision
from .pamfn_highlights import highlight_loss
from .reports import SELECTION_TEXTS, SeedsReport, Spread, spread
from .samples import Samples
from .scoring import ScorePrediction, SegmentBatch
from .trainer import SeedResult

Marks = Mapping[str, Sequence[bool]]
"""video_id → whether each segment is a highlight"""


@dataclass(frozen=True)
class HighlightReport:
    """Results of one highlight detector over several seeds."""

    selection: str
    seeds: tuple[int, ...]
    num_test: int
    mean_average_precision: Spread
    epochs: tuple[int, ...]
    """Selected epoch of each seed"""
    by_seed: tuple[float, ...]
    """Mean average precision of each seed"""
    notes: tuple[str, ...] = ()
    """Notes on labels and videos"""

    @property
    def selection_text(self) -> str:
        """Description of the selection of the epoch"""
        return SELECTION_TEXTS[self.selection]

    def figures(self) -> dict[str, str]:
        """Return name → text of each figure, in the order of a table."""
        return {"mAP": str(self.mean_average_precision)}


AnyReport = SeedsReport | HighlightReport


class HighlightDetection:
    """Objective of highlight detectors: binary cross-entropy of each segment; the metric is mean average precision.

    Args:
        samples: Features that have as many segments as labels, see `cut_to_labels`.
        marks: Labels of the segments of every video.
    """

    metric = "map"

    def __init__(self, samples: Samples, marks: Marks) -> None:
        self._marks = marks
        sizes = [len(marks[name]) for name in samples.video_ids]
        wanted = torch.zeros(len(samples), max([1, *sizes]))
        for row, name in enumerate(samples.video_ids):
            wanted[row, : sizes[row]] = torch.tensor(marks[name], dtype=torch.float32)
        self._sizes = torch.tensor(sizes)
        self.targets = wanted.to(samples.device)

    def loss(self, prediction: ScorePrediction, batch: SegmentBatch, rows: Tensor) -> Tensor:
        """Return the mean binary cross-entropy over the segments of the batch.

        Raises:
            ArabesqueError: The model does not detect highlights, or the batch is cropped.
        """
        found = _highlights_of(prediction).float()
        longest = int(self._sizes[rows].max())
        if found.shape[1] != longest:
            raise ArabesqueError(
                f"highlights are learned on whole videos, but the batch has {found.shape[1]} segments and its videos "
                f"have {longest}; train without crop"
            )
        mask = torch.arange(longest) < self._sizes[rows][:, None]
        return highlight_loss(found, self.targets[rows.to(found.device), :longest], mask.to(found.device))

    def predict(self, network: nn.Module, samples: Samples, rows: Tensor) -> dict[str, list[float]]:
        """Return video_id → probability of a highlight for each segment."""
        return predict_highlights(network, samples, rows)

    def quality(self, predictions: Mapping[str, Sequence[float]], rows: Tensor) -> float:
        """Return the mean average precision."""
        return mean_average_precision(predictions, self._marks)


def predict_highlights(network: nn.Module, samples: Samples, rows: Tensor) -> dict[str, list[float]]:
    """Return video_id → probability of a highlight for each segment of whole videos.

    Args:
        network: A highlight detector.
        samples: Features of the videos.
        rows: Indices of the videos.

    Raises:
        ArabesqueError: The model does not detect highlights.
    """
    network.eval()
    found: dict[str, list[float]] = {}
    with torch.inference_mode():
        for row in rows:
            count = max(int(lengths[row]) for lengths in samples.lengths.values())
            values = _highlights_of(network(samples.whole(row[None])))[0, :count]
            found[samples.video_ids[int(row)]] = values.float().cpu().numpy().tolist()
    return found


def _highlights_of(prediction: ScorePrediction) -> Tensor:
    if prediction.highlights is None:
        raise ArabesqueError("the model predicts scores of videos, not highlights; choose pamfn-highlights")
    return prediction.highlights


def mean_average_precision(predictions: Mapping[str, Sequence[float]], marks: Marks) -> float:
    """Return the mean over videos of `average_precision`."""
    return float(np.mean([average_precision(values, marks[name]) for name, values in predictions.items()]))


def cut_to_labels(data: LabeledSamples, marks: Marks) -> tuple[LabeledSamples, dict[str, tuple[bool, ...]]]:
    """Cut features and labels of each video to the smallest length, as UMT does; clip i has label i.

    Args:
        data: Features of the videos.
        marks: Labels of the segments of every video.

    Returns:
        The cut features and labels.

    Raises:
        InputError: A video has no segment with features and a label.
    """
    samples = data.samples
    sizes: list[int] = []
    for row, name in enumerate(samples.video_ids):
        lengths = [int(each[row]) for each in samples.lengths.values() if int(each[row])]
        sizes.append(min([len(marks[name]), *lengths]) if lengths else 0)
        if not sizes[-1]:
            raise InputError(f"{name}: has no segment with features and a label; remove the video from the labels")
    size = torch.tensor(sizes)
    features: dict[str, Tensor] = {}
    present: dict[str, Tensor] = {}
    cut_lengths: dict[str, Tensor] = {}
    for stream, values in samples.features.items():
        inside = (torch.arange(max(sizes)) < size[:, None]).to(values.device)
        short = nn.functional.pad(values, (0, 0, 0, max(0, max(sizes) - values.shape[1])))[:, : max(sizes)]
        there = nn.functional.pad(samples.present[stream], (0, max(0, max(sizes) - values.shape[1])))[:, : max(sizes)]
        features[stream], present[stream] = short * inside.unsqueeze(-1), there & inside
        cut_lengths[stream] = torch.minimum(samples.lengths[stream], size)
    cut = Samples(samples.video_ids, features, present, cut_lengths)
    kept = {name: tuple(marks[name][: sizes[row]]) for row, name in enumerate(samples.video_ids)}
    return replace(data, samples=cut), kept


def report_highlights(results: Sequence[SeedResult], marks: Marks, *, last: bool = False) -> HighlightReport:
    """Compute the report of several seeds.

    Args:
        results: One result per seed.
        marks: Labels of the segments of the test videos.
        last: Evaluate the weights of the last epoch instead of the selected ones.
    """
    values = tuple(mean_average_precision(each.last if last else each.test, marks) for each in results)
    return HighlightReport(
        selection="last" if last else results[0].selection,
        seeds=tuple(each.seed for each in results),
        num_test=len(results[0].test),
        mean_average_precision=spread(values),
        epochs=tuple(each.epoch for each in results),
        by_seed=values,
    )
