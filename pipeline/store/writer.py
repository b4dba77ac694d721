"""Writing a feature store: rows, outcomes and the journal of unfinished rows, in whole shards of a sensible size."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import astuple
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import StoreError
from ..records import FeatureRow, Outcome
from .folders import Folder, Root, open_folder
from .index import relisting
from .manifest import read_manifest, stream_entries
from .neighbours import neighbours
from .progress_journal import is_lasting
from .row_admission import admitted
from .shard_reading import read_tables, stored_number
from .shard_writing import journal_table, outcomes_table, rows_table, shard_bytes
from .shards import OUTCOMES, PROGRESS, JournalEntry, StoredOutcome, StoredRow, shard_name, shards_in, stream_folder


class StoreWriter:
    """One writer of a store; any number may work side by side. Safe to call from several threads.

    A stream's shard closes at ``max_shard_bytes`` (of features in memory), and everything by the time that the oldest
    part of it is ``max_age_s`` old, even when nothing more arrives: that much is lost when the process is killed.
    Rows are on disk before the outcomes that speak of them. ``max_small_shards`` of less than half that size become
    one.

    The store's manifest comes first (`write_manifest`); rows of other settings than it names are refused. What cannot
    be written is kept, tried again, and raised as StoreError by the next call.
    """

    def __init__(
        self,
        root: Root,
        *,
        writer_id: str | None = None,
        float16: bool = False,
        max_shard_bytes: int = 64 << 20,
        max_age_s: float = 30.0,
        max_small_shards: int = 64,
    ) -> None:
        self._folder = open_folder(root)
        self._streams = stream_entries(read_manifest(root))
        self._float16 = float16
        self._max_shard_bytes = max_shard_bytes
        self._max_age_s = max_age_s
        self._max_small_shards = max_small_shards
        self._small: dict[str, dict[str, int]] = {}  # folder → our shards that another may join, and their bytes
        for stream in self._streams:
            _refuse_other_numbers(self._folder, stream, "float16" if float16 else "float32")
        self._presence = neighbours(self._folder).enter(writer_id)
        self._sequence = 0 if writer_id is None else _first_free_sequence(self._folder, writer_id)

        self._rows: dict[str, list[StoredRow]] = {stream: [] for stream in self._streams}
        self._row_bytes: Counter[str] = Counter()
        self._outcomes: list[StoredOutcome] = []
        self._journal: dict[str, dict[int, JournalEntry]] = {}
        self._chunks: dict[str, set[str]] = {}  # our chunks of the journal: the unfinished keys in each
        self._when_written: list[Callable[[], None]] = []
        self._oldest_s: float | None = None
        self._newest_us = 0
        self._error: Exception | None = None
        self._closed = False
        self._changed = threading.Condition()  # guards all of the above
        self._writing = threading.Lock()  # one flush at a time; taken before `_changed`, never while holding it
        # a Parquet library that cannot write is found out now, and what it loads is not loaded in the middle of a run
        shard_bytes(outcomes_table([]))
        self._timer = threading.Thread(target=self._flush_by_age, name=f"flush {self.writer_id}", daemon=True)
        self._timer.start()

    @property
    def writer_id(self) -> str:
        return self._presence.writer_id

    def add(self, row: FeatureRow) -> None:
        """Take a row; its arrays are copied. ValueError where it does not belong into this store."""
        kept = admitted(row, self._streams, float16=self._float16)
        with self._changed:
            self._begin_call()
            self._rows[row.stream].append(StoredRow(kept, self._now_us(), self.writer_id))
            self._row_bytes[row.stream] += kept.features.nbytes
            self._journal.pop(row.key, None)
            full = self._row_bytes[row.stream] >= self._max_shard_bytes
        if full:
            with self._writing:
                self._write_rows(row.stream)

    def add_outcome(self, outcome: Outcome) -> None:
        """Take an outcome; it is written after the rows that came before it."""
        if outcome.stream not in self._streams:
            raise ValueError(
                f"{outcome.video_id}: the store has no stream {outcome.stream!r}; write the manifest first"
            )
        with self._changed:
            self._begin_call()
            self._outcomes.append(StoredOutcome(astuple(outcome), self._now_us(), self.writer_id))
            if is_lasting(outcome):
                self._journal.pop(outcome.key, None)

    def add_progress(
        self, key: str, segment_index: int, start_s: float, end_s: float, feature: NDArray[np.float32] | None
    ) -> None:
        """Take one finished segment of a row that is not whole yet, for `read_progress` after an interruption.

        ``feature``: ``[dim]``, or None where the extractor had nothing to say of the segment.
        """
        copied = None if feature is None else np.array(feature, np.float32)
        with self._changed:
            self._begin_call()
            entry = JournalEntry(key, segment_index, start_s, end_s, copied)
            self._journal.setdefault(key, {})[segment_index] = entry

    def when_written(self, act: Callable[[], None]) -> None:
        """Call ``act`` once everything that was added before this call is on disk, from whatever thread wrote it."""
        with self._changed:
            self._begin_call()
            self._when_written.append(act)

    def flush(self) -> None:
        """Write everything that was added before this call."""
        with self._writing:
            began_s = time.monotonic()
            with self._changed:
                acts = list(self._when_written)
                outcomes = list(self._outcomes)  # what their rows are was added before now, and is written before them
            for stream in self._rows:
                self._write_rows(stream)
            self._write_outcomes(outcomes)
            self._write_journal()
            for act in acts:
                act()
            with self._changed:
                del self._when_written[: len(acts)]
                left = any(self._rows.values()) or self._outcomes or self._journal or self._when_written
                self._oldest_s = began_s if left else None
                self._error = None
            self._merge_small()

    def close(self) -> None:
        """Write what is left and end. A second call does nothing."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._timer.join()
        try:
            self.flush()
        finally:
            self._presence.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _write_rows(self, stream: str) -> None:
        with self._changed:
            rows = list(self._rows[stream])
        if rows:
            self._put(stream_folder(stream), rows_table(rows, float16=self._float16))
            with self._changed:
                del self._rows[stream][: len(rows)]
                self._row_bytes[stream] -= sum(stored.row.features.nbytes for stored in rows)
            self._drop_progress(stored.row.key for stored in rows)

    def _write_outcomes(self, outcomes: list[StoredOutcome]) -> None:
        if outcomes:
            self._put(OUTCOMES, outcomes_table(outcomes))
            with self._changed:
                del self._outcomes[: len(outcomes)]
            ended = (stored.outcome for stored in outcomes)
            self._drop_progress(outcome.key for outcome in ended if is_lasting(outcome))

    def _write_journal(self) -> None:
        with self._changed:
            entries = [entry for segments in self._journal.values() for entry in segments.values()]
        if entries:
            chunk = self._put(PROGRESS, journal_table(entries))
            with self._changed:
                self._chunks[chunk] = {entry.key for entry in entries}
                for entry in entries:
                    _forget(self._journal, entry)

    def _drop_progress(self, keys: Iterable[str]) -> None:
        """Remove the chunks of the journal in which no other rows than these are left."""
        whole = set(keys)
        for chunk, unfinished in list(self._chunks.items()):
            unfinished -= whole
            if not unfinished:
                self._folder.remove(chunk)
                del self._chunks[chunk]

    def _put(self, folder: str, table: Any) -> str:
        name = shard_name(folder, self.writer_id, self._sequence)
        self._sequence += 1
        data = shard_bytes(table)
        self._folder.put(name, data, self.writer_id, new=True)
        if folder != PROGRESS and len(data) < self._max_shard_bytes / 2:
            self._small.setdefault(folder, {})[name] = len(data)
        return name

    def _merge_small(self) -> None:
        """So that a run of a week that is killed leaves tens of shards behind, not tens of thousands."""
        for folder, sizes in self._small.items():
            if len(sizes) < self._max_small_shards and sum(sizes.values()) < self._max_shard_bytes:
                continue
            self._small[folder] = {}
            with suppress(FileNotFoundError):  # another run has put the store in order
                self._put(folder, read_tables(self._folder, sizes))
                for shard in sizes:
                    self._folder.remove(shard)

    def _flush_by_age(self) -> None:
        while self._wait_until_due():
            try:
                self.flush()
            except Exception as error:  # of whatever kind: the next call raises it where somebody listens
                with self._changed:
                    self._error = error
                    self._oldest_s = time.monotonic()

    def _wait_until_due(self) -> bool:
        """False once the writer is closed."""
        with self._changed:
            while not self._closed:
                rest_s = None if self._oldest_s is None else self._oldest_s + self._max_age_s - time.monotonic()
                if rest_s is not None and rest_s <= 0:
                    return True
                self._changed.wait(rest_s)
            return False

    def _begin_call(self) -> None:
        if self._closed:
            raise ValueError(f"{self._folder.root}: this writer is closed; open another")
        if self._error is not None:
            raise self._error
        if self._oldest_s is None:
            self._oldest_s = time.monotonic()
            self._changed.notify_all()

    def _now_us(self) -> int:
        """Never the same twice, so that of two rows of one writer the later is the newer."""
        self._newest_us = max(self._newest_us + 1, time.time_ns() // 1000)
        return self._newest_us


def _forget(journal: dict[str, dict[int, JournalEntry]], entry: JournalEntry) -> None:
    """Take an entry out unless a row or a newer entry has replaced it already."""
    segments = journal.get(entry.key, {})
    if segments.get(entry.segment_index) is entry:
        del segments[entry.segment_index]
        if not segments:
            del journal[entry.key]


def _first_free_sequence(folder: Folder, writer_id: str) -> int:
    """A writer id that is used again must not meet its own earlier files, wherever in the store they went."""
    names = (PurePosixPath(name) for name in folder.all_files())
    taken = [int(name.stem.rpartition("-")[2]) for name in names if name.match(f"part-{writer_id}-*.parquet")]
    return max(taken, default=-1) + 1


def _refuse_other_numbers(folder: Folder, stream: str, number: str) -> None:
    """One stream holds one type of number, or pandas could not read it."""
    stored = relisting(
        lambda: next((stored_number(folder, name) for name in shards_in(folder, stream_folder(stream))), number), folder
    )
    if stored != number:
        raise StoreError(
            f"{folder.where(stream_folder(stream))}: holds {stored} features, not {number}; "
            f"write {stored} again or choose another output folder"
        )
