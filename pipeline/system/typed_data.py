"""Serialize dataclasses as JSON and raw array bytes, by the types of their fields.

Reading creates only the types that the caller names and checks every field, so that bytes from an untrusted source
cannot execute code. A new field of a supported type needs no change here. Types: ``bool``, ``int``, ``float`` (finite),
``str``, `Path`, enums, ``Literal``, ``X | None``, ``int | str``, tuples, ``dict[str, X]``, dataclasses, and arrays with
a fixed item type (``NDArray[np.int64]``).
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

MAX_DIMENSIONS = 4
_INT64 = range(-(1 << 63), 1 << 63)


class MalformedDataError(ValueError):
    """Data that does not have the requested type. The message names the field."""


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


class _Reader:
    def __init__(self, payload: bytes | bytearray) -> None:
        self._payload = payload
        self.position = 0

    def read(self, kind: Any, data: Any, name: str) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        parts: Any = data  # pyright narrows `data` to containers of unknown types
        if kind in (bool, str) and type(data) is kind:
            return data
        if kind is int and type(data) is int and data in _INT64:
            return data
        if kind is float and (number := _finite(data)) is not None:
            return number
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
        if end > len(self._payload):
            raise MalformedDataError(f"{name} is longer than the message")
        self.position = end
        try:
            if not count:
                return np.empty(shape, dtype)
            array = np.frombuffer(self._payload, dtype, count, begin).reshape(shape)
            return array if array.flags.writeable and array.flags.aligned else array.copy()
        except ValueError:  # NumPy's limit on the sides of an array
            raise MalformedDataError(f"{name} is not the shape of an array") from None


def _finite(data: Any) -> float | None:
    """Return a JSON number as a finite float; None for anything else."""
    if type(data) is int and data in _INT64:
        return float(data)
    return data if type(data) is float and math.isfinite(data) else None


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Field names of a dataclass and their types."""
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in dataclasses.fields(kind)}


def _named(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))
