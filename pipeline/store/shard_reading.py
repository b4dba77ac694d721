"""Parse shards into records.

All functions raise FileNotFoundError if the shard is absent (usually merged), and StoreError if it is damaged or was
not written by this package.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...manifests.errors import StoreError
from ..records import FeatureRow
from .files.storage import Storage
from .files.urls import UnreachableStore
from .shard_writing import FEATURES_LEAF, checksum, completed, unpacked_keys
from .shards import (
    BOXES,
    FORMAT,
    OUTCOME_FIELDS,
    OUTCOMES,
    PROGRESS,
    ROW_KEYS,
    LoggedSegment,
    RowPlace,
    StoredOutcome,
    StoredRow,
    writer_of,
)

_DAMAGE = (pa.ArrowException, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, OverflowError)
"""Exceptions of pyarrow, and of this module for absent or empty columns, when a damaged file is read."""


_CHECKED = ("features", "start_s", "end_s", "checksum")
"""The columns that `checksum` covers, and the checksum itself."""


class ForeignShard(StoreError):
    """A valid Parquet file that is not of this format."""


def read_table(storage: Storage, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read these columns in order, or all. Columns that earlier versions did not write have default values."""
    with _opened(storage, shard, columns, whole=columns is None) as file:
        names = None if columns is None else list(columns)
        table = file.read(columns=names, use_threads=False)  # pyright: ignore[reportUnknownMemberType]
        return completed(table, columns)


def read_tables(storage: Storage, shards: Iterable[str]) -> pa.Table:
    """Read all rows of several shards of one kind."""
    return pa.concat_tables([read_table(storage, shard) for shard in shards])


def read_keys(storage: Storage, shard: str) -> pa.Table:
    """Read `ROW_KEYS` of a shard's rows, in order."""
    with _opened(storage, shard, ()) as file:
        keys = unpacked_keys(file.metadata.metadata)
        if keys is not None and len(keys) != file.metadata.num_rows:
            raise ValueError(f"its footer lists {len(keys)} rows, it has {file.metadata.num_rows}")
        if keys is not None:
            return completed(keys, ROW_KEYS)
    return read_table(storage, shard, ROW_KEYS)


def read_places(storage: Storage, shard: str) -> list[RowPlace]:
    """Read the key columns of a shard's rows, in order, as records."""
    table = read_keys(storage, shard)
    at = ROW_KEYS.index("written_at")
    table = table.set_column(at, "written_at", table.column("written_at").cast(pa.int64()))
    lists = [table.column(name).to_pylist() for name in ROW_KEYS]
    return list(map(RowPlace._make, zip([shard] * len(table), range(len(table)), *lists, strict=True)))


def read_rows(storage: Storage, shard: str, numbers: Iterable[int]) -> Iterator[tuple[int, StoredRow]]:
    """Yield the rows with these numbers, ascending; each row group is decoded once. Checksums are verified."""
    wanted = sorted(set(numbers))
    with _opened(storage, shard) as file:
        first = 0
        for group in range(file.metadata.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            here = [number for number in wanted if first <= number < end]
            if here:
                rows = file.read_row_group(group, use_threads=False)  # pyright: ignore[reportUnknownMemberType]
                table = completed(rows)
                yield from ((number, _row(storage, shard, table, number - first)) for number in here)
            first = end


class RowFacts(NamedTuple):
    """All fields of a row except its features."""

    video_id: str
    stream: str
    key: str
    content_digest: str
    settings_digest: str
    outcome: Any
    checksum: str
    provenance: str
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]


class ShardTable(NamedTuple):
    """All columns of a shard except its features, and the positions of the features."""

    rows: list[RowFacts]
    shapes: list[tuple[int, ...]]
    """Shape of the features of each row: segments, any further axes, and dim."""
    dtype: np.dtype[Any]
    places: NDArray[np.int64]
    """Position of each row's values in the file; -1 for a row that must be decoded."""


