"""Validation of stored rows in the verification of a store; `writer` validates rows before they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ...manifests.streams import Sampling
from ..digests import row_key
from ..records import FeatureRow, fragment_of
from .manifest import StreamEntry

_SAME_TIME_S = 1e-6


def samplings(manifest: Mapping[str, Any]) -> dict[str, Sampling]:
    """Return stream → sampling, if the manifest has a recipe (not for imported features)."""
    found: dict[str, Sampling] = {}
    for name, spec in manifest.get("recipe", {}).get("streams", {}).items():
        try:
            found[name] = Sampling.model_validate(spec["sampling"])
        except (ValidationError, LookupError, TypeError):
            continue
    return found


def row_problem(row: FeatureRow, stream: str, entry: StreamEntry | None, sampling: Sampling | None) -> str:
    """Return the problem of a row in the folder of ``stream``; empty if the row is valid.

    Args:
        row: The row.
        stream: The stream of the folder in which the row is stored.
        entry: The manifest's entry for the stream; None if it has no entry under the row's settings.
        sampling: The manifest's sampling for the stream; None if unknown.
    """
    if row.stream != stream:
        return f"it is of stream {row.stream!r}"
    if row.key != row_key(row.content_digest, row.settings_digest, row.provenance.get("tracks", "")):
        return "its key does not fit its content and settings"
    if row.outcome not in ("done", "partial"):
        return f"its outcome is {row.outcome!r}"
    segments, *shape = row.features.shape
    if not segments or (entry is not None and tuple(shape) != entry.row_shape):
        wanted = "" if entry is None else f", not × {' × '.join(map(str, entry.row_shape))}"
        return f"its features are {segments} × {' × '.join(map(str, shape))}{wanted}"
    if not np.isfinite(row.features).all():
        return "it contains numbers that are not finite"
    has_stretches = "cut=" in fragment_of(row.content_digest)
    return _times_problem(row.start_s, row.end_s, segments, sampling, has_stretches=has_stretches)


def _times_problem(
    start_s: NDArray[np.float64],
    end_s: NDArray[np.float64],
    segments: int,
    sampling: Sampling | None,
    *,
    has_stretches: bool,
) -> str:
    if start_s.shape != (segments,) or end_s.shape != (segments,):
        return f"it has {len(start_s)} starts and {len(end_s)} ends for {segments} segments"
    if not (np.isfinite(start_s).all() and np.isfinite(end_s).all() and np.all(start_s < end_s)):
        return "a segment does not end after its start"
    if np.any(np.diff(start_s) <= 0):
        return "its segments are not in temporal order"
    return "" if sampling is None else _grid_problem(start_s, end_s, sampling, has_stretches=has_stretches)


def _grid_problem(
    start_s: NDArray[np.float64], end_s: NDArray[np.float64], sampling: Sampling, *, has_stretches: bool
) -> str:
    """Compare with the recipe's time grid. Segments may be absent, but the others must be on the grid.

    With ``has_stretches``, each part of the video between excluded stretches has a separate grid, and segments may
    follow a gap.
    """
    length, step = sampling.frames_per_segment, sampling.frames_per_step
    if sampling.remainder == "pad-both":
        length = step  # rows of centered segments have the interval of a step
    if step >= length and np.any(end_s[:-1] > start_s[1:] + _SAME_TIME_S):
        return "its segments overlap, but those of the recipe do not"
    if sampling.fps == "native" or sampling.frame_choice != "nearest-time":
        return ""  # the times are those of the video's frames
    if has_stretches:
        is_short = bool(np.all(end_s - start_s <= length / sampling.fps + _SAME_TIME_S))
        return "" if is_short else f"a segment is longer than {length} frames at {sampling.fps:g} fps"
    steps = (start_s - start_s[0]) * sampling.fps / step
    lasts_s = end_s - start_s
    is_on_grid = bool((np.abs(steps - steps.round()) < _SAME_TIME_S * sampling.fps).all())
    if not is_on_grid or np.any(np.abs(lasts_s[:-1] - length / sampling.fps) > _SAME_TIME_S):
        return f"its segments are not on the recipe's grid ({length} frames every {step} at {sampling.fps:g} fps)"
    return "" if lasts_s[-1] <= length / sampling.fps + _SAME_TIME_S else "its last segment is too long"
