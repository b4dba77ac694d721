"""Read labels by the name of their data set, or any CSV of scores by the name ``csv``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..manifests.datasets import Columns, Dataset, Target, load_dataset
from ..manifests.errors import InputError
from ..manifests.label_files import WHOLE, DatasetLabels, Entry, read_dataset_labels
from .labels import Labels, read_labels

CSV = "csv"
HELD_OUT = 0.2
FEWEST_VIDEOS = 10


def read_named_labels(
    dataset: str, path: Path, target: str | None, *, drop_first: bool = False
) -> tuple[DatasetLabels, str]:
    """Return the labels and the name of the target.

    Args:
        dataset: Name of the data set, path of its ``.toml`` file, or ``csv``.
        path: Folder of the label files, or the CSV.
        target: Name of the score; None if there is only one.
        drop_first: Ignore the first line of each label file of a data set.

    Raises:
        InputError: The labels cannot be read, or the target is not given.
    """
    if dataset == CSV:
        labels = read_labels(path, target)
        return csv_dataset(labels, path), labels.target
    known = read_dataset_labels(load_dataset(dataset), path, drop_first=drop_first)
    targets = known.dataset.targets
    if target is None and len(targets) > 1:
        raise InputError(f"{dataset} has several scores; choose one with --target: {', '.join(targets)}")
    return known, target or next(iter(targets))


def csv_dataset(labels: Labels, path: Path) -> DatasetLabels:
    """Return a CSV as a data set with a random split, in which a fifth of the videos is held out.

    Metrics are relative to the range of all scores, widened by a tenth at each end. Models are trained on fractions of
    the range of their training scores, widened in the same way.
    """
    scores = np.array(list(labels.scores.values()))
    if len(scores) < FEWEST_VIDEOS or np.ptp(scores) == 0:
        raise InputError(
            f"{path}: has {len(scores)} videos with {len(set(scores.tolist()))} different scores; give at least "
            f"{FEWEST_VIDEOS} videos with different scores"
        )
    test = round(HELD_OUT * len(scores))
    column = Target(
        column=labels.target,
        score_range=widened_range(scores),
        plausible=(float(scores.min()), float(scores.max())),
    )
    dataset = Dataset(
        name=CSV,
        summary=f"{len(scores)} videos of {path}",
        labels=Columns(names=("video_id", labels.target)),
        random_splits={"train": len(scores) - test, "test": test},
        targets={labels.target: column},
    )
    entries = {name: Entry(name, {labels.target: score}, str(path)) for name, score in labels.scores.items()}
    return DatasetLabels(dataset, {WHOLE: entries}, labels.notes, labels.titles_of)


def widened_range(scores: np.ndarray) -> tuple[float, float]:
    """Return the range of the scores, widened by a tenth at each end, because a sigmoid does not reach 0 or 1."""
    low, high = float(scores.min()), float(scores.max())
    margin = 0.1 * (high - low)
    return low - margin, high + margin
