"""What a shard is: one Parquet file of a stream's feature rows, of outcomes, or of the journal of unfinished rows."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..records import FeatureRow, Outcome
from .folders import Folder

FORMAT = 1
OUTCOMES = "outcomes"
PROGRESS = ".progress"
SUPERSEDED = "superseded"
"""Rows of other settings: ``superseded/<settings digest>/stream=…``."""
DAMAGED = ".damaged"
"""Where a repair puts files that are no longer as they were written."""
ROW_KEYS = ("video_id", "key", "content_digest", "settings_digest", "outcome", "segments", "dim", "written_at")
"""The columns of a feature row that planning goes by. A shard's footer repeats them, packed."""
OUTCOME_FIELDS = tuple(field.name for field in fields(Outcome))

_CONTENT_DIGEST = OUTCOME_FIELDS.index("content_digest")
_STREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SHARD = re.compile(r".*/part-(?P<writer>[^/-]+)-\d+\.parquet")


@dataclass(frozen=True, eq=False)
class StoredRow:
    """A row as a shard keeps it. ``written_us``: microseconds since 1970, UTC."""

    row: FeatureRow
    written_us: int
    writer: str


class StoredOutcome(NamedTuple):
    """An outcome as a shard keeps it; the record itself is built when somebody looks (there may be 300,000)."""

    values: tuple[Any, ...]
    written_us: int
    writer: str

    @property
    def outcome(self) -> Outcome:
        return Outcome(*self.values)

    @property
    def name(self) -> tuple[str, str]:
        """(video_id, stream)"""
        return self.values[0], self.values[1]

    @property
    def content_digest(self) -> str:
        return self.values[_CONTENT_DIGEST]


class RowPlace(NamedTuple):
    """Where a feature row stands, and what its key columns say."""

    shard: str
    number: int
    """Counted from the shard's first row."""
    video_id: str
    key: str
    content_digest: str
    settings_digest: str
    outcome: str
    segments: int
    dim: int
    written_us: int


class JournalEntry(NamedTuple):
    """One finished segment of an unfinished row; ``feature`` is None where the extractor had nothing to say."""

    key: str
    segment_index: int
    start_s: float
    end_s: float
    feature: NDArray[np.float32] | None


def stream_folder(stream: str) -> str:
    """Folder of a stream's shards, as Hive partitioning names it."""
    if not _STREAM_NAME.fullmatch(stream):
        raise ValueError(f"stream name {stream!r}: letters, digits, '_', '.' and '-' only, a letter or digit first")
    return f"stream={stream}"


def shard_name(folder: str, writer: str, sequence: int) -> str:
    return f"{folder}/part-{writer}-{sequence:06d}.parquet"


def shards_in(folder: Folder, name: str) -> list[str]:
    return [file for file in folder.files(name) if _SHARD.fullmatch(file)]


def writer_of(shard: str) -> str:
    match = _SHARD.fullmatch(shard)
    if match is None:
        raise ValueError(f"{shard!r} is not the name of a shard")
    return match["writer"]
