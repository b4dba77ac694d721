"""The decoding process of a slot: takes requests from its parent's pipe and fills shared buffers.

It must start fast: numpy and the decoder are all that it imports.

    parent                                          child
    (backend, memory allowance, planar)      ──▶
                                             ◀──    ("ready",)
    ("probe", path, thorough)                ──▶
                                             ◀──    ("probe", Probe)
    ("buffers", count, size), a descriptor   ──▶
    ("decode", path, probe, wanted, …)       ──▶
    ("fill", number), for each free buffer   ──▶
                                             ◀──    ("window", number, indices, Colour?, AudioChunk?, seconds)
                                             ◀──    ("end",)
    ("stop",), at any time                   ──▶
                                             ◀──    ("end",)

What has a question mark may be None. ``("error", kind, message)`` may take the place of any answer, and ``("alive",)``
come before it.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import ArabesqueError, DecodeError, TransientDecodeError
from ..records import Probe
from .decoders import Decoder, Picture, build_decoder
from .listening import Listener
from .memory_limit import MemoryLimit
from .planes import Colour, Planes, picture_shape
from .windows import cut_windows

ALIVE_INTERVAL_S = 1.0


def main(descriptor: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what it means
    threading.Thread(target=_end_with_parent, args=(descriptor,), daemon=True).start()
    with contextlib.suppress(_ParentGone):
        _Child(Connection(descriptor)).run()


def _end_with_parent(descriptor: int) -> None:
    """Also in the midst of a decoder that hangs."""
    hangup = select.poll()
    hangup.register(descriptor, 0)  # nothing but the closing of the other end
    hangup.poll()
    os._exit(0)


class _ParentGone(Exception):
    """Not `EOFError`: decoders have one of their own."""


class _Stopped(Exception):
    """The parent wants no more of this video."""


class _Child:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._alive_at = 0.0
        self._memory: NDArray[np.uint8] | None = None
        self._buffer_bytes = 0

    def run(self) -> None:
        backend, allowance_bytes, planar = self._receive()
        self._limit = MemoryLimit(allowance_bytes)
        with self._telling():
            self._decoder: Decoder = build_decoder(backend, self._alive, planar=planar)
            self._limit.apply()
            self._send(("ready",))
        while True:
            request, *details = self._receive()
            with self._telling():
                if request == "probe":
                    self._send(("probe", self._decoder.probe(*details)))
                elif request == "buffers":
                    self._map_buffers(*details)
                elif request == "decode":
                    self._decode(*details)
                # else "fill" or "stop", too late for the video that they were meant for

    def _receive(self) -> tuple[Any, ...]:
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise _ParentGone from error

    def _send(self, message: tuple[Any, ...]) -> None:
        try:
            self._pipe.send(message)
        except OSError as error:
            raise _ParentGone from error

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Sends what goes wrong to the parent. Out of memory is the end: nobody knows what is still sound."""
        try:
            yield
        except _ParentGone:
            raise
        except MemoryError:
            self._send(("error", TransientDecodeError.__name__, f"the decoder outgrew {self._limit}"))
            os._exit(1)
        except Exception as error:
            failure = _failure(error)
            self._send(("error", type(failure).__name__, str(failure)))

    def _alive(self) -> None:
        now = time.monotonic()
        if now - self._alive_at > ALIVE_INTERVAL_S:
            self._alive_at = now
            self._send(("alive",))

    def _map_buffers(self, count: int, size_bytes: int) -> None:
        descriptor = recv_handle(self._pipe)
        self._memory = None  # before the new ones: those of an 8K video are large
        self._limit.lift()
        self._memory = np.frombuffer(mmap.mmap(descriptor, count * size_bytes), np.uint8)
        self._limit.apply()
        os.close(descriptor)
        self._buffer_bytes = size_bytes

    def _decode(
        self, path: Path, probe: Probe, wanted: NDArray[np.int64], max_frames: int, sound_until_s: float | None
    ) -> None:
        with contextlib.suppress(_Stopped):
            self._send_windows(path, probe, wanted, max_frames, sound_until_s)
        self._send(("end",))

    def _send_windows(
        self, path: Path, probe: Probe, wanted: NDArray[np.int64], max_frames: int, sound_until_s: float | None
    ) -> None:
        pictures = _Pictures(self._decoder.frames(path, probe, wanted))
        listener = None
        if probe.audio is not None and sound_until_s is not None:
            listener = Listener(self._decoder.sound(path, probe, sound_until_s), probe.audio, sound_until_s)
        for cut in cut_windows(probe, wanted, max_frames, sound_until_s):
            if not len(cut.indices) and (listener is None or listener.is_over):
                continue
            rest, is_over = cut.indices, False
            while not is_over:
                number = self._next_buffer()
                began = time.perf_counter()
                num_filled, colour, broke = self._fill(number, rest, pictures, probe)
                indices, rest = rest[:num_filled], rest[num_filled:]
                is_over = broke is not None or not len(rest)  # or pictures come that are stored in another way
                sound = None
                if is_over and listener is not None and cut.sound_until_s is not None:
                    sound = listener.hear(cut.sound_until_s)
                if num_filled or sound is not None:
                    self._send(("window", number, indices, colour, sound, time.perf_counter() - began))
                if broke is not None:
                    raise broke
        if listener is not None and listener.broken is not None:
            raise listener.broken

    def _next_buffer(self) -> int:
        request, *details = self._receive()
        if request == "stop":
            raise _Stopped
        return details[0]

    def _fill(
        self, number: int, indices: NDArray[np.int64], pictures: _Pictures, probe: Probe
    ) -> tuple[int, Colour | None, ArabesqueError | None]:
        """How many of a window's frames came in one way, in which, and what kept the next one from coming."""
        num_filled, colour = 0, None
        try:
            for expected in indices.tolist():
                index, picture = pictures.look()
                if index != expected or picture is None:
                    raise DecodeError(f"the decoder delivered frame {index} instead of {expected}")
                stored = picture.colour if isinstance(picture, Planes) else None
                if num_filled and stored != colour:
                    break
                colour = stored
                self._write(picture, number, num_filled, probe)
                num_filled += 1
                pictures.drop()
                del picture  # see `PyAvDecoder`: nobody may hold it
        except (MemoryError, _ParentGone):
            raise
        except Exception as error:
            return num_filled, colour, _failure(error)
        return num_filled, colour, None

    def _write(self, picture: Picture, number: int, place: int, probe: Probe) -> None:
        assert self._memory is not None
        shape = picture_shape(probe, planar=isinstance(picture, Planes))
        start = number * self._buffer_bytes + place * math.prod(shape)
        target = self._memory[start : start + math.prod(shape)].reshape(shape)
        if isinstance(picture, Planes):
            picture.write_to(target)
        else:
            target[...] = picture


class _Pictures:
    """A decoder's pictures, the next of which may be looked at before it is taken."""

    def __init__(self, frames: Iterator[tuple[int, Picture]]) -> None:
        self._frames = frames
        self._next: tuple[int, Picture] | None = None

    def look(self) -> tuple[int, Picture] | tuple[None, None]:
        self._next = self._next or next(self._frames, None)
        return self._next or (None, None)

    def drop(self) -> None:
        self._next = None


def _failure(error: Exception) -> ArabesqueError:
    """Whatever a decoder raises is its video's fault, and must not end the run."""
    if isinstance(error, ArabesqueError):
        return error
    return DecodeError(f"the decoder failed: {type(error).__name__}: {error}")
