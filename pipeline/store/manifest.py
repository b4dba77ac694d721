"""``arabesque.toml``: what a store holds, under which settings, made with what. It makes a folder a store.

Its last line is the SHA-256 of all before it, and a hidden copy lies beside it: rows without their manifest are lost.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from ...manifests.errors import StoreError
from .atomic_files import LocalFolder
from .shards import OUTCOMES, SUPERSEDED
from .writer_locks import WriterLock

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


def write_manifest(root: Path | str, manifest: Mapping[str, Any]) -> None:
    """Write or replace a store's manifest; StoreError where the folder holds anything else already.

    ``{"format": 1, "recipe": {...}, "streams": {name: {"settings_digest", "dim", "extractor_version",
    "weights": {role: digest}}}, "made_with": {...}}``
    """
    root = Path(root)
    try:
        _Manifest.model_validate(manifest)
        text = tomli_w.dumps(manifest)
    except (ValidationError, TypeError) as error:
        raise ValueError(f"{MANIFEST}: {_first_problem(error)}") from error
    _refuse_foreign(root)
    data = _stamped(text.encode())
    with WriterLock(root) as lock:
        for name in (MANIFEST_COPY, MANIFEST):
            LocalFolder(root).put(name, data, lock.writer_id)


def read_manifest(root: Path | str, name: str = MANIFEST) -> dict[str, Any]:
    """The parsed manifest; StoreError where there is none, or one that cannot be obeyed."""
    path = Path(root) / name
    try:
        manifest = tomllib.loads(path.read_text(encoding="utf-8"))
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


def strangers(root: Path) -> list[str]:
    """What lies in a folder that no store puts there; hidden names aside, which a run that was killed may leave."""
    ours = {MANIFEST, OUTCOMES, SUPERSEDED}
    names = sorted(path.name for path in root.iterdir() if not path.name.startswith((".", "stream=")))
    return [name for name in names if name not in ours]


def _stamped(data: bytes) -> bytes:
    return data + _STAMP + hashlib.sha256(data).hexdigest().encode() + b"\n"


def _refuse_foreign(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise StoreError(f"{root}: is a file; choose a folder for the features")
    if not root.is_dir() or (root / MANIFEST).exists():
        return
    if others := strangers(root):
        raise StoreError(f"{root}: holds other files ({others[0]}) and no {MANIFEST}; choose a new or empty folder")


def _first_problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return str(error)
