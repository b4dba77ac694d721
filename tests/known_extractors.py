"""A recipe with known rows: the frame numbers in the pictures, and the loudness of the audio."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from clips import Unreadable, number_of
from fakes import FakeExtractor

from arabesque.extractors.protocol import AudioNeed, FrameNeed
from arabesque.manifests.streams import Geometry

SEGMENT = 8


class FrameNumbers(FakeExtractor):
    """A row contains the frame numbers read from the pictures of a segment, or -1 for an unreadable picture."""

    on_segment: ClassVar[Callable[[], object]] = staticmethod(lambda: None)
    """Called before each segment is computed."""

    def __init__(self, **_):
        super().__init__(frames=FrameNeed(Geometry(steps=())), dim=SEGMENT, row=self._numbers, batch_size=3)

    def _numbers(self, segment):
        type(self).on_segment()
        frames = segment.frames.permute(0, 2, 3, 1).numpy()
        return torch.tensor([_number_or_none(frame) for frame in frames])


class FrameGrid(FrameNumbers):
    """The frame numbers of a segment as four steps of time with two values each."""

    shape = (4, 2)

    def _numbers(self, segment):
        return super()._numbers(segment).reshape(self.shape)


def _number_or_none(frame) -> float:
    try:
        return float(number_of(frame))
    except Unreadable:
        return -1.0


class Loudness(FakeExtractor):
    """A row contains the peak amplitude of each eighth of a segment."""

    def __init__(self, **_):
        super().__init__(frames=None, audio=AudioNeed(8000), dim=SEGMENT, row=self._loudness, batch_size=4)

    def _loudness(self, segment):
        return torch.stack([part.abs().max() for part in segment.waveform.tensor_split(SEGMENT)])


RECIPE = f"""
name = "known"
summary = "frame numbers and loudness"
[sampling]
fps = "native"
frames_per_segment = {SEGMENT}
frames_per_step = {SEGMENT}
remainder = "drop-tail"
[streams.numbers]
extractor = "known_extractors:FrameNumbers"
[streams.loudness]
extractor = "known_extractors:Loudness"
"""