def read_shard_table(storage: Storage, shard: str) -> ShardTable:
    """Read all columns of a shard except its features, and the position of each row's values."""
    names = [*RowFacts._fields, "segments", "dim", "shape"]
    with _opened(storage, shard, names) as file:
        table = file.read(columns=names, use_threads=False)  # pyright: ignore[reportUnknownMemberType]
        table = completed(table, names)
        schema, metadata = file.schema_arrow, file.metadata
        kind: Any = schema.types[schema.get_field_index("features")]
        dtype = np.dtype(kind.value_type.value_type.to_pandas_dtype())
        if sys.byteorder == "big":  # on other machines the native order, by its usual name
            dtype = dtype.newbyteorder("<")
        texts = [table.column(name).to_pylist() for name in RowFacts._fields[:-2]]
        times = [list(map(_times, table.column(name))) for name in RowFacts._fields[-2:]]
        rows = list(map(RowFacts._make, zip(*texts, *times, strict=True)))
        counts: list[Any] = table.column("segments").to_pylist()
        dims: list[Any] = table.column("dim").to_pylist()
        stated: list[Any] = table.column("shape").to_pylist()
        shapes = [_shape(*each) for each in zip(counts, dims, stated, strict=True)]
        return ShardTable(rows, shapes, dtype, _places(metadata, shapes, dtype.itemsize))


def _shape(segments: int, dim: int, stated: Sequence[int] | None) -> tuple[int, ...]:
    """Return the shape of a row's features. ValueError if the stated shape has another number of values."""
    if stated is None:
        return segments, dim
    shape = tuple(stated)
    if shape[:1] != (segments,) or math.prod(shape[1:]) != dim or min(shape) < 1:
        raise ValueError(f"a row of {segments} × {dim} values states the shape {list(shape)}")
    return shape


def _times(cell: Any) -> NDArray[np.float64]:
    return _numbers(cell.values)


def _places(metadata: Any, shapes: Sequence[tuple[int, ...]], itemsize: int) -> NDArray[np.int64]:
    """Return the offset of the values of each row; -1 if they are compressed or encoded.

    The values are the last bytes of their page, and the page is the last one of its column chunk.
    """
    places = np.full(len(shapes), -1, np.int64)
    leaf = [metadata.schema.column(at).path for at in range(metadata.num_columns)].index(FEATURES_LEAF)
    first = 0
    for group in range(metadata.num_row_groups):
        described = metadata.row_group(group)
        chunk, end = described.column(leaf), first + described.num_rows
        sizes = np.array([math.prod(shape) * itemsize for shape in shapes[first:end]], np.int64)
        is_plain = chunk.compression == "UNCOMPRESSED" and set(chunk.encodings) <= {"PLAIN", "RLE"}
        if is_plain and not chunk.has_dictionary_page and int(sizes.sum()) <= chunk.total_compressed_size:
            begin = chunk.data_page_offset + chunk.total_compressed_size - int(sizes.sum())
            places[first:end] = begin + np.cumsum(sizes) - sizes
        first = end
    return places


def readable_rows(storage: Storage, shard: str) -> Iterator[StoredRow | StoreError]:
    """Yield every row of a shard that may be damaged, and an error for each damaged row, row group or file."""
    try:
        with (
            _opened(storage, shard, whole=True) as file,
            _opened(storage, shard, whole=True, verify=False) as unverified,
        ):
            first = 0
            for group in range(file.metadata.num_row_groups):
                yield from _readable_group(storage, shard, file, unverified, group, first)
                first += file.metadata.row_group(group).num_rows
    except UnreachableStore:
        raise
    except StoreError as error:
        yield error


def _readable_group(
    storage: Storage, shard: str, file: Any, unverified: Any, group: int, first: int
) -> Iterator[StoredRow | StoreError]:
    try:
        table = completed(file.read_row_group(group, use_threads=False))
    except _DAMAGE as error:
        try:
            table = _without_damage(shard, file, unverified, group, first)
        except _DAMAGE:
            yield _damaged(storage, shard, _first_line(error))
            return
    for number in range(len(table)):
        try:
            yield _row(storage, shard, table, number)
        except StoreError as error:
            yield error
        except _DAMAGE as error:
            yield _damaged(storage, shard, _first_line(error))


