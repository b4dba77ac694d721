"""The frames of a video stream as PyAV decodes them, up to the first sign of damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .containers import STRICT, packets, reason


class PictureStream:
    """Iterate once over `av.VideoFrame` in the order of presentation; then `trouble` says why it ended, if too early.

    Damage before the first keyframe is no trouble: a recording cut out of a longer one begins with packets that refer
    to what is not there. At the first damaged packet after it, decoding stops; frames that were decoded before and
    wait for their turn still come. On one thread this is exact; several threads may lose a few of those.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, *, threads: int, alive: Callable[[], None]
    ) -> None:
        self._container = container
        self._stream = stream
        self._alive = alive
        self._has_begun = False
        self.trouble = ""
        codec = stream.codec_context
        codec.options = STRICT
        codec.thread_count = threads
        codec.thread_type = "AUTO" if threads > 1 else "SLICE"

    def __iter__(self) -> Iterator[VideoFrame]:
        try:
            for packet in packets(self._container, self._stream, alive=self._alive):
                self._has_begun = self._has_begun or packet.is_keyframe
                yield from self._presentable(self._decode(cast("Packet[VideoStream]", packet)))
                if self.trouble:
                    break
        except FFmpegError as error:
            _raise_if_out_of_memory(error)
            self.trouble = f"the container cannot be read on: {reason(error)}"
        yield from self._presentable(self._flush())

    def _decode(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        if packet.is_corrupt:
            self._blame("the file is damaged or cut off within this frame")
            return []
        try:
            return self._stream.decode(packet)
        except FFmpegError as error:
            _raise_if_out_of_memory(error)
            self._blame(reason(error))
            return []

    def _flush(self) -> list[VideoFrame]:
        try:
            return self._stream.decode(None)
        except FFmpegError as error:
            _raise_if_out_of_memory(error)
            self._blame(reason(error))
            return []

    def _presentable(self, frames: list[VideoFrame]) -> Iterator[VideoFrame]:
        for frame in frames:
            if not frame.is_corrupt:
                self._has_begun = True
                yield frame
            elif self._has_begun or frame.key_frame:
                self.trouble = self.trouble or "the picture is damaged"
                return

    def _blame(self, trouble: str) -> None:
        if self._has_begun:
            self.trouble = self.trouble or trouble


def _raise_if_out_of_memory(error: FFmpegError) -> None:
    if isinstance(error, MemoryError):
        raise error
