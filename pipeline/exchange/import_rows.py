"""From one array of a feature file to a row of the store, or to the outcome that says why there is none."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import StoreError
from ..keys import row_key
from ..records import FeatureRow, Outcome
from .feature_arrays import FeatureArray
from .import_timing import TimeGrid

Parts = Literal["mean", "split"]


@dataclass(frozen=True)
class ImportStream:
    """One stream of the source, on its way into the store."""

    name: str
    dim: int
    parts: int
    """Rows to a segment in ``[segments, parts, dim]``; 0 where the arrays are ``[segments, dim]``."""
    grid: TimeGrid
    parts_as: Parts
    settings_digest: str


class UnfitArray(ValueError):
    """An array that cannot be a feature row; the message is its outcome's reason."""


def imported_row(array: FeatureArray, stream: ImportStream, format: str) -> FeatureRow | Outcome:
    try:
        values = array.load()
        if values.size == 0:
            return replace(_end(array, stream), kind="empty", reason="the file holds an array without rows")
        features, start_s, end_s = _placed(values, stream)
    except (StoreError, UnfitArray) as error:
        return replace(_end(array, stream), kind="failed", reason=str(error))
    content = _content_digest(values)
    provenance = {
        "source": str(Path(array.file).resolve()),
        "source_sha256": _file_digest(Path(array.file)),
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


def _placed(
    values: NDArray[Any], stream: ImportStream
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """``(features, start_s, end_s)``; UnfitArray where the array is none of its stream."""
    parts, dim = shape_of(values)
    if (parts, dim) != (stream.parts, stream.dim):
        wanted = f"[segments, {stream.parts}, {stream.dim}]" if stream.parts else f"[segments, {stream.dim}]"
        raise UnfitArray(f"shape {list(values.shape)}, where stream {stream.name} has {wanted}; import it as another")
    with np.errstate(over="ignore"):  # told below
        features = _merged(values.astype(np.float32), stream)
    if not np.isfinite(features).all():
        raise UnfitArray("holds numbers that are not finite (or too large for float32); get the file anew")
    rows_per_segment = parts if parts and stream.parts_as == "split" else 1
    return np.ascontiguousarray(features), *stream.grid.intervals(len(values), rows_per_segment)


def shape_of(values: NDArray[Any]) -> tuple[int, int]:
    """``(parts, dim)`` of ``[segments, dim]`` (0 parts) or ``[segments, parts, dim]``."""
    if values.ndim not in (2, 3):
        raise UnfitArray(f"shape {list(values.shape)} is neither [segments, dim] nor [segments, parts, dim]")
    return (values.shape[1] if values.ndim == 3 else 0), values.shape[-1]


def _merged(values: NDArray[Any], stream: ImportStream) -> NDArray[Any]:
    """``[rows, dim]``"""
    if not stream.parts:
        return values
    return values.mean(axis=1) if stream.parts_as == "mean" else values.reshape(-1, values.shape[-1])


def outcome_of(array: FeatureArray, row: FeatureRow) -> Outcome:
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


def _content_digest(values: NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{values.dtype.str} {values.shape} ".encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _file_digest(file: Path) -> str:
    status = file.stat()
    return _digest_of_bytes(file, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _digest_of_bytes(file: Path, modified_ns: int, size_bytes: int) -> str:
    """Read once as long as it stays as it is: one file holds hundreds of arrays."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
