"""The parent's side of a decoder process; `decoder_main` is the child's."""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass

from ..system.child_process import IsolatedChild
from ..system.process_stats import peak_bytes
from .messages import ANSWERS, Alive, Answer, Begin, Buffers
from .shared_buffers import SharedBuffers

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

    def hand_over(self, buffers: SharedBuffers) -> None:
        self.send(Buffers(buffers.count, buffers.size_bytes))
        self.send_descriptor(buffers.descriptor)
        self.buffers = buffers

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
