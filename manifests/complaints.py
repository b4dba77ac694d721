"""Mistakes told in one line: names that are nearly right, and the first thing that a record finds wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from pydantic import ValidationError


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """``; did you mean gdlt?``, or nothing where no known name is near."""
    near = get_close_matches(name, list(known), n=most)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def first_complaint(error: ValidationError, under: str = "", known: Iterable[str] = ()) -> str:
    """``settings.dropot: this key is not known; did you mean dropout? (and 1 more)``

    ``under``: what the record is called; ``known``: its keys.
    """
    complaints = error.errors()
    first = complaints[0]
    where = "".join(f"{part}." for part in (under, *first["loc"]) if part != "")[:-1]
    where = f"{where}: " if where else ""  # what is wrong with the whole has no place
    more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
    if first["type"] == "missing":
        return f"{where}is missing{more}"
    if first["type"] == "extra_forbidden":
        way_out = did_you_mean(str(first["loc"][-1]), known) or "; remove it or correct its spelling"
        return f"{where}this key is not known{way_out}{more}"
    return f"{where}{first['msg'].removeprefix('Value error, ')}{_given(first['input'])}{more}"


def _given(value: object) -> str:
    """`` (got 'wide')``; a whole table is not repeated."""
    if isinstance(value, Mapping):
        return ""
    text = repr(value)
    return f" (got {text if len(text) <= 80 else f'{text[:79]}…'})"
