"""The frames of a video stream as PyAV decodes them, up to the first sign of damage."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .containers import packets, reason
from .probing import MAX_REORDERING

LOST = "the file has a damaged stretch here, with packets that are lost"


class PictureStream:
    """Iterate once over `av.VideoFrame` in the order of presentation; then `trouble` says why it ended, if too early.

    Damage before the first keyframe is no trouble: a recording cut out of a longer one begins with packets that refer
    to what is not there. At the first damaged packet after it, decoding stops; frames that were decoded before it and
    wait for their turn still come.

    On one thread. On several, FFmpeg overlooks damage: of 120 damaged H.264 files, 94 broke on one thread, 88 on four
    that share pictures out, 86 on four that share slices; the others passed for whole. Slots are the parallelism.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, alive: Callable[[], None], lost_at: Sequence[int] = ()
    ) -> None:
        self._container = container
        self._stream = stream
        self._alive = alive
        self._lost_at = lost_at
        self._position = -1  # of the last packet in the file
        self._has_begun = False  # with the first keyframe, or the first picture that can be decoded without one
        self._has_shown = False
        self._scrap = ""  # what was wrong before the beginning
        self.trouble = ""
        stream.codec_context.thread_count = 1

    def __iter__(self) -> Iterator[VideoFrame]:
        queue = _Queue()
        try:
            for packet in packets(self._container, self._stream, alive=self._alive):
                self._notice_loss(packet)
                if self.trouble:
                    break
                self._has_begun = self._has_begun or packet.is_keyframe
                queue.expect(packet)
                yield from self._presentable(queue, self._decode(cast("Packet[VideoStream]", packet)))
                if self.trouble:
                    break
        except FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            self.trouble = f"the container cannot be read on: {reason(error)}"
        yield from self._presentable(queue, self._decode(None))
        yield from queue.drain()
        if not self._has_shown:
            self.trouble = self.trouble or self._scrap or "it has no keyframe"

    def _decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        if packet is not None and packet.is_corrupt:
            self._blame("the file is damaged or cut off within this frame")
            return []
        try:
            return self._stream.decode(packet)
        except FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            self._blame(reason(error))
            return []

    def _notice_loss(self, packet: Packet[Stream]) -> None:
        """Of packets before this one, or right behind it: then nobody knows whether the damage begins in this one."""
        if packet.pos is not None:
            if any(self._position < lost <= packet.pos + packet.size for lost in self._lost_at):
                self._blame(LOST)
            self._position = packet.pos

    def _blame(self, trouble: str) -> None:
        if self._has_begun:
            self.trouble = self.trouble or trouble
        else:
            self._scrap = trouble

    def _presentable(self, queue: _Queue, frames: list[VideoFrame]) -> Iterator[VideoFrame]:
        for frame in frames:
            if not frame.is_corrupt:
                self._has_begun = self._has_shown = True
                yield from queue.push(frame)
            elif self._has_begun or frame.key_frame:
                self.trouble = self.trouble or "the picture is damaged"
                queue.drop_decoded_after(frame)
                return


class _Queue:
    """Holds frames until those that were decoded before them have come, too.

    A frame that is shown before its references (a B-frame) may be built on one of which only later turns out that it is
    damaged: FFmpeg tells when it presents a frame, not when it decodes it.
    """

    def __init__(self) -> None:
        self._orders: dict[int, int] = {}  # presentation time of a packet → its place in the order of decoding
        self._expected: set[int] = set()
        self._held: deque[VideoFrame] = deque()
        self._num_packets = 0

    def expect(self, packet: Packet[Stream]) -> None:
        self._num_packets += 1
        if packet.pts is not None and not packet.is_discard:
            self._orders[packet.pts] = self._num_packets
            self._expected.add(self._num_packets)

    def push(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        order = self._order(frame)
        self._expected = {other for other in self._expected if other != order and other > order - 4 * MAX_REORDERING}
        self._held.append(frame)
        while self._held and (self._is_safe(self._held[0]) or len(self._held) > MAX_REORDERING):
            yield self._release()

    def drain(self) -> Iterator[VideoFrame]:
        while self._held:
            yield self._release()

    def drop_decoded_after(self, damaged: VideoFrame) -> None:
        order = self._order(damaged)
        self._held = deque(frame for frame in self._held if self._order(frame) < order)

    def _release(self) -> VideoFrame:
        frame = self._held.popleft()
        if frame.pts is not None:
            self._orders.pop(frame.pts, None)
        return frame

    def _is_safe(self, frame: VideoFrame) -> bool:
        order = self._order(frame)
        return all(other > order for other in self._expected)

    def _order(self, frame: VideoFrame) -> int:
        """0, before all others, where nothing is known."""
        return 0 if frame.pts is None else self._orders.get(frame.pts, 0)
