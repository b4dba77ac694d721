"""What rows take on the disk, compressed as they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

_BY_SEGMENT = ("features", "start_s", "end_s")


@dataclass(frozen=True)
class StoredBytes:
    segments: int
    rows: int
    by_segment: int
    """Bytes of what grows with the segments: the numbers and their intervals."""
    by_row: int
    """Bytes of what grows with the videos: names, digests, provenance."""
    by_shard: int
    """Bytes of a shard's description of itself."""

    def scaled(self, segments: int, rows: int) -> int:
        """What so many segments of so many videos would take, in one shard."""
        if not self.rows or not rows:
            return 0
        return (
            round(self.by_segment * segments / max(self.segments, 1) + self.by_row * rows / self.rows) + self.by_shard
        )


def stored_bytes(root: Path, folder: str) -> StoredBytes:
    """Of a folder of shards, outcomes included, in a local store that nobody writes to."""
    segments = rows = by_segment = by_row = by_shard = 0
    for path in (root / folder).glob("part-*.parquet"):
        description = pq.read_metadata(path)
        rows += description.num_rows
        segments += sum(pq.read_table(path, columns=["segments"]).column("segments").to_pylist())
        inside = 0
        for group in range(description.num_row_groups):
            for number in range(description.num_columns):
                column = description.row_group(group).column(number)
                inside += column.total_compressed_size
                if column.path_in_schema.partition(".")[0] in _BY_SEGMENT:
                    by_segment += column.total_compressed_size
                else:
                    by_row += column.total_compressed_size
        by_shard = max(by_shard, path.stat().st_size - inside)
    return StoredBytes(segments, rows, by_segment, by_row, by_shard)
