"""Messages between two processes as data: no pickle in either direction.

A message is the lengths of its two parts (`_HEADER`), JSON text ``[kind, fields]``, and the raw bytes of its arrays.
The receiver names the kinds that it accepts, and `typed_data` checks the type of every field.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from .typed_data import MalformedDataError, from_data, to_data

_HEADER = struct.Struct("<II")


@dataclass(frozen=True)
class MessageLimits:
    """Maximal sizes of the two parts of a message."""

    text_bytes: int = 1 << 20
    array_bytes: int = 128 << 20
    """The default exceeds the times of 16 million frames, and the audio of a chunk."""


def message_kinds(union: Any) -> dict[str, type[Any]]:
    """Return the dataclasses of a union by the names that they have in messages."""
    return {kind.__name__: kind for kind in get_args(union) or (union,)}


class MessagePipe:
    """One end of a stream socket between two processes. Used by one thread at a time.

    Args:
        end: The socket. Its owner closes it.
        limits: Maximal sizes of messages in both directions.
    """

    def __init__(self, end: socket.socket, limits: MessageLimits | None = None) -> None:
        self._socket = end
        self._limits = limits or MessageLimits()

    def send(self, message: object, timeout_s: float | None = None) -> None:
        """Send a dataclass of plain data.

        Raises:
            OSError: The other end is closed.
            TimeoutError: The other end takes nothing in time.
            MalformedDataError: The message exceeds the limits.
        """
        arrays: list[NDArray[Any]] = []
        text = json.dumps([type(message).__name__, to_data(message, arrays)]).encode("ascii")
        length = sum(array.nbytes for array in arrays)
        self._check_lengths(len(text), length)
        self._socket.settimeout(timeout_s)
        self._socket.sendall(_HEADER.pack(len(text), length) + text)
        for array in arrays:
            if array.size:
                self._socket.sendall(array.reshape(-1).view(np.uint8).data)

    def receive(self, kinds: Mapping[str, type[Any]], timeout_s: float | None = None) -> Any:
        """Return the next message.

        Args:
            kinds: The accepted dataclasses by name; see `message_kinds`.
            timeout_s: Time limit for the whole message in seconds; None for no limit.

        Raises:
            EOFError: The other end is closed.
            OSError: The connection is broken.
            TimeoutError: No whole message arrives in time.
            MalformedDataError: The data is not a message of these kinds.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        text_bytes, array_bytes = _HEADER.unpack(self._read(_HEADER.size, deadline))
        self._check_lengths(text_bytes, array_bytes)
        text = self._read(text_bytes, deadline)
        payload = self._read(array_bytes, deadline)
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:  # bytes that are not UTF-8 are a ValueError, too
            raise MalformedDataError(f"not JSON ({type(error).__name__})") from None
        match data:
            case [str(name), dict() as fields] if name in kinds:  # pyright: ignore[reportUnknownVariableType]
                return from_data(kinds[name], cast("dict[str, Any]", fields), payload)
            case _:
                raise MalformedDataError("not a message of a known kind")

    def send_descriptor(self, descriptor: int, timeout_s: float | None = None) -> None:
        self._socket.settimeout(timeout_s)
        socket.send_fds(self._socket, [b"\0"], [descriptor])

    def receive_descriptor(self) -> int:
        self._socket.settimeout(None)
        _, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        if not descriptors:
            raise EOFError
        return descriptors[0]

    def _read(self, count: int, deadline: float | None) -> bytearray:
        data, position = bytearray(count), 0
        view = memoryview(data)
        while position < count:
            remaining_s = None if deadline is None else deadline - time.monotonic()
            if remaining_s is not None and remaining_s <= 0:
                raise TimeoutError
            self._socket.settimeout(remaining_s)
            received = self._socket.recv_into(view[position:])
            if not received:
                raise EOFError
            position += received
        return data

    def _check_lengths(self, text_bytes: int, array_bytes: int) -> None:
        if text_bytes > self._limits.text_bytes or array_bytes > self._limits.array_bytes:
            raise MalformedDataError(f"a message of {text_bytes + array_bytes:,} bytes is too long")
