"""Amounts of memory as text."""

from __future__ import annotations

import re

_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_bytes(text: str) -> int:
    """Parse an amount of memory: ``4GiB`` and ``4G`` use factors of 1024, ``4GB`` of 1000.

    Raises:
        ValueError: The text is not an amount of memory.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(iB|B)?\s*", text, re.IGNORECASE)
    if found is None:
        raise ValueError(f"{text!r} is not an amount of memory; give one as 4GiB or 800M")
    base = 1000 if (found[3] or "").upper() == "B" and found[2] else 1024
    return int(float(found[1]) * base ** _UNITS[found[2].upper()])
