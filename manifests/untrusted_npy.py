"""Read untrusted ``.npy`` data with a memory limit that depends on the stored size."""

from __future__ import annotations

import ast
import math
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_RATIO = 256
"""Maximum ratio of array size to stored size. Features compress about 2:1, a compression bomb of zeros 1,000:1."""
SMALL_BYTES = 64 << 20
"""Arrays up to this size are always allowed."""
MAX_ARRAY_BYTES = 2 << 30

_MAGIC = b"\x93NUMPY"
_MAX_HEADER_BYTES = 1 << 16
_PIECE_BYTES = 16 << 20
_DTYPE = re.compile(r"[<>|=]?[biufcSUV]\d+|\|?O")


@dataclass(frozen=True)
class NpyHeader:
    """Shape, type and memory order of a stored array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool


def max_bytes_of(stored_bytes: int) -> int:
    """Return the maximum size in bytes of an array that is stored in ``stored_bytes``."""
    return min(MAX_ARRAY_BYTES, max(SMALL_BYTES, MAX_RATIO * stored_bytes))


def refuse_oversized(array_bytes: int, stored_bytes: int) -> None:
    """Raise ValueError if an array is larger than `max_bytes_of` allows."""
    if array_bytes > max_bytes_of(stored_bytes):
        raise ValueError(
            f"the array needs {array_bytes:,} bytes and is stored in {stored_bytes:,}; the limit is "
            f"{max_bytes_of(stored_bytes):,}"
        )


def read_header(handle: BinaryIO) -> NpyHeader:
    """Read a header of version 1.0, 2.0 or 3.0 and leave the handle at the start of the data.

    Raises:
        ValueError: The header is damaged, or its type is not a number, string or object type.
    """
    import numpy as np

    head = handle.read(8)
    if head[:6] != _MAGIC or head[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise ValueError(f"begins with {head!r}, not as .npy version 1.0, 2.0 or 3.0")
    length = int.from_bytes(handle.read(2 if head[6] == 1 else 4), "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"a header of {length:,} bytes")
    raw = handle.read(length)
    text = raw.decode("utf-8" if head[6] == 3 else "latin-1")
    try:
        found = ast.literal_eval(re.sub(r"\b(\d+)L\b", r"\1", text).strip())  # Python 2 wrote 4L
    except (SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError(f"a header that cannot be read: {text[:80]!r}") from error
    fields = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if len(raw) < length or set(fields) != {"descr", "fortran_order", "shape"}:
        raise ValueError(f"a header that is not one of .npy: {text[:80]!r}")
    descr, is_fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    if not isinstance(descr, str) or not _DTYPE.fullmatch(descr):
        raise ValueError(f"numbers of type {str(descr)[:80]}")
    lengths: tuple[Any, ...] = cast("tuple[Any, ...]", shape) if isinstance(shape, tuple) else (None,)
    if len(lengths) > 32 or not all(type(length) is int and 0 <= length < 2**63 for length in lengths):
        raise ValueError(f"a shape of {str(lengths)[:80]}")
    return NpyHeader(lengths, np.dtype(descr), bool(is_fortran))


def read_data(handle: BinaryIO, header: NpyHeader, stored_bytes: int) -> NDArray[Any]:
    """Read the array that follows a header.

    Args:
        handle: A file at the start of the data.
        header: The header of the array.
        stored_bytes: Size of the array in its file, compressed.

    Raises:
        ValueError: The data are truncated, or the array is larger than `max_bytes_of` allows.
    """
    import numpy as np

    num_bytes = math.prod(header.shape) * header.dtype.itemsize
    refuse_oversized(num_bytes, stored_bytes)
    if header.dtype.hasobject:
        raise ValueError("contains pickled objects, expected numbers")
    flat = np.empty(num_bytes, np.uint8)
    view = flat.data
    begin: int = 0
    while begin < num_bytes:
        count = cast("int", handle.readinto(view[begin : begin + _PIECE_BYTES]))  # type: ignore[attr-defined]
        if not count:
            raise ValueError(f"{begin:,} bytes of data; its shape requires {num_bytes:,}")
        begin += count
    if num_bytes == 0:
        return np.zeros(header.shape, header.dtype)
    return flat.view(header.dtype).reshape(header.shape, order="F" if header.is_fortran else "C")


def remaining_bytes(handle: BinaryIO) -> int:
    """Return the number of bytes from the position of the handle to the end of the file."""
    begin = handle.tell()
    end = handle.seek(0, os.SEEK_END)
    handle.seek(begin)
    return end - begin
