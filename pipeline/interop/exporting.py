"""Export of a feature store to the files that published code reads.

An export may be killed at any time: files are written under a temporary name and renamed, and the manifest is marked as
incomplete until all files are written. The same command continues an export, and updates rows that have changed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import InputError, StoreError
from ...manifests.validation import suggestion
from ..store.files.local import inside
from ..store.reader import FeatureStore
from ..store.stream_features import StreamFeatures
from .export_manifest import (
    COMPLETE,
    INCOMPLETE,
    ExportedArray,
    ExportedFile,
    ExportHeader,
    ExportManifest,
    line_of,
    lines_of,
    manifest_path,
    read_manifest_file,
)
from .export_planning import NotExported, Number, PlannedRow, as_json, chosen_streams, header_of, planned_files
from .feature_arrays import NamedArray
from .formats import FORMATS, Format

_FLOAT16_MAX = float(np.finfo(np.float16).max)
_UNFIT_PATH = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}


@dataclass(frozen=True)
class Exported:
    """Result of an export."""

    files: tuple[Path, ...]
    num_arrays: int
    num_kept: int = 0
    """Number of files that an earlier run of the same command wrote and that are unchanged."""
    removed: tuple[Path, ...] = ()
    """Removed files of videos that are no longer in the store."""
    failed: tuple[NotExported, ...] = ()
    num_partial: int = 0
    """Number of rows of partly decoded videos that were left out."""


def export(
    store: FeatureStore,
    out: Path,
    format: str,
    *,
    streams: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    action: str | None = None,
    number: Number = "source",
    force: bool = False,
    on_file: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Write the features of a store to files, with a manifest from which `import` restores the rows.

    Args:
        store: The store. If it was opened with ``partial=True``, rows of partly decoded videos are also written.
        out: A folder, or a file if the format stores all arrays in one file.
        format: A name of `FORMATS`.
        streams: Streams to export; all by default.
        names: Stream → its label in folders, suffixes or dict files.
        action: Action of videos whose id does not start with one (`pamfn-dict`).
        number: Number type. ``source``: the type of an imported array in its file if the conversion is exact, else
            float32.
        force: Replace existing files.
        on_file: Called with the number of written files and the number of all files.

    Raises:
        InputError: An option is wrong, files already exist, or there are no rows to export.
        StoreError: A file cannot be written, or the store cannot be read.
    """
    if format not in FORMATS:
        hint = suggestion(format, FORMATS)
        raise InputError(f"format {format!r} is not known{hint}; there are {', '.join(FORMATS)}")
    chosen = FORMATS[format]
    wanted, labels = chosen_streams(store, streams), names or {}
    is_file = out.suffix in chosen.suffixes
    failed: list[NotExported] = []
    planned, num_partial = planned_files(store, wanted, out, chosen, labels, action, number, failed)
    if not planned:
        if failed:
            raise InputError(failed[0].reason)
        raise InputError(f"{store.path}: no features of {', '.join(wanted)} to export")
    header = header_of(store, format, wanted, labels, action, number)
    complete, incomplete = (manifest_path(out, name, is_file=is_file) for name in (COMPLETE, INCOMPLETE))
    root = out.parent if is_file else out
    earlier = _earlier(complete, incomplete, header, force=force)
    if not earlier.is_interrupted:  # an interrupted run may have written these files
        _refuse_existing([root / file for file in planned if file not in earlier.recorded], force=force)
    kept = {
        file: earlier.current[file]
        for file in planned
        if file in earlier.current and _is_current(earlier.current[file], planned[file], root)
    }
    stale = [record for file, record in earlier.recorded.items() if file not in planned]
    outcomes = [asdict(one) for one in store.outcomes() if one.kind == "empty" and one.stream in wanted]
    found = earlier.finished
    is_same = found is not None and (found.header, list(found.outcomes)) == (header, as_json(outcomes))
    if is_same and len(kept) == len(planned) and not stale:
        num_arrays = sum(len(record.arrays) for record in kept.values())
        return Exported(_paths(root, planned), num_arrays, len(kept), (), tuple(failed), num_partial)
    written = dict(kept)
    with _journal(incomplete, lines_of(header, kept.values())) as journal:
        for done, (file, rows) in enumerate(planned.items()):
            if file not in kept:
                record = _write_file(root, file, rows, store, chosen, number, failed)
                if record is not None:
                    written[file] = record
                    journal.write(line_of(record.model_dump()))
                    journal.flush()
            on_file(done + 1, len(planned))
        if not written:
            incomplete.unlink()
            raise StoreError(failed[0].reason)
        removed = [path for record in stale if (path := _removed(record, root)) is not None]
        for outcome in outcomes:
            journal.write(line_of({"outcome": outcome}))
        journal.write(line_of({"complete": True}))
        journal.flush()
        os.fsync(journal.fileno())
        incomplete.replace(complete)
    return Exported(
        _paths(root, written),
        sum(len(record.arrays) for record in written.values()),
        len(kept),
        tuple(removed),
        tuple(failed),
        num_partial,
    )


