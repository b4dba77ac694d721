"""What two stores' manifests say of a stream: the surest reason why its numbers differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..store.manifest import stream_entries

Settings = Mapping[str, str]
"""``sampling.remainder`` → ``drop-tail``, …: everything that decides a stream's numbers, as text."""


@dataclass(frozen=True)
class SettingDifference:
    """One setting that A and B have otherwise; ``none`` where a side does not have it."""

    name: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.name}: {self.a} (A), {self.b} (B)"


def stored_settings(manifest: Mapping[str, Any]) -> dict[str, Settings]:
    """Stream → its settings; without the streams that were imported, of which a manifest knows the time grid alone."""
    specs: Mapping[str, Any] = manifest["recipe"].get("streams", {})
    found: dict[str, Settings] = {}
    for stream, entry in stream_entries(manifest).items():
        if stream in specs:
            digests = {f"weights.{role}": digest[:12] for role, digest in entry.weights.items()}
            named = {name: text for name, text in _leaves(specs[stream], "") if not name.startswith("weights.")}
            found[stream] = {**named, **digests, "extractor_version": str(entry.extractor_version)}
    return found


def setting_differences(a: Settings, b: Settings) -> list[SettingDifference]:
    """In A's order, then what only B has."""
    return [
        SettingDifference(name, a.get(name, "none"), b.get(name, "none"))
        for name in {**a, **b}
        if a.get(name) != b.get(name)
    ]


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Tables are followed, lists are texts."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    else:
        yield name.removeprefix("settings."), value if isinstance(value, str) else json.dumps(value)
