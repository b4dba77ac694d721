"""Decoding with decord, each frame checked against PyAV's.

What decord returns cannot be taken on trust: it repeats frames where it fails, drops a transport stream's first ones,
follows playlists, conceals damage, and its count and times often agree with the container all the same. So PyAV
decodes along, which finds damage and changes of size, and a frame passes only if both decoders show the same picture.
That costs PyAV's time on top of decord's: it is the backend for results that must be decord's, not for speed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import decord
import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import DecodeError
from ..records import Probe
from .planes import Planes
from .pyav_backend import PyAvDecoder

SAME_TIME_S = 0.002
"""decord's time stamps are float32."""
SANE_TIME_S = 1e6
"""In AVI files decord gives some frames the time −3·10¹⁷ s and the others that of another frame: then its times count
for nothing, and the pictures alone are compared."""
SAME_PICTURE_LEVELS = 1.0
"""Mean difference in luma up to which two pictures are the same one; where their height is odd, the chroma differs."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

decord.logging.set_level(decord.logging.QUIET)


class DecordDecoder(PyAvDecoder):
    """Probes and hears with PyAV: decord has no index of its own that could be relied on. Gives RGB, never planes."""

    def __init__(self, alive: Callable[[], None], planar: bool = False) -> None:
        super().__init__(alive)

    def frames(self, path: Path, probe: Probe, wanted: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        reader = _open(path, probe)
        following = 0
        for index, ours in super().frames(path, probe, wanted):
            assert not isinstance(ours, Planes)
            theirs = _read(reader, path, index, index - following)
            following = index + 1
            _compare(path, probe, index, ours, theirs)
            yield index, theirs


def _open(path: Path, probe: Probe) -> Any:
    """A reader whose number of frames and times agree with the container's, as far as decord tells them."""
    try:
        reader = decord.VideoReader(str(path.absolute()), num_threads=1)
    except (decord.DECORDError, RuntimeError) as error:
        raise DecodeError(f"{path}: decord cannot open it ({_first_line(error)}); use --decoder pyav") from error
    if len(reader) != probe.num_frames:
        raise DecodeError(
            f"{path}: decord counts {len(reader)} frames, the container presents {probe.num_frames}; use --decoder pyav"
        )
    times_s = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0].astype(np.float64)
    off = np.abs(times_s - probe.frame_times_s) > SAME_TIME_S
    if off.any() and (np.abs(times_s) < SANE_TIME_S).all():
        index = int(np.argmax(off))
        raise DecodeError(
            f"{path}: decord shows frame {index} at {times_s[index]:.3f} s, "
            f"the container at {probe.frame_times_s[index]:.3f} s; use --decoder pyav"
        )
    return reader


def _read(reader: Any, path: Path, index: int, num_skipped: int) -> NDArray[np.uint8]:
    try:
        if num_skipped:
            reader.skip_frames(num_skipped)
        return reader.next().asnumpy()
    except (decord.DECORDError, RuntimeError, StopIteration) as error:
        raise DecodeError(
            f"{path}: decord broke at frame {index} ({_first_line(error)}); use --decoder pyav"
        ) from error


def _compare(path: Path, probe: Probe, index: int, ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> None:
    if ours.shape != theirs.shape:
        difference = f"of {theirs.shape[1]}×{theirs.shape[0]} pixels"
    elif np.array_equal(ours, theirs):
        return
    else:
        levels = float(np.abs((ours.astype(np.float32) - theirs) @ _LUMA).mean())
        if levels <= SAME_PICTURE_LEVELS:
            return
        difference = f"that is {levels:.1f} levels off"
    raise DecodeError(
        f"{path}: decord gives a picture {difference} as frame {index} of {probe.num_frames}; use --decoder pyav"
    )


def _first_line(error: BaseException) -> str:
    with contextlib.suppress(IndexError):
        return str(error).strip().splitlines()[0][:120]
    return type(error).__name__
