"""Preprocess stage: convert color and apply each distinct geometry once for all streams that share it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ...extractors.geometry import apply_geometry, to_gray
from ...manifests.errors import ArabesqueError
from ...manifests.streams import Geometry
from ..items import ChunkFailure, DecodedChunk, PreprocessedChunk
from ..system.device_errors import on_device
from ..system.own_process import malloc_trim
from .color import to_rgb


def preprocess(item: DecodedChunk) -> PreprocessedChunk | ChunkFailure:
    """Convert color, apply every geometry to the frames that need it, and release the decoder's buffer."""
    decoded, indices, color = item.frames, item.chunk.indices, item.chunk.color
    assert decoded is not None

    def frames_by_geometry() -> dict[Geometry, tuple[NDArray[np.int64], torch.Tensor]]:
        pictures = decoded.permute(0, 3, 1, 2) if color is None else to_rgb(decoded, color)
        return {
            geometry: _apply(pictures, indices, np.isin(indices, needed), geometry)
            for geometry, needed in item.plan.frames_by_geometry.items()
        }

    try:
        frames = on_device(decoded.device, "preprocess", frames_by_geometry)
    except ArabesqueError:  # the GPU has failed
        raise
    except Exception as error:
        return ChunkFailure(item.plan, f"preprocessing failed: {type(error).__name__}: {error}")
    finally:
        item.chunk.release()
        malloc_trim()
    return PreprocessedChunk(item.plan, frames, item.chunk.audio)


def _apply(
    frames: torch.Tensor, indices: NDArray[np.int64], chosen: NDArray[np.bool_], geometry: Geometry
) -> tuple[NDArray[np.int64], torch.Tensor]:
    places = np.flatnonzero(chosen).tolist()
    if len(places) in (0, len(frames)):
        result = apply_geometry(frames[: len(places)], geometry)
    elif geometry.gray:
        result = apply_geometry(to_gray(frames, places), geometry)
    elif frames.device.type == "cpu":  # views: copies of pictures cost more than a call for each of them
        result = torch.cat([apply_geometry(frames[place : place + 1], geometry) for place in places])
    else:  # an index would be copied to the device first
        result = apply_geometry(torch.stack([frames[place] for place in places]), geometry)
    if result.untyped_storage().data_ptr() == frames.untyped_storage().data_ptr():
        result = result.clone()  # the result must not refer to the decoder's buffer
    return indices[chosen], result
