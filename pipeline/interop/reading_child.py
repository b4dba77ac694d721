"""Child process that parses untrusted feature files, with a memory limit and a time limit; see `reading_messages`.

If the kernel supports it, the process cannot write files or open connections.
"""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ...manifests.errors import InputError, StoreError
from ..system.isolation import MemoryLimit, isolate
from ..system.typed_data import MessagePipe
from .array_files import damaged
from .feature_arrays import FeatureArray, Listing
from .formats import READERS, detect_format
from .reading_messages import LIMITS, REQUESTS, Listed, Load, Loaded, ReadRequest, Refused


def main(descriptor: int) -> None:
    """Answer the requests on the socket ``descriptor`` until the parent closes it."""
    with socket.socket(fileno=descriptor) as connection, ExitStack() as stack, suppress(EOFError, OSError):
        pipe = MessagePipe(connection, LIMITS)
        request: ReadRequest = pipe.receive(REQUESTS)
        if not request.trust:
            isolate()
        if request.memory_bytes is not None:
            MemoryLimit(request.memory_bytes).apply()
        _expire_after(request.timeout_s)
        try:
            format, listing = _listed(request, stack)
        except InputError as error:
            pipe.send(Refused("usage", str(error)))
            return
        except Exception as error:
            known = error if isinstance(error, StoreError) else damaged(str(request.path), "file", error)
            pipe.send(Refused("file", str(known)))
            return
        arrays = tuple(
            (one.video_id, one.stream, Path(one.file), one.member, one.load_times is not None, one.resize)
            for one in listing.arrays
        )
        pipe.send(Listed(format, arrays, tuple(listing.problems)))
        while True:
            _expire_after(None)
            load: Load = pipe.receive(REQUESTS)
            _expire_after(request.timeout_s)
            pipe.send(_loaded(listing.arrays[load.number], load.is_times))


def _expire_after(timeout_s: float | None) -> None:
    """End this process by SIGALRM if the parent has not ended it in time, for example because it was killed."""
    signal.setitimer(signal.ITIMER_REAL, 0 if timeout_s is None else timeout_s * 1.5)


def _listed(request: ReadRequest, stack: ExitStack) -> tuple[str, Listing]:
    format = request.format or detect_format(request.path)
    listing = READERS[format](request.path, request.trust, request.names, stack)
    if not listing.arrays and listing.problems:
        raise StoreError(listing.problems[0])
    return format, listing


def _loaded(array: FeatureArray, is_times: bool) -> Loaded | Refused:
    try:
        values: Any = array.load_times() if is_times and array.load_times is not None else array.load()
        values = np.ascontiguousarray(values)
    except Exception as error:
        known = error if isinstance(error, StoreError) else damaged(f"{array.file}: {array.member}", "array", error)
        return Refused("file", str(known))
    return Loaded(values.dtype.str, values.shape, values.reshape(-1).view(np.uint8))
