"""Writing a feature store: rows, outcomes and the write-ahead log, in whole shards of suitable size."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import ConfigError, StoreError
from ...manifests.urls import public_url
from ..records import FeatureRow, Outcome, VideoBoxes
from .concurrency.writer_locks import HeldSettings
from .files.storage import Storage, StorePath, retry_on_missing
from .manifest import StreamEntry, read_manifest, stream_entries
from .shard_reading import Stamps, greatest_stamps, read_tables, stored_number
from .shard_writing import boxes_table, logged_segments_table, outcomes_table, rows_table, shard_bytes
from .shards import (
    BOXES,
    MAX_COUNTER,
    OUTCOMES,
    PROGRESS,
    LoggedSegment,
    StoredBoxes,
    StoredOutcome,
    StoredRow,
    outcome_values,
    shard_name,
    shards_in,
    stream_folder,
    streams_in,
)
from .store import Store
from .write_ahead_log import is_lasting

_FLOAT16_MAX = float(np.finfo(np.float16).max)
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class StoreWriter(AbstractContextManager["StoreWriter"]):
    """One writer of a store. Any number of them may write at the same time. Thread-safe.

    A shard is written when its features reach ``max_shard_bytes`` in memory. All data is written when its oldest part
    is ``max_age_s`` old, even if no more data is added: no more than this is lost when the process is killed. Boxes are
    on disk before their rows, and rows before their outcomes. Each addition has a counter that determines, without
    clocks, which of several rows or outcomes is the newest (`index`).

    The manifest must exist (`write_manifest`). Rows with other settings than the manifest's are refused. Data that
    cannot be written is kept and written later, and the next call raises the StoreError.

    Args:
        place: The store, or its folder or URL.
        writer_id: Id of this writer; a new random one by default.
        settings: Stream → settings digest of the streams to write; by default all of the manifest.
        float16: Store features as float16 instead of float32.
        max_shard_bytes: Size of the features in a shard.
        max_age_s: Maximal time for which data is only in memory, in seconds.
        max_small_shards: Number of shards of less than half of ``max_shard_bytes`` that are merged into one.

    Raises:
        ConfigError: A living writer uses other settings, or the manifest has changed.
        StoreError: The path is not a feature store, or it holds features of the other number type.
    """

    def __init__(
        self,
        place: Store | StorePath,
        *,
        writer_id: str | None = None,
        settings: Mapping[str, str] | None = None,
        float16: bool = False,
        max_shard_bytes: int = 64 << 20,
        max_age_s: float = 30.0,
        max_small_shards: int = 64,
    ) -> None:
        store = Store.open(place)
        self.store = store
        self._storage = store.storage
        self._streams = stream_entries(read_manifest(store))
        known = {stream: entry.settings_digest for stream, entry in self._streams.items()}
        chosen = known if settings is None else dict(settings)
        for stream, digest in chosen.items():
            if known.get(stream) != digest:
                raise ConfigError(
                    f"{public_url(store.path)}: stream {stream!r} has other settings since this run began; another run "
                    "has changed them: run again with its settings, or give --out another folder"
                )
        held = HeldSettings(number="float16" if float16 else "float32", streams=chosen)
        self._float16 = float16
        self._max_shard_bytes = max_shard_bytes
        self._max_age_s = max_age_s
        self._max_small_shards = max_small_shards
        self._small: dict[str, dict[str, int]] = {}  # folder → our small shards, to be merged → their bytes
        for stream in self._streams:
            _refuse_other_numbers(self._storage, stream, held.number)
        self.lease = store.coordination.enter(writer_id, held)
        """Registers this writer, and holds its claims on videos."""
        self.writer_id = self.lease.writer_id
        try:
            store.refuse_other_settings(replace(held, writer_id=self.writer_id))
        except BaseException:
            self.lease.close()
            raise
        self._sequence = 0 if writer_id is None else _first_free_sequence(self._storage, writer_id)

        self._rows: dict[str, list[StoredRow]] = {stream: [] for stream in self._streams}
        self._row_bytes: Counter[str] = Counter()
        self._boxes: list[StoredBoxes] = []
        self._outcomes: list[tuple[StoredOutcome, str]] = []  # with the key whose logged segments become useless
        self._unfinished: dict[str, dict[int, LoggedSegment]] = {}
        self._chunks: dict[str, set[str]] = {}  # our chunks of the write-ahead log → the unfinished keys in each
        self._when_written: list[Callable[[], None]] = []
        self._oldest_s: float | None = None
        self._newest_us = 0
        self.store_stamps = retry_on_missing(partial(_greatest_stamps, self._storage), self._storage)
        """Greatest stamps of the store when this writer was opened."""
        self._counter = self.store_stamps.counter
        self._looks: dict[str, int] = {}  # video → the counter before its file was read
        self._error: Exception | None = None
        self._closed = False
        self._changed = threading.Condition()  # protects all attributes above
        self._writing = threading.Lock()  # one flush at a time; acquired before `_changed`, never after it
        # detects at once if the Parquet library cannot write, and loads its modules before the run
        shard_bytes(outcomes_table([]))
        self._timer = threading.Thread(target=self._flush_by_age, name=f"flush {self.writer_id}", daemon=True)
        self._timer.start()

    def next_counter(self, above: int = 0) -> int:
        """Return a counter greater than ``above`` and all that this writer has used or read."""
        with self._changed:
            counter = max(self._counter, above) + 1
            if counter > MAX_COUNTER:
                raise StoreError(
                    f"{public_url(self.store.path)}: contains a row or outcome with a counter beyond {MAX_COUNTER:,}, "
                    "which no run writes; give --out another folder"
                )
            self._counter = counter
            return counter

    def begin_reading(self, video_id: str, counter: int) -> None:
        """Give all further additions of a video the counter ``counter``, because its file is about to be read."""
        with self._changed:
            self._counter = max(self._counter, counter)
            self._looks[video_id] = counter

    def end_reading(self, video_id: str) -> None:
        """End what `begin_reading` began: nothing more is added from this reading of the video.

        The claim on the video is released once its outcomes are on disk.
        """
        with self._changed:
            self._begin_call()
            self._looks.pop(video_id, None)
            self._when_written.append(partial(self.lease.release, [video_id]))

    def add(self, row: FeatureRow) -> None:
        """Add a copy of a row. Raises ValueError if it does not belong in this store."""
        kept = validated_row(row, self._streams, float16=self._float16)
        with self._changed:
            self._begin_call()
            self._rows[row.stream].append(StoredRow(kept, *self._stamps(row.video_id)))
            self._row_bytes[row.stream] += kept.features.nbytes
            self._unfinished.pop(row.key, None)
            full = self._row_bytes[row.stream] >= self._max_shard_bytes
        if full:
            with self._writing:
                self._write_rows(row.stream)

    def add_boxes(self, boxes: VideoBoxes) -> None:
        """Add the boxes of a (video, stream). They are written before rows and outcomes that are added later."""
        if boxes.stream not in self._streams:
            raise ValueError(f"{boxes.video_id}: the store has no stream {boxes.stream!r}; write the manifest first")
        with self._changed:
            self._begin_call()
            self._boxes.append(StoredBoxes(boxes, *self._stamps(boxes.video_id)))

    def add_outcome(self, outcome: Outcome) -> None:
        """Add an outcome. It is written after the rows that were added before it."""
        if outcome.stream not in self._streams:
            raise ValueError(
                f"{outcome.video_id}: the store has no stream {outcome.stream!r}; write the manifest first"
            )
        with self._changed:
            self._begin_call()
            complete = outcome.key if is_lasting(outcome) else ""
            self._outcomes.append((StoredOutcome(outcome_values(outcome), *self._stamps(outcome.video_id)), complete))
            self._unfinished.pop(complete, None)

    def add_progress(
        self, key: str, segment_index: int, start_s: float, end_s: float, feature: NDArray[np.float32] | None
    ) -> None:
        """Add one finished segment of an incomplete row to the write-ahead log; see `WriteAheadLog`.

        ``feature``: output of the extractor for the segment, of any shape, or None if there was none.
        """
        copied = None if feature is None else np.array(feature, np.float32).ravel()
        with self._changed:
            self._begin_call()
            entry = LoggedSegment(key, segment_index, start_s, end_s, copied, self._counter)
            self._unfinished.setdefault(key, {})[segment_index] = entry

    def when_written(self, act: Callable[[], None]) -> None:
        """Call ``act`` in the thread that writes, once all earlier additions are on disk."""
        with self._changed:
            self._begin_call()
            self._when_written.append(act)

    def flush(self) -> None:
        """Write everything that was added before this call."""
        with self._writing:
            began_s = time.monotonic()
            with self._changed:
                acts = list(self._when_written)
                outcomes = list(self._outcomes)  # their rows were added earlier and are written first
            self._write_boxes()
            for stream in self._rows:
                self._write_rows(stream)
            if outcomes:
                self._put(OUTCOMES, outcomes_table([stored for stored, _ in outcomes]))
                with self._changed:
                    del self._outcomes[: len(outcomes)]
                self._drop_progress(complete for _, complete in outcomes if complete)
            self._write_log()
            for act in acts:
                act()
            with self._changed:
                del self._when_written[: len(acts)]
                remaining = any(self._rows.values()) or self._boxes or self._outcomes or self._unfinished
                remaining = remaining or self._when_written
                self._oldest_s = began_s if remaining else None
                self._error = None
            # merge small shards: a run of a week that is killed then leaves tens of shards, not tens of thousands
            for folder, sizes in self._small.items():
                if len(sizes) < self._max_small_shards and sum(sizes.values()) < self._max_shard_bytes:
                    continue
                self._small[folder] = {}
                with suppress(FileNotFoundError):  # another run has compacted the store
                    self._put(folder, read_tables(self._storage, sizes))
                    for shard in sizes:
                        self._storage.remove(shard)

    def close(self) -> None:
        """Write the remaining data and end the writer. A second call does nothing."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._timer.join()
        try:
            self.flush()
        finally:
            self.lease.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _write_boxes(self) -> None:
        with self._changed:
            boxes = list(self._boxes)
        if boxes:
            self._put(BOXES, boxes_table(boxes))
            with self._changed:
                del self._boxes[: len(boxes)]

    def _write_rows(self, stream: str) -> None:
        with self._changed:
            rows = list(self._rows[stream])
        if rows:
            self._write_boxes()
            self._put(stream_folder(stream), rows_table(rows, float16=self._float16))
            with self._changed:
                del self._rows[stream][: len(rows)]
                self._row_bytes[stream] -= sum(stored.row.features.nbytes for stored in rows)
            self._drop_progress(stored.row.key for stored in rows)

    def _write_log(self) -> None:
        with self._changed:
            entries = [entry for segments in self._unfinished.values() for entry in segments.values()]
        if entries:
            chunk = self._put(PROGRESS, logged_segments_table(entries))
            with self._changed:
                self._chunks[chunk] = {entry.key for entry in entries}
                for entry in entries:  # unless it was already replaced by a row or a newer entry
                    segments = self._unfinished.get(entry.key, {})
                    if segments.get(entry.segment_index) is entry:
                        del segments[entry.segment_index]
                        if not segments:
                            del self._unfinished[entry.key]

    def _drop_progress(self, keys: Iterable[str]) -> None:
        """Remove the chunks of the write-ahead log in which only these rows remain."""
        whole = set(keys)
        for chunk, unfinished in list(self._chunks.items()):
            unfinished -= whole
            if not unfinished:
                self._storage.remove(chunk)
                del self._chunks[chunk]

    def _put(self, folder: str, table: Any) -> str:
        name = shard_name(folder, self.writer_id, self._sequence)
        self._sequence += 1
        data = shard_bytes(table)
        self._storage.put(name, data, self.writer_id, new=True)
        if folder != PROGRESS and len(data) < self._max_shard_bytes / 2:
            self._small.setdefault(folder, {})[name] = len(data)
        return name

    def _flush_by_age(self) -> None:
        """Write the data whenever its oldest part is old enough, until the writer is closed."""
        while True:
            with self._changed:
                while not self._closed:
                    rest_s = None if self._oldest_s is None else self._oldest_s + self._max_age_s - time.monotonic()
                    if rest_s is not None and rest_s <= 0:
                        break
                    self._changed.wait(rest_s)
                if self._closed:
                    return
            try:
                self.flush()
            except Exception as error:  # raised by the next call, in the caller's thread
                with self._changed:
                    self._error = error
                    self._oldest_s = time.monotonic()

    def _begin_call(self) -> None:
        if self._closed:
            raise ValueError(f"{self._storage.root}: this writer is closed; open another")
        if self._error is not None:
            raise self._error
        if self._oldest_s is None:
            self._oldest_s = time.monotonic()
            self._changed.notify_all()

    def _stamps(self, video_id: str) -> tuple[int, str, int]:
        """Return time, writer id, and the counter of the video's reading, or a new counter if there is none."""
        # a time is never used twice, so that the later one of two rows of a writer is the newer one
        self._newest_us = max(self._newest_us + 1, time.time_ns() // 1000)
        return self._newest_us, self.writer_id, self._looks.get(video_id) or self.next_counter()


def validated_row(row: FeatureRow, streams: Mapping[str, StreamEntry], *, float16: bool) -> FeatureRow:
    """Return a copy of a row to store. Raises ValueError if it does not belong in a store of these streams."""
    name = f"{row.video_id}, stream {row.stream}"
    entry = streams.get(row.stream)
    if entry is None:
        raise ValueError(f"{name}: the store has only {', '.join(streams)}; write the manifest first")
    if row.settings_digest != entry.settings_digest:
        raise ValueError(
            f"{name}: has settings {row.settings_digest}, but the store has {entry.settings_digest}; "
            "write the new manifest first"
        )
    segments, shape = len(row.features), entry.row_shape
    if row.features.dtype != np.float32 or row.features.shape != (segments, *shape) or not segments:
        raise ValueError(
            f"{name}: features are {row.features.dtype} {list(row.features.shape)}, "
            f"not float32 [segments, {', '.join(map(str, shape))}] with at least one segment"
        )
    if row.start_s.shape != (segments,) or row.end_s.shape != (segments,):
        raise ValueError(f"{name}: must have one start_s and one end_s for each of {segments} segments")
    if not np.all(row.start_s < row.end_s):
        raise ValueError(f"{name}: must have every start_s before its end_s")
    largest = float(np.abs(row.features).max())
    if not largest <= (_FLOAT16_MAX if float16 else _FLOAT32_MAX):  # NaN compares as False
        raise ValueError(f"{name}: features reach {largest}, which cannot be stored; use float32 if they are finite")
    return replace(
        row,
        features=row.features.copy(),
        start_s=np.array(row.start_s, np.float64),
        end_s=np.array(row.end_s, np.float64),
        provenance=dict(row.provenance),
    )


def _greatest_stamps(storage: Storage) -> Stamps:
    """Return the greatest stamps of all rows, outcomes and log entries of a store."""
    homes = [OUTCOMES, BOXES, PROGRESS, *map(stream_folder, streams_in(storage))]
    shards = [shard for home in homes for shard in shards_in(storage, home)]
    found = list(storage.each(partial(greatest_stamps, storage), shards))
    return Stamps(*(max(values) for values in zip(Stamps(), *found, strict=True)))


def _first_free_sequence(storage: Storage, writer_id: str) -> int:
    """Return the first unused number, so that a reused writer id does not overwrite its earlier files."""
    names = (PurePosixPath(name) for name in storage.all_files())
    taken = [int(name.stem.rpartition("-")[2]) for name in names if name.match(f"part-{writer_id}-*.parquet")]
    return max(taken, default=-1) + 1


def _refuse_other_numbers(storage: Storage, stream: str, number: str) -> None:
    """Raise StoreError if a stream has features of another number type, because pandas requires a single one."""
    stored = retry_on_missing(
        lambda: next((stored_number(storage, name) for name in shards_in(storage, stream_folder(stream))), number),
        storage,
    )
    if stored != number:
        raise StoreError(
            f"{storage.where(stream_folder(stream))}: contains {stored} features, not {number}; "
            f"write {stored} again or choose another output folder"
        )
