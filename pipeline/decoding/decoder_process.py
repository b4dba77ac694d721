"""The parent's side of a decoder process, and the memory that both share; `decoder_main` is the child's side."""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..system.child_process import IsolatedChild
from ..system.process_resources import peak_bytes
from .messages import ANSWERS, Alive, Answer, Begin

START_TIMEOUT_S = 60.0

_running: weakref.WeakSet[DecoderChild] = weakref.WeakSet()


@dataclass
class ChildrenSoFar:
    """Statistics of this process's decoder processes."""

    most_at_once: int = 0
    largest_bytes: int | None = None
    """Of those that were ended from here, buffers included. The kernel's own account of ended children is of no use: it
    has the parent's memory in it, which is a child's until it begins its own program."""


so_far = ChildrenSoFar()


class DecoderChild(IsolatedChild):
    """A decoder process. The constructor does not wait for it: its first message is `Ready`."""

    def __init__(self, backend: str, memory_bytes: int, timeout_s: float, planar: bool) -> None:
        super().__init__("arabesque.pipeline.decoding.decoder_main", timeout_s)
        self.is_ready = False
        self.buffers: SharedBuffers | None = None
        _running.add(self)
        so_far.most_at_once = max(so_far.most_at_once, len(_running))
        self.send(Begin(backend, memory_bytes, planar))

    def answer(self, within_s: float | None = None) -> Answer:
        """The next message but `Alive`, which extends the time if no ``within_s`` is given. Raises `ChildLost`."""
        deadline = None if within_s is None else time.monotonic() + within_s
        while True:
            if deadline is not None:
                timeout_s = deadline - time.monotonic()
            else:
                timeout_s = None if self.is_ready else START_TIMEOUT_S
            message = self.receive(ANSWERS, timeout_s)
            if not isinstance(message, Alive):
                return message

    def end(self) -> None:
        """See `ChildProcess.end`."""
        if self in _running:
            _running.discard(self)
            so_far.largest_bytes = max(so_far.largest_bytes or 0, peak_bytes(self.pid) or 0) or None
        super().end()


class SharedBuffers:
    """Buffers of equal size in anonymous memory, which the kernel frees when its processes exit or die.

    The parent owns the list of free buffers. A view keeps the memory alive after this object is deleted.
    """

    def __init__(self, count: int, size_bytes: int) -> None:
        self.count = count
        self.size_bytes = size_bytes
        self.descriptor = _nameless_file(count * size_bytes)
        self._memory = np.frombuffer(mmap.mmap(self.descriptor, count * size_bytes), np.uint8)
        self._free: set[int] = set(range(count))
        self._changed = threading.Condition()
        self._is_closed = False

    def __del__(self) -> None:
        os.close(self.descriptor)

    def take_free(self) -> set[int]:
        """Take all free buffers."""
        with self._changed:
            taken, self._free = self._free, set[int]()
            return taken

    def wait_until_free(self) -> bool:
        """Wait for a free buffer; return False if the buffers were closed."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._free) or self._is_closed)
            return not self._is_closed

    def close(self) -> None:
        """End all current and future waits. Views stay valid."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def give_back(self, numbers: Iterable[int]) -> None:
        with self._changed:
            self._free.update(numbers)
            self._changed.notify_all()

    def view(self, number: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        start = number * self.size_bytes
        return self._memory[start : start + math.prod(shape)].reshape(shape)


def _nameless_file(size_bytes: int) -> int:
    """A descriptor; on Linux memory that no limit of /dev/shm applies to, elsewhere a file that is deleted at once.

    On Linux its size is sealed: reading what another process has cut off would crash this one (SIGBUS).
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("arabesque-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size_bytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return descriptor
    with tempfile.TemporaryFile() as file:
        descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size_bytes)
    return descriptor
