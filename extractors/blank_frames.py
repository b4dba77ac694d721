"""Frames that are none: zero after normalisation, which no uint8 can say (`Sampling.zero_last_frame`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..manifests.streams import Normalisation
from .geometry import normalise
from .protocol import SegmentInput


def around_blanks(segment: SegmentInput, normalisation: Normalisation) -> Tensor:
    """The segment's uint8 frames, or, where some are blank, float32 ones with the blank ones zero."""
    assert segment.frames is not None
    if not segment.blank_frames:
        return segment.frames
    clip = normalise(segment.frames, normalisation)
    clip[list(segment.blank_frames)] = 0
    return clip


def normalise_rest(clips: Tensor, normalisation: Normalisation) -> Tensor:
    """Float32 clips; what `around_blanks` has normalised stays as it is."""
    return normalise(clips, normalisation) if clips.dtype == torch.uint8 else clips
