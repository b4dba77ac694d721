"""The kinds of shards: a Parquet file of a stream's feature rows, of outcomes, or of the write-ahead log."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..records import FeatureRow, Outcome, VideoBoxes
from .files.storage import Storage

FORMAT = 1
"""Version of the format (docs/store-format.md). Shards of other versions are not read."""
MINOR = 2
"""Additions to the format that readers of earlier versions can read: since 1.1, features are stored as plain pages;
since 1.2, shards have the shape of a segment's features."""
MAX_COUNTER = 1 << 62
"""Upper limit of the counters of rows and outcomes; a greater one is damaged or forged."""
OUTCOMES = "outcomes"
BOXES = "boxes"
"""The side table of person boxes; one row for each box."""
PROGRESS = ".progress"
ARCHIVE = "superseded"
"""Archived rows of other settings: ``superseded/<settings digest>/stream=…``."""
DAMAGED = ".damaged"
"""The folder to which a repair moves damaged files."""
ROW_KEYS = (
    "video_id",
    "key",
    "content_digest",
    "settings_digest",
    "outcome",
    "segments",
    "dim",
    "written_at",
    "counter",
)
"""The columns of a feature row that planning reads. The footer of a shard has a packed copy of them."""
BOX_RUN_KEYS = ("video_id", "stream", "key", "settings_digest", "written_at", "writer", "counter")
"""The columns of a box that are equal for all boxes of one (video, stream)."""
OUTCOME_FIELDS = tuple(field.name for field in fields(Outcome))

_CONTENT_DIGEST, _HOLES = OUTCOME_FIELDS.index("content_digest"), OUTCOME_FIELDS.index("holes")
STREAM_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_SHARD = re.compile(r".*/part-(?P<writer>[^/-]+)-\d+\.parquet")


@dataclass(frozen=True, eq=False)
class StoredRow:
    """A row as stored in a shard. ``written_us``: microseconds since 1970, UTC."""

    row: FeatureRow
    written_us: int
    writer: str
    counter: int = 0
    """0 in shards of earlier versions."""


class StoredBoxes(NamedTuple):
    """The boxes of one (video, stream) as stored in a shard."""

    video: VideoBoxes
    written_us: int
    writer: str
    counter: int


class StoredOutcome(NamedTuple):
    """An outcome as stored in a shard; the record is built on access (there may be 300,000)."""

    values: tuple[Any, ...]
    """Result of `outcome_values`."""
    written_us: int
    writer: str
    counter: int = 0
    """0 in shards of earlier versions."""

    @property
    def age(self) -> tuple[int, int, str]:
        """Sort key: of several outcomes of one (video, stream), the one with the greatest age counts."""
        return self.counter, self.written_us, self.writer

    @property
    def outcome(self) -> Outcome:
        return outcome_from(self.values)

    @property
    def name(self) -> tuple[str, str]:
        """(video_id, stream)"""
        return self.values[0], self.values[1]

    @property
    def content_digest(self) -> str:
        return self.values[_CONTENT_DIGEST]


class RowPlace(NamedTuple):
    """The location of a feature row, and its key columns."""

    shard: str
    number: int
    """Index of the row in the shard."""
    video_id: str
    key: str
    content_digest: str
    settings_digest: str
    outcome: str
    segments: int
    dim: int
    written_us: int
    counter: int = 0


class LoggedSegment(NamedTuple):
    """One finished segment of an unfinished row; ``feature`` is None if the extractor returned no feature."""

    key: str
    segment_index: int
    start_s: float
    end_s: float
    feature: NDArray[np.float32] | None
    counter: int = 0


def outcome_values(outcome: Outcome) -> tuple[Any, ...]:
    """Return the values of `OUTCOME_FIELDS` as they are stored: holes are JSON text, empty for a whole file."""
    values = [getattr(outcome, name) for name in OUTCOME_FIELDS]
    values[_HOLES] = json.dumps(outcome.holes) if outcome.holes else ""
    return tuple(values)


def outcome_from(values: Sequence[Any]) -> Outcome:
    """Return the outcome with these values, the inverse of `outcome_values`."""
    fields = list(values)
    holes = json.loads(values[_HOLES]) if values[_HOLES] else ()
    fields[_HOLES] = tuple((float(start_s), float(end_s)) for start_s, end_s in holes)
    return Outcome(*fields)


def stream_folder(stream: str) -> str:
    """Return the folder of a stream's shards, named by Hive partitioning."""
    if not re.fullmatch(STREAM_NAME, stream):
        raise ValueError(f"stream name {stream!r}: letters, digits, '_', '.' and '-' only, a letter or digit first")
    return f"stream={stream}"


def streams_in(storage: Storage) -> list[str]:
    """Return the names of the streams that have a folder; other folders are ignored."""
    names = (name.removeprefix("stream=") for name in storage.folders() if name.startswith("stream="))
    return [name for name in names if re.fullmatch(STREAM_NAME, name)]


def shard_name(folder: str, writer: str, sequence: int) -> str:
    return f"{folder}/part-{writer}-{sequence:06d}.parquet"


def shards_in(storage: Storage, name: str) -> list[str]:
    return [file for file in storage.files(name) if _SHARD.fullmatch(file)]


def writer_of(shard: str) -> str:
    match = _SHARD.fullmatch(shard)
    if match is None:
        raise ValueError(f"{shard!r} is not the name of a shard")
    return match["writer"]
