"""The settings that a store's living writers use. Two runs with different settings for one stream never write at once.

Each writer publishes its settings: with its lock on a file system, in a record that it renews on object storage. Runs
begin one at a time (`starting`): each reads what living writers have published, then writes the manifest, then
publishes its own settings. The published settings of a killed writer do not count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class HeldSettings:
    """The settings of one writer, and where it runs."""

    writer_id: str = ""
    host: str = ""
    pid: int = 0
    number: str = ""
    """``float32`` or ``float16``."""
    streams: Mapping[str, str] = field(default_factory=dict[str, str])
    """Stream → settings digest."""

    def as_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


NOTHING_HELD = HeldSettings()
"""For a writer that adds no rows, such as a compaction."""


def held_in(data: bytes) -> HeldSettings | None:
    """Parse the output of `HeldSettings.as_json`; None for other content, such as that of earlier versions."""
    try:
        found: dict[str, Any] = json.loads(data)
        streams = {str(stream): str(digest) for stream, digest in found["streams"].items()}
        return HeldSettings(found["writer_id"], str(found["host"]), int(found["pid"]), str(found["number"]), streams)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
