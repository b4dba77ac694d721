"""Functions that build an extractor, and compute the row of a network for generated pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from arabesque.extractors.geometry import apply_geometry
from arabesque.extractors.protocol import Extractor, SegmentInput
from arabesque.extractors.table import build, resolve
from arabesque.manifests.streams import Sampling, StreamSpec

CPU = torch.device("cpu")


def extractor_for(name: str, weights: Any, frames: int = 1, **settings: Any) -> Extractor:
    sampling = Sampling(fps=5, frames_per_segment=frames, frames_per_step=frames, remainder="drop-tail")
    spec = resolve(StreamSpec(extractor=name, sampling=sampling, settings=settings))
    return build(spec, {"network": weights}, CPU)


def picture_frames(num_frames: int) -> Tensor:
    coarse = np.random.default_rng(3).integers(0, 256, (num_frames, 3, 12, 16), np.uint8)
    return torch.nn.functional.interpolate(torch.from_numpy(coarse), (121, 163), mode="bilinear")


def row_of(extractor: Extractor, frames: Tensor) -> Tensor:
    assert extractor.frames is not None
    seen = apply_geometry(frames, extractor.frames.geometry)
    [row] = extractor.forward([extractor.prepare(SegmentInput(0, 0.0, 1.0, frames=seen))])
    assert row is not None
    return row
