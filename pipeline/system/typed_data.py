"""Conversion of dataclasses to JSON and raw array bytes by the types of their fields, for files and messages.

Pickle is not used. Reading creates only the types that the caller names, and checks every field, so that bytes from an
untrusted source cannot execute code. New fields of a supported type need no change here. Supported types are ``bool``,
``int``, ``float`` (finite), ``str``, `Path`, enums, ``Literal``, ``X | None``, ``int | str``, tuples, ``dict[str, X]``,
dataclasses, and arrays with a fixed item type (``NDArray[np.int64]``).

A message consists of the lengths of its two parts (`_HEADER`), JSON text ``[kind, fields]``, and the bytes of its
arrays.
The receiver names the kinds that it accepts.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import time
import types
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from socket import recv_fds, socket
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

MAX_DIMENSIONS = 4
_INT64 = range(-(1 << 63), 1 << 63)
_HEADER = struct.Struct("<II")


class MalformedDataError(ValueError):
    """Data that do not have the requested type. The message names the field."""


def to_data(value: Any, arrays: list[NDArray[Any]]) -> Any:
    """Convert a value to JSON data.

    Args:
        value: A value of a supported type.
        arrays: Arrays are appended to this list. The JSON data contains their shapes.
    """
    if isinstance(value, np.ndarray):
        array = cast("NDArray[Any]", value)
        arrays.append(np.ascontiguousarray(array))
        return list(array.shape)
    if dataclasses.is_dataclass(value):
        return {each.name: to_data(getattr(value, each.name), arrays) for each in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return to_data(value.value, arrays)
    if isinstance(value, Mapping):
        return {name: to_data(each, arrays) for name, each in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, tuple):
        return [to_data(each, arrays) for each in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, np.generic):
        return cast("np.generic[Any]", value).item()
    return str(value) if isinstance(value, Path) else value


def from_data(kind: type[T], data: object, payload: bytes | bytearray = b"") -> T:
    """Convert JSON data of `to_data` back to a value.

    Args:
        kind: Type of the value.
        data: The JSON data.
        payload: The bytes of all arrays, one after the other.

    Raises:
        MalformedDataError: The data is not exactly a value of this type.
    """
    reader = _Reader(payload)
    value = reader.read(kind, data, "")
    if reader.position != len(payload):
        raise MalformedDataError(f"{len(payload) - reader.position:,} bytes follow the last array")
    return value


@dataclass
class _Reader:
    payload: bytes | bytearray
    position: int = 0

    def read(self, kind: Any, data: Any, name: str) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        parts: Any = data  # pyright narrows `data` to containers of unknown types
        if kind in (bool, str) and type(data) is kind:
            return data
        if kind is int and type(data) is int and data in _INT64:
            return data
        if kind is float and (data in _INT64 if type(data) is int else type(data) is float and math.isfinite(data)):
            return float(data)
        if kind is Path and type(data) is str and "\0" not in data:
            return Path(data)
        if origin is Literal and any(type(data) is type(each) and data == each for each in arguments):
            return data
        if origin in (Union, types.UnionType):
            if data is None and types.NoneType in arguments:
                return None
            inner = [each for each in arguments if each is not types.NoneType]
            return self.read(type(data) if type(data) in inner else inner[-1], data, name)
        if origin is tuple and type(data) is list:
            items = arguments[:1] * len(parts) if len(arguments) == 2 and arguments[1] is Ellipsis else arguments
            if len(items) != len(parts):
                raise MalformedDataError(f"{name} has {len(parts)} items instead of {len(items)}")
            return tuple(self.read(item, each, name) for item, each in zip(items, parts, strict=True))
        if origin is dict and type(data) is dict:
            return {key: self.read(arguments[1], each, f"{name}.{key[:40]}") for key, each in parts.items()}
        if origin is np.ndarray and type(data) is list:
            return self._array(np.dtype(get_args(arguments[1])[0]), parts, name)
        if isinstance(kind, type) and issubclass(kind, Enum):
            found = next((each for each in kind if type(each.value) is type(data) and each.value == data), None)
            if found is not None:
                return found
        if dataclasses.is_dataclass(cast("object", kind)) and type(data) is dict:
            hints = _hints(cast("Any", kind))
            if parts.keys() != hints.keys():
                raise MalformedDataError(f"{name or 'it'} does not have the fields of {_named(kind)}")
            return kind(**{each: self.read(hints[each], parts[each], f"{name}.{each}".lstrip(".")) for each in hints})
        raise MalformedDataError(f"{name or 'it'} is not {_named(kind)}")

    def _array(self, dtype: np.dtype[Any], shape: list[Any], name: str) -> NDArray[Any]:
        if len(shape) > MAX_DIMENSIONS or not all(type(side) is int and side >= 0 for side in shape):
            raise MalformedDataError(f"{name} is not the shape of an array")
        count = math.prod(shape)
        begin, end = self.position, self.position + count * dtype.itemsize
        if end > len(self.payload):
            raise MalformedDataError(f"{name} is longer than the message")
        self.position = end
        try:
            if not count:
                return np.empty(shape, dtype)
            array = np.frombuffer(self.payload, dtype, count, begin).reshape(shape)
            return array if array.flags.writeable and array.flags.aligned else array.copy()
        except ValueError:  # NumPy limits the sides of an array
            raise MalformedDataError(f"{name} is not the shape of an array") from None


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the fields of a dataclass with their types."""
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in dataclasses.fields(kind)}


