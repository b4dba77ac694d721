"""Conversion of an array in a feature file to a row of the store, or to an outcome with a reason."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import StoreError
from ..digests import row_key
from ..records import FeatureRow, Outcome, one_line
from .export_manifest import ExportedArray
from .feature_arrays import FeatureArray
from .import_timing import TimeGrid

Parts = Literal["mean", "split"]


@dataclass(frozen=True)
class ImportStream:
    """A stream to import."""

    name: str
    dim: int
    parts: int
    """Rows per segment in ``[segments, parts, dim]``; 0 for ``[segments, dim]``."""
    grid: TimeGrid
    parts_as: Parts
    settings_digest: str


class UnfitArray(ValueError):
    """An array that cannot become a feature row; the message is the reason in its outcome."""


def imported_row(array: FeatureArray, stream: ImportStream, format: str) -> FeatureRow | Outcome:
    """Return the row of an array, or an ``empty`` or ``failed`` outcome."""
    try:
        values = array.load()
        if values.size == 0:
            return replace(_end(array, stream), kind="empty", reason="the file contains an array without rows")
        times = array.load_times() if stream.grid.in_files and array.load_times is not None else None
        features, start_s, end_s = _placed(values, stream, times)
        file_digest = _file_digest(Path(array.file))
    except (StoreError, UnfitArray, OSError) as error:
        return replace(_end(array, stream), kind="failed", reason=one_line(str(error)))
    content = _content_digest(values, times)
    provenance = {
        "source": one_line(str(Path(array.file).resolve())),
        "source_sha256": file_digest,
        "source_format": format,
        "source_dtype": values.dtype.name,
        "source_shape": "x".join(map(str, values.shape)),
        "time_unit": stream.grid.unit,
    }
    if not np.array_equal(values.astype(np.float32), values):  # float16 is always exact
        provenance["rounded_from"] = values.dtype.name
    return FeatureRow(
        video_id=array.video_id,
        stream=stream.name,
        key=row_key(content, stream.settings_digest),
        content_digest=content,
        settings_digest=stream.settings_digest,
        outcome="done",
        features=features,
        start_s=start_s,
        end_s=end_s,
        provenance=provenance,
    )


def restored_row(array: FeatureArray) -> FeatureRow | Outcome:
    """Return the row that an array was exported from, bit for bit, or a ``failed`` outcome."""
    exported = _exported(array)
    failed = Outcome(array.video_id, array.stream, "failed", settings_digest=exported.settings_digest)
    try:
        values = array.load()
        if _file_digest(Path(array.file)) != array.file_sha256:
            raise UnfitArray(f"{array.file}: was changed after the export; export again, or import it with --format")
        if (values.dtype.name, values.shape) != (exported.dtype, exported.shape) or values.ndim < 2:
            raise UnfitArray(f"{array.file}: contains {values.dtype} {list(values.shape)}, not what was exported")
        if not np.isfinite(values).all():
            raise UnfitArray(f"{array.file}: contains numbers that are not finite; get the file again")
    except (StoreError, UnfitArray, OSError) as error:
        return replace(failed, reason=one_line(str(error)))
    return FeatureRow(
        video_id=array.video_id,
        stream=array.stream,
        key=exported.key,
        content_digest=exported.content_digest,
        settings_digest=exported.settings_digest,
        outcome="partial" if exported.outcome.get("kind") == "partial" else "done",
        features=values.astype(np.float32),
        start_s=np.array(exported.start_s),
        end_s=np.array(exported.end_s),
        provenance=dict(exported.provenance),
    )


def restored_outcome_of(array: FeatureArray, row: FeatureRow) -> Outcome:
    """Return the outcome of a restored row."""
    return restored_outcome(_exported(array).outcome, row)


def _exported(array: FeatureArray) -> ExportedArray:
    if array.exported is None:
        raise ValueError(f"{array.video_id}: the array has no export record")
    return array.exported


def restored_outcome(fields: Mapping[str, Any], row: FeatureRow | None = None) -> Outcome:
    """Return the outcome in an export record. Fields of later versions are ignored."""
    known = {name: value for name, value in fields.items() if name in Outcome.__dataclass_fields__}
    if "holes" in known:
        known["holes"] = tuple((float(start_s), float(end_s)) for start_s, end_s in known["holes"])
    if row is not None:
        known |= {"video_id": row.video_id, "stream": row.stream, "key": row.key, "kind": row.outcome}
        known |= {"settings_digest": row.settings_digest, "content_digest": row.content_digest}
    return Outcome(**known)


def _placed(
    values: NDArray[Any], stream: ImportStream, times: NDArray[np.float64] | None
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Return (features, start_s, end_s). Raises UnfitArray if the shape is not that of the stream."""
    parts, dim = parts_and_dim(values)
    if (parts, dim) != (stream.parts, stream.dim):
        wanted = f"[segments, {stream.parts}, {stream.dim}]" if stream.parts else f"[segments, {stream.dim}]"
        raise UnfitArray(
            f"shape {list(values.shape)}, where stream {stream.name} has {wanted}; import it as another stream"
        )
    with np.errstate(over="ignore"):  # reported below
        features = _merged(values.astype(np.float32), stream)
    if not np.isfinite(features).all():
        raise UnfitArray("contains numbers that are not finite (or too large for float32); get the file again")
    if stream.grid.in_files:
        if times is None:
            raise UnfitArray("has no times in seconds, unlike other files of its stream; give --fps for all of them")
        if times.shape != (2, len(features)):
            raise UnfitArray(f"has times for {times.shape[1]} of {len(features)} rows; compute both again")
        return np.ascontiguousarray(features), times[0].copy(), times[1].copy()
    rows_per_segment = parts if parts and stream.parts_as == "split" else 1
    return np.ascontiguousarray(features), *stream.grid.intervals(len(values), rows_per_segment)


