"""What a stored row must be, beyond the admission that it passed: whole, on its grid, under the key of its contents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ...manifests.streams import Sampling
from ..keys import row_key
from ..records import FeatureRow
from .manifest import StreamEntry

_SAME_TIME_S = 1e-6


def samplings(manifest: Mapping[str, Any]) -> dict[str, Sampling]:
    """Stream → how its segments were cut, as far as the manifest's recipe says so (an import's does not)."""
    found: dict[str, Sampling] = {}
    for name, spec in manifest.get("recipe", {}).get("streams", {}).items():
        try:
            found[name] = Sampling.model_validate(spec["sampling"])
        except (ValidationError, LookupError, TypeError):
            continue
    return found


def row_problem(row: FeatureRow, stream: str, entry: StreamEntry | None, sampling: Sampling | None) -> str:
    """What is wrong with a row in the folder of ``stream``; empty where nothing is.

    ``entry`` and ``sampling``: the manifest's; None where it says nothing of this stream under the row's settings.
    """
    if row.stream != stream:
        return f"it is of stream {row.stream!r}"
    if row.key != row_key(row.content_digest, row.settings_digest):
        return "its key is not that of its contents and settings"
    if row.outcome not in ("done", "partial"):
        return f"its outcome is {row.outcome!r}"
    segments, dim = row.features.shape
    if not segments or (entry is not None and dim != entry.dim):
        return f"its features are {segments} × {dim}" + (f", not × {entry.dim}" if entry is not None else "")
    if not np.isfinite(row.features).all():
        return "it holds numbers that are not finite"
    return _times_problem(row.start_s, row.end_s, segments, sampling)


def _times_problem(
    start_s: NDArray[np.float64], end_s: NDArray[np.float64], segments: int, sampling: Sampling | None
) -> str:
    if start_s.shape != (segments,) or end_s.shape != (segments,):
        return f"it has {len(start_s)} starts and {len(end_s)} ends for {segments} segments"
    if not (np.isfinite(start_s).all() and np.isfinite(end_s).all() and np.all(start_s < end_s)):
        return "a segment of it does not end after its start"
    if np.any(np.diff(start_s) <= 0):
        return "its segments are not in the order of time"
    return "" if sampling is None else _grid_problem(start_s, end_s, sampling)


def _grid_problem(start_s: NDArray[np.float64], end_s: NDArray[np.float64], sampling: Sampling) -> str:
    """Against the recipe; a row may lack segments, so that only what is there can be off the grid."""
    length, step = sampling.frames_per_segment, sampling.frames_per_step
    if step >= length and np.any(end_s[:-1] > start_s[1:] + _SAME_TIME_S):
        return "its segments overlap, which the recipe's do not"
    if sampling.fps == "native" or sampling.frame_choice != "nearest-time":
        return ""  # frames lie where the video has them
    steps = (start_s - start_s[0]) * sampling.fps / step
    lasts_s = end_s - start_s
    is_on_grid = np.all(np.abs(steps - np.round(steps)) < _SAME_TIME_S * sampling.fps)
    if not is_on_grid or np.any(np.abs(lasts_s[:-1] - length / sampling.fps) > _SAME_TIME_S):
        return f"its segments are not on the recipe's grid ({length} frames every {step} at {sampling.fps:g} fps)"
    return "" if lasts_s[-1] <= length / sampling.fps + _SAME_TIME_S else "its last segment is too long"
