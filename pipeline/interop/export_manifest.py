"""The manifest of an export: the metadata of its rows that the file formats cannot store.

The manifest is a file of JSON lines: a header, a line per file with its arrays, the outcomes without a row, and a last
line that marks the export as complete. Until then it has the name `INCOMPLETE`. The manifest of a folder is in that
folder; the manifest of a single file has the name of the file as a prefix.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ...manifests.errors import InputError, StoreError
from ...manifests.validation import validation_message
from ..store.manifest import stream_entries

COMPLETE = "arabesque-export.jsonl"
INCOMPLETE = "arabesque-export.incomplete.jsonl"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExportHeader(_Record):
    """The exported store, and the options of the export."""

    arabesque_export: Literal[1] = 1
    format: str
    command: dict[str, Any]
    """All options that affect the files: streams, names, action, number, partial."""
    store: dict[str, Any]
    """Manifest of the store, with the exported streams only."""


class ExportedArray(_Record):
    """One array, and the row of the store that it was exported from."""

    video_id: str
    stream: str
    member: str
    """Name of the array in its file; empty if the file has a single array."""
    dtype: str
    shape: tuple[int, ...]
    key: str
    content_digest: str
    settings_digest: str
    start_s: tuple[float, ...]
    end_s: tuple[float, ...]
    provenance: dict[str, str]
    outcome: dict[str, Any]
    """Fields of `arabesque.pipeline.records.Outcome`."""


class ExportedFile(_Record):
    """One completely written file of an export."""

    file: str
    """Path below the folder of the export, with POSIX separators; for a single file its name."""
    size_bytes: int
    sha256: str
    arrays: tuple[ExportedArray, ...]


@dataclass(frozen=True)
class ExportManifest:
    """The records of an export."""

    header: ExportHeader
    files: Mapping[str, ExportedFile]
    outcomes: tuple[dict[str, Any], ...] = field(default=())
    """Outcomes of videos without features (`empty`)."""


def manifest_path(out: Path, name: str, *, is_file: bool) -> Path:
    """Return the path of the manifest ``name`` of the export at ``out``."""
    return out.with_name(f"{out.name}.{name}") if is_file else out / name


def read_complete(out: Path) -> ExportManifest | None:
    """Return the manifest of the complete export at ``out``, or None if there is none.

    Raises:
        InputError: An export to this path was interrupted.
        StoreError: The manifest is damaged.
    """
    is_file = not out.is_dir()
    marker = manifest_path(out, INCOMPLETE, is_file=is_file)
    if marker.exists():
        raise InputError(
            f"{out}: an export to it was interrupted ({marker.name}); run the same `arabesque export` again, or remove "
            "that file to read its files as they are"
        )
    path = manifest_path(out, COMPLETE, is_file=is_file)
    if not path.exists():
        return None
    found = read_manifest_file(path, torn=False)
    if found is None:
        raise StoreError(f"{path}: is empty; run the same `arabesque export` with --force")
    return found


def read_manifest_file(path: Path, *, torn: bool) -> ExportManifest | None:
    """Read a manifest; return None if it is empty. ``torn``: accept a truncated file, as a killed export leaves it."""
    header: ExportHeader | None = None
    files: dict[str, ExportedFile] = {}
    outcomes: list[dict[str, Any]] = []
    is_complete = False
    try:
        lines = path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            if torn and not line.endswith(b"\n"):
                break
            where = f"{path}, line {number}"
            try:
                found = json.loads(line)
                if header is None:
                    header = ExportHeader.model_validate(found)
                    stream_entries(header.store)
                    if not isinstance(header.store["recipe"].get("name"), str):
                        raise ValueError("the recipe has no name")
                elif "file" in found:
                    record = ExportedFile.model_validate(found)
                    files[record.file] = record
                elif "outcome" in found:
                    outcomes.append(dict(found["outcome"]))
                else:
                    is_complete = found.get("complete") is True
            except ValidationError as error:
                raise StoreError(f"{where}: {validation_message(error)}; export again with --force") from error
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                raise StoreError(f"{where}: damaged ({error}); export again with --force") from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if header is None:
        return None
    if not (is_complete or torn):
        raise StoreError(f"{path}: is truncated; run the same `arabesque export` with --force")
    return ExportManifest(header, files, tuple(outcomes))


def lines_of(header: ExportHeader, files: Iterable[ExportedFile]) -> bytes:
    """Return the header and the file records as JSON lines."""
    return b"".join(line_of(record.model_dump()) for record in (header, *files))


def line_of(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=True, allow_nan=False).encode() + b"\n"
