"""A recipe as TOML in which comments explain the fields."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Any, cast

import tomli_w
from pydantic import BaseModel

from ..extractors.table import extractor_kind, resolved_recipe
from ..manifests.recipe_changes import changes_text
from ..manifests.recipes import Recipe
from ..manifests.streams import StreamSpec

WIDTH = 80
_HEADING = re.compile(r"\[\[?(?P<path>[^\[\]]+)\]\]?$")
_ENTRY = re.compile(r"(?P<key>[A-Za-z0-9_-]+) = ")


def recipe_text(recipe: Recipe) -> str:
    """Return the recipe as TOML, with every setting that is part of the keys of rows.

    A comment explains each field at its first occurrence. The text is a recipe file.

    Args:
        recipe: The recipe; its streams are resolved.

    Raises:
        ConfigError: A stream is wrong.
    """
    recipe = resolved_recipe(recipe)
    records = dict(_records(recipe, ""))
    for name, spec in recipe.streams.items():
        settings = extractor_kind(spec.extractor).Settings.model_validate(spec.settings)
        records |= dict(_records(settings, f"streams.{name}.settings"))
    explained = set[tuple[str, str]]()
    lines = list[str]()
    if recipe.changes:
        base = recipe.name.partition("+")[0]
        lines += _comment(f"{base} with {changes_text(recipe.changes)}")
    table = ""
    for line in tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True)).splitlines():
        if heading := _HEADING.match(line):
            table = heading["path"]
            outer, _, key = table.rpartition(".")
        else:
            entry = _ENTRY.match(line)
            outer, key = table, entry["key"] if entry else ""
        text = field_text(type(records[outer]), key) if key and outer in records else ""
        if text and (key, text) not in explained:
            explained.add((key, text))
            lines += _comment(text)
        lines.append(line)
    return "\n".join(lines) + "\n"


def field_text(record: type[BaseModel], key: str) -> str:
    """Return the description of a field, or the docstring below it; empty if it has neither."""
    field = record.model_fields.get(key)
    if field is None:
        return ""
    return field.description or next((texts[key] for texts in map(_docstrings, record.__mro__) if key in texts), "")


@cache
def _docstrings(record: type) -> Mapping[str, str]:
    """Return field → docstring of one class, without its base classes."""
    if not issubclass(record, BaseModel) or record is BaseModel:
        return {}
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(record))).body
    except (OSError, TypeError, SyntaxError, ValueError):  # a class that was made without source code
        return {}
    body = cast("ast.ClassDef", definition).body
    return {
        field.target.id: text.value.value
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _records(value: Any, path: str) -> Iterator[tuple[str, BaseModel]]:
    """Yield (path of a TOML table, its record) for a record and all records in it."""
    if isinstance(value, BaseModel):
        yield path, value
        fields = {name: getattr(value, name) for name in type(value).model_fields}
    elif isinstance(value, Mapping) and not isinstance(value, StreamSpec):
        fields = cast("Mapping[str, Any]", value)
    else:
        return
    for name, item in fields.items():
        yield from _records(item, f"{path}.{name}" if path else name)


def _comment(text: str) -> list[str]:
    plain = " ".join(text.replace("``", "").split())
    return textwrap.wrap(
        plain, WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )
