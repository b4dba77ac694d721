"""The time grid of imported features, which feature files do not contain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import InputError
from ...manifests.recipes import load_recipe


@dataclass(frozen=True)
class TimeGrid:
    """Segment i starts at ``i * step_s`` and lasts ``length_s``, measured from the first segment's first frame.

    If a recipe drops half of its remainder at the start (GDLT), the first segment starts up to half a segment after the
    start of the video; the files do not contain this offset. Without ``fps`` segment i lasts from i to i + 1, and
    the store records that the unit is not seconds.
    """

    fps: float | None = None
    frames_per_segment: int = 1
    frames_per_step: int = 1
    in_files: bool = False
    """The files have the times of their rows; these are used instead."""

    def intervals(self, num_segments: int, parts: int = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (start_s, end_s) of all rows, with ``parts`` rows per segment."""
        rate = 1.0 if self.fps is None else self.fps
        row = np.arange(num_segments * parts, dtype=np.float64)
        length_s = self.frames_per_segment / rate / parts
        start_s = (row // parts) * (self.frames_per_step / rate) + (row % parts) * length_s
        return start_s, start_s + length_s

    @property
    def unit(self) -> str:
        return "segments" if self.fps is None and not self.in_files else "seconds"

    def facts(self) -> dict[str, Any]:
        """Return the grid for the manifest of the store."""
        if self.in_files:
            return {"unit": self.unit, "origin": "times in the imported files"}
        if self.fps is None:
            return {"unit": self.unit, "note": "start_s and end_s count segments, no seconds: the grid was not given"}
        grid = {"frames_per_segment": self.frames_per_segment, "frames_per_step": self.frames_per_step}
        return {"unit": self.unit, "fps": self.fps, **grid, "origin": "first frame of the first segment"}


def time_grid(
    fps: float | None, frames_per_segment: int | None, frames_per_step: int | None, recipe: str | None, stream: str
) -> TimeGrid:
    """Return the grid of the options, completed from the stream of a recipe. Raises InputError if it is incomplete."""
    known: Mapping[str, Any] = _sampling(recipe, stream) if recipe is not None else {}
    rate = fps or known.get("fps")
    length = frames_per_segment or known.get("frames_per_segment")
    if rate is None and length is None and frames_per_step is None:
        return TimeGrid()
    if rate is None or length is None:
        missing = "--fps (frames per second)" if rate is None else "--frames-per-segment"
        raise InputError(
            f"stream {stream!r}: its time grid lacks {missing}; give it, or omit all options of the time grid"
        )
    return TimeGrid(float(rate), length, frames_per_step or known.get("frames_per_step") or length)


def _sampling(recipe: str, stream: str) -> Mapping[str, Any]:
    streams = load_recipe(recipe).streams
    if stream not in streams:
        raise InputError(f"recipe {recipe!r} has no stream {stream!r}; it has {', '.join(streams)}")
    sampling = streams[stream].sampling.model_dump()
    return {name: value for name, value in sampling.items() if value != "native"}
