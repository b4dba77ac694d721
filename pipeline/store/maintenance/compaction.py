"""Compaction: merges the rows that count into a few large shards, and archives rows of other settings.

Nothing is removed before its replacement is written. A compaction that is killed leaves duplicate rows, of which
readers and the next compaction use one. A compaction first lists the shards that may be removed, then finds the living
writers, then reads the rows. Shards that a writer adds later are not in the list.

Without a lock (object storage), several processes may merge the same shards at once. Two rules then keep every row.
First, a row is dropped only if there is a strictly newer one. Second, a duplicate of a row is removed only after this
compaction has written the row into a file of its own; a copy in another process's file is not sufficient, because that
process may be about to remove it in favor of the first copy. Proof: consider the last written of the files that contain
the row. A process that removes this file has listed it before, and has then written the row into a later one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ....manifests.errors import StoreError
from ..boxes import BOX_AGE, BOX_IDENTITY, box_runs, current_run_places
from ..files.storage import Storage, StorePath
from ..index import (
    OUTCOME_AGE,
    OUTCOME_IDENTITY,
    ROW_AGE,
    ROW_IDENTITY,
    Columns,
    current_positions,
    groups,
    newest_places,
    numbers,
    of_stream,
    outcome_columns,
    pc,
    retry_on_missing,
    row_columns,
)
from ..manifest import read_manifest, stream_entries
from ..shard_reading import length, read_places, read_table, stored_number
from ..shard_writing import shard_bytes
from ..shards import (
    ARCHIVE,
    BOXES,
    OUTCOMES,
    PROGRESS,
    RowPlace,
    shard_name,
    shards_in,
    stream_folder,
    streams_in,
    writer_of,
)
from ..store import Store
from ..write_ahead_log import are_lasting, prune

_OUTCOME_BYTES = 400  # approximate size of one outcome in memory
_BOX_BYTES = 64
_DIGEST = re.compile(r"\w+")


@dataclass(frozen=True)
class Compaction:
    """Result of a compaction. ``rows_dropped``: feature rows and outcomes that were replaced by newer ones."""

    shards_merged: int
    shards_written: int
    rows_dropped: int


@dataclass(frozen=True)
class _Shard:
    name: str
    kind: str
    """Shards of different kinds cannot be merged."""
    num_rows: int
    keep: list[int]
    kept_bytes: int
    stands_twice: bool = False
    """Some of its rows are also in another of these shards, which no lock protects: both are rewritten."""

    @property
    def num_dropped(self) -> int:
        return self.num_rows - len(self.keep)


def compact(place: Store | StorePath, writer_id: str | None = None, *, max_shard_bytes: int = 64 << 20) -> Compaction:
    """Merge small shards; remove replaced rows and leftovers of killed writers.

    Files of other living writers are not touched. The function waits while another process reorganizes the store. On
    object storage it does not wait, and the age of a shard decides whether its writer is dead (`coordination`).

    Args:
        place: The store, or its folder or URL.
        writer_id: Id of a living writer of this process whose shards are merged too.
        max_shard_bytes: Size of the features in a merged shard.

    Raises:
        StoreError: The folder is not a store, or another process reorganizes it for too long.
    """
    store = Store.open(place)
    return retry_on_missing(lambda: _compact(store, writer_id, max_shard_bytes), store.storage)


def _compact(store: Store, writer_id: str | None, max_shard_bytes: int) -> Compaction:
    """Compact once. FileNotFoundError if another process merged a listed shard; rows written so far are duplicates."""
    storage, others = store.storage, store.coordination
    read_manifest(store)  # raises before anything is changed in a folder that is not a store
    with others.reorganizing(), closing(others.enter()) as lease:
        others.sweep()
        settings = {name: entry.settings_digest for name, entry in stream_entries(read_manifest(store)).items()}
        num_archived = 0
        while True:
            streams = streams_in(storage)
            folders = [OUTCOMES, BOXES, PROGRESS, *map(stream_folder, streams)]
            listed = {name: {shard: writer_of(shard) for shard in shards_in(storage, name)} for name in folders}
            if not listed[PROGRESS] and all([*shards.values()] in ([], [writer_id]) for shards in listed.values()):
                return Compaction(0, 0, 0)  # after a short run on a new store, with one shard in each folder
            ours = others.idle(listed, writer_id)
            shards, finished, stale = _shards(storage, streams, ours, settings, exclusive=others.exclusive)
            if not stale:
                break
            for shard, stream in stale.items():
                name = shard_name("", lease.writer_id, num_archived)
                _archive_shard(storage, shard, read_places(storage, shard), settings[stream], name)
                num_archived += 1
        groups = [group for of_folder in shards for group in _groups(of_folder, max_shard_bytes)]
        numbered = enumerate(groups, num_archived)
        written = [_merge(storage, group, lease.writer_id, sequence) for sequence, group in numbered]
        for shard in (shard for group in groups for shard in group if shard.stands_twice):
            storage.remove(shard.name)
        prune(storage, ours[PROGRESS], finished, lease.writer_id)
    merged = [shard for group in groups for shard in group]
    return Compaction(len(merged), sum(written), sum(shard.num_dropped for shard in merged))


def _shards(
    storage: Storage,
    streams: Sequence[str],
    ours: Mapping[str, Sequence[str]],
    settings: Mapping[str, str],
    *,
    exclusive: bool,
) -> tuple[list[list[_Shard]], set[str], dict[str, str]]:
    """Return shards by folder (outcomes, streams, boxes), keys that need no log entries, and stale shard → stream."""
    stale: dict[str, str] = {}
    placed = retry_on_missing(lambda: outcome_columns(storage, placed=True), storage)
    at = newest_places(placed, OUTCOME_IDENTITY, OUTCOME_AGE)
    outcomes = placed.take(pa.array(at))
    kept, twice = _kept(placed, at, OUTCOME_IDENTITY + OUTCOME_AGE, ours[OUTCOMES], exclusive=exclusive)
    outcome_shards: list[_Shard] = []
    for name, rows in _by_shard(kept, ours[OUTCOMES]):
        keep = sorted(rows.column("number").to_pylist())
        kept_bytes = len(keep) * _OUTCOME_BYTES
        outcome_shards.append(_Shard(name, OUTCOMES, length(storage, name), keep, kept_bytes, name in twice))
    shards = [outcome_shards]
    finished = set(outcomes.filter(pa.array(are_lasting(outcomes))).column("key").to_pylist())
    keys_with_boxes = [outcomes.column("key").cast(pa.string())]
    for stream in streams:
        names = ours[stream_folder(stream)]
        placed = retry_on_missing(partial(row_columns, storage, stream), storage)
        at = current_positions(placed, of_stream(outcomes, stream)[0])
        rows = placed.take(pa.array(at))
        keys_with_boxes.append(rows.column("key").cast(pa.string()))
        if stream in settings:
            digests = rows.column("settings_digest").cast(pa.string())
            others = rows.filter(pc.not_equal(digests, settings[stream])).column("shard").unique().to_pylist()
            stale |= dict.fromkeys(sorted(set(others) & set(names)), stream)
        kept, twice = _kept(placed, at, ROW_IDENTITY + ROW_AGE, names, exclusive=exclusive)
        shards.append([_row_shard(storage, *found, twice) for found in _by_shard(kept, names)])
        finished |= set(rows.column("key").to_pylist()) if ours[PROGRESS] else set()
    if ours[BOXES]:
        keys = pa.chunked_array([chunk for column in keys_with_boxes for chunk in column.chunks], pa.string())
        shards.append(_box_shards(storage, keys, ours[BOXES], exclusive=exclusive))
    return shards, finished, stale


def _box_shards(storage: Storage, keys: Columns, names: Sequence[str], *, exclusive: bool) -> list[_Shard]:
    """Return the shards of boxes; boxes are kept whose key is that of a row or an outcome that counts."""
    runs = retry_on_missing(partial(box_runs, storage), storage)
    at = current_run_places(runs, keys.combine_chunks())
    kept, twice = _kept(runs, at, BOX_IDENTITY + BOX_AGE, names, exclusive=exclusive)
    shards: list[_Shard] = []
    for name, mine in _by_shard(kept, names):
        spans = zip(mine.column("number").to_pylist(), mine.column("num_boxes").to_pylist(), strict=True)
        keep = [row for first, count in sorted(spans) for row in range(first, first + count)]
        shards.append(_Shard(name, BOXES, length(storage, name), keep, len(keep) * _BOX_BYTES, name in twice))
    return shards


def _kept(
    placed: Columns, counting: NDArray[np.int64], identity: Sequence[str], names: Sequence[str], *, exclusive: bool
) -> tuple[Columns, set[str]]:
    """Return the rows of these shards to keep, and the shards with a copy of a row in another shard.

    Without a lock, one copy of each row that counts is kept in these shards, even if the row is also stored elsewhere.
    """
    if exclusive:
        return placed.take(pa.array(counting)), set()
    ids, homes = groups(placed, identity), _homes(placed, names)
    here = np.flatnonzero(np.isin(ids, ids[counting]) & (homes >= 0))
    here = here[np.lexsort([homes[here], ids[here]])]
    is_copy = np.append([False], np.diff(ids[here]) == 0)[: len(here)]
    twice = homes[here[np.isin(ids[here], ids[here[is_copy]])]]
    return placed.take(pa.array(here[~is_copy])), {names[int(home)] for home in np.unique(twice)}


def _by_shard(counting: Columns, names: Sequence[str]) -> Iterator[tuple[str, Columns]]:
    """Yield each of these shards with its rows that count."""
    homes = _homes(counting, names)
    order = np.argsort(homes, kind="stable")
    ends = np.searchsorted(homes[order], np.arange(len(names)), side="right")
    starts = np.searchsorted(homes[order], np.arange(len(names)))
    for name, start, end in zip(names, starts, ends, strict=True):
        yield name, counting.take(pa.array(order[start:end]))


def _homes(table: Columns, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the index of each row's shard in ``names``; -1 if it is not one of these."""
    place_of = {name: place for place, name in enumerate(names)}
    shard = table.column("shard").combine_chunks()
    home = np.array([place_of.get(name, -1) for name in shard.dictionary.to_pylist()] or [-1])
    return home[numbers(pa.chunked_array([shard.indices]))]


