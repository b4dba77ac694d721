"""Deinterlace with FFmpeg's bwdif filter: one progressive picture for each interlaced frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from av.filter import Graph
from av.filter.context import FilterContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

BWDIF = "mode=send_frame:parity=auto:deint=interlaced"
"""One picture for each frame, at its time, by the field order that the frame states; progressive frames stay as they
are.

FFmpeg up to 8.0 (libavfilter 11.4) makes all lines of the first picture with its spatial filter. FFmpeg 8.1
(libavfilter 11.14) makes two lines at the top and one at the bottom with another filter. In our test video they differ
by up to 18 gray levels; all other pictures are equal. The version that PyAV contains decides.
"""


class Deinterlacer:
    """Takes frames in their order and returns them one later: a picture is made with its two neighbors.

    At a hole and at the end, `flush` returns the last one, which is made with the one before it alone.
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
        """The last frame; the next one begins a new run."""
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
