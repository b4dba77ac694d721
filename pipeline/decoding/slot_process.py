"""The parent's end of a slot's child process.

The child is started by its interpreter's name: a fork would copy the parent's threads' locks, and ``multiprocessing``'s
spawn would run the user's main script again, with all that it imports. It ends with its parent, however that ends.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import send_handle
from typing import Any

from ..proc import peak_bytes
from .shared_buffers import SharedBuffers

START_TIMEOUT_S = 60.0
EXIT_TIMEOUT_S = 5.0
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from arabesque.pipeline.decoding.slot_child import main; main(int(sys.argv[2]))"
)
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
"""Decoding needs no BLAS, whose threads cost start-up time; arenas count against the memory allowance."""


_running: weakref.WeakSet[SlotProcess] = weakref.WeakSet()


@dataclass
class ChildrenSoFar:
    """What this process's children have taken."""

    most_at_once: int = 0
    largest_bytes: int | None = None
    """Of those that were ended from here, buffers included. The kernel's own account of ended children is of no use: it
    has the parent's memory in it, which is a child's until it begins its own program."""


so_far = ChildrenSoFar()


@atexit.register
def _end_all() -> None:
    """Before the interpreter takes itself apart, with iterators still open that would speak to their children."""
    for process in list(_running):
        process.end()


class ChildLost(Exception):
    """The child is dead, or as good as dead; the message continues “the decoder …”."""


class SlotProcess:
    """Starts the child and does not wait for it: its first message is ``("ready",)``."""

    def __init__(self, backend: str, memory_bytes: int, timeout_s: float, planar: bool) -> None:
        ours, theirs = socket.socketpair()
        self._timeout_s = timeout_s
        self._ending = threading.Lock()
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed in end()
        self.is_ready = False
        self.buffers: SharedBuffers | None = None
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._words,
                env=os.environ | _ENVIRONMENT,
            )
        _running.add(self)
        so_far.most_at_once = max(so_far.most_at_once, len(_running))
        self._pipe = Connection(ours.detach())
        self._pipe.send((backend, memory_bytes, planar))

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, *message: object) -> None:
        try:
            self._pipe.send(message)
        except OSError as error:
            raise ChildLost(self._how_it_ended()) from error

    def hand_over(self, buffers: SharedBuffers) -> None:
        self.send("buffers", buffers.count, buffers.size_bytes)
        try:
            send_handle(self._pipe, buffers.descriptor, self.pid)
        except OSError as error:
            raise ChildLost(self._how_it_ended()) from error
        self.buffers = buffers

    def receive(self, timeout_s: float | None = None) -> tuple[Any, ...]:
        """The next message, signs of life aside. Raises `ChildLost` where none comes in time."""
        if timeout_s is None:
            timeout_s = self._timeout_s if self.is_ready else START_TIMEOUT_S
        while True:
            if not wait([self._pipe], max(0.0, timeout_s)):
                raise ChildLost(f"made no progress for {timeout_s:.0f} s and was ended")
            try:
                message = self._pipe.recv()
            except (EOFError, OSError) as error:
                raise ChildLost(self._how_it_ended()) from error
            except Exception as error:  # a child whose memory is damaged may send anything
                raise ChildLost(f"sent what nobody can read ({type(error).__name__}: {error})") from error
            if message[0] != "alive":
                return message

    def end(self) -> None:
        """Once is enough, and more does no harm: a run that stops ends children under the threads that use them, and
        these then do the same."""
        with self._ending:
            if self._pipe.closed:
                return
            _running.discard(self)
            if self._process.poll() is None:
                so_far.largest_bytes = max(so_far.largest_bytes or 0, peak_bytes(self.pid) or 0) or None
            self._process.kill()
            self._process.wait()
            self._pipe.close()  # a thread that waited has its end by now
            self._words.close()

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        how = f"exited with status {status}"
        if status < 0:
            how = f"crashed ({signal.Signals(-status).name})"
        words = self._last_words()
        return f"{how}: {words}" if words else how

    def _last_words(self) -> str:
        """The last line that the child wrote to its standard error."""
        with self._ending:
            if self._words.closed:
                return ""
            size = os.fstat(self._words.fileno()).st_size
            self._words.seek(max(0, size - 2000))
            lines = self._words.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else ""
