"""Main function of a decoder process: it handles requests from its parent's pipe, and fills shared buffers.

It imports only numpy and the decoder, so that it starts fast.

    parent                                child
    Begin                            ──▶
                                     ◀──  Ready
    ProbeRequest                     ──▶
                                     ◀──  Probed
    Buffers, a descriptor            ──▶
    DecodeRequest                    ──▶
    Fill, for each free buffer       ──▶
                                     ◀──  Filled
                                     ◀──  Damaged, if there are holes
                                     ◀──  Ended
    Stop, at any time                ──▶
                                     ◀──  Ended

`Failed` may be sent in place of any answer, and `Alive` before any answer.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import socket
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import ArabesqueError, DecodeError, TransientDecodeError
from ..records import Hole, VideoMetadata
from ..system.isolation import MemoryLimit, exit_with_parent, isolate
from ..system.typed_data import MessagePipe
from .audio_reader import AudioReader
from .chunks import cut_chunks
from .decoders import Decoder, Picture, UsesCard, build_decoder
from .frame_folders import CONTAINER, decode_folder, probe_folder
from .messages import (
    MAX_HOLES,
    MAX_REASON_CHARACTERS,
    REQUESTS,
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
    Request,
)
from .planes import ColorSpace, Planes

ALIVE_INTERVAL_S = 1.0


def main(descriptor: int) -> None:
    with contextlib.suppress(_ParentGone):
        _Child(socket.socket(fileno=descriptor)).run()


def _show_one_card(number: int) -> None:
    """Make a card the only one that CUDA shows to this process. ``number``: index among the cards that it shows now."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = shown[number] if number < len(shown) and shown[number] else str(number)


class _ParentGone(Exception):
    """The parent has ended. It is not an `EOFError`, because decoders raise those."""


class _Stopped(Exception):
    """The parent stopped this video."""


