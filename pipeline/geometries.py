"""The preprocessing stage: each distinct geometry of a window is computed once, whichever streams share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..extractors.geometry import apply_geometry
from ..manifests.streams import Geometry
from .colour import to_rgb
from .decoding.slots import AudioChunk
from .heap import give_back
from .transfer import DecodedWindow
from .work import Passing, VideoPlan


@dataclass(frozen=True, eq=False)
class PreprocessedWindow:
    """The same frames as the networks see them: geometry → (frame indices, ``uint8 [frames, channels, h, w]``)."""

    plan: VideoPlan
    frames: Mapping[Geometry, tuple[NDArray[np.int64], torch.Tensor]]
    audio: AudioChunk | None


def preprocess(item: DecodedWindow | Passing) -> PreprocessedWindow | WindowFailure | Passing:
    """Colour, then every geometry for the frames that need it; gives the slot's memory back."""
    if not isinstance(item, DecodedWindow):
        return item
    indices = item.window.indices
    try:
        pictures = _in_colour(item)
        frames = {
            geometry: _apply(pictures, indices, np.isin(indices, needed), geometry)
            for geometry, needed in item.plan.frames_by_geometry.items()
        }
    except Exception as error:
        return WindowFailure(item.plan, f"preprocessing failed: {type(error).__name__}: {error}")
    finally:
        item.window.release()
        give_back()
    return PreprocessedWindow(item.plan, frames, item.window.audio)


@dataclass(frozen=True, eq=False)
class WindowFailure:
    """A window that could not be preprocessed: its video fails, nothing else does."""

    plan: VideoPlan
    reason: str


def _in_colour(item: DecodedWindow) -> torch.Tensor:
    """``uint8 [frames, 3, height, width]``"""
    if item.window.colour is None:
        return item.frames.permute(0, 3, 1, 2)
    return to_rgb(item.frames, item.window.colour)


def _apply(
    frames: torch.Tensor, indices: NDArray[np.int64], chosen: NDArray[np.bool_], geometry: Geometry
) -> tuple[NDArray[np.int64], torch.Tensor]:
    picked = frames if chosen.all() else frames[torch.from_numpy(np.flatnonzero(chosen)).to(frames.device)]
    result = apply_geometry(picked, geometry)
    if result.untyped_storage().data_ptr() == frames.untyped_storage().data_ptr():
        result = result.clone()  # nothing may outlive the slot's memory
    return indices[chosen], result
