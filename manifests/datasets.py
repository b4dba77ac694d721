"""Data set manifests: label files, consistency checks, splits, and the scores that a model can predict."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationError, model_validator

from .errors import ConfigError, InputError
from .streams import Record
from .validation import read_config, suggestion, validation_message

Range = tuple[float, float]


class Target(Record):
    """A score that a model can be trained to predict."""

    column: str
    divided_by: str | None = None
    """Column by which the score is divided (FS1000: the component factor)."""
    score_range: Range
    """Scores that are mapped to 0 and 1 in training."""
    plausible: Range
    """Lowest and highest possible score; a score outside this range is an error in the label file."""


class Identity(Record):
    """A check of the labels: ``total`` equals the sum of ``terms`` within ``tolerance``. ``-term`` is subtracted."""

    total: str
    terms: tuple[str, ...]
    tolerance: Annotated[float, Field(gt=0)] = 0.011


class Columns(Record):
    """Text files with one video per line and fields separated by white space. A header line is detected."""

    kind: Literal["columns"] = "columns"
    names: tuple[str, ...]
    """Names of the columns in order; the first is the video id."""


class JsonFiles(Record):
    """One JSON file per video; the name of the file without its suffix is the video id."""

    kind: Literal["json"] = "json"
    keys: dict[str, str]
    """Name of a score → its key in the JSON object."""


class PickledDict(Record):
    """A pickled dict ``(video, clip)`` → list, which is read without executing code of the pickle."""

    kind: Literal["pickle"] = "pickle"
    file: str
    places: dict[str, int]
    """Name of a score → its index in the list."""


class SegmentLabels(Record):
    """A JSON file with labels of segments: video id → object with a list of numbers, one for each segment.

    A segment is a highlight where its number is positive.
    """

    kind: Literal["segments"] = "segments"
    file: str
    key: str
    """Key of the list in the object of a video"""
    column: str
    """Name of the share of highlights among the segments of a video"""


class Dataset(Record):
    """The labels of a data set. Exactly one of ``files``, ``lists`` and ``random_splits`` defines the splits."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    summary: str
    labels: Annotated[Columns | JsonFiles | PickledDict | SegmentLabels, Field(discriminator="kind")]
    ids: str | None = None
    """Regular expression for the ids of this data set, if the files also list other videos."""
    files: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Split → possible names of its file."""
    lists: dict[str, dict[str, tuple[str, ...]]] = Field(default_factory=dict)
    """Subset → split → video ids, if the split is published as lists of ids. Videos without labels are left out."""
    random_splits: dict[str, PositiveInt] = Field(default_factory=dict)
    """Split → number of videos to draw with a seed, if the official list is not public."""
    num_splits: PositiveInt = 1
    """Number of random splits, one for each seed, over which publications average"""
    counts: dict[str, PositiveInt] = Field(default_factory=dict)
    """Split → number of videos in the published files."""
    subsets: dict[str, str] = Field(default_factory=dict)
    """Subset → regular expression that selects its video ids. A model is trained on one subset."""
    subset_counts: dict[str, PositiveInt] = Field(default_factory=dict)
    """Split → number of videos in each subset."""
    targets: Annotated[dict[str, Target], Field(min_length=1)]
    identities: tuple[Identity, ...] = ()
    deviations: dict[str, str] = Field(default_factory=dict)
    """How published works deviate from this definition, for comparisons of results."""

    @model_validator(mode="after")
    def _one_source_of_splits(self) -> Dataset:
        if [bool(self.files), bool(self.lists), bool(self.random_splits)].count(True) != 1:
            raise ValueError("give either files, lists or random_splits")
        return self

    @property
    def subset_names(self) -> tuple[str, ...]:
        """The subsets, of which a model is trained on one; empty if the data set is not divided."""
        return tuple(self.subsets or self.lists)

    def is_in(self, subset: str, video_id: str) -> bool:
        """Return whether a video belongs to a subset.

        Raises:
            KeyError: The subset does not exist.
        """
        if self.lists:
            return any(video_id in videos for videos in self.lists[subset].values())
        return re.search(self.subsets[subset], video_id) is not None


def list_datasets() -> list[str]:
    """Return the names of the data sets in the package, sorted."""
    folder = resources.files("arabesque.manifests") / "datasets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_dataset(name_or_path: str) -> Dataset:
    """Load a data set.

    Args:
        name_or_path: The name of a data set in the package, or the path of a ``.toml`` file.

    Raises:
        InputError: The name is unknown.
        ConfigError: The file cannot be read, or has a wrong key or value.
    """
    if name_or_path.endswith(".toml"):
        return parse_dataset(read_config(Path(name_or_path)), source=name_or_path)
    if name_or_path not in list_datasets():
        hint = suggestion(name_or_path, list_datasets())
        raise InputError(
            f"data set {name_or_path!r} is not known{hint}; there are {', '.join(list_datasets())}; for your own data "
            "set, give a path that ends in .toml"
        )
    text = (resources.files("arabesque.manifests") / "datasets" / f"{name_or_path}.toml").read_text(encoding="utf-8")
    return parse_dataset(text, source=f"datasets/{name_or_path}.toml")


def parse_dataset(text: str, source: str) -> Dataset:
    """Parse the TOML text of a data set.

    Args:
        text: TOML.
        source: Name of the file for error messages.

    Raises:
        ConfigError: The text is not valid TOML, or a key or value is wrong; the message names it.
    """
    try:
        table: dict[str, Any] = tomllib.loads(text)
        return Dataset.model_validate(table)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{source}: {validation_message(error)}") from None