class _Child:
    def __init__(self, end: socket.socket) -> None:
        self._descriptor = end.fileno()
        self._pipe = MessagePipe(end)
        self._alive_at = 0.0
        self._memory: NDArray[np.uint8] | None = None
        self._buffer_bytes = 0
        self._spare: int | None = None  # free buffer that the last span did not need

    def run(self) -> None:
        begin = self._receive()
        assert isinstance(begin, Begin)
        self._limit = MemoryLimit(begin.memory_bytes)
        _show_one_card(begin.card)
        with self._reporting_errors():
            self._decoder: Decoder = build_decoder(begin.backend, self._alive, planar=begin.planar)
            refused = isolate(self._decoder.device_files if isinstance(self._decoder, UsesCard) else ())
            exit_with_parent(self._descriptor)
            self._limit.apply()
            self._send(Ready(refused))
        while True:
            request = self._receive()
            with self._reporting_errors():
                match request:
                    case ProbeRequest(path, thorough, audio_track, None):
                        self._send(Probed(self._decoder.probe(path, thorough, audio_track)))
                    case ProbeRequest(path, _, _, float(frame_rate)):
                        self._send(Probed(probe_folder(path, frame_rate, self._alive)))
                    case Buffers(count, size_bytes):
                        self._map_buffers(count, size_bytes)
                    case DecodeRequest():
                        self._decode(request)
                    case _:  # `Fill` or `Stop` for a video that has already ended
                        pass

    def _receive(self) -> Request:
        try:
            return self._pipe.receive(REQUESTS)
        except (EOFError, OSError) as error:
            raise _ParentGone from error

    def _send(self, message: Answer) -> None:
        try:
            self._pipe.send(message)
        except OSError as error:
            raise _ParentGone from error

    @contextlib.contextmanager
    def _reporting_errors(self) -> Generator[None]:
        """Send errors to the parent. Exit if memory is exhausted, because the state of the process is then unknown."""
        try:
            yield
        except _ParentGone:
            raise
        except MemoryError:
            self._send(Failed(TransientDecodeError.__name__, f"the decoder exceeded {self._limit}"))
            os._exit(1)
        except Exception as error:
            failure = _failure(error)
            self._send(Failed(type(failure).__name__, str(failure)[:MAX_REASON_CHARACTERS]))

    def _alive(self) -> None:
        now = time.monotonic()
        if now - self._alive_at > ALIVE_INTERVAL_S:
            self._alive_at = now
            self._send(Alive())

    def _map_buffers(self, count: int, size_bytes: int) -> None:
        descriptor = self._pipe.receive_descriptor()
        self._memory = None  # freed before the new buffers are mapped, because buffers of an 8K video are large
        self._limit.lift()
        self._memory = np.frombuffer(mmap.mmap(descriptor, count * size_bytes), np.uint8)
        self._limit.apply()
        os.close(descriptor)
        self._buffer_bytes = size_bytes

    def _decode(self, request: DecodeRequest) -> None:
        self._spare = None
        with contextlib.suppress(_Stopped):
            self._send_chunks(request)
        self._send(Ended())

    def _send_chunks(self, request: DecodeRequest) -> None:
        path, metadata, wanted = request.path, request.metadata, request.wanted
        if metadata.container == CONTAINER:
            frames = decode_folder(path, metadata, wanted, self._alive)
        else:
            frames = self._decoder.frames(path, metadata, wanted, request.deinterlace, request.spans)
        pictures = _Pictures(frames, metadata)
        if not request.spans:
            audio = self._audio(path, metadata, request.audio_until_s)
            self._send_span(request, pictures, wanted, audio, request.audio_until_s)
        for span in request.spans:
            inside = wanted[slice(*np.searchsorted(wanted, [span.first, span.last]))]
            until_s = span.audio_until_s if span.audio_until_s > span.audio_from_s else None
            audio = self._audio(path, metadata, until_s, span.audio_from_s)
            self._send_span(request, pictures, inside, audio, until_s, span.audio_from_s)
        pictures.look()  # after the last wanted frame, a decoder checks that the file ends as its metadata states

    def _audio(
        self, path: Path, metadata: VideoMetadata, until_s: float | None, from_s: float | None = None
    ) -> AudioReader | None:
        if metadata.audio is None or until_s is None:
            return None
        return AudioReader(self._decoder.audio(path, metadata, until_s, from_s), metadata.audio, until_s, from_s)

    def _send_span(
        self,
        request: DecodeRequest,
        pictures: _Pictures,
        wanted: NDArray[np.int64],
        reader: AudioReader | None,
        audio_until_s: float | None,
        audio_from_s: float | None = None,
    ) -> None:
        """Send the chunks of a span, or of the whole file, then their holes."""
        metadata = request.metadata
        number: int | None = None  # number of a free buffer
        for cut in cut_chunks(metadata, wanted, request.max_frames, audio_until_s, audio_from_s):
            if not len(cut.indices) and (reader is None or reader.is_over):
                continue
            rest, is_over = cut.indices, False
            while not is_over:
                number = self._next_buffer() if number is None else number
                began = time.perf_counter()
                indices, rest, color, broke = self._fill(number, rest, pictures, metadata)
                is_over = broke is not None or not len(rest)  # otherwise the next picture has another format
                audio = None
                if is_over and reader is not None and cut.audio_until_s is not None:
                    audio = reader.read(cut.audio_until_s)
                if len(indices) or audio is not None:
                    self._send(Filled(number, indices, color, audio, time.perf_counter() - began, *self._place()))
                    number = None
                if broke is not None:
                    self._send_holes(pictures, reader, ends_span=False)
                    raise broke
        if number is not None:
            self._spare = number
        self._send_holes(pictures, reader, ends_span=bool(request.spans))

    def _place(self) -> tuple[bool, str]:
        """Return `FrameChunk.by_card` and `FrameChunk.on_cpu`."""
        if not isinstance(self._decoder, UsesCard):
            return False, ""
        on_cpu = self._decoder.on_cpu
        return not on_cpu, on_cpu[:MAX_REASON_CHARACTERS]

    def _send_holes(self, pictures: _Pictures, reader: AudioReader | None, *, ends_span: bool) -> None:
        """Send the holes since the last message; at the end of a span, even if there are none."""
        holes, audio_holes = pictures.take_new_holes(), [] if reader is None else reader.holes
        if holes or audio_holes or ends_span:
            self._send(Damaged(_bounded(holes), _bounded(audio_holes), ends_span))

    def _next_buffer(self) -> int:
        if self._spare is not None:
            number, self._spare = self._spare, None
            return number
        request = self._receive()
        if not isinstance(request, Fill):  # `Stop`
            raise _Stopped
        return request.number

    def _fill(
        self, number: int, indices: NDArray[np.int64], pictures: _Pictures, metadata: VideoMetadata
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], ColorSpace | None, ArabesqueError | None]:
        """Write frames with one format to a buffer, without those in holes.

        Returns their indices, the indices of the remaining frames, their format, and the error if decoding ended.
        """
        filled: list[int] = []
        num_passed, color, broke = 0, None, None
        try:
            for expected in indices.tolist():
                index, picture = pictures.look()
                if index != expected and pictures.are_lost(expected):
                    num_passed += 1
                    continue
                if index != expected or picture is None:
                    raise DecodeError(f"the decoder delivered frame {index} instead of {expected}")
                stored = picture.color if isinstance(picture, Planes) else None
                if filled and stored != color:
                    break
                color = stored
                self._write(picture, number, len(filled), metadata)
                filled.append(expected)
                num_passed += 1
                pictures.drop()
                del (
                    picture
                )  # see `PyAvDecoder`: the memory of a picture is reused only after its last reference is deleted
        except (MemoryError, _ParentGone):
            raise
        except Exception as error:
            broke = _failure(error)
        return np.array(filled, np.int64), indices[num_passed:], color, broke

    def _write(self, picture: Picture, number: int, place: int, metadata: VideoMetadata) -> None:
        assert self._memory is not None
        shape = metadata.picture_shape(planar=isinstance(picture, Planes))
        start = number * self._buffer_bytes + place * math.prod(shape)
        target = self._memory[start : start + math.prod(shape)].reshape(shape)
        if isinstance(picture, Planes):
            picture.write_to(target)
        else:
            target[...] = picture


