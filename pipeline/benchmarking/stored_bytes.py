"""What rows take on the disk, compressed as they are."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..store.shard_writing import shard_bytes

_BY_SEGMENT = ("features", "start_s", "end_s")


@dataclass(frozen=True)
class StoredBytes:
    rows: int
    """Different ones, that this was found on."""
    per_segment: float
    """Of the numbers and their intervals."""
    per_row: float
    """Of names, digests, provenance."""
    per_shard: float
    """Of a shard's description of itself."""

    def scaled(self, segments: int, rows: int) -> int:
        """What so many segments of so many videos would take, in one shard; nothing where there are no videos."""
        if not rows:
            return 0
        return round(self.per_segment * segments + self.per_row * rows + self.per_shard)


def stored_bytes(root: Path, folder: str) -> StoredBytes:
    """Of a folder of shards, outcomes included, in a local store: what the first of its rows takes, and what each more.

    A video that was done several times counts once: its second row costs next to nothing.
    """
    shards = [pq.read_table(path) for path in sorted((root / folder).glob("part-*.parquet"))]
    if not shards:
        return StoredBytes(0, 0.0, 0.0, 0.0)
    table = pa.concat_tables(shards)
    keys = table.column("key").to_pylist()
    table = table.take([keys.index(key) for key in dict.fromkeys(keys)])
    segments = sum(table.column("segments").to_pylist())
    by_segment, others = _sizes(table)
    _, others_of_one = _sizes(table.slice(0, 1))
    per_row = (others - others_of_one) / (len(table) - 1) if len(table) > 1 else 0.0
    return StoredBytes(len(table), by_segment / max(segments, 1), per_row, others_of_one - per_row)


def _sizes(table: pa.Table) -> tuple[int, int]:
    """Bytes of the columns that grow with the segments, and of all the rest of a shard."""
    data = shard_bytes(table)
    description = pq.read_metadata(io.BytesIO(data))
    columns = (
        description.row_group(group).column(number)
        for group in range(description.num_row_groups)
        for number in range(description.num_columns)
    )
    by_segment = sum(
        column.total_compressed_size for column in columns if column.path_in_schema.partition(".")[0] in _BY_SEGMENT
    )
    return by_segment, len(data) - by_segment
