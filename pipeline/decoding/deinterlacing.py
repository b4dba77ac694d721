"""Deinterlacing with FFmpeg's bwdif filter: one progressive picture for each interlaced frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from av.filter import Graph
from av.filter.context import FilterContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

BWDIF = "mode=send_frame:parity=auto:deint=interlaced"
"""One picture for each frame, at its time, in the field order that the frame states. Progressive frames are unchanged.

FFmpeg up to 8.0 (libavfilter 11.4) uses the spatial filter for all lines of the first picture. FFmpeg 8.1 (libavfilter
11.14) uses another filter for two lines at the top and one at the bottom. In our test video these lines differ by up to
18 gray levels; all other pictures are equal. The version in PyAV decides.
"""


class Deinterlacer:
    """Deinterlaces frames in their order, each after the next one, because a picture depends on both neighbors.

    At a hole and at the end, `flush` returns the last picture, which depends on the previous frame only.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._stream = stream
        self._graph: Graph | None = None
        self._source: FilterContext | None = None
        self._sink: FilterContext | None = None
        self._waiting: deque[int] = deque()

    def push(self, index: int, frame: VideoFrame) -> Iterator[tuple[int, VideoFrame]]:
        if self._graph is None:
            self._open(frame)
        assert self._source is not None
        self._waiting.append(index)
        self._source.push(frame)
        yield from self._ready(len(self._waiting) - 1)

    def flush(self) -> Iterator[tuple[int, VideoFrame]]:
        """Return the last frame; the next one starts a new sequence."""
        if self._source is not None:
            self._source.push(None)
            yield from self._ready(len(self._waiting))
        self._graph = self._source = self._sink = None

    def _ready(self, count: int) -> Iterator[tuple[int, VideoFrame]]:
        assert self._sink is not None
        for _ in range(count):
            picture = self._sink.pull()
            assert isinstance(picture, VideoFrame)
            yield self._waiting.popleft(), picture

    def _open(self, frame: VideoFrame) -> None:
        graph = Graph()
        graph.threads = 1
        source = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base or self._stream.time_base,
        )
        bwdif, sink = graph.add("bwdif", BWDIF), graph.add("buffersink")
        source.link_to(bwdif)
        bwdif.link_to(sink)
        graph.configure()
        self._graph, self._source, self._sink = graph, source, sink