class _Pictures:
    """A decoder's pictures with a look-ahead of one picture, and the holes between them."""

    def __init__(self, frames: Iterator[tuple[int, Picture] | Hole], metadata: VideoMetadata) -> None:
        self._frames = frames
        self._times_s = metadata.frame_times_s
        self._next: tuple[int, Picture] | None = None
        self.holes: list[Hole] = []
        self._num_taken = 0

    def take_new_holes(self) -> list[Hole]:
        """Return the holes since the last call."""
        new, self._num_taken = self.holes[self._num_taken :], len(self.holes)
        return new

    def look(self) -> tuple[int, Picture] | tuple[None, None]:
        while self._next is None:
            item = next(self._frames, None)
            if item is None:
                return None, None
            if isinstance(item, Hole):
                self.holes.append(item)
            else:
                self._next = item
        return self._next

    def are_lost(self, index: int) -> bool:
        """Return whether a frame is in a hole that was reported."""
        time_s = self._times_s[index]
        return any(hole.start_s <= time_s < hole.end_s for hole in reversed(self.holes))

    def drop(self) -> None:
        self._next = None


def _bounded(holes: list[Hole]) -> tuple[Hole, ...]:
    """Return holes that fit in a message. Excess holes are merged into one."""
    kept = [replace(hole, reason=hole.reason[:MAX_REASON_CHARACTERS]) for hole in holes[:MAX_HOLES]]
    if len(holes) > MAX_HOLES:
        kept[-1] = replace(kept[-1], end_s=holes[-1].end_s)
    return tuple(kept)


def _failure(error: Exception) -> ArabesqueError:
    """Convert an error of a decoder into an error of its video, which does not end the run."""
    if isinstance(error, ArabesqueError):
        return error
    return DecodeError(f"the decoder failed: {type(error).__name__}: {error}")
