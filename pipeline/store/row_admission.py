"""What a feature row must be before a store takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..records import FeatureRow
from .manifest import StreamEntry

_FLOAT16_MAX = float(np.finfo(np.float16).max)
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def admitted(row: FeatureRow, streams: Mapping[str, StreamEntry], *, float16: bool) -> FeatureRow:
    """The row with arrays of its own; ValueError where it does not belong into a store of these streams."""
    name = f"{row.video_id}, stream {row.stream}"
    entry = streams.get(row.stream)
    if entry is None:
        raise ValueError(f"{name}: the store has only {', '.join(streams)}; write the manifest first")
    if row.settings_digest != entry.settings_digest:
        raise ValueError(
            f"{name}: made under settings {row.settings_digest}, the store's are {entry.settings_digest}; "
            "write the new manifest first"
        )
    _check_shapes(name, row, entry.dim)
    largest = float(np.abs(row.features).max())
    if not largest <= (_FLOAT16_MAX if float16 else _FLOAT32_MAX):  # NaN compares as False
        raise ValueError(f"{name}: features reach {largest}, which cannot be stored; use float32 if they are finite")
    return replace(
        row,
        features=row.features.copy(),
        start_s=np.array(row.start_s, np.float64),
        end_s=np.array(row.end_s, np.float64),
        provenance=dict(row.provenance),
    )


def _check_shapes(name: str, row: FeatureRow, dim: int) -> None:
    segments = len(row.features)
    if row.features.dtype != np.float32 or row.features.shape != (segments, dim) or not segments:
        raise ValueError(
            f"{name}: features are {row.features.dtype} {list(row.features.shape)}, "
            f"not float32 [segments, {dim}] with at least one segment"
        )
    if row.start_s.shape != (segments,) or row.end_s.shape != (segments,):
        raise ValueError(f"{name}: needs one start_s and one end_s for each of {segments} segments")
    if not np.all(row.start_s < row.end_s):
        raise ValueError(f"{name}: needs every start_s before its end_s")
