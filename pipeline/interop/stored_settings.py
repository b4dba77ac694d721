"""Comparison of the settings of a stream in the manifests of two stores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from ..store.manifest import stream_entries

Settings = Mapping[str, str]
"""Name → value of all settings that affect the features, such as ``sampling.remainder`` → ``drop-tail``."""


@dataclass(frozen=True)
class SettingDifference:
    """A setting that differs between A and B; ``none`` if a side does not have it."""

    name: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.name}: {self.a} (A), {self.b} (B)"


def stored_settings(manifest: Mapping[str, Any]) -> dict[str, Settings]:
    """Return stream → settings. Imported streams, which have only a time grid, are left out."""
    specs: Mapping[str, Any] = manifest["recipe"].get("streams", {})
    found: dict[str, Settings] = {}
    for stream, entry in stream_entries(manifest).items():
        if stream in specs:
            digests = {f"weights.{role}": digest[:12] for role, digest in entry.weights.items()}
            named = {name: text for name, text in leaves(specs[stream]) if not name.startswith("weights.")}
            found[stream] = {**named, **digests, "extractor_version": str(entry.extractor_version)}
    return found


def setting_differences(a: Settings, b: Settings) -> list[SettingDifference]:
    """Return the settings that differ, in the order of A, then those of B only."""
    return [
        SettingDifference(name, a.get(name, "none"), b.get(name, "none"))
        for name in {**a, **b}
        if a.get(name) != b.get(name)
    ]


def stored_checkpoints(manifest: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return stream → role → name of the checkpoint, or ``random:SEED`` where it was replaced."""
    specs: Mapping[str, Any] = manifest["recipe"].get("streams", {})
    return {
        stream: {
            role: digest if digest.startswith("random:") else str(specs[stream].get("weights", {}).get(role, digest))
            for role, digest in entry.weights.items()
        }
        for stream, entry in stream_entries(manifest).items()
        if stream in specs
    }


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (name, text) of all values; nested tables are flattened, lists are converted to text."""
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[Any, Any]", value).items():
            yield from leaves(item, f"{name}.{key}" if name else str(key))
    else:
        yield name.removeprefix("settings."), value if isinstance(value, str) else json.dumps(value)
