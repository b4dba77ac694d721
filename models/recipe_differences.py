"""Describe the differences between the settings of a stream and those of a model's training features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

MOST = 4
"""Number of differences in a message."""


def describe_differences(
    stream: str,
    trained: Mapping[str, Any],
    found: Mapping[str, Any],
    trained_recipe: Mapping[str, Any] | None = None,
    found_recipe: Mapping[str, Any] | None = None,
) -> str:
    """Return e.g. ``sampling.fps is 25, was 12; weights.network is …, was …``; empty without known differences.

    Args:
        stream: Name of the stream.
        trained: Entry of the stream in the manifest of the training store.
        found: Entry of the stream in the manifest of the other store.
        trained_recipe: Recipe of the training features, if known.
        found_recipe: Recipe of the other features, if known.
    """
    before = dict(_leaves(_record(stream, trained, trained_recipe)))
    now = dict(_leaves(_record(stream, found, found_recipe)))
    if trained_recipe is None or found_recipe is None:  # compare only what both record
        before, now = ({name: part[name] for name in before.keys() & now.keys()} for part in (before, now))
    different = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    texts = [f"{name} is {_short(now.get(name))}, was {_short(before.get(name))}" for name in different[:MOST]]
    return "; ".join(texts) + (f"; and {len(different) - MOST} more" if len(different) > MOST else "")


def _record(stream: str, entry: Mapping[str, Any], recipe: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the known settings of a stream; the checkpoint is given by its digest instead of its name."""
    spec = {} if recipe is None else dict(recipe.get("streams", {}).get(stream, {}))
    facts = {name: entry[name] for name in ("extractor_version", "weights") if name in entry}
    return spec | facts


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in cast("Mapping[Any, Any]", value).items():
            yield from _leaves(part, f"{name}.{key}" if name else str(key))
        return
    parts = list(cast("Sequence[Any]", value)) if isinstance(value, list | tuple) else None
    if parts is not None and any(isinstance(part, Mapping) for part in parts):
        for index, part in enumerate(parts):
            yield from _leaves(part, f"{name}[{index}]")
    else:
        yield name, value if parts is None else parts


def _short(value: Any, most: int = 40) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
