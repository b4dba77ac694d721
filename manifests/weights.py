"""Manifest of the checkpoints that recipes may name: files, sources, digests and tensor layouts."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, ValidationError, model_validator

from .errors import ConfigError
from .streams import Record
from .validation import read_config, suggestion, validation_message

Layout = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")]
"""Naming scheme of the tensors in a published file, e.g. ``i3d-hassony2``. An extractor that cannot read the layout of
a file reports an error with the layouts that it can read."""

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
PublishedName = Annotated[str, Field(pattern=r"^(torchvision|timm):[A-Za-z0-9_./-]+$")]
"""A checkpoint of torchvision or timm, which has no table; see `arabesque.manifests.hub_weights`."""
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+/\S+$")]


Classes = Literal["kinetics-400", "imagenet-1k"]
"""Sets of classes whose names and order are known from torchvision's weights."""


class WeightsEntry(Record):
    """One checkpoint file, with at most one digest, the strongest one that is published for the file."""

    name: Name | PublishedName
    """Name in recipes, and the key of its table."""
    file_name: FileName
    urls: tuple[Url, ...] = ()
    """Addresses of the same file, the official one first. Empty if the file must be added by hand."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    sha256_prefix: Annotated[str, Field(pattern=r"^[0-9a-f]{8,63}$")] | None = None
    """The first digits of the SHA-256, as in torchvision's file names."""
    git_blob: Annotated[str, Field(pattern=r"^[0-9a-f]{8,40}$")] | None = None
    """Git's object id of the file, i.e. the SHA-1 of ``b"blob <size>\\0"`` and the content; or its first digits."""
    size_bytes: PositiveInt | None = None
    license: str
    layout: Layout
    trained_on: str
    source: str
    """Publication of address, digest, size and layout."""
    notes: str = ""
    classes: Classes | None = None
    """Classes of the classifier in the file, if their names and order are known; `arabesque predict` prints them."""
    pickle: bool = False
    """The file is a pickled object, and opening it executes code. Only a file with the given SHA-256 is opened."""

    @model_validator(mode="after")
    def _recognizable(self) -> Self:
        if sum(digest is not None for digest in (self.sha256, self.sha256_prefix, self.git_blob)) > 1:
            raise ValueError("give one of sha256, sha256_prefix, git_blob")
        if self.pickle and self.sha256 is None:
            raise ValueError("a pickle needs its sha256, because only a file with known content may be opened")
        return self

    @property
    def allows_commercial_use(self) -> bool:
        """Whether there is a license whose name does not exclude commercial use"""
        return re.search(r"(?i)\bnc\b|non-?commercial|research|not stated|unknown", self.license) is None

    @property
    def published_digest(self) -> str | None:
        """The digest for display, such as ``sha256 0676ba61…``; None if no digest is published."""
        if self.sha256 is not None:
            return f"sha256 {self.sha256}"
        if self.sha256_prefix is not None:
            return f"sha256 {self.sha256_prefix}…"
        if self.git_blob is not None:
            return f"git blob {self.git_blob}{'' if len(self.git_blob) == 40 else '…'}"
        return None


def _with_names(entries: Any) -> Any:
    """Add the key of each table as ``name`` to its entry."""
    if not isinstance(entries, Mapping):
        return entries
    tables = cast("Mapping[Any, Any]", entries)
    return {
        name: {"name": name, **cast("Mapping[str, Any]", entry)} if isinstance(entry, Mapping) else entry
        for name, entry in tables.items()
    }


def _keys_are_names(entries: dict[Name, WeightsEntry]) -> dict[Name, WeightsEntry]:
    for key, entry in entries.items():
        if key != entry.name:
            raise ValueError(f"{key} has the name {entry.name}; the name of an entry is the key of its table")
    return entries


Checkpoints = Annotated[dict[Name, WeightsEntry], BeforeValidator(_with_names), AfterValidator(_keys_are_names)]
"""Name → checkpoint: the tables ``[weights.NAME]`` of a file."""


class WeightsManifest(Record):
    """All checkpoints, by name."""

    weights: Checkpoints

    def entry(self, name: str) -> WeightsEntry:
        """Return the entry with this name.

        Raises:
            ConfigError: The name is unknown; the message suggests similar names.
        """
        if name not in self.weights:
            hint = suggestion(name, self.weights, most=3)
            raise ConfigError(f"checkpoint {name!r} is not known{hint}; `arabesque weights list` shows all names")
        return self.weights[name]


@cache
def load_weights_manifest() -> WeightsManifest:
    """Return the checkpoints of the package, from ``weights.toml``."""
    text = (resources.files("arabesque.manifests") / "weights.toml").read_text(encoding="utf-8")
    return parse_weights_manifest(text, source="weights.toml")


def weights_manifest_with(more: Mapping[str, WeightsEntry]) -> WeightsManifest:
    """Return the checkpoints of the package and others.

    Raises:
        ConfigError: The package has another checkpoint of the same name.
    """
    known = load_weights_manifest().weights
    for name, entry in more.items():
        if known.get(name, entry) != entry:
            raise ConfigError(f"checkpoint {name!r}: the package has another checkpoint of this name; rename yours")
    return WeightsManifest(weights={**known, **more})


def read_weights_manifest(path: Path) -> WeightsManifest:
    """Return the checkpoints of a file in the form of ``weights.toml``.

    Raises:
        ConfigError: The file cannot be read, is not valid TOML, or a key or value is wrong.
    """
    return parse_weights_manifest(read_config(path), source=f"{path}")


def parse_weights_manifest(text: str, source: str) -> WeightsManifest:
    """Parse the TOML text of a weights manifest.

    Args:
        text: TOML.
        source: Name of the file for error messages.

    Raises:
        ConfigError: The text is not valid TOML, or a key or value is wrong; the message states the first problem.
    """
    try:
        return WeightsManifest.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{source}: {validation_message(error)}") from None