def _without_damage(shard: str, file: Any, unverified: Any, group: int, first: int) -> pa.Table:
    """Read a row group column by column. Raises an error if this is not possible either.

    A damaged column is replaced by the values in the footer and the file's name; a damaged provenance is lost. Columns
    that each row's checksum covers are read without verifying page checksums, because a page has many rows.

    Args:
        shard: Name of the shard.
        file: The shard, opened with verification of pages.
        unverified: The shard, opened without this verification.
        group: Number of the row group.
        first: Number of the group's first row in the shard.
    """
    num_rows = file.metadata.row_group(group).num_rows
    keys = unpacked_keys(file.metadata.metadata)
    known = {} if keys is None else {name: keys.column(name).slice(first, num_rows) for name in keys.column_names}
    known["shape"] = pa.chunked_array([pa.nulls(num_rows, pa.list_(pa.int32()))])
    for name, value in {
        "stream": shard.split("/")[-2].removeprefix("stream="),
        "writer": writer_of(shard),
        "provenance": json.dumps({"lost": "these bytes of the shard were damaged; `repair` kept the rest of the row"}),
    }.items():
        known[name] = pa.chunked_array([pa.repeat(pa.scalar(value), num_rows)])
    columns: dict[str, Any] = {}
    for name in file.schema_arrow.names:
        try:
            columns[name] = file.read_row_group(group, columns=[name], use_threads=False).column(name)
        except _DAMAGE:
            again = unverified.read_row_group(group, columns=[name], use_threads=False) if name in _CHECKED else known
            columns[name] = again[name]
    names = list(columns)
    return completed(pa.table(list(columns.values()), names).replace_schema_metadata(file.schema_arrow.metadata))


def read_provenance(storage: Storage, shard: str) -> list[dict[str, str]]:
    """Read the provenance of a shard's rows, in order."""
    return [
        json.loads(str(text)) for text in read_table(storage, shard, ["provenance"]).column("provenance").to_pylist()
    ]


def read_outcomes(storage: Storage, shard: str) -> list[StoredOutcome]:
    table = read_table(storage, shard)
    values = zip(*(table.column(name).to_pylist() for name in OUTCOME_FIELDS), strict=True)
    written = table.column("written_at").cast(pa.int64()).to_pylist()
    stamps = written, table.column("writer").to_pylist(), table.column("counter").to_pylist()
    return list(map(StoredOutcome._make, zip(values, *stamps, strict=True)))


def read_logged_segments(storage: Storage, chunk: str) -> list[LoggedSegment]:
    table = read_table(storage, chunk)
    columns = {name: table.column(name).to_pylist() for name in LoggedSegment._fields if name != "feature"}
    columns["feature"] = [None if row.values is None else _numbers(row.values) for row in table.column("feature")]
    return list(map(LoggedSegment._make, zip(*(columns[name] for name in LoggedSegment._fields), strict=True)))


def read_logged_keys(storage: Storage, chunk: str) -> set[str]:
    return {str(key) for key in read_table(storage, chunk, ["key"]).column("key").to_pylist()}


def length(storage: Storage, shard: str) -> int:
    """Return the number of rows in a shard."""
    with _opened(storage, shard) as file:
        return file.metadata.num_rows


class Stamps(NamedTuple):
    """Greatest counter and time of a shard, or of several."""

    counter: int = 0
    written_us: int = 0


def greatest_stamps(storage: Storage, shard: str) -> Stamps:
    """Read the greatest counter and time from the statistics in a shard's footer."""
    with _opened(storage, shard, ()) as file:
        metadata = file.metadata
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        at = {metadata.schema.column(place).path: place for place in range(metadata.num_columns)}
        stamps: list[int] = []
        for name in ("counter", "written_at"):
            chunks = [group.column(at[name]) for group in groups] if name in at else []
            stamps.append(max((int(each.max_raw or 0) for chunk in chunks if (each := chunk.statistics)), default=0))
        return Stamps(*stamps)


