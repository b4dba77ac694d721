"""The checkpoints that recipes may name: what each file is, where it comes from, how it is recognised."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, PositiveInt, ValidationError, model_validator

from .complaints import did_you_mean, first_complaint
from .errors import ManifestError
from .streams import Record

Layout = Literal[
    "video-swin-mmaction",
    "video-swin-torchvision",
    "i3d-hassony2",
    "i3d-piergiaj",
    "resnet-torchvision",
    "raft-torchvision",
    "ast-original",
    "ast-transformers4",
    "ast-transformers5",
    "pytorchvideo-hub",
    "ultralytics-yolo",
    "unmasked-teacher",
]
"""How a published file names its tensors; each extractor says which of them it reads."""

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+/\S+$")]


class WeightsEntry(Record):
    """One checkpoint file. At most one digest is given: the strongest that anybody has published for its bytes."""

    name: Name
    """What recipes call it: the key of its table."""
    file_name: FileName
    urls: tuple[Url, ...] = ()
    """Addresses of the same bytes, the official one first; empty where the file can only be added by hand."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    sha256_prefix: Annotated[str, Field(pattern=r"^[0-9a-f]{8,63}$")] | None = None
    """The first digits, as torchvision puts them into file names."""
    git_blob: Annotated[str, Field(pattern=r"^[0-9a-f]{8,40}$")] | None = None
    """SHA-1 of ``b"blob <size>\\0"`` and the bytes, or its first digits: how git names a file."""
    size_bytes: PositiveInt | None = None
    licence: str
    layout: Layout
    trained_on: str
    source: str
    """Who says so: where address, digest, size and layout were read."""
    notes: str = ""
    pickle: bool = False
    """The file is a whole pickled object: opening it runs its code, so only known bytes are opened."""

    @model_validator(mode="after")
    def _recognisable(self) -> Self:
        if sum(digest is not None for digest in (self.sha256, self.sha256_prefix, self.git_blob)) > 1:
            raise ValueError("give one of sha256, sha256_prefix, git_blob")
        if self.pickle and self.sha256 is None:
            raise ValueError("a whole pickle needs its sha256: no other bytes may be opened under its name")
        return self

    @property
    def published_digest(self) -> str | None:
        """``sha256 0676ba61…`` as a person reads it; None where nobody has published one."""
        if self.sha256 is not None:
            return f"sha256 {self.sha256}"
        if self.sha256_prefix is not None:
            return f"sha256 {self.sha256_prefix}…"
        if self.git_blob is not None:
            return f"git blob {self.git_blob}{'' if len(self.git_blob) == 40 else '…'}"
        return None


class WeightsManifest(Record):
    """All checkpoints, by name."""

    weights: dict[Name, WeightsEntry]

    @model_validator(mode="after")
    def _keys_are_names(self) -> Self:
        for key, entry in self.weights.items():
            if key != entry.name:
                raise ValueError(f"{key} calls itself {entry.name}; an entry's name is the key of its table")
        return self

    def entry(self, name: str) -> WeightsEntry:
        """The entry of that name; raises `ManifestError` with the nearest names."""
        if name not in self.weights:
            hint = did_you_mean(name, self.weights, most=3)
            raise ManifestError(f"checkpoint {name!r} is not known{hint}; `arabesque weights list` names them all")
        return self.weights[name]


@cache
def load_weights_manifest() -> WeightsManifest:
    """The checkpoints that come with the package, from ``weights.toml`` beside this file."""
    text = (resources.files("arabesque.manifests") / "weights.toml").read_text(encoding="utf-8")
    return parse_weights_manifest(text, source="weights.toml")


def parse_weights_manifest(text: str, source: str) -> WeightsManifest:
    """The manifest in a TOML text; raises `ManifestError` with the place of the first mistake."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{source}: not valid TOML: {error}") from error
    entries = table.get("weights")
    if isinstance(entries, dict):
        table["weights"] = {name: _named(name, entry) for name, entry in cast(dict[str, Any], entries).items()}
    try:
        return WeightsManifest.model_validate(table)
    except ValidationError as error:
        raise ManifestError(f"{source}: {first_complaint(error)}") from None


def _named(name: str, entry: Any) -> Any:
    """An entry that knows its name, which the file states once, as the key of its table."""
    return {"name": name, **cast(dict[str, Any], entry)} if isinstance(entry, dict) else entry
