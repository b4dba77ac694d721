"""The journal of unfinished rows: segments that a killed run had computed already.

Each chunk is a whole file of the store's ``.progress`` folder, written like any shard. A chunk goes when each of its
rows stands in a shard; what an interrupted run leaves is read by the next one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..records import Outcome
from .folders import Folder, Root, open_folder
from .index import relisting
from .shard_reading import read_journal, read_journal_keys
from .shard_writing import journal_table, shard_bytes
from .shards import PROGRESS, JournalEntry, shard_name, shards_in


@dataclass(frozen=True, eq=False)
class FinishedSegment:
    """A segment that need not be computed again."""

    start_s: float
    end_s: float
    feature: NDArray[np.float32] | None
    """``[dim]``; None where the extractor had nothing to say of the segment."""


class ProgressJournal(Mapping[str, dict[int, FinishedSegment]]):
    """Row key → segment index → finished segment. Segments are read when a key is asked for."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._chunks: dict[str, list[str]] = relisting(self._index, folder)

    def __getitem__(self, key: str) -> dict[int, FinishedSegment]:
        if key not in self._chunks:
            raise KeyError(key)
        return relisting(lambda: self._read(key), self._folder)

    def __iter__(self) -> Iterator[str]:
        return iter(self._chunks)

    def __len__(self) -> int:
        return len(self._chunks)

    def __contains__(self, key: object) -> bool:
        return key in self._chunks

    def _read(self, key: str) -> dict[int, FinishedSegment]:
        try:
            entries = [entry for chunk in self._chunks.get(key, []) for entry in read_journal(self._folder, chunk)]
        except FileNotFoundError:
            self._chunks = relisting(self._index, self._folder)
            raise
        mine = [entry for entry in entries if entry.key == key]
        return {entry.segment_index: FinishedSegment(entry.start_s, entry.end_s, entry.feature) for entry in mine}

    def _index(self) -> dict[str, list[str]]:
        chunks: dict[str, list[str]] = {}
        names = shards_in(self._folder, PROGRESS)
        for chunk, keys in zip(names, self._folder.each(partial(read_journal_keys, self._folder), names), strict=True):
            for key in sorted(keys):
                chunks.setdefault(key, []).append(chunk)
        return chunks


def read_progress(root: Root) -> ProgressJournal:
    """What interrupted runs have computed of rows that they did not finish."""
    return ProgressJournal(open_folder(root))


def is_lasting(outcome: Outcome) -> bool:
    """Whether no later run will want the segments that were computed before this end came."""
    return outcome.kind in ("empty", "failed") and not outcome.transient


def prune(folder: Folder, chunks: Sequence[str], finished: Collection[str], writer: str) -> None:
    """Merge these chunks, without the entries of ``finished`` keys, into one that is named for ``writer``."""
    entries = [entry for chunk in chunks for entry in _entries(folder, chunk)]
    left = {(entry.key, entry.segment_index): entry for entry in entries if entry.key not in finished}
    if len(chunks) == 1 and len(left) == len(entries):
        return
    if left:
        folder.put(shard_name(PROGRESS, writer, 0), shard_bytes(journal_table(list(left.values()))), writer, new=True)
    for chunk in chunks:
        folder.remove(chunk)


def _entries(folder: Folder, chunk: str) -> list[JournalEntry]:
    """None where the chunk is gone meanwhile: all of its rows are whole then."""
    with suppress(FileNotFoundError):
        return read_journal(folder, chunk)
    return []
