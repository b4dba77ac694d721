"""Decoding in processes of its own, so that a decoder that crashes, hangs or balloons costs its video and no more.

A `DecodeSlot` is one long-lived child process and a few shared buffers that it fills; its parent reads them without a
copy. A `SlotPool` lends slots to the threads of the decoding stage.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import ArabesqueError, DecodeError, TransientDecodeError
from ..probe_cache import ProbeCache
from ..records import Probe, state_of
from .decoders import IndexMismatch, SoundBroken, check_backend
from .listening import AudioChunk
from .planes import Colour, picture_shape
from .shared_buffers import SharedBuffers
from .slot_process import ChildLost, SlotProcess

__all__ = ["AudioChunk", "DecodeSlot", "SlotPool", "SlotSettings", "Window"]

MAX_FRAME_BYTES = 512 << 20
"""More than 16,384 × 8,192 pixels take; a header can claim any size."""
STOP_TIMEOUT_S = 5.0
"""A child that is told to stop has this long to finish its window; then it is killed."""
_ERRORS = {
    kind.__name__: kind for kind in (ArabesqueError, DecodeError, TransientDecodeError, IndexMismatch, SoundBroken)
}


@dataclass(frozen=True)
class SlotSettings:
    timeout_s: float = 60.0
    """A child that makes no progress for this long is taken for hung."""
    memory_bytes: int = 2 << 30
    """What a child may allocate while it decodes, its buffers aside."""
    num_buffers: int = 3
    buffer_bytes: int = 48 << 20
    """A window has as many RGB frames as fit; for one larger frame, the buffers grow."""
    max_frame_bytes: int = MAX_FRAME_BYTES
    """Up to which the buffers may grow."""
    planar: bool = False
    """Frames come as their planes where they are 8-bit 4:2:0, for who can convert them: half the bytes."""


@dataclass(frozen=True, eq=False)
class Window:
    """Consecutive wanted frames of a video, possibly none, and the sound up to the end of the last one."""

    indices: NDArray[np.int64]
    frames: NDArray[np.uint8]
    """Upright, in the slot's own memory, valid until `release`: ``[frames, height, width, 3]``, RGB, or
    ``[frames, height · 3 / 2, width]``, planes (`Planes.write_to`)."""
    colour: Colour | None
    """What the planes mean; None for RGB."""
    audio: AudioChunk | None
    """None where no sound was asked for, where there is none, and once it is over."""
    decode_s: float
    """How long the child worked on it; while it waits for a free buffer it does not."""
    _give_back: Callable[[], None] = field(repr=False)

    def release(self) -> None:
        """Gives the memory back, once, from whatever thread; the slot waits while all its windows are out."""
        self._give_back()


class DecodeSlot:
    """For one thread at a time. The child starts with the first request, and anew after it was lost."""

    def __init__(
        self, backend: str = "pyav", settings: SlotSettings | None = None, probes: ProbeCache | None = None
    ) -> None:
        check_backend(backend)
        self._probes = probes or ProbeCache()
        self._backend = backend
        self._settings = settings or SlotSettings()
        self._child: SlotProcess | None = None
        self._buffers: SharedBuffers | None = None
        self._filling: set[int] = set()  # buffers that the child may write to
        self._videos = 0  # how many were begun: tells an abandoned iterator that its turn is over
        self._is_decoding = False

    def start(self) -> None:
        """Starts the child without waiting for it."""
        if self._child is None:
            settings = self._settings
            self._child = SlotProcess(self._backend, settings.memory_bytes, settings.timeout_s, settings.planar)

    def wait_until_ready(self) -> None:
        """Starts the child and waits for it. Raises `ArabesqueError` where it cannot be started."""
        try:
            self._started()
        except ChildLost as lost:
            self._lose_child()
            raise ArabesqueError(f"the decoder {lost} before it was ready") from None

    @property
    def pid(self) -> int | None:
        """The child's; None where there is none."""
        return None if self._child is None else self._child.pid

    def probe(self, path: Path, thorough: bool = False) -> Probe:
        """See `Decoder.probe`. Raises `DecodeError`, or `TransientDecodeError` where the child was lost over it."""
        self.rest()
        if (known := self._probes.probe(path, thorough=thorough)) is not None:
            return known
        before = state_of(path)
        with self._watched(path):
            child = self._started()
            child.send("probe", path, thorough)
            probe: Probe = self._answer(child, path)[1]
        self._probes.keep_probe(path, before, probe, thorough=thorough)
        return probe

    def decode(
        self,
        path: Path,
        probe: Probe,
        wanted: NDArray[np.int64],
        *,
        audio_until_s: float | None = None,
        bytes_later: int = 0,
    ) -> Iterator[Window]:
        """Windows with the frames ``wanted`` (ascending) in their order, and the sound up to ``audio_until_s``.

        A window has as many frames as fit a buffer, also once each has been turned into ``bytes_later``. Windows
        without frames bring sound where frames lie far apart, and after the last one. Everything before a break is
        delivered; then `DecodeError` is raised, or `TransientDecodeError` where the child was lost. May be left at any
        time. Windows must be released: not more than ``num_buffers`` can be out.
        """
        self.rest()
        self._videos += 1
        video = self._videos
        try:
            with self._watched(path):
                child = self._started()
                buffers = self._fit_buffers(child, path, probe)
                self._is_decoding = True
                max_frames = max(1, buffers.size_bytes // max(_frame_bytes(probe), bytes_later))
                child.send("decode", path, probe, np.asarray(wanted, np.int64), max_frames, audio_until_s)
            while True:
                with self._watched(path):
                    self._offer_buffers(child, buffers)
                    answer, *details = self._answer(child, path)
                if answer == "end":
                    self._is_decoding = False
                    return
                yield self._window(buffers, probe, *details)
                if video != self._videos:
                    raise ValueError("this slot has begun another video; iterate over one at a time")
        finally:
            if video == self._videos:
                self.rest()

    def rest(self) -> None:
        """Ends what is going on; the child stays. Windows that are out stay valid until they are released."""
        if self._is_decoding and self._child is not None:
            try:
                self._child.send("stop")
                deadline = time.monotonic() + STOP_TIMEOUT_S
                while self._child.receive(deadline - time.monotonic())[0] not in ("end", "error"):
                    pass
            except ChildLost:
                self._lose_child()
        self._is_decoding = False
        if self._buffers is not None:
            self._buffers.give_back(self._filling)
        self._filling = set()

    def close(self) -> None:
        """Ends the child, and a thread's wait for it; the slot can be used again, with a new one."""
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
        if self._child is not None:
            self._child.end()
            self._child = None

    @contextmanager
    def _watched(self, path: Path) -> Iterator[None]:
        try:
            yield
        except ChildLost as lost:
            self._lose_child()
            raise TransientDecodeError(f"{path}: the decoder {lost}; the next run tries again") from None

    def _started(self) -> SlotProcess:
        self.start()
        assert self._child is not None
        if not self._child.is_ready:
            answer, *details = self._child.receive()
            if answer == "error":
                self._lose_child()
                raise _ERRORS.get(details[0], ArabesqueError)(details[1])
            self._child.is_ready = True
        return self._child

    def _answer(self, child: SlotProcess, path: Path) -> tuple[Any, ...]:
        message = child.receive()
        if message[0] != "error":
            return message
        self._is_decoding = False
        _, kind, text = message
        error = _ERRORS.get(kind, DecodeError)(text if str(path) in text else f"{path}: {text}")
        if isinstance(error, TransientDecodeError):
            self._lose_child()
        raise error

    def _fit_buffers(self, child: SlotProcess, path: Path, probe: Probe) -> SharedBuffers:
        """The usual buffers, or larger ones where one frame needs them; and the child maps them."""
        frame_bytes = _frame_bytes(probe)
        one_frame = f"{path}: one frame of {probe.width_px}×{probe.height_px} pixels takes {frame_bytes >> 20:,} MiB"
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
        if child.buffers is not self._buffers:
            child.hand_over(self._buffers)
        return self._buffers

    def _offer_buffers(self, child: SlotProcess, buffers: SharedBuffers) -> None:
        """Everything that is free, for the child to fill; waits for a release where nothing is."""
        while True:
            for number in buffers.take_free():
                self._filling.add(number)
                child.send("fill", number)
            if self._filling:
                return
            if not buffers.wait_until_free():
                raise ChildLost("was closed")

    def _window(
        self,
        buffers: SharedBuffers,
        probe: Probe,
        number: int,
        indices: NDArray[np.int64],
        colour: Colour | None,
        audio: AudioChunk | None,
        decode_s: float,
    ) -> Window:
        self._filling.discard(number)
        out = [number]

        def give_back() -> None:
            if out:
                buffers.give_back([out.pop()])

        shape = (len(indices), *picture_shape(probe, planar=colour is not None))
        return Window(indices, buffers.view(number, shape), colour, audio, decode_s, give_back)


class SlotPool:
    """A context with ``num_slots`` slots, which threads borrow one at a time."""

    def __init__(
        self,
        num_slots: int,
        backend: str = "pyav",
        settings: SlotSettings | None = None,
        probes: ProbeCache | None = None,
    ) -> None:
        """``probes`` stays the caller's to close."""
        self.probes = probes or ProbeCache()
        self._slots = [self._new_slot(backend, settings) for _ in range(num_slots)]
        self._idle: queue.LifoQueue[DecodeSlot] = queue.LifoQueue()  # the warm one first
        for slot in self._slots:
            self._idle.put(slot)

    def __enter__(self) -> Self:
        for slot in self._slots:
            slot.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all children, and the waits of threads for them."""
        for slot in self._slots:
            slot.close()

    def wait_until_ready(self) -> None:
        """Until every child takes requests, for measurements that are not to count how they start."""
        for slot in self._slots:
            slot.wait_until_ready()

    @property
    def pids(self) -> list[int]:
        """Of the children that live."""
        return [slot.pid for slot in self._slots if slot.pid is not None]

    def _new_slot(self, backend: str, settings: SlotSettings | None) -> DecodeSlot:
        return DecodeSlot(backend, settings, self.probes)

    @contextmanager
    def slot(self) -> Iterator[DecodeSlot]:
        """Waits until one is idle."""
        slot = self._idle.get()
        try:
            yield slot
        finally:
            slot.rest()
            self._idle.put(slot)


def _frame_bytes(probe: Probe) -> int:
    return probe.height_px * probe.width_px * 3
