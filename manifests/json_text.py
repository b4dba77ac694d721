"""Strict JSON, which any program can read: NaN and infinite numbers become null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, cast


def to_json(value: Any, *, ascii_only: bool = False) -> str:
    """Return indented JSON that ends with a newline, with keys in their order.

    Args:
        value: JSON values, tuples, paths, and numbers and arrays of NumPy. NaN and infinite numbers, which JSON does
            not have, become null.
        ascii_only: Escape characters that are not ASCII, for terminals and pipes without UTF-8.

    Raises:
        TypeError: A value cannot be expressed in JSON.
    """
    return json.dumps(_plain(value), indent=2, ensure_ascii=ascii_only, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in cast("Sequence[Any]", value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, PurePath):
        return str(value)
    of_numpy: Any = getattr(value, "tolist", None)
    return value if of_numpy is None else _plain(of_numpy())
