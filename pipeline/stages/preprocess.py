"""Preprocess stage: converts color, and applies each distinct geometry once for all streams that share it."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from ...extractors.geometry import apply_geometry, to_gray
from ...manifests.errors import ArabesqueError
from ...manifests.streams import Geometry
from ..items import ChunkFailure, DecodedChunk, PreprocessedChunk
from ..system.accelerators import on_device
from ..system.process_resources import malloc_trim
from .color import to_rgb


def preprocess(item: DecodedChunk) -> PreprocessedChunk | ChunkFailure:
    """Convert color, apply every geometry to the frames that need it, and release the decoder's buffer."""
    assert item.frames is not None
    try:
        frames = on_device(item.frames.device, "preprocess", partial(_frames_by_geometry, item, item.frames))
    except ArabesqueError:  # the GPU has failed
        raise
    except Exception as error:
        return ChunkFailure(item.plan, f"preprocessing failed: {type(error).__name__}: {error}")
    finally:
        item.chunk.release()
        malloc_trim()
    return PreprocessedChunk(item.plan, frames, item.chunk.audio)


def _frames_by_geometry(
    item: DecodedChunk, decoded: torch.Tensor
) -> dict[Geometry, tuple[NDArray[np.int64], torch.Tensor]]:
    indices, color = item.chunk.indices, item.chunk.color
    pictures = decoded.permute(0, 3, 1, 2) if color is None else to_rgb(decoded, color)
    found: dict[Geometry, tuple[NDArray[np.int64], torch.Tensor]] = {}
    for geometry, needed in item.plan.frames_by_geometry.items():
        chosen = np.isin(indices, needed)
        places = np.flatnonzero(chosen).tolist()
        if len(places) in (0, len(pictures)):
            parts = [pictures[: len(places)]]
        elif geometry.gray:
            parts = [to_gray(pictures, places)]
        elif pictures.device.type == "cpu":  # views: copying pictures takes longer than one call for each
            parts = [pictures[place : place + 1] for place in places]
        else:  # indexing would copy the index to the device first
            parts = [torch.stack([pictures[place] for place in places])]
        results = [apply_geometry(part, geometry) for part in parts]
        result = results[0] if len(results) == 1 else torch.cat(results)
        if result.untyped_storage().data_ptr() == pictures.untyped_storage().data_ptr():
            result = result.clone()  # the result must not refer to the decoder's buffer
        found[geometry] = indices[chosen], result
    return found