def stored_number(storage: Storage, shard: str) -> str:
    """Return the number type of the features: ``float32`` or ``float16``."""
    with _opened(storage, shard) as file:
        schema = file.schema_arrow
        kind: Any = schema.types[schema.get_field_index("features")]
        return np.dtype(kind.value_type.value_type.to_pandas_dtype()).name


def _row(storage: Storage, shard: str, table: pa.Table, at: int) -> StoredRow:
    cell = {name: table.column(name)[at] for name in table.column_names}
    shape = _shape(*(cell[name].as_py() for name in ("segments", "dim", "shape")))
    stored = _numbers(cell["features"].values.flatten()).reshape(shape)
    start_s, end_s = _numbers(cell["start_s"].values), _numbers(cell["end_s"].values)
    text = {name: cell[name].as_py() for name in ("video_id", "stream", "key", "content_digest", "settings_digest")}
    if not_text := [
        name for name, value in text.items() if not isinstance(value, str)
    ]:  # a bit of the schema has flipped
        raise _damaged(storage, shard, f"the column {not_text[0]} does not contain text")
    if checksum(stored, start_s, end_s) != cell["checksum"].as_py():
        raise _damaged(storage, shard, f"the checksum of {text['video_id']}'s row does not match")
    row = FeatureRow(
        **text,
        outcome=cell["outcome"].as_py(),
        features=stored.astype(np.float32, copy=False),
        start_s=start_s,
        end_s=end_s,
        provenance=json.loads(cell["provenance"].as_py()),
    )
    return StoredRow(row, cell["written_at"].value, cell["writer"].as_py(), cell["counter"].as_py())


def _numbers(array: pa.Array[Any]) -> NDArray[Any]:
    """Copy an array without pandas; `pyarrow.Array.to_numpy` imports pandas, which takes seconds."""
    if array.null_count:  # before DLPack: if it refuses, NumPy makes a deprecated call that warns
        raise TypeError(f"{array.null_count} of {len(array)} values are null")
    exported: Any = array
    return np.from_dlpack(exported).copy()


@contextmanager
def _opened(
    storage: Storage, shard: str, columns: Sequence[str] | None = None, *, whole: bool = False, verify: bool = True
) -> Generator[pq.ParquetFile, None, None]:
    try:
        with (
            storage.opened(shard, columns, whole=whole) as source,
            pq.ParquetFile(source, page_checksum_verification=verify) as file,
        ):
            _check_format(storage, shard, file.schema_arrow.metadata or {})
            yield file
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise StoreError(f"{storage.where(shard)}: cannot be read ({error.strerror}); allow reading it") from error
    except _DAMAGE as error:
        raise _damaged(storage, shard, _first_line(error)) from error


def _check_format(storage: Storage, shard: str, metadata: dict[bytes, bytes]) -> None:
    if b"arabesque.format" not in metadata:
        raise ForeignShard(f"{storage.where(shard)}: not written by arabesque; move it out of the store")
    kind = {OUTCOMES: "outcomes", PROGRESS: "journal", BOXES: "boxes"}.get(shard.split("/")[-2], "features")
    if metadata.get(b"arabesque.kind") != kind.encode():
        raise ForeignShard(f"{storage.where(shard)}: does not contain {kind}; move it out of this folder")
    version = metadata[b"arabesque.format"].decode()
    if version != str(FORMAT):
        raise ForeignShard(
            f"{storage.where(shard)}: has format {version}, this version reads format {FORMAT}; update arabesque"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _damaged(storage: Storage, shard: str, reason: str) -> StoreError:
    advice = f"`arabesque repair {storage.root}` removes the damaged rows, and the next run computes them again"
    return StoreError(f"{storage.where(shard)}: damaged ({reason}); {advice}")
