"""Key columns of many shards side by side: what 300,000 rows say of themselves in a few arrays, not in as many records.

Features are never read here. Of several rows of one name the newest is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from .folders import Folder
from .shard_reading import read_keys, read_table
from .shard_writing import outcomes_table
from .shards import OUTCOME_FIELDS, OUTCOMES, ROW_KEYS, RowPlace, shards_in, stream_folder

Columns = Any
"""A `pyarrow.Table`, which comes without types."""

pc: Any = pyarrow.compute
PLACE = ("shard", "number")
OUTCOME_COLUMNS = (*OUTCOME_FIELDS, "written_at", "writer")
_FEW_VALUES = {"stream", "kind", "reason", "settings_digest", "outcome", "writer"}
_NUMBERS = {"number", "segments", "dim", "written_at"}
_ROW_SCHEMA = pa.schema(
    [
        ("shard", pa.dictionary(pa.int32(), pa.string())),
        *((name, pa.int64() if name in _NUMBERS else pa.string()) for name in ("number", *ROW_KEYS)),
    ]
)


def newest_outcome_columns(folder: Folder, *, placed: bool = False) -> Columns:
    """`OUTCOME_COLUMNS` of the newest outcome of every (video, stream), by video and stream; ``placed``: and place."""

    def read(shard: str) -> Columns:
        table = encoded(read_table(folder, shard, OUTCOME_COLUMNS), OUTCOME_COLUMNS)
        return _with_place(shard, table) if placed else table

    table = _read(folder, OUTCOMES, read)
    if table is None:
        none = encoded(outcomes_table([]), OUTCOME_COLUMNS)
        table = _with_place("", none) if placed else none
    return newest(table, ("video_id", "stream"), ("written_at", "writer"))


def newest_row_columns(folder: Folder, stream: str) -> Columns:
    """Place and `ROW_KEYS` of the newest row of every (video, settings), by video and settings."""
    table = _read(
        folder, stream_folder(stream), lambda shard: _with_place(shard, encoded(read_keys(folder, shard), ROW_KEYS))
    )
    rows = _ROW_SCHEMA.empty_table() if table is None else table
    return newest(rows, ("video_id", "settings_digest"), ("written_at",))


def row_places(table: Columns) -> list[RowPlace]:
    """The rows of such a table as records."""
    return list(map(RowPlace._make, zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)))


def numbers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A column of whole numbers or of yes and no, without pandas: `to_numpy` takes seconds to import it."""
    return np.from_dlpack(column.cast(pa.int64()).combine_chunks()).astype(np.int64, copy=False)


def texts(values: Sequence[str]) -> pa.Array:
    """Of a type that is told: to find one out pyarrow imports modules of others', for milliseconds, every time."""
    return pa.array(values, pa.string())


def codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A number for each text, equal for equal texts and ascending with them."""
    encoded = column.combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    order = numbers(pa.chunked_array([pc.sort_indices(encoded.dictionary)]))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks[numbers(pa.chunked_array([encoded.indices]))]


def sorted_by(table: Columns, names: Sequence[str]) -> Columns:
    return table.take(pa.array(np.lexsort([codes(table.column(name)) for name in reversed(names)])))


def position_in(values: pa.ChunkedArray | pa.Array, among: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """Where each value first stands among others; -1 for nowhere."""
    whole = among.combine_chunks() if isinstance(among, pa.ChunkedArray) else among
    found = pc.fill_null(pc.index_in(values, value_set=whole), -1)
    return numbers(pa.chunked_array([found]) if isinstance(found, pa.Array) else found)


def encoded(table: Columns, columns: Sequence[str]) -> Columns:
    """These columns; instants as whole numbers, texts that repeat themselves as numbers of a dictionary."""
    arrays = [table.column(name).combine_chunks() for name in columns]
    for place, name in enumerate(columns):
        if name == "written_at":
            arrays[place] = arrays[place].cast(pa.int64())
        elif name in _FEW_VALUES:
            arrays[place] = arrays[place].dictionary_encode()
    return pa.table(arrays, list(columns))


def _read(folder: Folder, home: str, read: Callable[[str], Columns]) -> Columns | None:
    """All shards of a folder as one table; None where there are none."""
    parts = list(folder.each(read, shards_in(folder, home)))
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks() if parts else None


def _with_place(shard: str, table: Columns) -> Columns:
    shards = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(table), np.int32)), texts([shard]))
    at = pa.array(np.arange(len(table), dtype=np.int32))
    return table.add_column(0, "number", at).add_column(0, "shard", shards)


def newest(table: Columns, names: Sequence[str], ages: Sequence[str]) -> Columns:
    """One row of each name; of equals in age the one that was read first."""
    if not len(table):
        return table
    keys = [_order(table.column(name)) for name in (*names, *ages)]
    order = np.lexsort([-np.arange(len(table)), *reversed(keys)])
    is_last = np.zeros(len(table), bool)
    is_last[-1] = True
    for key in keys[: len(names)]:
        is_last[:-1] |= np.diff(key[order]) != 0
    return table.take(pa.array(order[is_last]))


def _order(column: pa.ChunkedArray) -> NDArray[np.int64]:
    return numbers(column) if pa.types.is_integer(column.type) else codes(column)
