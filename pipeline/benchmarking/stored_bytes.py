"""Compressed size of rows on disk."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..store.index import numbers
from ..store.shard_writing import shard_bytes

_BY_SEGMENT = ("features", "start_s", "end_s")


@dataclass(frozen=True)
class StoredBytes:
    rows: int
    """Number of distinct rows that were measured."""
    per_segment: float
    """Bytes of features and intervals."""
    per_row: float
    """Bytes of names, digests and provenance."""
    per_shard: float
    """Bytes of the schema and footer of a shard."""

    def scaled(self, segments: int, rows: int) -> int:
        """Return the size of one shard with this many segments and rows; 0 without rows."""
        if not rows:
            return 0
        return round(self.per_segment * segments + self.per_row * rows + self.per_shard)


def stored_bytes(root: Path, folder: str) -> StoredBytes:
    """Measure the size of the rows in a folder of shards of a local store.

    A video that was processed several times counts once, since its second row compresses to almost nothing.
    """
    paths = sorted((root / folder).glob("part-*.parquet"))
    shards = [pq.read_table(path) for path in paths]  # pyright: ignore[reportUnknownMemberType]
    if not shards:
        return StoredBytes(0, 0.0, 0.0, 0.0)
    table = pa.concat_tables(shards)
    keys = table.column("key").to_pylist()
    table = table.take([keys.index(key) for key in dict.fromkeys(keys)])
    segments = int(numbers(table.column("segments")).sum())
    by_segment, others = _sizes(table)
    _, others_of_one = _sizes(table.slice(0, 1))
    per_row = (others - others_of_one) / (len(table) - 1) if len(table) > 1 else 0.0
    return StoredBytes(len(table), by_segment / max(segments, 1), per_row, others_of_one - per_row)


def _sizes(table: pa.Table) -> tuple[int, int]:
    """Return the bytes of the columns that grow with the segments, and those of the rest of a shard."""
    data = shard_bytes(table)
    description = pq.read_metadata(io.BytesIO(data))  # pyright: ignore[reportUnknownMemberType]
    columns = (
        description.row_group(group).column(number)
        for group in range(description.num_row_groups)
        for number in range(description.num_columns)
    )
    by_segment = sum(
        column.total_compressed_size for column in columns if column.path_in_schema.partition(".")[0] in _BY_SEGMENT
    )
    return by_segment, len(data) - by_segment
