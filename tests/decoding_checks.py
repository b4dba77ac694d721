"""Building decoders and reading clips with them, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import Clip, number_of, write_clip

from arabesque.manifests.errors import DecodeError
from arabesque.pipeline.decoding.decoders import Decoder, build_decoder
from arabesque.pipeline.records import Probe

MPEG4 = {"codec": "mpeg4", "options": {"bf": "2", "g": "12", "b": "3M"}}
VP9 = {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}}


def build(backend: str) -> Decoder:
    if backend == "decord":
        pytest.importorskip("decord", reason="decord has no wheel for this platform")
    return build_decoder(backend, alive=lambda: None)


class Writer:
    """``write("a.mp4", num_frames=…)`` → the clip's path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str, *, muxer: dict[str, str] | None = None, **clip: Any) -> Path:
        return write_clip(self._folder / name, Clip(**clip), **(muxer or {}))


def deliver(decoder: Decoder, path: Path, wanted: Any = None, probe: Probe | None = None) -> tuple[list[int], str]:
    """The numbers that the delivered frames carry, each checked to be at its place, and the error, if any."""
    probe = probe or decoder.probe(path)
    wanted = np.arange(probe.num_frames) if wanted is None else np.asarray(wanted)
    numbers: list[int] = []
    complaint = ""
    try:
        for position, (index, picture) in enumerate(decoder.frames(path, probe, wanted)):
            assert index == wanted[position]
            assert picture.shape == (probe.height_px, probe.width_px, 3)
            numbers.append(number_of(picture))
    except DecodeError as error:
        complaint = str(error)
    assert not complaint or str(path) in complaint
    return numbers, complaint
