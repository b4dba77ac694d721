"""Putting a store in order: few large shards of what counts, and rows of other settings out of the way.

Nothing is removed before what replaces it is in place: being killed in between leaves rows twice, of which readers and
the next compaction take one. What may be removed is listed first, then who lives is asked, then the rows are read: what
a writer adds meanwhile is on no list.

Where no lock keeps others out (object storage), several may merge the same shards at once. Two rules keep every row
then. A row is dropped only for a strictly newer one. And of a row that stands twice, a copy goes only after this
compaction has written the row into a file of its own: that it stands in somebody's file is not enough, who may be about
to drop it in favour of the first. So no newest row is ever lost. For think of the file written last of those that hold
it: who removes that one has listed it before, and after that has written the row into a later one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...manifests.errors import StoreError
from .folders import Folder, Root, open_folder
from .index import NewestOutcomes, current_row_columns, current_rows, newest_outcomes, of_stream, relisting
from .key_columns import Columns, newest_outcome_columns, numbers, pc, texts
from .manifest import read_manifest
from .neighbours import neighbours
from .progress_journal import is_lasting, prune
from .shard_reading import length, read_outcomes, read_places, read_table, stored_number
from .shard_writing import shard_bytes
from .shards import (
    OUTCOMES,
    PROGRESS,
    SUPERSEDED,
    RowPlace,
    StoredOutcome,
    shard_name,
    shards_in,
    stream_folder,
    writer_of,
)

_OUTCOME_BYTES = 400  # about what one takes in memory
_DIGEST = re.compile(r"\w+")


@dataclass(frozen=True)
class Compaction:
    """What a compaction did. ``rows_dropped``: feature rows and outcomes that newer ones had replaced."""

    shards_merged: int
    shards_written: int
    rows_dropped: int


@dataclass(frozen=True)
class _Shard:
    name: str
    kind: str
    """Shards of different kinds cannot share a file."""
    num_rows: int
    keep: list[int]
    kept_bytes: int
    stands_twice: bool = False
    """Some of its rows are in another of these shards, too, and no lock keeps that one in place: both are rewritten."""

    @property
    def num_dropped(self) -> int:
        return self.num_rows - len(self.keep)


def compact(root: Root, writer_id: str | None = None, *, max_shard_bytes: int = 64 << 20) -> Compaction:
    """Merge the small shards of dead writers and of ``writer_id``; drop what newer rows replaced, and leftovers.

    Other living writers' files are not touched. Waits while another process puts the same store in order. On object
    storage nobody waits, and whose writer is dead is told by the age of a shard (`neighbours`).
    """
    folder = _folder_of_store(root)
    return relisting(lambda: _compact(folder, writer_id, max_shard_bytes), folder)


def _compact(folder: Folder, writer_id: str | None, max_shard_bytes: int) -> Compaction:
    """FileNotFoundError where another has merged a listed shard meanwhile: what was written by then stands twice."""
    others = neighbours(folder)
    with others.reorganising(), others.enter() as presence:
        others.sweep()
        streams = [name.removeprefix("stream=") for name in folder.folders() if name.startswith("stream=")]
        listed = {name: shards_in(folder, name) for name in [OUTCOMES, PROGRESS, *map(stream_folder, streams)]}
        ours = others.idle(listed, writer_id)

        look = _whole_shards if others.exclusive else _copied_shards
        shards, finished = look(folder, streams, ours)
        groups = [group for of_folder in shards for group in _groups(of_folder, max_shard_bytes)]
        written = [_merge(folder, group, presence.writer_id, sequence) for sequence, group in enumerate(groups)]
        for shard in (shard for group in groups for shard in group if shard.stands_twice):
            folder.remove(shard.name)
        prune(folder, ours[PROGRESS], finished, presence.writer_id)
    merged = [shard for group in groups for shard in group]
    return Compaction(len(merged), sum(written), sum(shard.num_dropped for shard in merged))


def _whole_shards(
    folder: Folder, streams: Sequence[str], ours: Mapping[str, Sequence[str]]
) -> tuple[list[list[_Shard]], set[str]]:
    """Outcomes, then each stream; and the keys that the journal need not keep. Of what stands twice one copy counts."""
    outcomes = relisting(lambda: newest_outcome_columns(folder, placed=True), folder)
    shards = [[_outcome_shard(folder, *found) for found in _by_shard(outcomes, ours[OUTCOMES])]]
    lasting = outcomes.filter(pa.array(_are_lasting(outcomes)))
    finished = set(lasting.column("key").to_pylist()) if ours[PROGRESS] else set[str]()
    for stream in streams:
        told = of_stream(outcomes, stream)[0]
        rows = relisting(partial(current_row_columns, folder, stream, told), folder)
        shards.append([_row_shard(folder, *found) for found in _by_shard(rows, ours[stream_folder(stream)])])
        finished |= set(rows.column("key").to_pylist()) if ours[PROGRESS] else set()
    return shards, finished


def _by_shard(counting: Columns, names: Sequence[str]) -> Iterator[tuple[str, Columns]]:
    """Of each of these shards what counts of it."""
    place_of = {name: place for place, name in enumerate(names)}
    shard = counting.column("shard").combine_chunks()
    home = np.array([place_of.get(name, -1) for name in shard.dictionary.to_pylist()] or [-1])
    homes = home[numbers(pa.chunked_array([shard.indices]))]
    order = np.argsort(homes, kind="stable")
    ends = np.searchsorted(homes[order], np.arange(len(names)), side="right")
    starts = np.searchsorted(homes[order], np.arange(len(names)))
    for name, start, end in zip(names, starts, ends, strict=True):
        yield name, counting.take(pa.array(order[start:end]))


def _outcome_shard(folder: Folder, name: str, kept: Columns) -> _Shard:
    keep = sorted(kept.column("number").to_pylist())
    return _Shard(name, OUTCOMES, length(folder, name), keep, len(keep) * _OUTCOME_BYTES)


def _row_shard(folder: Folder, name: str, kept: Columns) -> _Shard:
    number = stored_number(folder, name)
    size = 2 if number == "float16" else 4
    dims = numbers(kept.column("dim"))
    kept_bytes = int(numbers(kept.column("segments")) @ dims) * size
    kind = f"{dims[0]} {number}" if len(kept) else "nothing"
    return _Shard(name, kind, length(folder, name), sorted(kept.column("number").to_pylist()), kept_bytes)


def _are_lasting(outcomes: Columns) -> NDArray[np.bool_]:
    """See `is_lasting`."""
    kinds = pc.is_in(outcomes.column("kind").cast(pa.string()), value_set=texts(["empty", "failed"]))
    return numbers(kinds).astype(bool) & (numbers(outcomes.column("transient")) == 0)


def _copied_shards(
    folder: Folder, streams: Sequence[str], ours: Mapping[str, Sequence[str]]
) -> tuple[list[list[_Shard]], set[str]]:
    """The same where no lock keeps others out."""
    outcomes = newest_outcomes(folder)
    rows = {stream: current_rows(folder, stream, outcomes) for stream in streams}
    shards = [list(_outcome_shards(folder, ours[OUTCOMES], outcomes))]
    shards += [list(_row_shards(folder, ours[stream_folder(stream)], rows[stream])) for stream in streams]
    return shards, _finished_keys(rows.values(), outcomes)


def set_aside_stale(root: Root, stream: str, settings_digest: str) -> int:
    """Move a stream's rows of other settings to ``superseded/<their settings digest>/``; returns how many.

    For when a stream's settings change, before or after its manifest does: plain Parquet readers then never see two
    settings mixed.
    """
    folder = _folder_of_store(root)
    moved = set[tuple[str, str]]()
    with neighbours(folder).reorganising():
        relisting(lambda: _set_aside_all(folder, stream, settings_digest, moved), folder)
    return len(moved)


def _folder_of_store(root: Root) -> Folder:
    read_manifest(root)  # nothing is touched, nor a lock file made, in a folder that is no store
    return open_folder(root)


def _set_aside_all(folder: Folder, stream: str, settings_digest: str, moved: set[tuple[str, str]]) -> None:
    """Adds to ``moved`` the (video_id, key) of each row."""
    with neighbours(folder).enter() as presence:
        for sequence, shard in enumerate(shards_in(folder, stream_folder(stream))):
            rows = read_places(folder, shard)
            stale = {row.settings_digest for row in rows} - {settings_digest}
            moved |= {(row.video_id, row.key) for row in rows if row.settings_digest in stale}
            if stale:
                _set_aside(folder, shard, rows, settings_digest, shard_name("", presence.writer_id, sequence))


def _set_aside(folder: Folder, shard: str, rows: Sequence[RowPlace], current: str, new_name: str) -> None:
    """A shard of one setting moves as it is; a mixed one is split into new shards, and then goes."""
    home = shard.rpartition("/")[0]
    digests = sorted({row.settings_digest for row in rows})
    if unfit := [digest for digest in digests if not _DIGEST.fullmatch(digest)]:
        raise StoreError(f"{folder.where(shard)}: settings digest {unfit[0]!r} is none; delete the file and run again")
    homes = {digest: home if digest == current else f"{SUPERSEDED}/{digest}/{home}" for digest in digests}
    if len(digests) == 1:
        folder.move(shard, f"{homes[digests[0]]}/{shard.rpartition('/')[2]}")
        return
    table = read_table(folder, shard)
    for digest in digests:
        part = table.take(pa.array([row.number for row in rows if row.settings_digest == digest], pa.int64()))
        folder.put(homes[digest] + new_name, shard_bytes(part), writer_of(new_name), new=True)
    folder.remove(shard)


def _row_shards(folder: Folder, names: Sequence[str], current: Mapping[tuple[str, str], RowPlace]) -> Iterator[_Shard]:
    keepers: dict[str, list[RowPlace]] = {name: [] for name in names}
    for row in current.values():
        keepers.get(row.shard, []).append(row)
    twice = _keep_copies(folder, keepers, current)
    for name, rows in keepers.items():
        number = stored_number(folder, name)
        size = 2 if number == "float16" else 4
        kind = f"{rows[0].dim} {number}" if rows else "nothing"
        keep = sorted(row.number for row in rows)
        kept_bytes = sum(row.segments * row.dim * size for row in rows)
        yield _Shard(name, kind, length(folder, name), keep, kept_bytes, name in twice)


def _keep_copies(
    folder: Folder, keepers: dict[str, list[RowPlace]], current: Mapping[tuple[str, str], RowPlace]
) -> set[str]:
    """Adds the copies of rows that stand in shards that stay; returns the shards that share rows with one another."""
    twice = set[str]()
    for name, kept in keepers.items():
        for row in read_places(folder, name):
            counts = current.get((row.video_id, row.settings_digest))
            if counts is None or counts.written_us != row.written_us or counts.shard == name:
                continue
            if counts.shard in keepers:
                twice |= {name, counts.shard}
            else:
                kept.append(row)
    return twice


def _outcome_shards(folder: Folder, names: Sequence[str], newest: NewestOutcomes) -> Iterator[_Shard]:
    kept_in: dict[tuple[str, str], str] = {}
    shards: list[_Shard] = []
    twice = set[str]()
    for name in names:
        stored = read_outcomes(folder, name)
        counts = [number for number, one in enumerate(stored) if _is_newest(one, newest)]
        keep = [number for number in counts if stored[number].name not in kept_in]
        if len(keep) < len(counts):
            twice |= {name, *(kept_in[stored[number].name] for number in counts if number not in keep)}
        kept_in |= {stored[number].name: name for number in keep}
        shards.append(_Shard(name, OUTCOMES, len(stored), keep, len(keep) * _OUTCOME_BYTES))
    return (replace(shard, stands_twice=shard.name in twice) for shard in shards)


def _is_newest(stored: StoredOutcome, newest: NewestOutcomes) -> bool:
    other = newest[stored.name]
    return (stored.written_us, stored.writer) == (other.written_us, other.writer)


def _groups(shards: Iterable[_Shard], max_bytes: int) -> Iterator[list[_Shard]]:
    """What to merge into one shard each: small ones together, any that holds something to drop."""
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


def _merge(folder: Folder, group: Sequence[_Shard], writer: str, sequence: int) -> int:
    """Returns how many shards were written: one, or none where nothing of the group counts."""
    kept = [shard for shard in group if shard.keep]
    if kept:
        table = pa.concat_tables([_kept_rows(folder, shard) for shard in kept])
        home = kept[0].name.rpartition("/")[0]
        folder.put(shard_name(home, writer, sequence), shard_bytes(table), writer, new=True)
    for shard in group:
        if not shard.stands_twice:
            folder.remove(shard.name)
    return 1 if kept else 0


def _kept_rows(folder: Folder, shard: _Shard) -> pa.Table:
    table = read_table(folder, shard.name)
    return table.take(pa.array(shard.keep, pa.int64())) if shard.num_dropped else table


def _finished_keys(rows: Iterable[dict[tuple[str, str], RowPlace]], outcomes: NewestOutcomes) -> set[str]:
    whole = {row.key for of_stream in rows for row in of_stream.values()}
    ended = (stored.outcome for stored in outcomes.values())
    return whole | {outcome.key for outcome in ended if is_lasting(outcome)}
