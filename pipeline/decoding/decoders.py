"""The `Decoder` protocol and the table of backends.

The metadata comes from the container alone. The planner then requests exact frame indices, and a decoder delivers
these frames, or reports where and why it cannot:

    Hole                  damaged frames or audio; decoding continues after them
    DecodeError           a video that cannot be read further
    └── IndexMismatch     packets are not frames, without damage: probe again with ``thorough``, then plan again

To add a backend, write a class that satisfies `Decoder`, and add a line to `BACKENDS`. The contract test in
``test_decoding.py`` tests it.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import ArabesqueError, DecodeError, MissingPackageError
from ...manifests.optional_packages import EXTRAS, require_package
from ..records import Deinterlace, Hole, VideoMetadata
from .chunks import Span
from .planes import Planes

BACKENDS = {
    "pyav": "arabesque.pipeline.decoding.pyav_backend:PyAvDecoder",
    "decord": "arabesque.pipeline.decoding.decord_backend:DecordDecoder",
    "nvdec": "arabesque.pipeline.decoding.nvdec_backend:NvdecDecoder",
}
"""Name → ``module:class``. The modules are imported only in decoder processes."""
CARD_LIBRARIES = "libcuda.so.1", "libnvcuvid.so.1"
"""Libraries of NVIDIA's driver that the backend ``nvdec`` needs."""

Picture = NDArray[np.uint8] | Planes
"""``[height, width, 3]``, RGB, or planes. Both are upright."""

MAX_GAP_S = 5.0
"""A longer gap between two frames, or two parts of the audio, is a hole. Recordings with one frame per second have no
such gaps, nor have screen recordings with a variable rate that have new frames at least this often."""
MAX_JUMP_S = 3600.0
"""A longer gap between two frames is a damaged time stamp."""


class IndexMismatch(DecodeError):
    """The decoded frames do not correspond to the container's packets, although the file is not damaged."""


class Decoder(Protocol):
    """Decodes video files. It is built by `build_decoder` in a decoder process, and used by one thread."""

    def probe(self, path: Path, thorough: bool = False, audio_track: int | str = "best") -> VideoMetadata:
        """Read a file's metadata.

        Args:
            path: A video file.
            thorough: Decode all frames to count them, instead of relying on the container.
            audio_track: The audio stream to decode; see `StreamSpec.audio_track`.

        Raises:
            DecodeError: The file cannot be decoded.
        """
        ...

    def frames(
        self,
        path: Path,
        metadata: VideoMetadata,
        wanted: NDArray[np.int64],
        deinterlace: Deinterlace = "none",
        spans: Sequence[Span] = (),
    ) -> Iterator[tuple[int, Picture] | Hole]:
        """Decode the frames of the indices ``wanted`` (ascending) in one pass.

        With ``spans``, all wanted frames are in them. A decoder may seek to a keyframe before a span. Frames outside of
        spans may be missing without a `Hole`.

        Yields:
            ``(index, picture)``, valid until the next item is requested. Frames that are missing, damaged or of
            another size, wanted or not, are left out, and a `Hole` before the next frame covers their times.

        Raises:
            IndexMismatch: A frame has another time than ``metadata`` states.
        """
        ...

    def audio(
        self, path: Path, metadata: VideoMetadata, until_s: float, from_s: float | None = None
    ) -> Iterator[NDArray[np.float32] | Hole]:
        """Decode the chosen audio stream from ``metadata.audio.start_s`` or ``from_s`` to its end or ``until_s``.

        Yields:
            Consecutive ``float32 [channels, samples]``. Short gaps are silence, overlaps are removed. Damaged or
            missing samples are zeros, and a `Hole` covers them.
        """
        ...


@runtime_checkable
class UsesCard(Protocol):
    """A decoder that uses a graphics card if possible."""

    on_cpu: str
    """Why the CPU decodes the current frames; empty if the card does."""
    device_files: Sequence[str]
    """Device files that the driver may open after the process was isolated."""


def check_backend(backend: str) -> None:
    """Raise `ValueError` for an unknown name, and `MissingPackageError` if software that a backend needs is missing."""
    if backend not in BACKENDS and ":" not in backend:
        raise ValueError(f"decoder {backend!r} is not one of {', '.join(BACKENDS)}")
    if backend in EXTRAS:
        require_package(backend, f"decoder {backend}")
    if backend == "nvdec":
        _require_card()


def _require_card() -> None:
    """Raise `MissingPackageError` if the libraries of NVIDIA's driver are missing. Creates no context on the card."""
    for library in CARD_LIBRARIES:
        try:
            ctypes.CDLL(library)
        except OSError as error:
            raise MissingPackageError(
                f"decoder nvdec: {library} of the NVIDIA driver does not load ({error}); install the driver with its "
                "video libraries (in a container: NVIDIA_DRIVER_CAPABILITIES=compute,utility,video), or use "
                "--decoder pyav"
            ) from error


def build_decoder(backend: str, alive: Callable[[], None], *, planar: bool = False) -> Decoder:
    """Import and build a decoder.

    Args:
        backend: A name of `BACKENDS`, or ``module:class``.
        alive: Called for every packet, to distinguish a slow decoder from one that hangs.
        planar: Whether pictures may be planes.

    Raises:
        ArabesqueError: The backend cannot be imported.
    """
    module_name, _, class_name = BACKENDS.get(backend, backend).partition(":")
    try:
        made: Any = getattr(importlib.import_module(module_name), class_name)
    except ImportError as error:
        raise ArabesqueError(f"decoder {backend} does not load: {error}; use another one (--decoder pyav)") from error
    return made(alive, planar)
