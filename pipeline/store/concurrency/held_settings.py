"""The settings that a store's living writers use. Two runs with different settings for one stream never write at once.

Each writer publishes its settings: with its lock on a file system, in a record that it renews on object storage. Runs
begin one at a time (`starting`): each reads what living writers have published, then writes the manifest, then
publishes its own settings. The published settings of a killed writer do not count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ....manifests.errors import ConfigError
from ....manifests.urls import public_url
from ..files.storage import StorePath


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


def refuse_other_settings(
    root: StorePath,
    own: HeldSettings,
    others: list[HeldSettings],
    differences: Callable[[str], str] = lambda stream: "",
) -> None:
    """Check that other writers use the same settings and number type for the streams of ``own``.

    Args:
        root: The store, for the message.
        own: The settings of this writer.
        others: The settings of the living writers.
        differences: Stream → description of what differs, for the message.

    Raises:
        ConfigError: Another writer writes one of the streams with other settings or another type of numbers.
    """
    for other in others:
        if other.writer_id == own.writer_id:
            continue
        for stream in sorted(set(own.streams) & set(other.streams)):
            if other.streams[stream] != own.streams[stream]:
                digests = f"digest {other.streams[stream][:12]} there, {own.streams[stream][:12]} here"
                what = f"with other settings ({differences(stream) or digests})"
            elif other.number != own.number:
                what = f"as {other.number}, not as {own.number}"
            else:
                continue
            raise ConfigError(
                f"{public_url(root)}: a run on {other.host} (process {other.pid}) writes stream {stream!r} {what}; "
                "wait until it ends, run with its settings, or give --out another folder"
            )
