"""Decoders that do, in the process of a slot, what hostile files might make a real one do; told by the file's name."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arabesque.pipeline.decoding.decoders import Picture
from arabesque.pipeline.decoding.pyav_backend import PyAvDecoder
from arabesque.pipeline.records import Probe


class Misbehaving(PyAvDecoder):
    """Misbehaves at frame 5 of files named so, and while it probes those named ``probe-…``."""

    def probe(self, path: Path, thorough: bool = False) -> Probe:
        _misbehave(path.stem.removeprefix("probe-") if path.stem.startswith("probe-") else "")
        return super().probe(path, thorough)

    def frames(self, path: Path, probe: Probe, wanted: NDArray[np.int64]) -> Iterator[tuple[int, Picture]]:
        for index, picture in super().frames(path, probe, wanted):
            if index == 5:
                _misbehave(path.stem)
            yield index, picture


class Slow(PyAvDecoder):
    """Takes long over every frame, and says that it is alive."""

    def frames(self, path: Path, probe: Probe, wanted: NDArray[np.int64]) -> Iterator[tuple[int, Picture]]:
        for index, picture in super().frames(path, probe, wanted):
            time.sleep(0.1)
            self._alive()
            yield index, picture


class Confused(PyAvDecoder):
    """Delivers frames other than those it was asked for."""

    def frames(self, path: Path, probe: Probe, wanted: NDArray[np.int64]) -> Iterator[tuple[int, Picture]]:
        for index, picture in super().frames(path, probe, wanted):
            yield (index + 1 if index == 3 else index), picture


class Changing(PyAvDecoder):
    """Its pictures are stored in another way from frame 6 to frame 8, as those of a stream may be."""

    def frames(self, path: Path, probe: Probe, wanted: NDArray[np.int64]) -> Iterator[tuple[int, Picture]]:
        rgb = PyAvDecoder(self._alive).frames(path, probe, wanted)
        for (index, planes), (_, picture) in zip(super().frames(path, probe, wanted), rgb, strict=True):
            yield index, picture if 6 <= index <= 8 else planes


class Importing(PyAvDecoder):
    """Tells in the codec's place which of the heavy packages its process has imported."""

    def probe(self, path: Path, thorough: bool = False) -> Probe:
        heavy = {"torch", "torchvision", "pandas", "pyarrow", "pydantic", "typer", "cv2", "decord"}
        found = super().probe(path, thorough)
        return Probe(**{**vars(found), "codec": ",".join(sorted(heavy & set(sys.modules)))})


def _misbehave(how: str) -> None:
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "abort":
        print("terminate called: codec tables are corrupt", file=sys.stderr, flush=True)
        os.abort()
    elif how == "exit":
        os._exit(3)
    elif how == "hang":
        time.sleep(1000)
    elif how == "grow":
        hoard = []
        while True:
            hoard.append(np.empty(16 << 20, np.uint8))  # untouched: memory is allowed by address, and this is quick
    elif how == "raise":
        raise IndexError("tuple index out of range")