@contextmanager
def written_whole(path: Path) -> Generator[BinaryIO, None, None]:
    """Open a temporary file that is flushed and renamed to ``path`` on success, and removed after an error."""
    temporary = path.with_name(f".tmp-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w+b") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written ({error.strerror or error}); free space or permit writing, then run the same "
            "command again to continue"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def _journal(path: Path, beginning: bytes) -> Generator[BinaryIO, None, None]:
    """Open a new incomplete manifest. Raises InputError if another export is writing it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as journal:
            try:
                fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"{path.parent}: another export is writing here; wait until it has finished"
                ) from error
            journal.truncate(0)
            journal.write(beginning)
            journal.flush()
            yield journal
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror or error}); allow writing there") from error


@dataclass(frozen=True)
class _Earlier:
    """Records of earlier exports to the same path."""

    current: Mapping[str, ExportedFile]
    """Path → file of the same command."""
    recorded: Mapping[str, ExportedFile]
    """Path → file of any command."""
    finished: ExportManifest | None
    """Manifest of the same command, if no later export was interrupted."""
    is_interrupted: bool
    """An export with the same command was interrupted."""


def _earlier(complete: Path, incomplete: Path, header: ExportHeader, *, force: bool) -> _Earlier:
    """Read the earlier manifests. Raises InputError for an export with another command, unless ``force``."""
    recorded: dict[str, ExportedFile] = {}
    current: dict[str, ExportedFile] = {}
    finished: ExportManifest | None = None
    is_interrupted = False
    for path in (complete, incomplete):
        if not path.exists():
            continue
        is_torn = path == incomplete
        try:
            found = read_manifest_file(path, torn=is_torn)
        except StoreError:
            if force:
                continue
            raise
        if found is None:
            continue
        recorded |= found.files
        is_same = (found.header.format, found.header.command) == (header.format, header.command)
        if not (is_same or force):
            raise InputError(
                f"{path}: contains an export with other options ({found.header.format}, {found.header.command}); "
                "--force overwrites, or choose another --out"
            )
        current |= found.files if is_same else {}
        is_interrupted |= is_torn and is_same
        finished = found if is_same and not is_torn and not incomplete.exists() else finished
    return _Earlier(current, recorded, finished, is_interrupted)


def _is_current(record: ExportedFile, rows: Sequence[PlannedRow], root: Path) -> bool:
    """Return whether a file is unchanged and has the planned rows."""
    recorded = {(one.video_id, one.stream, one.member, one.key, one.outcome.get("kind")) for one in record.arrays}
    if recorded != {(row.video_id, row.stream, row.member, row.key, row.outcome.kind) for row in rows}:
        return False
    return _is_intact(record, root)


def _is_intact(record: ExportedFile, root: Path) -> bool:
    path = root / record.file
    try:
        return path.stat().st_size == record.size_bytes and _digest_of(path) == record.sha256
    except OSError:
        return False


def _digest_of(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _write_file(
    root: Path,
    file: str,
    rows: Sequence[PlannedRow],
    store: FeatureStore,
    chosen: Format,
    number: Number,
    failed: list[NotExported],
) -> ExportedFile | None:
    """Write a file. Return its record, or None if no row could be written."""
    arrays: list[ExportedArray] = []
    path = root / file
    try:
        with written_whole(path) as handle:
            chosen.write(handle, _members(rows, store, number, arrays, failed))
            if not arrays:
                raise _NothingToWrite
    except _NothingToWrite:
        return None
    except StoreError as error:
        if getattr(error.__cause__, "errno", None) not in _UNFIT_PATH:
            raise
        failed += [NotExported(row.video_id, row.stream, str(error)) for row in rows]
        return None
    return ExportedFile(file=file, size_bytes=path.stat().st_size, sha256=_digest_of(path), arrays=tuple(arrays))


class _NothingToWrite(Exception):
    pass


def _members(
    rows: Sequence[PlannedRow],
    store: FeatureStore,
    number: Number,
    arrays: list[ExportedArray],
    failed: list[NotExported],
) -> Iterator[NamedArray]:
    """Yield the rows and record each in ``arrays``; record a row that cannot be written in ``failed``."""
    for row in rows:
        try:
            features = store.read(row.video_id, row.stream)
            values = _as_number(features, number)
        except (StoreError, KeyError) as error:
            failed.append(NotExported(row.video_id, row.stream, str(error)))
            continue
        arrays.append(_exported(row, features, values, number))
        yield NamedArray(row.video_id, row.label, row.member, lambda values=values: values)


def _exported(row: PlannedRow, features: StreamFeatures, values: NDArray[Any], number: Number) -> ExportedArray:
    outcome = {name: value for name, value in asdict(row.outcome).items() if name not in ("video_id", "stream", "key")}
    provenance = dict(features.provenance)
    if number == "float16" and not np.array_equal(values.astype(np.float32), features.values):
        provenance["rounded_to"] = "float16"
    return ExportedArray(
        video_id=row.video_id,
        stream=row.stream,
        member=row.member,
        dtype=values.dtype.name,
        shape=values.shape,
        key=row.key,
        content_digest=features.content_digest,
        settings_digest=row.settings_digest,
        start_s=tuple(map(float, features.start_s)),
        end_s=tuple(map(float, features.end_s)),
        provenance=provenance,
        outcome=as_json({**outcome, "kind": features.outcome}),
    )


def _as_number(features: StreamFeatures, number: Number) -> NDArray[Any]:
    values = features.values
    if number == "source":  # the mean of two halves may not be exact in their type
        wanted = features.provenance.get("source_dtype", "float32")
        with np.errstate(over="ignore", invalid="ignore"):
            converted = values.astype(wanted)
        return converted if np.array_equal(converted.astype(np.float32), values) else values
    if number == "float16" and float(np.abs(values).max()) > _FLOAT16_MAX:
        raise StoreError(f"{features.video_id}, stream {features.stream}: too large for float16; export float32")
    return values.astype(number)


def _removed(record: ExportedFile, root: Path) -> Path | None:
    """Remove a file of an earlier run, unless it was changed or is reached through a link."""
    try:
        path = inside(root, record.file)
    except StoreError:
        return None
    if not _is_intact(record, root):
        return None
    path.unlink()
    with suppress(OSError):
        for folder in path.relative_to(root).parents[:-1]:
            (root / folder).rmdir()
    return path


def _paths(root: Path, files: Mapping[str, object]) -> tuple[Path, ...]:
    return tuple(root / file for file in files)


def _refuse_existing(files: Sequence[Path], *, force: bool) -> None:
    existing = [path for path in files if path.exists()]
    if existing and not force:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise InputError(f"{existing[0]}{more}: already exists; --force overwrites, or choose another --out")
    folders = [path for path in existing if path.is_dir()]
    if folders:
        raise InputError(f"{folders[0]}: is a folder, but the export writes a file here; choose another --out")