def _row_shard(storage: Storage, name: str, kept: Columns, twice: set[str]) -> _Shard:
    number = stored_number(storage, name)
    size = 2 if number == "float16" else 4
    dims = numbers(kept.column("dim"))
    kept_bytes = int(numbers(kept.column("segments")) @ dims) * size
    kind = f"{dims[0]} {number}" if len(kept) else "nothing"
    keep = sorted(kept.column("number").to_pylist())
    return _Shard(name, kind, length(storage, name), keep, kept_bytes, name in twice)


def archive_stale_rows(place: Store | StorePath, stream: str, settings_digest: str) -> int:
    """Move a stream's rows of other settings to ``superseded/<their settings digest>/``.

    It is called when a stream's settings change, before or after its manifest is written. Plain Parquet readers then
    never read mixed settings.

    Args:
        place: The store, or its folder or URL.
        stream: The stream.
        settings_digest: Digest of the settings of the rows that are not archived.

    Returns:
        The number of archived rows.
    """
    store = Store.open(place)
    read_manifest(store)  # raises before anything is changed in a folder that is not a store
    if not shards_in(store.storage, stream_folder(stream)):
        return 0  # without waiting for another process that reorganizes the store
    moved = set[tuple[str, str]]()
    with store.coordination.reorganizing():
        retry_on_missing(lambda: _archive_stale_rows(store, stream, settings_digest, moved), store.storage)
    return len(moved)


