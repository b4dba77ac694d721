"""The preprocessing stage: each distinct geometry of a window is computed once, whichever streams share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..extractors.geometry import apply_geometry
from ..manifests.streams import Geometry
from .decoding.slots import AudioChunk, Window
from .heap import give_back
from .work import Passing, VideoPlan


@dataclass(frozen=True, eq=False)
class DecodedWindow:
    """Some consecutive wanted frames of a video; ``frames`` are ``uint8 [frames, height, width, 3]`` on the device."""

    plan: VideoPlan
    window: Window
    frames: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.uint8))


@dataclass(frozen=True, eq=False)
class PreprocessedWindow:
    """The same frames as the networks see them: geometry → (frame indices, ``uint8 [frames, channels, h, w]``)."""

    plan: VideoPlan
    frames: Mapping[Geometry, tuple[NDArray[np.int64], torch.Tensor]]
    audio: AudioChunk | None


class Transfer:
    """Brings windows to their device; to a CPU without a copy, in the slot's own memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, item: DecodedWindow | Passing) -> DecodedWindow | Passing:
        if not isinstance(item, DecodedWindow):
            return item
        return replace(item, frames=torch.from_numpy(item.window.frames).to(self._device))


def preprocess(item: DecodedWindow | Passing) -> PreprocessedWindow | WindowFailure | Passing:
    """Applies every geometry to the frames that need it, and gives the slot's memory back."""
    if not isinstance(item, DecodedWindow):
        return item
    indices = item.window.indices
    try:
        frames = {
            geometry: _apply(item.frames, indices, np.isin(indices, needed), geometry)
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


def _apply(
    frames: torch.Tensor, indices: NDArray[np.int64], chosen: NDArray[np.bool_], geometry: Geometry
) -> tuple[NDArray[np.int64], torch.Tensor]:
    picked = frames if chosen.all() else frames[torch.from_numpy(np.flatnonzero(chosen)).to(frames.device)]
    result = apply_geometry(picked.permute(0, 3, 1, 2), geometry)
    if result.untyped_storage().data_ptr() == frames.untyped_storage().data_ptr():
        result = result.clone()  # nothing may outlive the slot's memory
    return indices[chosen], result
