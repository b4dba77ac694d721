"""Features and scores of gymnastics and skating videos, for action quality assessment.

    extract       videos → features: of one video as arrays, of many as a feature store
    score         videos and a trained model → scores, and the effect of each segment
    compare       two sets of features → the same or different, and the cause
    open_store    a feature store for reading

    FeatureStore, StreamFeatures      stored features: video → stream → array with its time grid
    AlignedDataset, StreamingDataset  features as PyTorch datasets, several streams on one time grid
    collate_padded                    joins samples of both into padded batches
    load_recipe, Recipe               the streams of a method, with all of their settings

Errors are subclasses of `ArabesqueError`. The command line has more functions: ``arabesque --help``.

Example:
    >>> import arabesque
    >>> features = arabesque.extract("routine.mp4", recipe="starter")
    >>> features["motion"].values.dtype
    dtype('float32')
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arabesque.api import compare, extract, open_store, score
    from arabesque.manifests.errors import (
        ArabesqueError,
        ConfigError,
        DecodeError,
        ExtractionError,
        InputError,
        MissingPackageError,
        StoreError,
        WeightsError,
    )
    from arabesque.manifests.recipes import Recipe, load_recipe
    from arabesque.pipeline.store.aligned_dataset import AlignedDataset, collate_padded
    from arabesque.pipeline.store.reader import FeatureStore
    from arabesque.pipeline.store.stream_features import StreamFeatures
    from arabesque.pipeline.store.streaming_dataset import StreamingDataset

    __version__: str

__all__ = [
    "AlignedDataset",
    "ArabesqueError",
    "ConfigError",
    "DecodeError",
    "ExtractionError",
    "FeatureStore",
    "InputError",
    "MissingPackageError",
    "Recipe",
    "StoreError",
    "StreamFeatures",
    "StreamingDataset",
    "WeightsError",
    "__version__",
    "collate_padded",
    "compare",
    "extract",
    "load_recipe",
    "open_store",
    "score",
]

_PLACES = {
    "arabesque.api": "compare extract open_store score",
    "arabesque.manifests.errors": (
        "ArabesqueError ConfigError DecodeError ExtractionError InputError MissingPackageError StoreError WeightsError"
    ),
    "arabesque.manifests.recipes": "Recipe load_recipe",
    "arabesque.pipeline.store.aligned_dataset": "AlignedDataset collate_padded",
    "arabesque.pipeline.store.reader": "FeatureStore",
    "arabesque.pipeline.store.stream_features": "StreamFeatures",
    "arabesque.pipeline.store.streaming_dataset": "StreamingDataset",
}
"""Module → the names that are imported from it when they are first used: torch and pyarrow take seconds."""

_MODULES = {name: module for module, names in _PLACES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("arabesque")
    if name not in _MODULES:
        raise AttributeError(f"module 'arabesque' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
