"""A stand-in for the video engine of a GPU: frames of the CPU's decoder in the formats of FFmpeg's GPU frames."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import av.error
import numpy as np
import pytest
from av.codec import Codec
from av.container import InputContainer
from av.video.frame import VideoFrame

from arabesque.pipeline.decoding import nvdec_backend, pyav_backend
from arabesque.pipeline.decoding.containers import open_container
from arabesque.pipeline.decoding.nvdec_backend import NvdecDecoder
from arabesque.pipeline.decoding.picture_stream import PictureStream
from arabesque.pipeline.records import VideoMetadata

INVALID_DATA, EXTERNAL, NO_MEMORY = -1094995529, -542398533, -12
"""FFmpeg's errors for a packet that cannot be decoded, for a driver, and for full memory."""


class Card:
    """Replaces `av.codec.hwaccel.HWAccel` in `nvdec_backend`; fails as set here."""

    is_there = True
    rejects = ""
    """Codec that the card does not decode, as the driver reports when the first packet comes."""
    fails_at: int | None = None
    """Number of the packet at which the card fails."""
    fails_with = INVALID_DATA
    """FFmpeg's number of the error."""
    flips_bit = False
    """Whether the first picture differs from the CPU's in one bit."""
    num_packets = 0
    """Packets that the card has received."""

    def __init__(
        self,
        device_type: str,
        device: str | int | None = None,
        allow_software_fallback: bool = False,
        options: dict[str, object] | None = None,
        flags: int | None = None,
        is_hw_owned: bool = False,
    ) -> None:
        assert (device_type, device, allow_software_fallback) == ("cuda", None, False)

    def create(self, codec: Codec, for_encoding: bool = False) -> Card:
        if not self.is_there:
            av.error.err_check(EXTERNAL)
        return self


_FORMATS = {"yuv420p": "nv12", "yuvj420p": "nv12", "yuv420p10le": "p010le"}
"""Format of a stream → format of the frames that a card returns; a card decodes no other formats."""
_on_card: list[InputContainer] = []


@contextmanager
def _open(path: Path, card: Card | None = None) -> Generator[InputContainer]:
    with open_container(path) as container:
        if card is not None:
            _on_card.append(container)
        try:
            yield container
        finally:
            if card is not None:
                _on_card.remove(container)


class _Pictures(PictureStream):
    def decode(self, packet: Any) -> list[VideoFrame]:
        frames = super().decode(packet)
        if self._container not in _on_card:
            return frames
        Card.num_packets += 1
        codec = self._stream.codec_context
        can = codec.pix_fmt in _FORMATS and codec.name != Card.rejects
        if Card.num_packets == Card.fails_at or not can:
            av.error.err_check(Card.fails_with)
        return [stored_by_card(frame) for frame in frames]


def stored_by_card(frame: VideoFrame) -> VideoFrame:
    """Return the frame as NV12 or P010, with the same samples and attributes."""
    stored = frame.reformat(format=_FORMATS[frame.format.name])
    deep = stored.format.name == "p010le"
    stored.colorspace, stored.color_range = frame.colorspace, frame.color_range
    luma, blue, red = (_samples(plane, deep) << (6 if deep else 0) for plane in frame.planes)
    first, second = (_samples(plane, deep, width=None) for plane in stored.planes)
    first[:, : luma.shape[1]] = luma
    second[: blue.shape[0], 0 : 2 * blue.shape[1] : 2] = blue
    second[: red.shape[0], 1 : 2 * red.shape[1] : 2] = red
    if Card.flips_bit:
        first[0, 0] ^= 1
    return stored


def _samples(plane: Any, deep: bool, width: int | None = 0) -> np.ndarray:
    kind = np.dtype("<u2" if deep else "u1")
    lines = np.frombuffer(plane, kind).reshape(-1, plane.line_size // kind.itemsize)[: plane.height]
    return lines if width is None else lines[:, : plane.width]


def put_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give `nvdec_backend` a card until the end of the test."""
    monkeypatch.setattr(nvdec_backend, "HWAccel", Card)
    monkeypatch.setattr(pyav_backend, "open_container", _open)
    monkeypatch.setattr(pyav_backend, "PictureStream", _Pictures)
    for name, value in (("rejects", ""), ("fails_at", None), ("fails_with", INVALID_DATA), ("flips_bit", False)):
        monkeypatch.setattr(Card, name, value)
    monkeypatch.setattr(Card, "num_packets", 0)


class SimulatedNvdec(NvdecDecoder):
    """Uses the stand-in after `put_card`."""

    def probe(self, path: Path, thorough: bool = False, audio_track: int | str = "best") -> VideoMetadata:
        """Return metadata as of a file that the CPU has decoded before."""
        metadata = super().probe(path, thorough, audio_track)
        return replace(metadata, checked_frames=metadata.num_frames)


class NvdecInChild(SimulatedNvdec):
    """The decoder for decoder processes, named ``simulated_nvdec:NvdecInChild``."""

    def __init__(self, alive: Any, planar: bool = False) -> None:
        put_card(pytest.MonkeyPatch())
        super().__init__(alive, planar)
