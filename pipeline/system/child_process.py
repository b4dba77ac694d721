"""Child processes of this program, for decoders, readers of untrusted files, workers and trainings.

A child is a new Python interpreter that runs the function ``main(descriptor)`` of a module and is connected to this
process by a socket. A fork would copy locks that other threads hold, and the spawn method of ``multiprocessing`` would
run the user's main script again. A child never outlives this process. Ctrl-C in a terminal reaches this process only.

`ChildProcess` starts and ends a child and reports how it ended. `IsolatedChild` adds messages for children that process
untrusted data; such a child isolates itself with the functions of `isolation`.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from .typed_data import MalformedDataError, MessageLimits, MessagePipe

_LOG = logging.getLogger(__name__)

EXIT_TIMEOUT_S = 30.0
"""Time in which a child that has closed its connection must exit. On a busy machine this takes seconds."""

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from importlib import import_module; import_module(sys.argv[3]).main(int(sys.argv[2]))"
)
_SIGNALS = {int(each): each.name for each in signal.Signals}
_ISOLATED_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # BLAS is not needed, and starting its threads takes time
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",  # arenas count against the memory limit
    "HDF5_PLUGIN_PRELOAD": "::",  # HDF5 loads no filter plugins
}


class ChildLost(Exception):
    """The child crashed, hangs or sent a malformed message. The message continues a phrase such as “the decoder …”."""

    @classmethod
    def malformed(cls, error: MalformedDataError) -> ChildLost:
        """Return the error for a child whose memory is damaged, or that a malicious file controls."""
        return cls(f"sent a malformed message ({error}) and was ended")


class ChildProcess:
    """A new Python interpreter that runs one function. The constructor does not wait for it.

    Args:
        module: Full name of a module with a function ``main(descriptor)``. The descriptor is the child's end of the
            socket.
        environment: Additional environment variables of the child.
        keeps_errors: Keep the child's standard error for `how_it_ended`. By default it goes to this process's standard
            error.

    Raises:
        OSError: The process cannot be started, for example because too many files are open.
    """

    def __init__(self, module: str, *, environment: Mapping[str, str] | None = None, keeps_errors: bool = False):
        self._ending = threading.Lock()
        with ExitStack() as stack:
            self.connection, theirs = (stack.enter_context(end) for end in socket.socketpair())
            self._errors = stack.enter_context(tempfile.TemporaryFile()) if keeps_errors else None
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path), str(theirs.fileno()), module],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._errors or 2,
                stderr=self._errors,
                env=os.environ | (environment or {}),
                process_group=0,  # Ctrl-C reaches only this process, which ends its children
            )
            self.pid = self._process.pid
            theirs.close()
            stack.pop_all()  # `end` closes the other files
        _running.add(self)
        _LOG.debug("started process %d: %s", self.pid, module)

    def how_it_ended(self) -> str:
        """Wait for the end of a child that has closed its connection, and describe it.

        Returns:
            A phrase such as ``crashed (SIGSEGV)`` or ``exited with status 1: the last line of its standard error``.
        """
        try:
            status = self._process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        if status < 0:
            verb = "was killed" if -status in (signal.SIGKILL, signal.SIGTERM) else "crashed"
            how = f"{verb} ({_SIGNALS.get(-status, f'signal {-status}')})"
        else:
            how = f"exited with status {status}"
        last_line = self._last_error()
        _LOG.debug("process %d %s", self.pid, how)
        return f"{how}: {last_line}" if last_line else how

    def terminate(self) -> None:
        """Send SIGTERM to the child, which asks it to exit."""
        self._process.terminate()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the child to exit. Returns False if it has not exited in time."""
        try:
            self._process.wait(max(0.0, timeout_s))
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> None:
        """Kill the child and close the connection. Idempotent and thread-safe."""
        with self._ending:
            if self not in _running:
                return
            _running.discard(self)
            self._process.kill()
            self._process.wait()
            self.connection.close()  # waiting threads have received an end-of-file
            if self._errors is not None:
                self._errors.close()

    def _last_error(self) -> str:
        """Return the last line that the child wrote to its standard error."""
        with self._ending:
            if self._errors is None or self._errors.closed:
                return ""
            size = os.fstat(self._errors.fileno()).st_size
            self._errors.seek(max(0, size - 2000))
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else ""


_running: weakref.WeakSet[ChildProcess] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """End all children before the interpreter shuts down, while open iterators still refer to them."""
    for process in list(_running):
        process.end()


class IsolatedChild(ChildProcess):
    """A child that processes untrusted data. It is used by one thread at a time, except for `end`.

    The child exchanges dataclasses of plain data with this process (`MessagePipe`), so that a child that a malicious
    file controls cannot execute code here.

    Args:
        module: See `ChildProcess`.
        timeout_s: Time limit for sending or receiving a message in seconds; None for no limit.
        limits: Maximal sizes of messages.
    """

    def __init__(self, module: str, timeout_s: float | None = None, limits: MessageLimits | None = None) -> None:
        super().__init__(module, environment=_ISOLATED_ENVIRONMENT, keeps_errors=True)
        self._timeout_s = timeout_s
        self._pipe = MessagePipe(self.connection, limits or MessageLimits())

    def send(self, message: object, descriptor: int | None = None) -> None:
        """Send a message, followed by a copy of an open file descriptor if one is given, e.g. of shared memory.

        Raises:
            ChildLost: The child has exited, or does not read the message in time.
        """
        try:
            self._pipe.send(message, self._timeout_s)
            if descriptor is not None:
                socket.send_fds(self.connection, [b"\0"], [descriptor])
        except OSError as error:
            raise self._lost(error, self._timeout_s) from error

    def receive(self, kinds: Mapping[str, type[Any]], timeout_s: float | None = None) -> Any:
        """Return the next message.

        Args:
            kinds: Message classes by name; see `message_kinds`.
            timeout_s: Time limit for this message in seconds, instead of the usual one.

        Raises:
            ChildLost: The child has exited, does not send a whole message in time, or sends a malformed one.
        """
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            return self._pipe.receive(kinds, limit_s)
        except (EOFError, OSError) as error:
            raise self._lost(error, limit_s) from error
        except MalformedDataError as error:
            raise ChildLost.malformed(error) from error

    def _lost(self, error: Exception, limit_s: float | None) -> ChildLost:
        if isinstance(error, TimeoutError) and limit_s is not None:
            return ChildLost(f"sent no answer within {limit_s:.3g} s and was ended")
        return ChildLost(self.how_it_ended())
