"""``arabesque.toml``: what a store holds, under which settings, made with what. It makes a folder a store.

Its last line is the SHA-256 of all before it, and a hidden copy lies beside it: rows without their manifest are lost.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from ...manifests.complaints import first_complaint
from ...manifests.errors import StoreError
from .folders import Folder, Root, open_folder
from .neighbours import neighbours
from .shards import OUTCOMES, SUPERSEDED

MANIFEST = "arabesque.toml"
MANIFEST_COPY = ".arabesque.toml"
_STAMP = b"# sha256 of the lines above: "


class StreamEntry(BaseModel):
    """One stream, as its rows were made. Later versions may add to it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    settings_digest: str
    dim: int
    extractor_version: int
    weights: dict[str, str]


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    format: Literal[1]
    recipe: dict[str, Any]
    streams: dict[str, StreamEntry]
    made_with: dict[str, Any]


def write_manifest(root: Root, manifest: Mapping[str, Any]) -> None:
    """Write or replace a store's manifest; StoreError where the folder holds anything else already.

    ``{"format": 1, "recipe": {...}, "streams": {name: {"settings_digest", "dim", "extractor_version",
    "weights": {role: digest}}}, "made_with": {...}}``
    """
    folder = open_folder(root)
    try:
        _Manifest.model_validate(manifest)
        text = tomli_w.dumps(manifest)
    except (ValidationError, TypeError) as error:
        raise ValueError(f"{MANIFEST}: {_first_problem(error)}") from error
    _refuse_foreign(folder)
    data = _stamped(text.encode())
    with neighbours(folder).enter() as presence:
        for name in (MANIFEST_COPY, MANIFEST):
            folder.put(name, data, presence.writer_id)


def is_store(root: Root) -> bool:
    """Whether a manifest is there, readable or not."""
    return open_folder(root).exists(MANIFEST)


def read_manifest(root: Root, name: str = MANIFEST) -> dict[str, Any]:
    """The parsed manifest; StoreError where there is none, or one that cannot be obeyed."""
    folder = open_folder(root)
    path = folder.where(name)
    try:
        manifest = tomllib.loads(folder.read(name).decode())
        _Manifest.model_validate(manifest)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(
            f"{path}: not there, so {root} is no feature store; name a folder that extract wrote"
        ) from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); allow reading it") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
        raise StoreError(f"{path}: {_first_problem(error)}; `arabesque repair {root}` mends it") from error
    return manifest


def stream_entries(manifest: Mapping[str, Any]) -> dict[str, StreamEntry]:
    """The manifest's streams, in its order."""
    return _Manifest.model_validate(manifest).streams


def is_manifest_intact(data: bytes) -> bool:
    """Whether not a bit of a manifest's file differs from what was written."""
    return data == _stamped(data.rpartition(_STAMP)[0])


def strangers(root: Root) -> list[str]:
    """What lies in a folder that no store puts there; hidden names aside, which a run that was killed may leave."""
    ours = {MANIFEST, OUTCOMES, SUPERSEDED}
    names = open_folder(root).entries()
    return [name for name in names if not name.startswith((".", "stream=")) and name not in ours]


def is_free(root: Root) -> bool:
    """Whether a store may be made there: nothing else is there."""
    try:
        return not strangers(root)
    except NotADirectoryError:
        return False


def _stamped(data: bytes) -> bytes:
    return data + _STAMP + hashlib.sha256(data).hexdigest().encode() + b"\n"


def _refuse_foreign(folder: Folder) -> None:
    if folder.exists(MANIFEST):
        return
    try:
        others = strangers(folder.root)
    except NotADirectoryError as error:
        raise StoreError(f"{folder.root}: is a file; choose a folder for the features") from error
    if others:
        raise StoreError(
            f"{folder.root}: holds other files ({others[0]}) and no {MANIFEST}; choose a new or empty folder"
        )


def _first_problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return first_complaint(error)
    return str(error)
