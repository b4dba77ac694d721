"""From records to the bytes of a shard.

pyarrow comes without types: it is met here, in `shard_reading` and in `compaction`, and nowhere else.
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
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..records import Outcome
from .shards import FORMAT, OUTCOME_FIELDS, ROW_KEYS, JournalEntry, StoredOutcome, StoredRow

# Reading one row decodes its row group: 2 to 10 ms for 1 to 10 MB. Full reads slow down below 1 MB.
_ROW_GROUP_BYTES = 2 << 20
_STAMP, _BLANK, _DIGEST_DIGITS = "arabesque.sha256", "0" * 64, 64
_KEYS = "arabesque.keys"
_OUTCOME_TYPES = {"str": pa.string(), "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
_WHEN_AND_WHO = [pa.field("written_at", pa.timestamp("us", "UTC")), pa.field("writer", pa.string())]


def rows_table(rows: Sequence[StoredRow], *, float16: bool) -> pa.Table:
    """Rows of one stream, all of one ``dim``."""
    number = pa.float16() if float16 else pa.float32()
    values = [np.ascontiguousarray(stored.row.features, number.to_pandas_dtype()) for stored in rows]
    schema = _row_schema(pa.list_(number, values[0].shape[1]))
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
        "features": _nested(values, schema.field("features").type),
        "start_s": [row.start_s for row in records],
        "end_s": [row.end_s for row in records],
        "checksum": [checksum(array, row.start_s, row.end_s) for array, row in zip(values, records, strict=True)],
        "provenance": [json.dumps(row.provenance, sort_keys=True) for row in records],
        "written_at": [stored.written_us for stored in rows],
        "writer": [stored.writer for stored in rows],
    }
    return _table(columns, schema)


def outcomes_table(outcomes: Sequence[StoredOutcome]) -> pa.Table:
    columns: dict[str, Any] = {
        name: [stored.values[place] for stored in outcomes] for place, name in enumerate(OUTCOME_FIELDS)
    }
    columns["written_at"] = [stored.written_us for stored in outcomes]
    columns["writer"] = [stored.writer for stored in outcomes]
    described = [pa.field(field.name, _OUTCOME_TYPES.get(str(field.type), pa.string())) for field in fields(Outcome)]
    return _table(columns, _schema("outcomes", described + _WHEN_AND_WHO))


def journal_table(entries: Sequence[JournalEntry]) -> pa.Table:
    columns = dict(zip(JournalEntry._fields, map(list, zip(*entries, strict=True)), strict=True))
    types = [pa.string(), pa.int32(), pa.float64(), pa.float64(), pa.list_(pa.float32())]
    described = [pa.field(name, kind) for name, kind in zip(JournalEntry._fields, types, strict=True)]
    return _table(columns, _schema("journal", described))


def shard_bytes(table: pa.Table) -> bytes:
    """The table as a Parquet file, stamped with the SHA-256 of its own bytes (the stamp's digits counted as zeros)."""
    sink = pa.BufferOutputStream()
    rows_per_group = max(1, round(_ROW_GROUP_BYTES * len(table) / max(table.nbytes, 1)))
    with pq.ParquetWriter(sink, table.schema, **_writer_options(table.schema)) as writer:
        writer.write_table(table, row_group_size=rows_per_group)
        if table.schema.metadata.get(b"arabesque.kind") == b"features":
            writer.add_key_value_metadata({_KEYS: _packed_keys(table)})
        writer.add_key_value_metadata({_STAMP: _BLANK})
    blank = sink.getvalue().to_pybytes()
    place = _stamp_place(blank)
    return blank[:place] + hashlib.sha256(blank).hexdigest().encode() + blank[place + len(_BLANK) :]


def _packed_keys(table: pa.Table) -> str:
    """For the footer: a shard of 64 MB has 32 row groups, whose columns take 20 times as long to read."""
    keys, sink = table.select(ROW_KEYS).replace_schema_metadata(), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, keys.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_table(keys)
    data = sink.getvalue().to_pybytes()
    return hashlib.sha256(data).hexdigest() + base64.b64encode(data).decode()


def unpacked_keys(metadata: Mapping[bytes, bytes]) -> pa.Table | None:
    """`ROW_KEYS` from a shard's footer; None where an earlier version wrote it, ValueError where it is damaged."""
    packed = metadata.get(_KEYS.encode())
    if packed is None:
        return None
    data = base64.b64decode(packed[_DIGEST_DIGITS:], validate=True)
    if hashlib.sha256(data).hexdigest().encode() != packed[:_DIGEST_DIGITS]:
        raise ValueError("the checksum of the footer's keys does not match")
    # a thread for each of eight small columns takes longer than they do
    return pa.ipc.open_stream(data, options=pa.ipc.IpcReadOptions(use_threads=False)).read_all()


def is_intact(data: bytes) -> bool:
    """Whether not a bit of a shard differs from what was written."""
    place = _stamp_place(data)
    blank = data[:place] + _BLANK.encode() + data[place + len(_BLANK) :]
    return hashlib.sha256(blank).hexdigest().encode() == data[place : place + len(_BLANK)]


def _stamp_place(data: bytes) -> int:
    """In the footer's key-value list a value follows its key after two bytes, its type and its length."""
    return data.rfind(_STAMP.encode()) + len(_STAMP) + 2


def checksum(features: NDArray[Any], start_s: NDArray[np.float64], end_s: NDArray[np.float64]) -> str:
    """First 32 digits of the SHA-256 of the stored numbers, little-endian: features, then starts, then ends."""
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
        pa.field("provenance", pa.string()),  # JSON: HF datasets know no map columns
    ]
    return _schema("features", described + _WHEN_AND_WHO)


def _schema(kind: str, described: list[pa.Field]) -> pa.Schema:
    return pa.schema(described, metadata={"arabesque.format": str(FORMAT), "arabesque.kind": kind})


def _table(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, schema.field(name).type)
        for name, column in columns.items()
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _nested(values: list[NDArray[Any]], kind: pa.DataType) -> pa.Array:
    """``list<fixed_size_list<number, dim>>`` from one ``[segments, dim]`` array per row, copied once."""
    rows = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(values).ravel()), type=kind.value_type)
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), rows, type=kind)


def _writer_options(schema: pa.Schema) -> dict[str, Any]:
    options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
    names = [name for name in schema.names if pa.types.is_string(schema.field(name).type)]
    options["use_dictionary"] = names
    # Byte-stream-split makes float32 a tenth to a half smaller; on float16 duckdb cannot read it.
    if "features" in schema.names and schema.field("features").type.value_type.value_type == pa.float32():
        options["column_encoding"] = {"features.list.element.list.element": "BYTE_STREAM_SPLIT"}
    return options
