"""The write-ahead log: segments of unfinished rows that a killed run had already computed.

Each chunk is a file in the store's ``.progress`` folder, written like any shard. A chunk is removed when all of its
rows are in shards. The next run reads the chunks of an interrupted run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..records import Outcome
from .files.storage import Storage, StorePath, retry_on_missing
from .index import Columns, numbers, pc, string_array
from .shard_reading import read_logged_keys, read_logged_segments
from .shard_writing import logged_segments_table, shard_bytes
from .shards import PROGRESS, LoggedSegment, shard_name, shards_in
from .store import Store

_LASTING_KINDS = ("empty", "failed")


@dataclass(frozen=True, eq=False)
class FinishedSegment:
    """A segment that does not have to be computed again."""

    start_s: float
    end_s: float
    feature: NDArray[np.float32] | None
    """``[dim]``, without further axes; None if the extractor returned no feature for the segment."""


class WriteAheadLog(Mapping[str, dict[int, FinishedSegment]]):
    """Segments of rows that interrupted runs did not finish: row key → segment index → segment, read on access."""

    def __init__(self, place: Store | StorePath) -> None:
        self._storage = Store.open(place).storage
        self._chunks: dict[str, list[str]] = retry_on_missing(self._index, self._storage)

    def __getitem__(self, key: str) -> dict[int, FinishedSegment]:
        if key not in self._chunks:
            raise KeyError(key)
        return retry_on_missing(lambda: self._read(key), self._storage)

    def __iter__(self) -> Iterator[str]:
        return iter(self._chunks)

    def __len__(self) -> int:
        return len(self._chunks)

    def __contains__(self, key: object) -> bool:
        return key in self._chunks

    def _read(self, key: str) -> dict[int, FinishedSegment]:
        try:
            entries = [
                entry for chunk in self._chunks.get(key, []) for entry in read_logged_segments(self._storage, chunk)
            ]
        except FileNotFoundError:
            self._chunks = retry_on_missing(self._index, self._storage)
            raise
        mine = sorted((entry for entry in entries if entry.key == key), key=_counter)
        return {entry.segment_index: FinishedSegment(entry.start_s, entry.end_s, entry.feature) for entry in mine}

    def _index(self) -> dict[str, list[str]]:
        chunks: dict[str, list[str]] = {}
        names = shards_in(self._storage, PROGRESS)
        for chunk, keys in zip(names, self._storage.each(partial(read_logged_keys, self._storage), names), strict=True):
            for key in sorted(keys):
                chunks.setdefault(key, []).append(chunk)
        return chunks


def is_lasting(outcome: Outcome) -> bool:
    """Return whether segments that were computed before this outcome are of no use to later runs."""
    return outcome.kind in _LASTING_KINDS and not outcome.transient


def are_lasting(outcomes: Columns) -> NDArray[np.bool_]:
    """Return `is_lasting` for each outcome of a table."""
    kinds = pc.is_in(outcomes.column("kind").cast(pa.string()), value_set=string_array(_LASTING_KINDS))
    return numbers(kinds).astype(bool) & (numbers(outcomes.column("transient")) == 0)


def prune(storage: Storage, chunks: Sequence[str], finished: Collection[str], writer: str) -> None:
    """Merge these chunks into one chunk of ``writer``, without the entries of ``finished`` keys."""
    entries = [entry for chunk in chunks for entry in _entries(storage, chunk)]
    remaining = {
        (entry.key, entry.segment_index): entry for entry in sorted(entries, key=_counter) if entry.key not in finished
    }
    if len(chunks) == 1 and len(remaining) == len(entries):
        return
    if remaining:
        storage.put(
            shard_name(PROGRESS, writer, 0),
            shard_bytes(logged_segments_table(list(remaining.values()))),
            writer,
            new=True,
        )
    for chunk in chunks:
        storage.remove(chunk)


def _counter(entry: LoggedSegment) -> int:
    return entry.counter


def _entries(storage: Storage, chunk: str) -> list[LoggedSegment]:
    """Read a chunk. The result is empty if the chunk was removed, because all of its rows are then complete."""
    with suppress(FileNotFoundError):
        return read_logged_segments(storage, chunk)
    return []
