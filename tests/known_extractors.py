"""A recipe whose every row is known: the numbers that the frames carry, and how loud it was meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from clips import Unreadable, number_of
from fakes import FakeExtractor

from arabesque.extractors import table
from arabesque.extractors.protocol import AudioNeed, FrameNeed
from arabesque.manifests.streams import Geometry

SEGMENT = 8


class FrameNumbers(FakeExtractor):
    """Reads the numbers that the frames carry: a row is those of a segment's frames, -1 where one carries none."""

    def __init__(self, **_):
        super().__init__(frames=FrameNeed(Geometry(steps=())), dim=SEGMENT, row=self._numbers, batch_size=3)

    def _numbers(self, segment):
        frames = segment.frames.permute(0, 2, 3, 1).numpy()
        return torch.tensor([_number_or_none(frame) for frame in frames])


def _number_or_none(frame) -> float:
    try:
        return float(number_of(frame))
    except Unreadable:
        return -1.0


class Loudness(FakeExtractor):
    """A row is the loudest sample of each eighth of a segment."""

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
extractor = "frame_numbers"
[streams.loudness]
extractor = "loudness"
"""


@contextmanager
def known_extractors() -> Iterator[None]:
    """While the block runs, the table of extractors has these two."""
    module = ModuleType("arabesque.extractors.known")
    module.FrameNumbers, module.Loudness = FrameNumbers, Loudness  # type: ignore[attr-defined]
    sys.modules["arabesque.extractors.known"] = module
    table.EXTRACTORS.update(frame_numbers="known:FrameNumbers", loudness="known:Loudness")
    try:
        yield
    finally:
        del sys.modules["arabesque.extractors.known"], table.EXTRACTORS["frame_numbers"], table.EXTRACTORS["loudness"]
