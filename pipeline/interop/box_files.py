"""Export of the boxes of people to one table, CSV or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ...extractors.protocol import PersonBoxes
from ...manifests.errors import InputError
from ..store.reader import FeatureStore
from .exporting import written_whole

EDGES = ("left", "top", "right", "bottom")
BOX_COLUMNS = pa.schema(
    [
        pa.field("video_id", pa.string()),
        pa.field("stream", pa.string()),
        pa.field("time_s", pa.float64()),
        *(pa.field(edge, pa.float32()) for edge in EDGES),
        pa.field("confidence", pa.float32()),
        pa.field("track", pa.int32()),
        pa.field("chosen", pa.bool_()),
        pa.field("frame_width", pa.int32()),
        pa.field("frame_height", pa.int32()),
    ]
)
"""Columns of the table, those of `FeatureStore.boxes_to_pandas`."""


def export_boxes(store: FeatureStore, out: Path, streams: Sequence[str] = (), *, force: bool = False) -> int:
    """Write the boxes of all videos with an outcome, one row for each box, video by video.

    A frame without a person has one row without edges and confidence. Edges are in pixels of the frame.

    Args:
        store: The store.
        out: A file, .csv or .parquet.
        streams: Streams whose boxes are written; all by default.
        force: Replace a file that is not such a table. An earlier table of boxes is replaced in any case.

    Returns:
        Number of rows.

    Raises:
        InputError: The file has another suffix, or is another file; or the store has no boxes of these streams.
        StoreError: The file cannot be written.

    Example:
        >>> export_boxes(FeatureStore("features"), Path("boxes.txt"))
        Traceback (most recent call last):
            ...
        arabesque.manifests.errors.InputError: boxes.txt: ends with neither .csv nor .parquet; give one of them
    """
    suffix = out.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise InputError(f"{out}: ends with neither .csv nor .parquet; give one of them")
    if out.exists() and not force and not _is_such_a_table(out):
        raise InputError(f"{out}: already exists; --force overwrites it")
    tables = _tables(store, streams)
    first = next(tables, None)
    if first is None:
        of = f" of {', '.join(streams)}" if streams else ""
        raise InputError(f"{store.path}: no boxes of people{of} to export; streams that look for athletes store them")
    num_rows = 0
    with written_whole(out) as file:
        make = pyarrow.csv.CSVWriter if suffix == ".csv" else pyarrow.parquet.ParquetWriter
        with make(file, BOX_COLUMNS) as writer:
            for table in chain([first], tables):
                writer.write_table(table)
                num_rows += len(table)
    return num_rows


def _is_such_a_table(path: Path) -> bool:
    """Return whether a file begins like a table of boxes, of an earlier export."""
    try:
        if path.suffix.lower() == ".parquet":
            with pyarrow.parquet.ParquetFile(path) as table:
                return table.schema_arrow.names == BOX_COLUMNS.names
        with path.open(encoding="utf-8") as file:
            return [name.strip('"') for name in file.readline().strip().split(",")] == BOX_COLUMNS.names
    except (OSError, ValueError):  # pyarrow's errors are ValueErrors
        return False


def _tables(store: FeatureStore, streams: Sequence[str]) -> Iterator[pa.Table]:
    for video_id in sorted({one.video_id for one in store.outcomes()}):
        for stream, boxes in store.boxes(video_id).items():
            if len(boxes) and (not streams or stream in streams):
                yield _table(video_id, stream, boxes)


def _table(video_id: str, stream: str, boxes: PersonBoxes) -> pa.Table:
    count, absent = len(boxes), np.isnan(boxes.edges_px[:, 0])
    columns = [
        pa.array([video_id] * count, pa.string()),
        pa.array([stream] * count, pa.string()),
        pa.array(boxes.time_s),
        *(pa.array(boxes.edges_px[:, place], mask=absent) for place in range(len(EDGES))),
        pa.array(boxes.confidence, mask=absent),
        pa.array(boxes.track),
        pa.array(boxes.chosen),
        pa.array(np.full(count, boxes.width_px, np.int32)),
        pa.array(np.full(count, boxes.height_px, np.int32)),
    ]
    return pa.Table.from_arrays(columns, schema=BOX_COLUMNS)
