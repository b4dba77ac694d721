"""From the bytes of a shard to records.

Everything here raises FileNotFoundError where the shard is gone (merged, most likely), StoreError where it is damaged
or not ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...manifests.errors import StoreError
from ..records import FeatureRow
from .folders import Folder
from .shard_writing import checksum, unpacked_keys
from .shards import FORMAT, OUTCOME_FIELDS, ROW_KEYS, JournalEntry, RowPlace, StoredOutcome, StoredRow
from .urls import UnreachableStore

_DAMAGE = (pa.ArrowException, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, OverflowError)
"""What reading a damaged file may raise: pyarrow's errors, and ours over columns that are not there or hold nothing."""


class ForeignShard(StoreError):
    """A whole Parquet file, but not of this format."""


def read_table(folder: Folder, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
    with _opened(folder, shard, columns, whole=columns is None) as file:
        return file.read(columns=columns, use_threads=False)


def read_tables(folder: Folder, shards: Iterable[str]) -> pa.Table:
    """All rows of several shards of one kind."""
    return pa.concat_tables([read_table(folder, shard) for shard in shards])


def read_keys(folder: Folder, shard: str) -> pa.Table:
    """`ROW_KEYS` of a shard's rows, in order."""
    with _opened(folder, shard, ()) as file:
        keys = unpacked_keys(file.metadata.metadata)
        if keys is not None and len(keys) != file.metadata.num_rows:
            raise ValueError(f"its footer tells of {len(keys)} rows, it has {file.metadata.num_rows}")
    return read_table(folder, shard, ROW_KEYS) if keys is None else keys


def read_places(folder: Folder, shard: str) -> list[RowPlace]:
    """The key columns of a shard's rows, in order."""
    table = read_keys(folder, shard)
    lists = [table.column(name).to_pylist() for name in ROW_KEYS[:-1]]
    written = table.column("written_at").cast(pa.int64()).to_pylist()
    return list(map(RowPlace._make, zip([shard] * len(table), range(len(table)), *lists, written, strict=True)))


def read_rows(folder: Folder, shard: str, numbers: Iterable[int]) -> Iterator[tuple[int, StoredRow]]:
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


def readable_rows(folder: Folder, shard: str) -> Iterator[StoredRow | StoreError]:
    """Every row of a shard that may be damaged, and an error in place of each row, row group or file that is."""
    try:
        with _opened(folder, shard, whole=True) as file:
            for group in range(file.metadata.num_row_groups):
                yield from _readable_group(folder, shard, file, group)
    except UnreachableStore:
        raise
    except StoreError as error:
        yield error


def _readable_group(folder: Folder, shard: str, file: Any, group: int) -> Iterator[StoredRow | StoreError]:
    try:
        table = file.read_row_group(group, use_threads=False)
    except _DAMAGE as error:
        yield _damaged(folder, shard, _first_line(error))
        return
    for number in range(len(table)):
        try:
            yield _row(folder, shard, table, number)
        except StoreError as error:
            yield error
        except _DAMAGE as error:
            yield _damaged(folder, shard, _first_line(error))


def read_provenance(folder: Folder, shard: str) -> list[dict[str, str]]:
    """Of a shard's rows, in order."""
    return [json.loads(text) for text in read_table(folder, shard, ["provenance"]).column("provenance").to_pylist()]


def read_outcomes(folder: Folder, shard: str) -> list[StoredOutcome]:
    table = read_table(folder, shard)
    values = zip(*(table.column(name).to_pylist() for name in OUTCOME_FIELDS), strict=True)
    written = table.column("written_at").cast(pa.int64()).to_pylist()
    return list(map(StoredOutcome._make, zip(values, written, table.column("writer").to_pylist(), strict=True)))


def read_journal(folder: Folder, chunk: str) -> list[JournalEntry]:
    table = read_table(folder, chunk)
    plain = [table.column(name).to_pylist() for name in JournalEntry._fields[:-1]]
    features = [None if row.values is None else _numbers(row.values) for row in table.column("feature")]
    return list(map(JournalEntry._make, zip(*plain, features, strict=True)))


def read_journal_keys(folder: Folder, chunk: str) -> set[str]:
    return set(read_table(folder, chunk, ["key"]).column("key").to_pylist())


def length(folder: Folder, shard: str) -> int:
    """How many rows a shard holds."""
    with _opened(folder, shard) as file:
        return file.metadata.num_rows


def stored_number(folder: Folder, shard: str) -> str:
    """Type of the features' numbers: ``float32`` or ``float16``."""
    with _opened(folder, shard) as file:
        return np.dtype(file.schema_arrow.field("features").type.value_type.value_type.to_pandas_dtype()).name


def _row(folder: Folder, shard: str, table: pa.Table, at: int) -> StoredRow:
    cell = {name: table.column(name)[at] for name in table.column_names}
    stored = _numbers(cell["features"].values.flatten()).reshape(cell["segments"].as_py(), cell["dim"].as_py())
    start_s, end_s = _numbers(cell["start_s"].values), _numbers(cell["end_s"].values)
    text = {name: cell[name].as_py() for name in ("video_id", "stream", "key", "content_digest", "settings_digest")}
    if checksum(stored, start_s, end_s) != cell["checksum"].as_py():
        raise _damaged(folder, shard, f"the checksum of {text['video_id']}'s row does not match")
    row = FeatureRow(
        **text,
        outcome=cell["outcome"].as_py(),
        features=stored.astype(np.float32, copy=False),
        start_s=start_s,
        end_s=end_s,
        provenance=json.loads(cell["provenance"].as_py()),
    )
    return StoredRow(row, cell["written_at"].value, cell["writer"].as_py())


def _numbers(array: pa.Array) -> NDArray[Any]:
    """A copy, without pandas: `pyarrow.Array.to_numpy` takes seconds to import it."""
    return np.from_dlpack(array).copy()


@contextmanager
def _opened(
    folder: Folder, shard: str, columns: Sequence[str] | None = None, *, whole: bool = False
) -> Iterator[pq.ParquetFile]:
    try:
        with (
            folder.opened(shard, columns, whole=whole) as source,
            pq.ParquetFile(source, page_checksum_verification=True) as file,
        ):
            _check_format(folder, shard, file.schema_arrow.metadata or {})
            yield file
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise StoreError(f"{folder.where(shard)}: cannot be read ({error.strerror}); allow reading it") from error
    except _DAMAGE as error:
        raise _damaged(folder, shard, _first_line(error)) from error


def _check_format(folder: Folder, shard: str, metadata: dict[bytes, bytes]) -> None:
    if b"arabesque.format" not in metadata:
        raise ForeignShard(f"{folder.where(shard)}: not written by arabesque; move it out of the store")
    version = metadata[b"arabesque.format"].decode()
    if version != str(FORMAT):
        raise ForeignShard(
            f"{folder.where(shard)}: has format {version}, this is for format {FORMAT}; update arabesque"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _damaged(folder: Folder, shard: str, reason: str) -> StoreError:
    way_out = f"`arabesque repair {folder.root}` drops what is broken, the next run makes it anew"
    return StoreError(f"{folder.where(shard)}: damaged ({reason}); {way_out}")