def _named(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


@dataclass(frozen=True)
class MessageLimits:
    """Maximal sizes of the two parts of a message, in bytes."""

    text_bytes: int = 1 << 20
    array_bytes: int = 128 << 20
    """By default enough for the times of 16 million frames, and for the audio of a chunk."""


def message_kinds(union: Any) -> dict[str, type[Any]]:
    """Return the dataclasses of a union by the names that they have in messages."""
    return {kind.__name__: kind for kind in get_args(union) or (union,)}


@dataclass(frozen=True)
class MessagePipe:
    """One end of a stream socket between two processes. Used by one thread at a time."""

    end: socket
    """The socket, which its owner closes."""
    limits: MessageLimits = MessageLimits()
    """Maximal sizes of messages in both directions."""

    def send(self, message: object, timeout_s: float | None = None) -> None:
        """Send a dataclass of plain data.

        Raises:
            OSError: The other end is closed.
            TimeoutError: The other end does not read in time.
            MalformedDataError: The message exceeds the limits.
        """
        arrays: list[NDArray[Any]] = []
        text = json.dumps([type(message).__name__, to_data(message, arrays)]).encode("ascii")
        length = sum(array.nbytes for array in arrays)
        self._check_lengths(len(text), length)
        self.end.settimeout(timeout_s)
        self.end.sendall(_HEADER.pack(len(text), length) + text)
        for array in arrays:
            if array.size:
                self.end.sendall(array.reshape(-1).view(np.uint8).data)

    def receive(self, kinds: Mapping[str, type[Any]], timeout_s: float | None = None) -> Any:
        """Return the next message.

        Args:
            kinds: The accepted dataclasses by name; see `message_kinds`.
            timeout_s: Time limit for the whole message in seconds; None for no limit.

        Raises:
            EOFError: The other end is closed.
            OSError: The connection is broken.
            TimeoutError: No whole message is received in time.
            MalformedDataError: The data is not a message of these kinds.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        text_bytes, array_bytes = _HEADER.unpack(self._read(_HEADER.size, deadline))
        self._check_lengths(text_bytes, array_bytes)
        text = self._read(text_bytes, deadline)
        payload = self._read(array_bytes, deadline)
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:  # bytes that are not UTF-8 also raise a ValueError
            raise MalformedDataError(f"not JSON ({type(error).__name__})") from None
        match data:
            case [str(name), dict() as fields] if name in kinds:  # pyright: ignore[reportUnknownVariableType]
                return from_data(kinds[name], cast("dict[str, Any]", fields), payload)
            case _:
                raise MalformedDataError("not a message of a known kind")

    def receive_descriptor(self) -> int:
        self.end.settimeout(None)
        _, descriptors, _, _ = recv_fds(self.end, 1, 1)
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
            self.end.settimeout(remaining_s)
            received = self.end.recv_into(view[position:])
            if not received:
                raise EOFError
            position += received
        return data

    def _check_lengths(self, text_bytes: int, array_bytes: int) -> None:
        if text_bytes > self.limits.text_bytes or array_bytes > self.limits.array_bytes:
            raise MalformedDataError(f"a message of {text_bytes + array_bytes:,} bytes is too long")
