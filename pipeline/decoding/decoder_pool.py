"""Decoding in isolated processes: a decoder that crashes, hangs or exceeds its memory limit fails only its video.

A `DecoderProcess` is one long-lived child process with a few shared buffers that it fills; its parent reads them
without a copy. The threads of the decode stage borrow the processes of a `DecoderPool`.
"""

from __future__ import annotations

import logging
import math
import queue
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import ArabesqueError, DecodeError, TransientDecodeError
from ..records import Deinterlace, Hole, VideoMetadata
from ..system.child_process import ChildLost, IsolatedChild
from ..system.process_resources import peak_bytes
from ..system.restriction import still_allowed
from ..system.typed_data import MalformedDataError
from .audio_reader import AudioChunk
from .chunks import Span
from .decoder_process import ExpectedChunks, SharedBuffers, check_holes, check_probe
from .decoders import IndexMismatch, check_backend
from .messages import (
    ANSWERS,
    Alive,
    Answer,
    Begin,
    Buffers,
    Damaged,
    DecodeRequest,
    Ended,
    Failed,
    Fill,
    Filled,
    Probed,
    ProbeRequest,
    Ready,
    Stop,
)
from .planes import ColorSpace

__all__ = ["AudioChunk", "DecoderPool", "DecoderProcess", "DecoderSettings", "FrameChunk", "Holes"]

_LOG = logging.getLogger(__name__)

MAX_FRAME_BYTES = 512 << 20
"""Maximal size of a frame, more than that of 16,384 × 8,192 pixels. A header can state any size."""
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
"""Time in which a child must finish its chunk after `Stop`. After that it is killed."""
_ERRORS = {kind.__name__: kind for kind in (DecodeError, TransientDecodeError, IndexMismatch)}
"""Errors of a video that a child may report. Other names become a `DecodeError`."""


@dataclass(frozen=True)
class DecoderSettings:
    timeout_s: float = 60.0
    """Time without progress after which a child is considered hung."""
    memory_bytes: int = 2 << 30
    """Memory that a child may allocate while it decodes, without its buffers."""
    num_buffers: int = 3
    buffer_bytes: int = 48 << 20
    """A chunk has as many RGB frames as fit in a buffer. For a larger frame, the buffers grow."""
    max_frame_bytes: int = MAX_FRAME_BYTES
    """Maximal size to which the buffers may grow."""
    planar: bool = False
    """Deliver 8-bit 4:2:0 frames as planes, which take half the bytes of RGB."""
    card: int = 0
    """Number of the graphics card that decodes, for a backend that uses one."""


@dataclass(frozen=True, eq=False)
class FrameChunk:
    """Consecutive wanted frames of a video, possibly none, and the audio up to the end of the last frame."""

    indices: NDArray[np.int64]
    frames: NDArray[np.uint8]
    """Frames in shared memory, upright, valid until `release`: RGB ``[frames, height, width, 3]``, or planes ``[frames,
    height · 3 / 2, width]`` (`Planes.write_to`)."""
    color: ColorSpace | None
    """Color space of planes; None for RGB."""
    audio: AudioChunk | None
    """None if audio was not requested, if the video has no audio, and after the end of the audio."""
    decode_s: float
    """Time that the child spent on the chunk, without waiting for a free buffer."""
    release: Callable[[], None] = field(repr=False)
    """Returns the memory to the process, which waits while all of its buffers are in use. Idempotent and
    thread-safe."""
    by_card: bool = False
    """Whether a graphics card has decoded the frames."""
    on_cpu: str = ""
    """Why the CPU decoded the frames although a card was requested; empty otherwise."""


@dataclass(frozen=True)
class Holes:
    """Parts of a video, or of a span of it, that could not be decoded. Yielded after all of its chunks."""

    frames: tuple[Hole, ...]
    audio: tuple[Hole, ...]
    ends_span: bool = False
    """Whether all chunks of a span were yielded."""


@dataclass
class ChildrenSoFar:
    """Statistics of this process's decoder processes."""

    most_at_once: int = 0
    largest_bytes: int | None = None
    """Largest child that this process ended, including buffers. The kernel's number for ended children is useless,
    because it includes the parent's memory, which a child has until it starts its program."""


