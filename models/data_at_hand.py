"""Available features and labels for the rows of published tables, and the missing ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

from ..manifests.datasets import load_dataset
from ..manifests.errors import InputError
from ..manifests.label_files import DatasetLabels, read_dataset_labels
from ..pipeline.store.files.storage import StorePath
from ..pipeline.store.reader import FeatureStore
from .features import FeatureSet
from .label_matching import match_labels
from .published_tables import Row
from .released_features import is_released, read_features, released_names
from .table import model_class

ANY = ""
"""Key of the features or labels for all data sets without an entry"""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class DataAtHand:
    """Features and labels by data set. Each source is read once.

    Args:
        features: Data set, or `ANY` → feature store or released features.
        labels: Data set, or `ANY` → folder of its label files.
        stream: Name of the stream of released features.
    """

    features: Mapping[str, StorePath]
    labels: Mapping[str, Path]
    stream: str | None = None
    _kept: dict[tuple[object, ...], object] = field(default_factory=dict[tuple[object, ...], object], init=False)

    def missing(self, row: Row, dataset: str) -> str:
        """Return what is missing for the row on this data set, e.g. ``needs ast``; empty if it can be run."""
        if row.not_implemented:
            return f"not implemented: {row.not_implemented}"
        source = self.source(dataset)
        if source is None:
            return f"needs features: {', '.join(row.all_streams)}"
        known = self.streams(dataset)
        if streams := [stream for stream in row.all_streams if stream not in known]:
            hint = " (--stream names the released one)" if is_released(source) and not self.stream else ""
            return f"needs {', '.join(streams)}{hint}"
        if self._folder(dataset) is None:
            return f"needs the labels of {dataset}"
        try:
            labels = self.labels_of(dataset)
        except InputError as error:
            if dataset in self.labels:
                raise
            return f"needs the labels of {dataset} ({error})"
        if not self._once(("matched", dataset), lambda: match_labels(labels.video_ids, self._videos(dataset)).videos):
            return f"needs features of {dataset}: none of its videos is in {source}"
        return ""

    def streams(self, dataset: str) -> tuple[str, ...]:
        """Return the streams of the features of a data set."""
        source = self.source(dataset)
        if source is None:
            return ()
        if is_released(source):
            return (self.stream,) if self.stream else ()
        return self._store(source).streams

    def labels_of(self, dataset: str) -> DatasetLabels:
        """Return the labels of a data set.

        Raises:
            InputError: There are no labels, or they cannot be read.
        """
        folder = self._folder(dataset)
        if folder is None:
            raise InputError(f"no labels of {dataset}; add --labels {dataset}=FOLDER")
        return self._once(("labels", dataset), lambda: read_dataset_labels(load_dataset(dataset), folder))

    def read(self, row: Row, dataset: str, model: str, device: torch.device | str = "cpu") -> FeatureSet:
        """Return the features that a row needs, on a device. Rows with the same streams share them in memory."""
        source = self.source(dataset)
        if source is None:
            raise InputError(f"no features of {dataset}; add --features {dataset}=PATH")
        streams = row.all_streams
        one_grid = bool(model_class(model).one_grid) and len(streams) > 1
        key = ("features", str(source), streams, one_grid, str(device))
        return self._once(key, lambda: read_features(source, streams, one_grid=one_grid).on(device))

    def describe(self, datasets: Sequence[str]) -> str:
        """Return the sources of the features of these data sets."""
        found = [self.source(dataset) for dataset in datasets]
        return ", ".join(dict.fromkeys(str(source) for source in found if source is not None))

    def _videos(self, dataset: str) -> frozenset[str]:
        source = self.source(dataset)
        assert source is not None
        found = released_names(source) if is_released(source) else self._store(source).video_ids
        return frozenset(found)

    def _store(self, source: StorePath) -> FeatureStore:
        return self._once(("store", str(source)), lambda: FeatureStore(source))

    def source(self, dataset: str) -> StorePath | None:
        """Return the features of a data set; None without features."""
        return self.features.get(dataset, self.features.get(ANY))

    def _folder(self, dataset: str) -> Path | None:
        return self.labels.get(dataset, self.labels.get(ANY))

    def _once(self, key: tuple[object, ...], read: Callable[[], T]) -> T:
        if key not in self._kept:
            self._kept[key] = read()
        return self._kept[key]  # pyright: ignore[reportReturnType]
