"""The schemas of docs/json.md, and the differences of an output from its schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "json.md"
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
OPEN = ("bench",)
"""Outputs that have further keys, as the page states"""


@cache
def schemas() -> dict[str, dict[str, tuple[str, bool]]]:
    """Return heading → path → (type, whether it may be absent). A nested block has the heading ``status: inputs``."""
    found: dict[str, dict[str, tuple[str, bool]]] = {}
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        headings = [heading.strip() for heading in section.partition("\n")[0].split(",")]
        for before, block in re.findall(r"([^\n]*)\n+```\n(.*?)```", section, re.DOTALL):
            nested = re.fullmatch(r"`(\w+)`:", before.strip())
            lines = (line.split()[:2] for line in block.splitlines() if line.strip())
            schema = {path.rstrip("?"): (kind, path.endswith("?")) for path, kind in lines}
            for heading in headings:
                found[f"{heading}: {nested[1]}" if nested else heading] = schema
    return found


def problems_of(heading: str, value: Any) -> list[str]:
    """Return how an output differs from its schema."""
    schema = schemas()[heading]
    seen = set[str]()
    problems = [*_walk(value, "", schema, seen, is_open=heading in OPEN)]
    problems += [
        f"{path} is missing"
        for path, (_, is_optional) in schema.items()
        if path not in seen and not is_optional and not _is_in_a_container(path)
    ]
    for key in ("inputs", "labels"):
        if f"{heading}: {key}" in schemas() and isinstance(value, dict) and value.get(key) is not None:  # pyright: ignore[reportUnknownMemberType]
            problems += [f"{key}: {problem}" for problem in problems_of(f"{heading}: {key}", value[key])]
    return problems


def _is_in_a_container(path: str) -> bool:
    """Whether the path is below a list or an object of any keys, which may be empty."""
    return "[]" in path or "*" in path


def _walk(
    value: Any, path: str, schema: dict[str, tuple[str, bool]], seen: set[str], *, is_open: bool
) -> Iterator[str]:
    kind, is_optional = schema.get(path, ("", False))
    if path in schema:
        seen.add(path)
    below = (
        [known for known in schema if known != path and known.startswith(path) and known[len(path)] in ".["]
        if path
        else list(schema)
    )
    if value is None and is_optional:
        return
    if isinstance(value, dict) and (below or kind == "any"):
        is_map = any(known.startswith(f"{path}.*" if path else "*") for known in below)
        for name, item in value.items():  # pyright: ignore[reportUnknownVariableType]
            inner = f"{path}.{'*' if is_map else name}".lstrip(".")
            if any(known == inner or known.startswith((f"{inner}.", f"{inner}[")) for known in below):
                yield from _walk(item, inner, schema, seen, is_open=is_open)
            elif kind != "any" and not is_open:
                yield f"{inner} is not documented"
        if not is_map and path.endswith("[]"):
            wanted = [
                known for known in below if known.count("[]") == path.count("[]") and "." not in known[len(path) + 1 :]
            ]
            yield from (
                f"{known} is missing"
                for known in wanted
                if known[len(path) + 1 :] not in value and not schema[known][1] and "*" not in known
            )
    elif isinstance(value, list) and (below or kind == "any"):
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            if any(known == f"{path}[]" or known.startswith(f"{path}[]") for known in below):
                yield from _walk(item, f"{path}[]", schema, seen, is_open=is_open)
    elif kind == "any":
        return
    elif kind not in TYPES:
        yield f"{path or 'the output'} is {type(value).__name__}, which is not documented"
    elif not isinstance(value, TYPES[kind]) or (kind != "boolean" and isinstance(value, bool)):
        yield f"{path} is {value!r}, not of type {kind}"