def _archive_stale_rows(store: Store, stream: str, settings_digest: str, moved: set[tuple[str, str]]) -> None:
    """Add the (video_id, key) of each archived row to ``moved``."""
    storage = store.storage
    with closing(store.coordination.enter()) as lease:
        for sequence, shard in enumerate(shards_in(storage, stream_folder(stream))):
            rows = read_places(storage, shard)
            stale = {row.settings_digest for row in rows} - {settings_digest}
            moved |= {(row.video_id, row.key) for row in rows if row.settings_digest in stale}
            if stale:
                _archive_shard(storage, shard, rows, settings_digest, shard_name("", lease.writer_id, sequence))


def _archive_shard(storage: Storage, shard: str, rows: Sequence[RowPlace], current: str, new_name: str) -> None:
    """Move a shard with rows of one setting. Split a mixed shard into new ones, then remove it."""
    home = shard.rpartition("/")[0]
    digests = sorted({row.settings_digest for row in rows})
    if unfit := [digest for digest in digests if not _DIGEST.fullmatch(digest)]:
        raise StoreError(
            f"{storage.where(shard)}: settings digest {unfit[0]!r} is invalid; delete the file and run again"
        )
    homes = {digest: home if digest == current else f"{ARCHIVE}/{digest}/{home}" for digest in digests}
    if len(digests) == 1:
        storage.move(shard, f"{homes[digests[0]]}/{shard.rpartition('/')[2]}")
        return
    table = read_table(storage, shard)
    for digest in digests:
        part = table.take(pa.array([row.number for row in rows if row.settings_digest == digest], pa.int64()))
        storage.put(homes[digest] + new_name, shard_bytes(part), writer_of(new_name), new=True)
    storage.remove(shard)


def _groups(shards: Iterable[_Shard], max_bytes: int) -> Iterator[list[_Shard]]:
    """Yield groups of shards to merge into one shard: small shards together, and shards with rows to drop."""
    open_groups: dict[str, list[_Shard]] = {}
    closed: list[list[_Shard]] = []
    for shard in shards:
        if not shard.num_dropped and not shard.stands_twice and shard.kept_bytes > max_bytes / 2:
            continue
        group = open_groups.setdefault(shard.kind, [])
        if group and sum(other.kept_bytes for other in group) + shard.kept_bytes > max_bytes:
            closed.append(group)
            group = open_groups[shard.kind] = []
        group.append(shard)
    for group in [*closed, *open_groups.values()]:
        if len(group) > 1 or group[0].num_dropped or group[0].stands_twice:
            yield group


def _merge(storage: Storage, group: Sequence[_Shard], writer: str, sequence: int) -> int:
    """Merge a group; return the number of written shards: one, or zero if no row counts."""
    kept = [shard for shard in group if shard.keep]
    if kept:
        table = pa.concat_tables([_kept_rows(storage, shard) for shard in kept])
        home = kept[0].name.rpartition("/")[0]
        storage.put(shard_name(home, writer, sequence), shard_bytes(table), writer, new=True)
    for shard in group:
        if not shard.stands_twice:
            storage.remove(shard.name)
    return 1 if kept else 0


def _kept_rows(storage: Storage, shard: _Shard) -> pa.Table:
    table = read_table(storage, shard.name)
    return table.take(pa.array(shard.keep, pa.int64())) if shard.num_dropped else table
