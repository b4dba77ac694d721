"""What sets a stream's features apart from those that a model was trained on, setting by setting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MOST = 4
"""Differences that a message tells."""


def tell_differences(
    stream: str,
    trained: Mapping[str, Any],
    found: Mapping[str, Any],
    trained_recipe: Mapping[str, Any] | None = None,
    found_recipe: Mapping[str, Any] | None = None,
) -> str:
    """``sampling.fps is 25, was 12; weights.network is …, was …``; empty where the records show no difference.

    ``trained``, ``found``: the stream's entries in the stores' manifests; the recipes are those that made them.
    """
    before = dict(_leaves(_record(stream, trained, trained_recipe)))
    now = dict(_leaves(_record(stream, found, found_recipe)))
    if trained_recipe is None or found_recipe is None:  # what one of them does not record is no difference
        before, now = ({name: part[name] for name in before.keys() & now.keys()} for part in (before, now))
    different = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    told = [f"{name} is {_short(now.get(name))}, was {_short(before.get(name))}" for name in different[:MOST]]
    return "; ".join(told) + (f"; and {len(different) - MOST} more" if len(different) > MOST else "")


def _record(stream: str, entry: Mapping[str, Any], recipe: Mapping[str, Any] | None) -> dict[str, Any]:
    """All that is known of how the stream was made. A checkpoint's digest says more than its name."""
    spec = {} if recipe is None else dict(recipe.get("streams", {}).get(stream, {}))
    facts = {name: entry[name] for name in ("extractor_version", "weights") if name in entry}
    return spec | facts


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value):
        for index, part in enumerate(value):
            yield from _leaves(part, f"{name}[{index}]")
    else:
        yield name, list(value) if isinstance(value, tuple) else value


def _short(value: Any, most: int = 40) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