so_far = ChildrenSoFar()
_running: weakref.WeakSet[IsolatedChild] = weakref.WeakSet()


class DecoderProcess:
    """A child process that decodes. It is used by one thread at a time.

    The child starts with the first request. After a crash, the next request starts a new child.
    """

    def __init__(self, backend: str = "pyav", settings: DecoderSettings | None = None) -> None:
        check_backend(backend)
        self._backend = backend
        self._settings = settings or DecoderSettings()
        self._child: IsolatedChild | None = None
        self._is_ready = False
        self._buffers: SharedBuffers | None = None
        self._mapped: SharedBuffers | None = None  # buffers that the child has mapped
        self._filling: set[int] = set()  # buffers that the child may write to
        self._videos = 0  # number of videos begun; invalidates abandoned iterators
        self._is_decoding = False
        self.refused = ""
        """Operations that the kernel denies the child (`restrict_process`); known once the child is ready."""

    def start(self) -> None:
        """Start the child without waiting for it."""
        if self._child is None:
            settings = self._settings
            try:
                child = IsolatedChild("arabesque.pipeline.decoding.decoder_main", settings.timeout_s)
            except OSError as error:
                raise ArabesqueError(
                    f"a decoder process cannot be started: {error.strerror or error}; allow more open files and "
                    "processes (ulimit -n, ulimit -u) or use fewer --decode-workers"
                ) from error
            _running.add(child)
            so_far.most_at_once = max(so_far.most_at_once, len(_running))
            self._child, self._is_ready, self._mapped = child, False, None
            child.send(Begin(self._backend, settings.memory_bytes, settings.planar, settings.card))

    def wait_until_ready(self) -> None:
        """Start the child and wait for it. Raises `ArabesqueError` if it cannot be started."""
        try:
            self._started()
        except ChildLost as lost:
            self._lose_child()
            raise ArabesqueError(f"the decoder {lost} before it was ready") from None

    @property
    def pid(self) -> int | None:
        """The child's process id; None if it is not running."""
        return None if self._child is None else self._child.pid

    def probe(
        self, path: Path, thorough: bool = False, audio_track: int | str = "best", frame_rate: float | None = None
    ) -> VideoMetadata:
        """Read a file's metadata; see `Decoder.probe`.

        Raises:
            DecodeError: The file cannot be decoded.
            TransientDecodeError: The child crashed or hung.
        """
        self.rest()
        with self._watched(path):
            child = self._started()
            child.send(ProbeRequest(path, thorough, audio_track, frame_rate))
            answer = self._answer(child, path)
            if not isinstance(answer, Probed):
                raise _unexpected(answer)
            check_probe(answer.metadata)
            return replace(answer.metadata, checked_frames=0)  # the child must not state which frames were checked

    def decode(
        self,
        path: Path,
        metadata: VideoMetadata,
        wanted: NDArray[np.int64],
        *,
        audio_until_s: float | None = None,
        bytes_later: int = 0,
        deinterlace: Deinterlace = "none",
        spans: Sequence[Span] = (),
    ) -> Iterator[FrameChunk | Holes]:
        """Decode the wanted frames in their order, and the audio up to a time.

        The iterator may be abandoned at any time. Chunks must be released: at most ``num_buffers`` can be in use.

        Args:
            path: A video file.
            metadata: Its metadata, from `probe`.
            wanted: Ascending indices of frames.
            audio_until_s: End of the audio in seconds; None for no audio.
            bytes_later: Size of a frame in later stages. A chunk of such frames also fits in a buffer.
            deinterlace: See `StreamSpec`.
            spans: Parts of the file that contain all wanted frames. The audio is that of the spans. A decoder seeks to
                a keyframe before a span that is far after the previous one.

        Yields:
            Chunks of frames, without those that cannot be decoded. `Holes` at the end, if there are any; with
            ``spans``, `Holes` after each span. Chunks without frames contain audio, where frames are far apart and
            after the last frame.

        Raises:
            DecodeError: Decoding cannot continue.
            TransientDecodeError: The child crashed, hung or exceeded its memory limit.
        """
        self.rest()
        self._videos += 1
        video = self._videos
        try:
            with self._watched(path):
                child = self._started()
                frame_bytes = math.prod(metadata.picture_shape(planar=False))
                buffers = self._fit_buffers(child, path, metadata, frame_bytes)
                self._is_decoding = True
                wanted = np.asarray(wanted, np.int64)
                max_frames = max(1, buffers.size_bytes // max(frame_bytes, bytes_later))
                child.send(DecodeRequest(path, metadata, wanted, max_frames, audio_until_s, deinterlace, tuple(spans)))
                planar = self._settings.planar
                expected = ExpectedChunks(metadata, wanted, max_frames, audio_until_s, planar=planar, spans=spans)
            while True:
                with self._watched(path):
                    for number in buffers.take_free(wait=not self._filling):
                        self._filling.add(number)
                        child.send(Fill(number))
                    answer = self._answer(child, path)
                    if isinstance(answer, Ended):
                        self._is_decoding = False
                        return
                    if isinstance(answer, Damaged):
                        check_holes(answer)
                    elif isinstance(answer, Filled):
                        expected.check(answer, self._filling)
                    else:
                        raise _unexpected(answer)
                if isinstance(answer, Damaged):
                    yield Holes(answer.frames, answer.audio, answer.ends_span)
                else:
                    yield self._chunk(buffers, metadata, answer)
                if video != self._videos:
                    raise ValueError("this decoder process has started another video; iterate over one at a time")
        finally:
            if video == self._videos:
                self.rest()

    def rest(self) -> None:
        """Stop the current video. The child continues to run. Chunks are valid until they are released."""
        if self._is_decoding and self._child is not None:
            try:
                self._child.send(Stop())
                deadline = time.monotonic() + STOP_TIMEOUT_S
                while not isinstance(_next_answer(self._child, deadline - time.monotonic()), Ended | Failed):
                    pass
            except ChildLost:
                self._lose_child()
        self._is_decoding = False
        if self._buffers is not None:
            self._buffers.give_back(self._filling)
        self._filling = set()

    def close(self) -> None:
        """End the child, and the wait of any thread for it. The next request starts a new child."""
        if self._buffers is not None:
            self._buffers.close()
        self._lose_child()
        self.rest()
        self._buffers = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _lose_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            _running.discard(child)
            so_far.largest_bytes = max(so_far.largest_bytes or 0, peak_bytes(child.pid) or 0) or None
            child.end()

    @contextmanager
    def _watched(self, path: Path) -> Generator[None]:
        try:
            yield
        except (ChildLost, MalformedDataError) as error:
            self._lose_child()
            what = ChildLost.malformed(error) if isinstance(error, MalformedDataError) else error
            raise TransientDecodeError(f"{path}: the decoder {what}; the next run tries again") from None

    def _started(self) -> IsolatedChild:
        self.start()
        child = self._child
        assert child is not None
        if not self._is_ready:
            answer = _next_answer(child, START_TIMEOUT_S)
            if not isinstance(answer, Ready):
                self._lose_child()
                raise ArabesqueError(answer.reason if isinstance(answer, Failed) else str(_unexpected(answer)))
            self._is_ready = True
            self.refused = answer.refused
            _warn_once(answer.refused)
        return child

    def _answer(self, child: IsolatedChild, path: Path) -> Answer:
        answer = _next_answer(child)
        if not isinstance(answer, Failed):
            return answer
        self._is_decoding = False
        reason = answer.reason if str(path) in answer.reason else f"{path}: {answer.reason}"
        error = _ERRORS.get(answer.error, DecodeError)(reason)
        if isinstance(error, TransientDecodeError):
            self._lose_child()
        raise error

    def _fit_buffers(
        self, child: IsolatedChild, path: Path, metadata: VideoMetadata, frame_bytes: int
    ) -> SharedBuffers:
        """Return the usual buffers, or larger ones if one frame needs them, after the child has mapped them."""
        one_frame = (
            f"{path}: one frame of {metadata.width_px}×{metadata.height_px} pixels takes {frame_bytes >> 20:,} MiB"
        )
        if frame_bytes > MAX_FRAME_BYTES:
            raise DecodeError(
                f"{one_frame}, more than {MAX_FRAME_BYTES >> 20}; scale it down "
                "(ffmpeg -i IN -vf scale=1920:-2 OUT.mp4)"
            )
        if frame_bytes > self._settings.max_frame_bytes:
            raise TransientDecodeError(
                f"{one_frame}, more than the {self._settings.max_frame_bytes >> 20} that --memory leaves for it; "
                "allow more or scale it down (ffmpeg -i IN -vf scale=1920:-2 OUT.mp4)"
            )
        size_bytes = max(frame_bytes, self._settings.buffer_bytes)
        if self._buffers is None or self._buffers.size_bytes != size_bytes:
            self._buffers = SharedBuffers(self._settings.num_buffers, size_bytes)
        if self._mapped is not self._buffers:
            child.send(Buffers(self._buffers.count, self._buffers.size_bytes), self._buffers.descriptor)
            self._mapped = self._buffers
        return self._buffers

    def _chunk(self, buffers: SharedBuffers, metadata: VideoMetadata, filled: Filled) -> FrameChunk:
        number = filled.number
        self._filling.discard(number)
        out = [number]

        def give_back() -> None:
            if out:
                buffers.give_back([out.pop()])

        shape = (len(filled.indices), *metadata.picture_shape(planar=filled.color is not None))
        frames = buffers.view(number, shape)
        return FrameChunk(
            filled.indices,
            frames,
            filled.color,
            filled.audio,
            filled.decode_s,
            give_back,
            filled.by_card,
            filled.on_cpu,
        )


class DecoderPool:
    """``num_decoders`` decoder processes, each of which is used by one thread at a time. Call `close` after use."""

    def __init__(self, num_decoders: int, backend: str = "pyav", settings: DecoderSettings | None = None) -> None:
        self.has_memory_limit = settings is not None and settings.max_frame_bytes < MAX_FRAME_BYTES
        """Whether ``--memory`` limits the size of frames."""
        self._decoders = [DecoderProcess(backend, settings) for _ in range(num_decoders)]
        self._idle: queue.LifoQueue[DecoderProcess] = queue.LifoQueue()  # the most recently used one first
        try:
            for decoder in self._decoders:
                decoder.start()
                self._idle.put(decoder)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all children, and the waits of all threads for them."""
        for decoder in self._decoders:
            decoder.close()

    def wait_until_ready(self) -> None:
        """Wait until every child accepts requests, for measurements without start-up time."""
        for decoder in self._decoders:
            decoder.wait_until_ready()

    @property
    def pids(self) -> list[int]:
        """Return the process ids of the running children."""
        return [decoder.pid for decoder in self._decoders if decoder.pid is not None]

    @contextmanager
    def decoder(self) -> Generator[DecoderProcess]:
        """Borrow a decoder process. Waits until one is idle."""
        decoder = self._idle.get()
        try:
            yield decoder
        finally:
            decoder.rest()
            self._idle.put(decoder)


def _next_answer(child: IsolatedChild, within_s: float | None = None) -> Answer:
    """Return the next message except `Alive`, which extends the time if ``within_s`` is None. Raises `ChildLost`."""
    deadline = None if within_s is None else time.monotonic() + within_s
    while True:
        message = child.receive(ANSWERS, None if deadline is None else deadline - time.monotonic())
        if not isinstance(message, Alive):
            return message


@cache
def _warn_once(refused: str) -> None:
    if allowed := still_allowed(refused):
        _LOG.warning(
            "decoder processes are not denied %s, because this kernel or container has no Landlock or seccomp; "
            "extract files from untrusted sources in a container without network",
            allowed,
        )


def _unexpected(answer: Answer) -> ChildLost:
    return ChildLost(f"sent {type(answer).__name__} at the wrong time and was ended")
