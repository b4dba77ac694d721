"""Changes of single settings of a recipe: ``streams.vst.sampling.frames_per_segment=16``."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, cast

from .errors import ConfigError
from .validation import suggestion

_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_WORD = re.compile(r"[A-Za-z][\w:./-]*")
"""Text that needs no quotes as a value."""
_FAMILY = re.compile(r"(torchvision|timm|transformers):")
"""Start of the name of an extractor that has a network even if its stream does not name a checkpoint."""
_DIGITS = 4


def parse_change(text: str) -> tuple[str, Any]:
    """Parse ``KEY=VALUE``. The key is dotted, the value is TOML; a single word needs no quotes.

    Args:
        text: For example ``streams.vst.sampling.fps=25`` or ``streams.i3d_flow.settings.flow.method=dis``.

    Returns:
        Key and value.

    Raises:
        ConfigError: The text does not have this form.

    Example:
        >>> parse_change("streams.vst.sampling.fps=25")
        ('streams.vst.sampling.fps', 25)
        >>> parse_change("streams.vst.precision=bfloat16")
        ('streams.vst.precision', 'bfloat16')
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not _KEY.fullmatch(key):
        raise ConfigError(f"{text!r} is not KEY=VALUE; write e.g. streams.vst.sampling.frames_per_segment=16")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        if _WORD.fullmatch(value):
            return key, value
        raise ConfigError(
            f'{key}: {value!r} is not a TOML value; write a number, true, false, "text", [1, 2] or {{ name = 1 }}'
        ) from None


def changed_table(table: Mapping[str, Any], changes: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return a copy of a recipe's TOML table with other values.

    Args:
        table: The recipe as read from TOML. It is not changed.
        changes: Dotted key → value. A value that is a table replaces the whole table.
        source: Name of the recipe's file, for error messages.

    Raises:
        ConfigError: A key names a stream that the recipe does not have, or a key of a value that is not a table.
    """
    changed: dict[str, Any] = json_copy(table)
    for key, value in changes.items():
        path = key.split(".")
        if path[0] in ("name", "summary", "changes"):
            raise ConfigError(f"{source}: {path[0]} cannot be set; write your own recipe file to change it")
        _require_stream(changed.get("streams"), path, source)
        inner = changed
        for depth, part in enumerate(path[:-1], start=1):
            found = inner.setdefault(part, {})
            if not isinstance(found, dict):
                raise ConfigError(
                    f"{source}: {'.'.join(path[:depth])} is {json.dumps(found)}, not a table; "
                    f"set {'.'.join(path[:depth])} as a whole"
                )
            inner = cast("dict[str, Any]", found)
        inner[path[-1]] = value
    return changed


def precision_changes(table: Mapping[str, Any], precision: str, source: str) -> dict[str, str]:
    """Return the changes that set the precision of every stream with a network.

    Args:
        table: The recipe as read from TOML.
        precision: The precision.
        source: Name of the recipe's file, for error messages.

    Raises:
        ConfigError: No stream of the recipe has a network.
    """
    streams = cast("Mapping[str, Any]", table.get("streams", {}))
    changes = {
        f"streams.{name}.precision": precision
        for name, stream in streams.items()
        if stream.get("weights") or _FAMILY.match(str(stream.get("extractor", "")))
    }
    if not changes:
        raise ConfigError(
            f"{source}: a precision cannot be set, because no stream has a network; leave out --precision"
        )
    return changes


def changed_name(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return the name of a recipe with changes: ``pamfn+3f2a``, or the name itself if nothing is different.

    Args:
        name: Name of the recipe.
        before: Its validated fields.
        after: Its validated fields after the changes. The digits are the beginning of a SHA-256 of the differences,
            which does not depend on the order and spelling of the changes.
    """
    old, new = dict(_leaves(before, "")), dict(_leaves(after, ""))
    different = {key: new.get(key) for key in sorted({*old, *new}) if old.get(key) != new.get(key)}
    if not different:
        return name
    base, plus, earlier = name.partition("+")
    text = json.dumps([earlier, different] if plus else different, sort_keys=True, default=str)
    return f"{base}+{hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}"


def changes_text(changes: Mapping[str, Any]) -> str:
    """Return the changes as options of the command line: ``--set streams.vst.sampling.fps=25 --set …``."""
    return " ".join(f"--set {shlex.quote(f'{key}={_value_text(value)}')}" for key, value in changes.items())


def _value_text(value: Any) -> str:
    """Return a value as text for `parse_change`."""
    if isinstance(value, str) and _WORD.fullmatch(value):
        return value
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return "{" + ", ".join(f"{key} = {_inner_text(item)}" for key, item in items) + "}"
    return _inner_text(value)


def _inner_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_inner_text, cast('list[Any]', value)))}]"
    return _value_text(value) if isinstance(value, Mapping) else json.dumps(value, ensure_ascii=False, default=str)


def json_copy(value: Any) -> Any:
    """Return a copy of nested tables and lists."""
    if isinstance(value, Mapping):
        return {key: json_copy(item) for key, item in cast("Mapping[str, Any]", value).items()}
    return [json_copy(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value


def _require_stream(streams: Any, path: list[str], source: str) -> None:
    if path[0] != "streams" or not isinstance(streams, Mapping):
        return
    names = [*cast("Mapping[str, Any]", streams)]
    if len(path) < 3:
        raise ConfigError(f"{source}: {'.'.join(path)} is a table; set a key of it, e.g. streams.{names[0]}.precision")
    if path[1] not in names:
        hint = suggestion(path[1], names) or f"; it has {', '.join(names)}"
        raise ConfigError(f"{source}: {'.'.join(path)}: stream {path[1]!r} is not known{hint}")


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of everything that is not a table; whole numbers as integers."""
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[str, Any]", value).items():
            yield from _leaves(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(cast("list[Any]", value)):
            yield from _leaves(item, f"{name}.{index}")
        yield f"{name}.length", len(cast("list[Any]", value))
    else:
        yield name, int(value) if isinstance(value, float) and value.is_integer() else value
