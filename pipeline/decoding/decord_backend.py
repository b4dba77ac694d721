"""Decoding with decord. Each frame is compared with PyAV's.

decord is not reliable: it repeats frames when it fails, drops the first frames of a transport stream, follows playlists
and conceals damage, while its count and times often agree with the container. PyAV therefore decodes in parallel and
detects damage and changes of size. A frame is accepted only if both decoders have the same picture. This takes the time
of both decoders: the backend is for results that must be equal to decord's, not for speed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import decord  # pyright: ignore[reportMissingTypeStubs]
import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import DecodeError
from ..records import Deinterlace, Hole, VideoMetadata
from .chunks import Span
from .containers import check_all_codecs
from .planes import Planes
from .pyav_backend import PyAvDecoder

SAME_TIME_S = 0.002
"""Largest difference of times. decord's time stamps are float32."""
SANE_TIME_S = 1e6
"""Largest plausible time. In AVI files decord gives some frames the time −3·10¹⁷ s, and others the time of another
frame. Its times are then ignored, and only the pictures are compared."""
SAME_PICTURE_LEVELS = 1.0
"""Largest mean difference in luma of equal pictures. In pictures of odd height the chroma differs."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

decord.logging.set_level(decord.logging.QUIET)


class DecordDecoder(PyAvDecoder):
    """Uses PyAV for metadata and audio, because decord's index is not reliable. Delivers RGB, never planes."""

    def __init__(self, alive: Callable[[], None], planar: bool = False) -> None:
        super().__init__(alive)

    def frames(
        self,
        path: Path,
        metadata: VideoMetadata,
        wanted: NDArray[np.int64],
        deinterlace: Deinterlace = "none",
        spans: Sequence[Span] = (),
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        reader = _open(path, metadata)
        following = 0
        if deinterlace != "none" and metadata.field_order != "progressive":
            raise DecodeError(f"{path}: is interlaced, and decord does not deinterlace; use --decoder pyav")
        for item in super().frames(path, metadata, wanted, spans=spans):
            if isinstance(item, Hole):
                raise DecodeError(f"{path}: {item.reason}; decord does not continue after damage; use --decoder pyav")
            index, ours = item
            assert not isinstance(ours, Planes)
            theirs = _read(reader, path, index, index - following)
            following = index + 1
            _compare(path, metadata, index, ours, theirs)
            yield index, theirs


def _open(path: Path, metadata: VideoMetadata) -> Any:
    """Open a reader if its number of frames and its times agree with the container's."""
    check_all_codecs(path)
    try:
        reader = decord.VideoReader(str(path.absolute()), num_threads=1)
    except (decord.DECORDError, RuntimeError) as error:
        raise DecodeError(f"{path}: decord cannot open it ({_first_line(error)}); use --decoder pyav") from error
    if len(reader) != metadata.num_frames:
        raise DecodeError(
            f"{path}: decord counts {len(reader)} frames, the container presents {metadata.num_frames}; "
            "use --decoder pyav"
        )
    stamps = cast("NDArray[np.float64]", reader.get_frame_timestamp(np.arange(len(reader))))  # pyright: ignore
    times_s = stamps[:, 0].astype(np.float64)
    off = np.abs(times_s - metadata.frame_times_s) > SAME_TIME_S
    if off.any() and (np.abs(times_s) < SANE_TIME_S).all():
        index = int(np.argmax(off))
        raise DecodeError(
            f"{path}: decord has frame {index} at {times_s[index]:.3f} s, "
            f"the container at {metadata.frame_times_s[index]:.3f} s; use --decoder pyav"
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


def _compare(
    path: Path, metadata: VideoMetadata, index: int, ours: NDArray[np.uint8], theirs: NDArray[np.uint8]
) -> None:
    if ours.shape != theirs.shape:
        difference = f"of {theirs.shape[1]}×{theirs.shape[0]} pixels"
    elif np.array_equal(ours, theirs):
        return
    elif metadata.field_order != "progressive":
        difference = "with the chroma of a progressive picture"
    else:
        levels = float(np.abs((ours.astype(np.float32) - theirs) @ _LUMA).mean())
        if levels <= SAME_PICTURE_LEVELS:
            return
        difference = f"that is {levels:.1f} levels off"
    raise DecodeError(
        f"{path}: decord gives a picture {difference} as frame {index} of {metadata.num_frames}; use --decoder pyav"
    )


def _first_line(error: BaseException) -> str:
    with contextlib.suppress(IndexError):
        return str(error).strip().splitlines()[0][:120]
    return type(error).__name__