def parts_and_dim(values: NDArray[Any]) -> tuple[int, int]:
    """Return (parts, dim) of ``[segments, dim]`` (0 parts) or ``[segments, parts, dim]``."""
    if values.ndim not in (2, 3):
        raise UnfitArray(f"shape {list(values.shape)} is neither [segments, dim] nor [segments, parts, dim]")
    return (values.shape[1] if values.ndim == 3 else 0), values.shape[-1]


def _merged(values: NDArray[Any], stream: ImportStream) -> NDArray[Any]:
    """``[rows, dim]``"""
    if not stream.parts:
        return values
    return values.mean(axis=1) if stream.parts_as == "mean" else values.reshape(-1, values.shape[-1])


def outcome_of(array: FeatureArray, row: FeatureRow) -> Outcome:
    """Return the outcome of an imported row."""
    return Outcome(
        video_id=row.video_id,
        stream=row.stream,
        kind="done",
        key=row.key,
        content_digest=row.content_digest,
        settings_digest=row.settings_digest,
        size_bytes=row.features.nbytes,
        modified_ns=Path(array.file).stat().st_mtime_ns,
        segments=len(row.features),
    )


def _end(array: FeatureArray, stream: ImportStream) -> Outcome:
    return Outcome(array.video_id, stream.name, "failed", settings_digest=stream.settings_digest)


def _content_digest(values: NDArray[Any], times: NDArray[np.float64] | None) -> str:
    digest = hashlib.sha256(f"{values.dtype.str} {values.shape} ".encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    if times is not None:
        digest.update(times.tobytes())
    return digest.hexdigest()


def _file_digest(file: Path) -> str:
    status = file.stat()
    return _digest_of_bytes(file, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _digest_of_bytes(file: Path, modified_ns: int, size_bytes: int) -> str:
    """Return the SHA-256 of a file, cached while it is unchanged, because one file may have hundreds of arrays."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
