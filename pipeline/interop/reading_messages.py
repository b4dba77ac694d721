"""Messages between the child process that parses untrusted feature files (`reading_child`) and its parent.

    parent                 child
    ReadRequest       ──▶
                      ◀──  Listed
    Load              ──▶
                      ◀──  Loaded

`Refused` may replace any answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...manifests.untrusted_npy import MAX_ARRAY_BYTES
from ..system.typed_data import MalformedDataError, MessageLimits, message_kinds

LIMITS = MessageLimits(text_bytes=256 << 20, array_bytes=MAX_ARRAY_BYTES)
"""The text of a listing grows with the number of arrays."""
_DTYPE = re.compile(r"[<>|=][fiu]\d{1,2}")


@dataclass(frozen=True)
class ReadRequest:
    """The first message: list the arrays at a path."""

    path: Path
    format: str | None
    trust: bool
    names: dict[str, str]
    memory_bytes: int | None
    timeout_s: float | None


@dataclass(frozen=True)
class Load:
    """Load an array of the listing."""

    number: int
    is_times: bool = False
    """Load the times of its rows instead."""


@dataclass(frozen=True)
class Listed:
    format: str
    arrays: tuple[tuple[str, str, Path, str, bool, str], ...]
    """Video id, stream, file, member of the file, whether the rows have times, and `FeatureArray.resize`."""
    problems: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Loaded:
    dtype: str
    shape: tuple[int, ...]
    content: NDArray[np.uint8]

    def array(self) -> NDArray[Any]:
        """Return the array. Raises `MalformedDataError` if the content does not fit its type and shape."""
        if not _DTYPE.fullmatch(self.dtype):
            raise MalformedDataError(f"numbers of type {self.dtype[:20]!r}")
        try:
            return self.content.view(np.dtype(self.dtype)).reshape(self.shape)
        except (TypeError, ValueError) as error:
            raise MalformedDataError(str(error)) from None


@dataclass(frozen=True)
class Refused:
    error: Literal["usage", "file"]
    message: str


REQUESTS = message_kinds(ReadRequest | Load)
ANSWERS = message_kinds(Listed | Loaded | Refused)
"""The kinds that each side accepts."""
