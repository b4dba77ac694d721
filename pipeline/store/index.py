"""The rule that determines which rows and outcomes of a store count.

Several writers, interrupted merges and changed videos leave more than one row for a (video, stream). Readers, planning
and compaction apply one rule: under equal settings, the newest row counts among the rows that no newer outcome
contradicts. An outcome contradicts a row if it has another content digest for the video.

*Newer* means a greater counter. The counter of a writer starts above the greatest counter of the store, and is raised
above each counter that the writer later reads in outcomes and claims. The rows of a video get the value that the
counter had before the file was read. Clocks are not involved. ``written_at`` only decides between equal counters: those
in shards of earlier versions (0), and those of writers that did not read each other's outcomes.

Everything is computed on the key columns of all shards, concatenated: 300,000 rows are a few arrays instead of
300,000 records. Features are never read here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from .files.storage import Storage, retry_on_missing
from .shard_reading import read_keys, read_table
from .shard_writing import outcomes_table
from .shards import OUTCOME_FIELDS, OUTCOMES, ROW_KEYS, RowPlace, shards_in, stream_folder

T = TypeVar("T")

Columns = Any
"""A `pyarrow.Table`, which has no type annotations."""

pc: Any = pyarrow.compute
OUTCOME_COLUMNS = (*OUTCOME_FIELDS, "written_at", "writer", "counter")
_FEW_VALUES = {"stream", "kind", "reason", "settings_digest", "input_root", "holes", "outcome", "writer"}
_NUMBERS = {"number", "segments", "dim", "written_at", "counter"}
_ROW_SCHEMA = pa.schema(
    [
        ("shard", pa.dictionary(pa.int32(), pa.string())),
        *((name, pa.int64() if name in _NUMBERS else pa.string()) for name in ("number", *ROW_KEYS)),
    ]
)


OUTCOME_IDENTITY, OUTCOME_AGE = ("video_id", "stream"), ("counter", "written_at", "writer")
ROW_IDENTITY, ROW_AGE = ("video_id", "settings_digest"), ("counter", "written_at")


def current_row_columns(storage: Storage, stream: str, outcomes: Columns) -> Columns:
    """Return the rows that count. ``outcomes``: as from `of_stream`. FileNotFoundError if a shard was merged."""
    rows = row_columns(storage, stream)
    return rows.take(pa.array(current_positions(rows, outcomes)))


def current_positions(rows: Columns, outcomes: Columns) -> NDArray[np.int64]:
    """Return the positions of the rows that count among all rows of a stream, by video and settings.

    A row does not count if a newer outcome has another content digest. Of the others, the newest counts. An outcome
    without a digest (a file that could not be read) does not contradict any row.
    """
    at = position_in(rows.column("video_id"), outcomes.column("video_id"))
    known = np.flatnonzero(at >= 0)
    newest, older = outcomes.take(pa.array(at[known])), rows.take(pa.array(known))
    digest, other = newest.column("content_digest"), older.column("content_digest")
    changed = numbers(pc.and_(pc.not_equal(digest, other), pc.not_equal(digest, ""))).astype(bool)
    counter, row_counter = numbers(newest.column("counter")), numbers(older.column("counter"))
    later = numbers(newest.column("written_at")) > numbers(older.column("written_at"))
    overtaken = changed & ((counter > row_counter) | ((counter == row_counter) & later))
    counting = np.setdiff1d(np.arange(len(rows)), known[overtaken])
    return counting[newest_places(rows.take(pa.array(counting)), ROW_IDENTITY, ROW_AGE)]


def of_stream(outcomes: Columns, stream: str) -> tuple[Columns, NDArray[np.int64]]:
    """Return the newest outcomes of one stream, with the columns that decide about rows, and their positions."""
    places = np.flatnonzero(numbers(pc.equal(outcomes.column("stream").cast(pa.string()), stream)))
    names = ["video_id", "kind", "key", "content_digest", "settings_digest", "written_at", "counter"]
    return outcomes.select(names).take(pa.array(places)), places


def current_places(storage: Storage, stream: str, settings_digest: str, outcomes: Columns) -> dict[str, RowPlace]:
    """Return video → the row that counts under these settings. ``outcomes``: from `newest_outcome_columns`."""
    rows = retry_on_missing(lambda: current_row_columns(storage, stream, of_stream(outcomes, stream)[0]), storage)
    mine = rows.filter(pc.equal(rows.column("settings_digest").cast(pa.string()), settings_digest))
    return {row.video_id: row for row in row_places(mine)}


def newest_outcome_columns(storage: Storage) -> Columns:
    """Return `OUTCOME_COLUMNS` of the newest outcome of every (video, stream), sorted by video and stream."""
    return newest(outcome_columns(storage), OUTCOME_IDENTITY, OUTCOME_AGE)


def outcome_columns(storage: Storage, *, placed: bool = False) -> Columns:
    """Return `OUTCOME_COLUMNS` of all outcomes in the order of the shards; ``placed`` adds the location of each one."""

    def read(shard: str) -> Columns:
        table = encoded(read_table(storage, shard, OUTCOME_COLUMNS), OUTCOME_COLUMNS)
        return _with_place(shard, table) if placed else table

    table = _read(storage, OUTCOMES, read)
    if table is None:
        none = encoded(outcomes_table([]), OUTCOME_COLUMNS)
        table = _with_place("", none) if placed else none
    return table


def row_columns(storage: Storage, stream: str) -> Columns:
    """Return the location and `ROW_KEYS` of all rows of a stream."""
    table = _read(
        storage, stream_folder(stream), lambda shard: _with_place(shard, encoded(read_keys(storage, shard), ROW_KEYS))
    )
    return _ROW_SCHEMA.empty_table() if table is None else table


def row_places(table: Columns) -> list[RowPlace]:
    """Return the rows of a table from `row_columns` as records."""
    return list(map(RowPlace._make, zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)))


def numbers(column: pa.ChunkedArray[Any]) -> NDArray[np.int64]:
    """Convert a column of integers or booleans without pandas; `to_numpy` imports pandas, which takes seconds."""
    if column.null_count:  # before DLPack: if it refuses, NumPy makes a deprecated call that warns
        raise TypeError(f"{column.null_count} of {len(column)} values are null")
    return np.from_dlpack(column.cast(pa.int64()).combine_chunks()).astype(np.int64, copy=False)


def string_array(values: Sequence[str]) -> pa.Array[Any]:
    """Build a string array with an explicit type; type inference makes pyarrow import pandas (ms per call)."""
    return pa.array(values, pa.string())


def codes(column: pa.ChunkedArray[Any]) -> NDArray[np.int64]:
    """Return a number for each text: equal for equal texts, and in the order of the texts."""
    encoded: Any = column.combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    order = numbers(pa.chunked_array([pc.sort_indices(encoded.dictionary)]))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks[numbers(pa.chunked_array([encoded.indices]))]


def sorted_by(table: Columns, names: Sequence[str]) -> Columns:
    return table.take(pa.array(np.lexsort([codes(table.column(name)) for name in reversed(names)])))


def position_in(
    values: pa.ChunkedArray[Any] | pa.Array[Any], among: pa.ChunkedArray[Any] | pa.Array[Any]
) -> NDArray[np.int64]:
    """Return the position of the first occurrence of each value among others; -1 if there is none."""
    whole = among.combine_chunks() if isinstance(among, pa.ChunkedArray) else among
    column = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    return numbers(pc.fill_null(pc.index_in(column, value_set=whole), -1))


def encoded(table: Columns, columns: Sequence[str]) -> Columns:
    """Return these columns; instants become integers, and repeated texts are dictionary-encoded."""
    arrays = [table.column(name).combine_chunks() for name in columns]
    for place, name in enumerate(columns):
        if name == "written_at":
            arrays[place] = arrays[place].cast(pa.int64())
        elif name in _FEW_VALUES:
            arrays[place] = arrays[place].dictionary_encode()
    return pa.table(arrays, list(columns))


def _read(storage: Storage, home: str, read: Callable[[str], Columns]) -> Columns | None:
    """Read all shards of a folder as one table; None without shards."""
    parts = list(storage.each(read, shards_in(storage, home)))
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks() if parts else None


def _with_place(shard: str, table: Columns) -> Columns:
    dictionaries: Any = pa.DictionaryArray
    shards = dictionaries.from_arrays(pa.array(np.zeros(len(table), np.int32)), string_array([shard]))
    at = pa.array(np.arange(len(table), dtype=np.int32))
    return table.add_column(0, "number", at).add_column(0, "shard", shards)


def newest(table: Columns, names: Sequence[str], ages: Sequence[str]) -> Columns:
    """Return one row for each identity: the newest, or the first of several with equal age."""
    return table.take(pa.array(newest_places(table, names, ages)))


def newest_places(table: Columns, names: Sequence[str], ages: Sequence[str]) -> NDArray[np.int64]:
    """Return the positions of the rows that `newest` returns."""
    keys = [_order(table.column(name)) for name in (*names, *ages)]
    order = np.lexsort([-np.arange(len(table)), *reversed(keys)])
    return order[np.append(_is_new([key[order] for key in keys[: len(names)]])[1:], True)] if len(table) else order


def groups(table: Columns, names: Sequence[str]) -> NDArray[np.int64]:
    """Return a number per row, equal for rows that agree in these columns."""
    keys = [_order(table.column(name)) for name in names]
    order, ids = np.lexsort(keys[::-1]), np.empty(len(table), np.int64)
    ids[order] = np.cumsum(_is_new([key[order] for key in keys])) - 1
    return ids


def _is_new(keys: Sequence[NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Return where a row of sorted keys differs from the previous one."""
    return np.append([True], np.any([np.diff(key) != 0 for key in keys], axis=0))[: len(keys[0])]


def _order(column: pa.ChunkedArray[Any]) -> NDArray[np.int64]:
    typed: Any = column
    return numbers(column) if pa.types.is_integer(typed.type) else codes(column)
