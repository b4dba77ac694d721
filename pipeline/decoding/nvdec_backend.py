"""Decoding with the video engine of an NVIDIA card (NVDEC), through FFmpeg in PyAV.

A card conceals damage: a flipped bit inside a picture results in a wrong picture, not in an error. A card therefore
decodes only frames that the CPU has already decoded from the same bytes, in an earlier run, without damage
(`VideoMetadata.checked_frames`). Files of unknown origin thus never reach the driver. The CPU decodes everything else,
and `NvdecDecoder.on_cpu` states the reason.

The CPU also decodes the first frame of each file. The card continues only if both pictures are equal bit for bit, as
the standards of H.264, HEVC, VP8 and VP9 require. If the card fails later, the CPU decodes the remaining frames.

PyAV is used instead of PyNvVideoCodec or spdl-io. It reads the same packets as the decoder on the CPU, so that frames
have the same times and indices. It needs no other package, and FFmpeg asks the driver which profiles the card decodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from glob import glob
from pathlib import Path

import numpy as np
from av.codec import Codec
from av.codec.hwaccel import HWAccel
from av.error import FFmpegError
from numpy.typing import NDArray

from ...manifests.errors import ArabesqueError, DecodeError
from ..records import Deinterlace, Hole, VideoMetadata
from .chunks import Span
from .decoders import Picture
from .planes import Planes
from .pyav_backend import PyAvDecoder, can_seek

EXACT_CODECS = ("h264", "hevc", "vp8", "vp9")
"""Codecs whose standard defines every bit of a picture. For MPEG-2 and MPEG-4 the rounding depends on the decoder."""


class CardError(Exception):
    """The card cannot decode a file, or decodes it wrongly."""


class NvdecDecoder(PyAvDecoder):
    """Uses PyAV on the CPU for metadata and audio. Satisfies `UsesCard`.

    Raises:
        ArabesqueError: The card cannot be opened.
    """

    def __init__(self, alive: Callable[[], None], planar: bool = False) -> None:
        super().__init__(alive, planar)
        self._cpu = PyAvDecoder(alive, planar)
        self._card = HWAccel("cuda", allow_software_fallback=False, options={"primary_ctx": "1"})
        self.on_cpu = ""
        self.device_files = [each for each in glob("/dev/nvidia*") if Path(each).is_char_device()]
        try:
            # one context for all files, because creating it takes a tenth of a second
            self._opened = self._card.create(Codec("h264", "r"))
        except (FFmpegError, NotImplementedError) as error:
            raise ArabesqueError(
                f"decoder nvdec: FFmpeg cannot open the card ({error}); check it with nvidia-smi, or use --decoder pyav"
            ) from error

    def frames(
        self,
        path: Path,
        metadata: VideoMetadata,
        wanted: NDArray[np.int64],
        deinterlace: Deinterlace = "none",
        spans: Sequence[Span] = (),
    ) -> Iterator[tuple[int, Picture] | Hole]:
        num_done = 0
        self.on_cpu = _obstacle(metadata, wanted, deinterlace)
        if not self.on_cpu:
            try:
                for item in self._from_card(path, metadata, wanted, spans):
                    yield item
                    num_done += 1
                return
            except CardError as error:
                self.on_cpu = " ".join(str(error).split())
        rest = wanted[num_done:]
        left = [span for span in spans if len(rest) and span.last > rest[0]]
        yield from self._cpu.frames(path, metadata, rest, deinterlace, left)

    def _from_card(
        self, path: Path, metadata: VideoMetadata, wanted: NDArray[np.int64], spans: Sequence[Span]
    ) -> Iterator[tuple[int, Picture]]:
        """Yield the card's frames. Raises `CardError` if they end early, because the CPU found no damage in them."""
        expected = next(iter(self._cpu.frames(path, metadata, wanted[:1], spans=spans[:1])), None)
        if expected is None or isinstance(expected, Hole):
            raise CardError("the CPU cannot decode the first frame for the comparison")
        first: Picture | None = expected[1]
        try:
            for item in super().frames(path, metadata, wanted, spans=spans):
                if isinstance(item, Hole):
                    raise CardError(f"the card fails: {item.reason}")
                if first is not None and not _are_equal(item[1], first):
                    raise CardError(f"frame {item[0]} of the card differs from that of the CPU")
                first = None
                yield item
        except (DecodeError, FFmpegError, RuntimeError, MemoryError) as error:  # the card's memory may be full
            raise CardError(f"the card fails: {error}") from error


def _obstacle(metadata: VideoMetadata, wanted: NDArray[np.int64], deinterlace: Deinterlace) -> str:
    """Return why the card must not decode these frames; empty if it may."""
    if metadata.codec not in EXACT_CODECS:
        return f"the pictures of {metadata.codec} differ from decoder to decoder"
    if not len(wanted) or wanted[-1] >= metadata.checked_frames or not can_seek(metadata):
        return "the CPU has not yet decoded these frames of the file without damage"
    if deinterlace != "none" and metadata.field_order != "progressive":
        return "the pictures are deinterlaced"
    return ""


def _are_equal(one: Picture, other: Picture) -> bool:
    if isinstance(one, Planes) and isinstance(other, Planes):
        pairs = ((one.luma, other.luma), (one.blue, other.blue), (one.red, other.red))
        return one.color == other.color and all(np.array_equal(*pair) for pair in pairs)
    if isinstance(one, Planes) or isinstance(other, Planes):
        return False
    return np.array_equal(one, other)
