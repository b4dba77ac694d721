"""Read configuration files; make one-line validation messages, and suggestions for misspelled names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .errors import ConfigError, os_reason

_TRIED_TYPE = re.compile(r"(literal|tuple|dict|list)\[.*\]|(constrained-)?(float|int|str|bool)|function-.*")
"""Last part of a pydantic location if several types were tried; it is not a key."""


def suggestion(name: str, known: Iterable[str], most: int = 1) -> str:
    """Return `` (did you mean gdlt?)``, or an empty string if no known name is similar.

    Args:
        name: The unknown name.
        known: Valid names.
        most: Maximum number of suggestions.
    """
    near = get_close_matches(name, list(known), n=most)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def read_config(path: Path) -> str:
    """Return the text of a TOML file.

    Raises:
        ConfigError: The file cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {os_reason(error)}; check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error


def keys_of(record: type[BaseModel]) -> set[str]:
    """Return the keys of a record and of all records inside it, for suggestions."""
    keys, open_kinds, seen = set[str](), list[Any]([record]), list[Any]()
    while open_kinds:
        kind = open_kinds.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if kind in seen:
                continue
            seen.append(kind)
            keys |= kind.model_fields.keys()
            open_kinds += [field.annotation for field in kind.model_fields.values()]
        else:
            open_kinds += get_args(kind)
    return keys


def validation_message(error: ValidationError, under: str = "", known: Iterable[str] = ()) -> str:
    """Return one line such as ``settings.dropot: this key is not known (did you mean dropout?) (and 1 more)``.

    Unknown keys are reported first, because a misspelled key is also a missing one.

    Args:
        error: The error of a record.
        under: Name of the record, a prefix of the location.
        known: Keys of the record, for suggestions.
    """
    errors = error.errors()
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    place = _place(first)
    where = "".join(f"{part}." for part in (under, *place) if part != "")[:-1]
    where = f"{where}: " if where else ""  # an error of the whole record has no location
    alternatives = [each for each in errors if _place(each) == place and len(each["loc"]) > len(place)]
    others = len(errors) - max(1, len(alternatives))
    more = f" (and {others} more)" if others else ""
    if first["type"] == "missing":
        return f"{where}is missing{more}"
    if first["type"] == "extra_forbidden":
        missing = [str(each["loc"][-1]) for each in errors if each["type"] == "missing"]
        name = str(first["loc"][-1])
        action = (
            suggestion(name, [key for key in (*missing, *known) if key != name])
            or "; remove it or correct its spelling"
        )
        return f"{where}this key is not known{action}{more}"
    texts = dict.fromkeys(each["msg"].removeprefix("Value error, ") for each in alternatives or [first])
    return f"{where}{', or: '.join(texts)}{_given(first['input'])}{more}"


def _place(error: ErrorDetails) -> tuple[int | str, ...]:
    """Return the keys and indices of a value, without the type that pydantic appends if it tried several."""
    loc = error["loc"]
    return loc[:-1] if loc and _TRIED_TYPE.fullmatch(str(loc[-1])) else loc


def _given(value: object) -> str:
    """Return `` (got 'wide')``, or an empty string for a table."""
    if isinstance(value, Mapping):
        return ""
    text = repr(value)
    return f" (got {text if len(text) <= 80 else f'{text[:79]}…'})"
