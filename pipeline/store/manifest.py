"""``arabesque.toml``: the recipe, settings and versions of a store. A folder with this file is a store.

Its last line is the SHA-256 of the lines before it, and there is a hidden copy: rows cannot be used without a manifest.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...manifests.errors import InputError, NotAStoreError, StoreError
from ...manifests.recipe_changes import changes_text
from ...manifests.validation import validation_message
from .clip_columns import CLIPS_FILE
from .files.storage import Storage, StorePath
from .shards import ARCHIVE, BOXES, OUTCOMES, STREAM_NAME
from .store import Store

MANIFEST = "arabesque.toml"
MANIFEST_COPY = ".arabesque.toml"
_STAMP = b"# sha256 of the lines above: "


class StreamEntry(BaseModel):
    """The settings of one stream's rows. Later versions may add fields."""

    model_config = ConfigDict(frozen=True, extra="allow")

    settings_digest: str
    dim: int
    """Number of values of a segment."""
    shape: list[int] = []
    """Shape of the features of a segment, e.g. [time, dim]; empty if they are one row of ``dim`` values."""
    extractor_version: int
    weights: dict[str, str]
    sentences: list[str] = []
    """Sentences that the text tower of the stream's network has embedded."""
    sentence_rows: str = ""
    """Embeddings of the sentences: base64 of little-endian float32 ``[sentences, dim of the text tower]``."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of the features of a segment."""
        return tuple(self.shape) or (self.dim,)


def shape_entry(shape: Sequence[int]) -> dict[str, Any]:
    """Return the fields of a stream's entry for the shape of a segment's features.

    Example:
        >>> shape_entry((1024,)), shape_entry((7, 1024))
        ({'dim': 1024}, {'dim': 7168, 'shape': [7, 1024]})
    """
    return {"dim": math.prod(shape)} | ({"shape": list(shape)} if len(shape) > 1 else {})


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    format: Literal[1]
    recipe: dict[str, Any]
    streams: dict[Annotated[str, Field(pattern=f"^{STREAM_NAME}$")], StreamEntry]
    made_with: dict[str, Any]


def write_manifest(place: Store | StorePath, manifest: Mapping[str, Any]) -> None:
    """Write or replace a store's manifest.

    Args:
        place: The store, or its folder or URL.
        manifest: ``{"format": 1, "recipe": {...}, "streams": {name: {"settings_digest", "dim", "extractor_version",
            "weights": {role: digest}}}, "made_with": {...}}``

    Raises:
        StoreError: The folder contains other files and is not a store.
        ValueError: The manifest does not have this form.
    """
    store = Store.open(place)
    try:
        _Manifest.model_validate(manifest)
        text = tomli_w.dumps(manifest)
    except (ValidationError, TypeError) as error:
        raise ValueError(f"{MANIFEST}: {_first_problem(error)}") from error
    if not is_store(store):
        try:
            others = _foreign_entries(store.storage)
        except NotADirectoryError as error:
            raise StoreError(f"{store.path}: is a file; choose a folder for the features") from error
        if others:
            raise StoreError(
                f"{store.path}: contains other files ({others[0]}) and no {MANIFEST}; choose a new or empty folder"
            )
    data = text.encode()
    data += _STAMP + hashlib.sha256(data).hexdigest().encode() + b"\n"
    with closing(store.coordination.enter()) as lease:
        for name in (MANIFEST_COPY, MANIFEST):
            store.storage.put(name, data, lease.writer_id)


def is_store(place: Store | StorePath) -> bool:
    """Return whether there is a manifest, readable or not."""
    return Store.open(place).storage.exists(MANIFEST)


def read_manifest(place: Store | StorePath, name: str = MANIFEST) -> dict[str, Any]:
    """Read and validate a manifest.

    Args:
        place: The store, or its folder or URL.
        name: `MANIFEST` or `MANIFEST_COPY`.

    Raises:
        NotAStoreError: The manifest does not exist.
        StoreError: The manifest cannot be read or is invalid.
    """
    storage = Store.open(place).storage
    try:
        manifest = tomllib.loads(storage.read(name).decode())
        _Manifest.model_validate(manifest)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotAStoreError(_not_a_store(storage.root)) from error
    except OSError as error:
        raise StoreError(f"{storage.where(name)}: cannot be read ({error.strerror}); allow reading it") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
        problem = f"{_first_problem(error)}; `arabesque repair {storage.root}` fixes it"
        raise StoreError(f"{storage.where(name)}: {problem}") from error
    return manifest


def stream_entries(manifest: Mapping[str, Any]) -> dict[str, StreamEntry]:
    """Return the streams of a manifest, in its order."""
    return _Manifest.model_validate(manifest).streams


def is_manifest_intact(data: bytes) -> bool:
    """Return whether the bytes of a manifest's file are unchanged since it was written."""
    written, stamp, digest = data.rpartition(_STAMP)
    return bool(stamp) and digest == hashlib.sha256(written).hexdigest().encode() + b"\n"


def is_free(place: Store | StorePath) -> bool:
    """Return whether a store may be created at this path: it has no other files."""
    try:
        return not _foreign_entries(Store.open(place).storage)
    except NotADirectoryError:
        return False


def refuse_other_recipe(place: Store | StorePath, name: str, changes: Mapping[str, Any] | None = None) -> None:
    """Raise `InputError` if the store has features of another recipe, or the folder has other files.

    Args:
        place: The store, or its folder or URL.
        name: Name of the recipe.
        changes: Changed settings of the recipe, for the message.
    """
    store = Store.open(place)
    if not is_store(store):
        if not is_free(store):
            raise InputError(f"{store.path}: is not empty and not a feature store; give --out a new or empty folder")
        return
    made_by = read_manifest(store)["recipe"]
    if made_by["name"] == name:
        return
    action = "give --out another folder"
    if made_by["name"].partition("+")[0] == name.partition("+")[0]:
        there, here = made_by.get("changes"), changes
        repeat = f"with {changes_text(there)}" if there else "without --set, --weights STREAM.ROLE=NAME and --precision"
        action = f"run the command {repeat}{' only' if there and here else ''} to continue it, or {action}"
    raise InputError(f"{store.path}: contains features of recipe {made_by['name']!r}, not {name!r}; {action}")


def _foreign_entries(storage: Storage) -> list[str]:
    """List files that do not belong to a store. Hidden names are ignored: a killed run may leave them."""
    ours = {MANIFEST, OUTCOMES, BOXES, ARCHIVE, CLIPS_FILE}
    return [name for name in storage.entries() if not name.startswith((".", "stream=")) and name not in ours]


def _not_a_store(root: StorePath) -> str:
    if isinstance(root, Path) and not root.exists():
        return f"{root}: the folder does not exist; name a feature store that `arabesque extract` wrote"
    return f"{root}: is not a feature store: it has no {MANIFEST}; name a folder that `arabesque extract` wrote"


def _first_problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return validation_message(error)
    return str(error)
