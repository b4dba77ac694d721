"""Serialize records to the bytes of a shard.

pyarrow has no type annotations; only this module, `shard_reading` and `compaction` use it directly.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..records import Outcome
from .shard_stamp import BLANK, STAMP, stamped
from .shards import FORMAT, MINOR, OUTCOME_FIELDS, ROW_KEYS, LoggedSegment, StoredBoxes, StoredOutcome, StoredRow

# Reading one row decodes its row group: 2 to 10 ms for 1 to 10 MB. Full reads slow down below 1 MB.
_ROW_GROUP_BYTES = 2 << 20
FEATURES_LEAF = "features.list.element.list.element"
"""Parquet's path of the values in the column ``features``."""
_ONE_PAGE_BYTES = 1 << 30
pc: Any = pyarrow.compute
_KEYS, _DIGEST_DIGITS = "arabesque.keys", 64
_OUTCOME_TYPES = {"str": pa.string(), "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
_WHEN_AND_WHO = [
    pa.field("written_at", pa.timestamp("us", "UTC")),
    pa.field("writer", pa.string()),
    pa.field("counter", pa.int64()),
]
_ADDED = {
    "source": "",
    "input_root": "",
    "holes": "",
    "lost_share": 0.0,
    "counter": 0,
    "frames_seen": 0,
    "frames_with_person": 0,
    "shape": pa.nulls(1, pa.list_(pa.int32()))[0],  # pa.scalar imports pandas
}
"""Columns that earlier versions did not write → default value."""


def rows_table(rows: Sequence[StoredRow], *, float16: bool) -> pa.Table:
    """Build the table of rows of one stream with one ``dim``. Further axes of the features are stored as a shape."""
    dtype: np.dtype[Any] = np.dtype("float16" if float16 else "float32")
    shapes = [stored.row.features.shape for stored in rows]
    values = [np.ascontiguousarray(each.row.features, dtype).reshape(len(each.row.features), -1) for each in rows]
    dim: int = values[0].shape[1]
    feature: Any = pa.list_(pa.float16() if float16 else pa.float32(), dim)
    nested = pa.list_(feature)  # the values are copied once
    vectors: Any = pa.FixedSizeListArray
    lists: Any = pa.ListArray
    segments = vectors.from_arrays(pa.array(np.concatenate(values).ravel()), type=feature)
    offsets = pa.array(np.cumsum([0, *map(len, values)], dtype=np.int32))
    records = [stored.row for stored in rows]
    columns: dict[str, Any] = {
        "video_id": [row.video_id for row in records],
        "stream": [row.stream for row in records],
        "key": [row.key for row in records],
        "content_digest": [row.content_digest for row in records],
        "settings_digest": [row.settings_digest for row in records],
        "outcome": [row.outcome for row in records],
        "segments": [len(array) for array in values],
        "dim": [array.shape[1] for array in values],
        "features": lists.from_arrays(offsets, segments, type=nested),
        "start_s": [row.start_s for row in records],
        "end_s": [row.end_s for row in records],
        "checksum": [checksum(array, row.start_s, row.end_s) for array, row in zip(values, records, strict=True)],
        "provenance": [json.dumps(row.provenance, sort_keys=True) for row in records],
        "written_at": [stored.written_us for stored in rows],
        "writer": [stored.writer for stored in rows],
        "counter": [stored.counter for stored in rows],
        "shape": [list(shape) if len(shape) > 2 else None for shape in shapes],
    }
    return _table(columns, _row_schema(feature))


def outcomes_table(outcomes: Sequence[StoredOutcome]) -> pa.Table:
    columns: dict[str, Any] = {
        name: [stored.values[place] for stored in outcomes] for place, name in enumerate(OUTCOME_FIELDS)
    }
    columns["written_at"] = [stored.written_us for stored in outcomes]
    columns["writer"] = [stored.writer for stored in outcomes]
    columns["counter"] = [stored.counter for stored in outcomes]
    return _table(columns, _OUTCOME_SCHEMA)


def boxes_table(stored: Sequence[StoredBoxes]) -> pa.Table:
    """Build the table of the boxes of at least one video. It has one row for each box; absent values are null."""
    every = [each.video.boxes for each in stored]
    lengths = [len(boxes) for boxes in every]
    edges = np.concatenate([boxes.edges_px for boxes in every])
    confidence: NDArray[np.float32] = np.concatenate([boxes.confidence for boxes in every])
    track: NDArray[np.int32] = np.concatenate([boxes.track for boxes in every])
    places: Any = pa.array(np.repeat(np.arange(len(stored)), lengths).tolist())

    def repeated(values: Sequence[Any], name: str) -> Any:
        return pc.take(pa.array(values, _BOX_TYPES[name]), places)

    columns: dict[str, Any] = {
        "video_id": repeated([each.video.video_id for each in stored], "video_id"),
        "stream": repeated([each.video.stream for each in stored], "stream"),
        "time_s": _nullable(np.concatenate([boxes.time_s for boxes in every])),
        **{
            name: _nullable(edges[:, place], np.isnan(edges[:, place]))
            for place, name in enumerate(("left", "top", "right", "bottom"))
        },
        "confidence": _nullable(confidence, np.isnan(confidence)),
        "track": _nullable(track, track < 0),
        "chosen": _nullable(np.concatenate([boxes.chosen for boxes in every])),
        "frame_width": repeated([boxes.width_px for boxes in every], "frame_width"),
        "frame_height": repeated([boxes.height_px for boxes in every], "frame_height"),
        "key": repeated([each.video.key for each in stored], "key"),
        "settings_digest": repeated([each.video.settings_digest for each in stored], "settings_digest"),
        "written_at": repeated([each.written_us for each in stored], "written_at"),
        "writer": repeated([each.writer for each in stored], "writer"),
        "counter": repeated([each.counter for each in stored], "counter"),
    }
    return _table(columns, _BOX_SCHEMA)


def _nullable(values: NDArray[Any], absent: NDArray[np.bool_] | None = None) -> Any:
    return pa.array(np.ascontiguousarray(values), mask=absent)


def logged_segments_table(entries: Sequence[LoggedSegment]) -> pa.Table:
    columns = dict(zip(LoggedSegment._fields, map(list, zip(*entries, strict=True)), strict=True))
    return _table(columns, _LOG_SCHEMA)


def completed(table: pa.Table, names: Sequence[str] | None = None) -> pa.Table:
    """Return the columns ``names`` (by default all of the table's kind), in order; absent ones get default values.

    Raises:
        KeyError: A column is absent that all versions write.
    """
    if names is None:
        schema = _SCHEMAS[(table.schema.metadata or {}).get(b"arabesque.kind", b"")]
        names = [*schema.names, *(name for name in table.column_names if name not in schema.names)]
    if table.column_names == list(names):
        return table
    columns: list[Any] = [
        table.column(name) if name in table.column_names else pa.repeat(_ADDED[name], len(table)) for name in names
    ]
    return pa.table(columns, list(names)).replace_schema_metadata(table.schema.metadata)


def shard_bytes(table: pa.Table) -> bytes:
    """Return the table as a Parquet file, with its stamp and its parity record (`shard_stamp`)."""
    sink = pa.BufferOutputStream()
    rows_per_group = max(1, round(_ROW_GROUP_BYTES * len(table) / max(table.nbytes, 1)))
    types = dict(zip(table.schema.names, table.schema.types, strict=True))
    dictionaries = [name for name, kind in types.items() if pa.types.is_string(kind)]
    options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True, "use_dictionary": dictionaries}
    if "features" in types:
        # With one plain page for each row group, a row is one read (`open_shards`). This is over 20 times as fast as
        # zstd with byte-stream-split, and takes 2.3 times the bytes for float16 values and 1.2 times for float32.
        lists = {name for name, kind in types.items() if pa.types.is_list(kind)} - {"features"}
        others = {f"{name}.list.element" if name in lists else name: "zstd" for name in types}
        options |= {"compression": others | {FEATURES_LEAF: "none"}, "data_page_size": _ONE_PAGE_BYTES}
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
        writer.write_table(table, row_group_size=rows_per_group)
        if table.schema.metadata.get(b"arabesque.kind") == b"features":
            # the footer repeats the keys: reading the key columns of 32 row groups (64 MB) takes 20 times as long
            keys, packed = table.select(ROW_KEYS).replace_schema_metadata(), pa.BufferOutputStream()
            with pa.ipc.new_stream(packed, keys.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
                stream.write_table(keys)
            data = packed.getvalue().to_pybytes()
            text = hashlib.sha256(data).hexdigest() + base64.b64encode(data).decode()
            writer.add_key_value_metadata({_KEYS: text})
        writer.add_key_value_metadata({STAMP: BLANK})
    return stamped(sink.getvalue().to_pybytes())


def unpacked_keys(metadata: Mapping[bytes, bytes] | None) -> pa.Table | None:
    """Read `ROW_KEYS` from a shard's footer; None for earlier versions, ValueError if it is damaged."""
    packed = (metadata or {}).get(_KEYS.encode())
    if packed is None:
        return None
    data = base64.b64decode(packed[_DIGEST_DIGITS:], validate=True)
    if hashlib.sha256(data).hexdigest().encode() != packed[:_DIGEST_DIGITS]:
        raise ValueError("the checksum of the footer's keys does not match")
    # starting threads takes longer than reading eight small columns
    return pa.ipc.open_stream(data, options=pa.ipc.IpcReadOptions(use_threads=False)).read_all()


def checksum(features: NDArray[Any], start_s: NDArray[np.float64], end_s: NDArray[np.float64]) -> str:
    """Return 32 digits of the SHA-256 of the stored numbers, little-endian: features, then starts, then ends."""
    digest = hashlib.sha256()
    for array in (features, start_s, end_s):
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()[:32]


def _row_schema(feature: pa.DataType) -> pa.Schema:
    text = ["video_id", "stream", "key", "content_digest", "settings_digest", "outcome"]
    described = [
        *(pa.field(name, pa.string()) for name in text),
        pa.field("segments", pa.int32()),
        pa.field("dim", pa.int32()),
        pa.field("features", pa.list_(feature)),
        pa.field("start_s", pa.list_(pa.float64())),
        pa.field("end_s", pa.list_(pa.float64())),
        pa.field("checksum", pa.string()),
        pa.field("provenance", pa.string()),  # JSON: Hugging Face datasets do not support map columns
    ]
    return _schema("features", [*described, *_WHEN_AND_WHO, pa.field("shape", pa.list_(pa.int32()))])


def _schema(kind: str, described: list[pa.Field[Any]]) -> pa.Schema:
    versions = {"arabesque.format": str(FORMAT)} | ({"arabesque.minor": str(MINOR)} if kind == "features" else {})
    return pa.schema(described, metadata={**versions, "arabesque.kind": kind})


_OUTCOME_SCHEMA = _schema(
    "outcomes",
    [pa.field(one.name, _OUTCOME_TYPES.get(str(one.type), pa.string())) for one in fields(Outcome)] + _WHEN_AND_WHO,
)
_BOX_SCHEMA = _schema(
    "boxes",
    [
        pa.field("video_id", pa.string()),
        pa.field("stream", pa.string()),
        pa.field("time_s", pa.float64()),
        *(pa.field(name, pa.float32()) for name in ("left", "top", "right", "bottom", "confidence")),
        pa.field("track", pa.int32()),
        pa.field("chosen", pa.bool_()),
        pa.field("frame_width", pa.int32()),
        pa.field("frame_height", pa.int32()),
        pa.field("key", pa.string()),
        pa.field("settings_digest", pa.string()),
        *_WHEN_AND_WHO,
    ],
)
_BOX_TYPES = dict(zip(_BOX_SCHEMA.names, _BOX_SCHEMA.types, strict=True))
_LOG_TYPES = [pa.string(), pa.int32(), pa.float64(), pa.float64(), pa.list_(pa.float32()), pa.int64()]
_LOG_SCHEMA = _schema(
    "journal", [pa.field(name, kind) for name, kind in zip(LoggedSegment._fields, _LOG_TYPES, strict=True)]
)
_SCHEMAS = {
    b"features": _row_schema(pa.list_(pa.float32(), 1)),
    b"outcomes": _OUTCOME_SCHEMA,
    b"boxes": _BOX_SCHEMA,
    b"journal": _LOG_SCHEMA,
}


def _table(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    types = dict(zip(schema.names, schema.types, strict=True))
    arrays: list[Any] = [
        column if isinstance(column, pa.Array) else pa.array(column, types[name]) for name, column in columns.items()
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
