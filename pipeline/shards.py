"""One Parquet file of the store: its columns, and the way from records to bytes and back.

A shard holds feature rows of one stream, outcomes, or the journal of unfinished rows. pyarrow comes without types, so
it is met here and in `compaction`, and nowhere else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..manifests.errors import StoreError
from .atomic_files import LocalFolder
from .records import FeatureRow, Outcome

FORMAT = 1
OUTCOMES = "outcomes"
PROGRESS = ".progress"
STREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

_SHARD = re.compile(r".*/part-(?P<writer>[^/-]+)-\d+\.parquet")
# Reading one row decodes its row group: 2 to 10 ms for 1 to 10 MB. Full reads slow down below 1 MB.
_ROW_GROUP_BYTES = 2 << 20
_STAMP, _BLANK = "arabesque.sha256", "0" * 64
_OUTCOME_FIELDS = [field.name for field in fields(Outcome)]
_CONTENT_DIGEST = _OUTCOME_FIELDS.index("content_digest")
_OUTCOME_TYPES = {"str": pa.string(), "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
_WHEN_AND_WHO = [pa.field("written_at", pa.timestamp("us", "UTC")), pa.field("writer", pa.string())]


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
    if not STREAM_NAME.fullmatch(stream):
        raise ValueError(f"stream name {stream!r}: letters, digits, '_', '.' and '-' only, a letter or digit first")
    return f"stream={stream}"


def shard_name(folder: str, writer: str, sequence: int) -> str:
    return f"{folder}/part-{writer}-{sequence:06d}.parquet"


def shards_in(folder: LocalFolder, name: str) -> list[str]:
    return [file for file in folder.files(name) if _SHARD.fullmatch(file)]


def writer_of(shard: str) -> str:
    match = _SHARD.fullmatch(shard)
    if match is None:
        raise ValueError(f"{shard!r} is not the name of a shard")
    return match["writer"]


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
        "provenance": [sorted(row.provenance.items()) for row in records],
        "written_at": [stored.written_us for stored in rows],
        "writer": [stored.writer for stored in rows],
    }
    return _table(columns, schema)


def outcomes_table(outcomes: Sequence[StoredOutcome]) -> pa.Table:
    columns: dict[str, Any] = {
        name: [stored.values[place] for stored in outcomes] for place, name in enumerate(_OUTCOME_FIELDS)
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
        writer.add_key_value_metadata({_STAMP: _BLANK})
    blank = sink.getvalue().to_pybytes()
    place = _stamp_place(blank)
    return blank[:place] + hashlib.sha256(blank).hexdigest().encode() + blank[place + len(_BLANK) :]


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


def read_table(folder: LocalFolder, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A shard's columns. FileNotFoundError where it is gone (merged, most likely), StoreError where it is damaged."""
    with _opened(folder, shard) as file:
        return file.read(columns=columns, use_threads=False)


def read_places(folder: LocalFolder, shard: str) -> list[RowPlace]:
    """The key columns of a shard's rows, in order."""
    columns = list(RowPlace._fields[2:-1])
    table = read_table(folder, shard, [*columns, "written_at"])
    lists = [table.column(name).to_pylist() for name in columns]
    written = table.column("written_at").cast(pa.int64()).to_pylist()
    return list(map(RowPlace._make, zip([shard] * len(table), range(len(table)), *lists, written, strict=True)))


def read_rows(folder: LocalFolder, shard: str, numbers: Iterable[int]) -> Iterator[tuple[int, StoredRow]]:
    """The rows with these numbers, ascending; each row group is decoded once. Checksums are compared."""
    wanted = sorted(set(numbers))
    with _opened(folder, shard) as file:
        first = 0
        for group in range(file.metadata.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            here = [number for number in wanted if first <= number < end]
            if here:
                table = file.read_row_group(group, use_threads=False)
                yield from ((number, _row(folder, shard, table, number - first)) for number in here)
            first = end


def read_outcomes(folder: LocalFolder, shard: str) -> list[StoredOutcome]:
    table = read_table(folder, shard)
    values = zip(*(table.column(name).to_pylist() for name in _OUTCOME_FIELDS), strict=True)
    written = table.column("written_at").cast(pa.int64()).to_pylist()
    return list(map(StoredOutcome._make, zip(values, written, table.column("writer").to_pylist(), strict=True)))


def read_journal(folder: LocalFolder, chunk: str) -> list[JournalEntry]:
    table = read_table(folder, chunk)
    plain = [table.column(name).to_pylist() for name in JournalEntry._fields[:-1]]
    features = [None if row.values is None else row.values.to_numpy().copy() for row in table.column("feature")]
    return list(map(JournalEntry._make, zip(*plain, features, strict=True)))


def read_journal_keys(folder: LocalFolder, chunk: str) -> set[str]:
    return set(read_table(folder, chunk, ["key"]).column("key").to_pylist())


def length(folder: LocalFolder, shard: str) -> int:
    """How many rows a shard holds."""
    with _opened(folder, shard) as file:
        return file.metadata.num_rows


def stored_number(folder: LocalFolder, shard: str) -> str:
    """Type of the features' numbers: ``float32`` or ``float16``."""
    with _opened(folder, shard) as file:
        return np.dtype(file.schema_arrow.field("features").type.value_type.value_type.to_pandas_dtype()).name


def _row(folder: LocalFolder, shard: str, table: pa.Table, at: int) -> StoredRow:
    cell = {name: table.column(name)[at] for name in table.column_names}
    stored = cell["features"].values.flatten().to_numpy().reshape(cell["segments"].as_py(), cell["dim"].as_py())
    start_s, end_s = cell["start_s"].values.to_numpy().copy(), cell["end_s"].values.to_numpy().copy()
    text = {name: cell[name].as_py() for name in ("video_id", "stream", "key", "content_digest", "settings_digest")}
    if checksum(stored, start_s, end_s) != cell["checksum"].as_py():
        raise _damaged(folder, shard, f"the checksum of {text['video_id']}'s row does not match")
    row = FeatureRow(
        **text,
        outcome=cell["outcome"].as_py(),
        features=stored.astype(np.float32),
        start_s=start_s,
        end_s=end_s,
        provenance=dict(cell["provenance"].as_py()),
    )
    return StoredRow(row, cell["written_at"].cast(pa.int64()).as_py(), cell["writer"].as_py())


@contextmanager
def _opened(folder: LocalFolder, shard: str) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(folder.source(shard), page_checksum_verification=True) as file:
            _check_format(folder, shard, file.schema_arrow.metadata or {})
            yield file
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise StoreError(f"{folder.path(shard)}: cannot be read ({error.strerror}); allow reading it") from error
    except (pa.ArrowException, OSError, EOFError) as error:
        raise _damaged(folder, shard, str(error).partition("\n")[0]) from error


def _check_format(folder: LocalFolder, shard: str, metadata: dict[bytes, bytes]) -> None:
    if b"arabesque.format" not in metadata:
        raise StoreError(f"{folder.path(shard)}: not written by arabesque; move it out of the store")
    version = metadata[b"arabesque.format"].decode()
    if version != str(FORMAT):
        raise StoreError(f"{folder.path(shard)}: has format {version}, this is for format {FORMAT}; update arabesque")


def _damaged(folder: LocalFolder, shard: str, reason: str) -> StoreError:
    return StoreError(f"{folder.path(shard)}: damaged ({reason}); delete it and run again to compute anew what it held")


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
        pa.field("provenance", pa.map_(pa.string(), pa.string())),
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
