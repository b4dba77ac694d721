"""Data sets: where their labels stand, what they must add up to, and which scores can be predicted from them."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationError, model_validator

from .complaints import did_you_mean, first_complaint
from .errors import ManifestError
from .streams import Record

Range = tuple[float, float]


class Target(Record):
    """One score that a model can be trained for."""

    column: str
    divided_by: str | None = None
    """A column whose value divides it (FS1000's component factor)"""
    score_range: Range
    """The scores that the fractions 0 and 1 stand for in training"""
    plausible: Range
    """A score outside is a mistake in the label file"""


class Identity(Record):
    """``total = sum of terms``, a minus sign before a term subtracts it; to within ``tolerance``."""

    total: str
    terms: tuple[str, ...]
    tolerance: Annotated[float, Field(gt=0)] = 0.011


class Columns(Record):
    """Text files, one video per line, fields separated by white space; a header is found by parsing."""

    kind: Literal["columns"] = "columns"
    names: tuple[str, ...]
    """In their order; the first is the video's id"""


class JsonFiles(Record):
    """One JSON object per video, its id being the file's name."""

    kind: Literal["json"] = "json"
    keys: dict[str, str]
    """Our name of a score → its key in the object"""


class PickledDict(Record):
    """One pickled dict: ``(video, clip)`` → list, read without running anything that it names."""

    kind: Literal["pickle"] = "pickle"
    file: str
    places: dict[str, int]
    """Our name of a score → its place in the list"""


class Dataset(Record):
    """A data set's labels. Exactly one of ``files`` and ``random_splits`` says who is in which split."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    summary: str
    labels: Annotated[Columns | JsonFiles | PickledDict, Field(discriminator="kind")]
    ids: str | None = None
    """A regular expression that the ids of its videos match, where its files hold other videos, too"""
    files: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Split → file names that it may have"""
    random_splits: dict[str, PositiveInt] = Field(default_factory=dict)
    """Split → number of videos, drawn by seed, where no official list is public"""
    counts: dict[str, PositiveInt] = Field(default_factory=dict)
    """Split → number of videos that the published files hold"""
    subsets: dict[str, str] = Field(default_factory=dict)
    """Name → pattern (a regular expression) that the ids of its videos match; a model is trained on one subset"""
    subset_counts: dict[str, PositiveInt] = Field(default_factory=dict)
    """Split → number of videos in every subset"""
    targets: Annotated[dict[str, Target], Field(min_length=1)]
    identities: tuple[Identity, ...] = ()
    deviations: dict[str, str] = Field(default_factory=dict)
    """What published works do differently with it, for whoever compares numbers"""

    @model_validator(mode="after")
    def _one_source_of_splits(self) -> Dataset:
        if bool(self.files) == bool(self.random_splits):
            raise ValueError("give either files or random_splits")
        return self


def list_datasets() -> list[str]:
    """Names of the data sets that come with the package, sorted."""
    folder = resources.files("arabesque.manifests") / "datasets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_dataset(name: str) -> Dataset:
    """A data set by name; raises `ManifestError` for one that is not known."""
    if name not in list_datasets():
        hint = did_you_mean(name, list_datasets())
        raise ManifestError(f"data set {name!r} is not known{hint}; there are {', '.join(list_datasets())}")
    text = (resources.files("arabesque.manifests") / "datasets" / f"{name}.toml").read_text(encoding="utf-8")
    return parse_dataset(text, source=f"datasets/{name}.toml")


def parse_dataset(text: str, source: str) -> Dataset:
    """The data set in a TOML text; `ManifestError` names the place of what is wrong in it."""
    try:
        table: dict[str, Any] = tomllib.loads(text)
        return Dataset.model_validate(table)
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{source}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise ManifestError(f"{source}: {first_complaint(error)}") from None
