"""Putting a store in order: few large shards of what counts, and rows of other settings out of the way.

Nothing is removed before what replaces it is in place: being killed in between leaves rows twice, of which readers and
the next compaction take one. What may be removed is listed first, then who lives is asked, then the rows are read: what
a writer adds meanwhile is on no list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ...manifests.errors import StoreError
from .atomic_files import LocalFolder
from .claims import sweep_claims
from .index import NewestOutcomes, current_rows, newest_outcomes
from .manifest import read_manifest
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
from .writer_locks import WriterLock, living_writers, reorganising

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

    @property
    def num_dropped(self) -> int:
        return self.num_rows - len(self.keep)


def compact(root: Path | str, writer_id: str | None = None, *, max_shard_bytes: int = 64 << 20) -> Compaction:
    """Merge the small shards of dead writers and of ``writer_id``; drop what newer rows replaced, and leftovers.

    Other living writers' files are not touched. Waits while another process puts the same store in order.
    """
    folder = _folder_of_store(root)
    with reorganising(folder.root), WriterLock(folder.root) as lock:
        folder.sweep(lambda: living_writers(folder.root))
        sweep_claims(folder.root)
        streams = [name.removeprefix("stream=") for name in folder.folders() if name.startswith("stream=")]
        listed = {name: shards_in(folder, name) for name in [OUTCOMES, PROGRESS, *map(stream_folder, streams)]}
        spared = living_writers(folder.root) - {writer_id}
        ours = {name: [shard for shard in shards if writer_of(shard) not in spared] for name, shards in listed.items()}

        outcomes = newest_outcomes(folder)
        rows = {stream: current_rows(folder, stream, outcomes) for stream in streams}
        groups = list(_groups(_outcome_shards(folder, ours[OUTCOMES], outcomes), max_shard_bytes))
        for stream in streams:
            shards = _row_shards(folder, ours[stream_folder(stream)], rows[stream].values())
            groups += _groups(shards, max_shard_bytes)
        written = [_merge(folder, group, lock.writer_id, sequence) for sequence, group in enumerate(groups)]
        prune(folder, ours[PROGRESS], _finished_keys(rows.values(), outcomes), lock.writer_id)
    merged = [shard for group in groups for shard in group]
    return Compaction(len(merged), sum(written), sum(shard.num_dropped for shard in merged))


def set_aside_stale(root: Path | str, stream: str, settings_digest: str) -> int:
    """Move a stream's rows of other settings to ``superseded/<their settings digest>/``; returns how many.

    For when a stream's settings change, before or after its manifest does: plain Parquet readers then never see two
    settings mixed.
    """
    folder = _folder_of_store(root)
    moved = set[tuple[str, str]]()
    with reorganising(folder.root), WriterLock(folder.root) as lock:
        for sequence, shard in enumerate(shards_in(folder, stream_folder(stream))):
            rows = read_places(folder, shard)
            stale = {row.settings_digest for row in rows} - {settings_digest}
            moved |= {(row.video_id, row.key) for row in rows if row.settings_digest in stale}
            if stale:
                _set_aside(folder, shard, rows, settings_digest, shard_name("", lock.writer_id, sequence))
    return len(moved)


def _folder_of_store(root: Path | str) -> LocalFolder:
    read_manifest(root)  # nothing is touched, nor a lock file made, in a folder that is no store
    return LocalFolder(Path(root))


def _set_aside(folder: LocalFolder, shard: str, rows: Sequence[RowPlace], current: str, new_name: str) -> None:
    """A shard of one setting moves as it is; a mixed one is split into new shards, and then goes."""
    home = shard.rpartition("/")[0]
    digests = sorted({row.settings_digest for row in rows})
    if unfit := [digest for digest in digests if not _DIGEST.fullmatch(digest)]:
        raise StoreError(f"{folder.path(shard)}: settings digest {unfit[0]!r} is none; delete the file and run again")
    homes = {digest: home if digest == current else f"{SUPERSEDED}/{digest}/{home}" for digest in digests}
    if len(digests) == 1:
        folder.move(shard, f"{homes[digests[0]]}/{shard.rpartition('/')[2]}")
        return
    table = read_table(folder, shard)
    for digest in digests:
        part = table.take([row.number for row in rows if row.settings_digest == digest])
        folder.put(homes[digest] + new_name, shard_bytes(part), writer_of(new_name))
    folder.remove(shard)


def _row_shards(folder: LocalFolder, names: Sequence[str], current: Iterable[RowPlace]) -> Iterator[_Shard]:
    keepers: dict[str, list[RowPlace]] = {name: [] for name in names}
    for row in current:
        keepers.get(row.shard, []).append(row)
    for name, rows in keepers.items():
        number = stored_number(folder, name)
        size = 2 if number == "float16" else 4
        kind = f"{rows[0].dim} {number}" if rows else "nothing"
        keep = sorted(row.number for row in rows)
        yield _Shard(name, kind, length(folder, name), keep, sum(row.segments * row.dim * size for row in rows))


def _outcome_shards(folder: LocalFolder, names: Sequence[str], newest: NewestOutcomes) -> Iterator[_Shard]:
    kept = set[tuple[str, str]]()
    for name in names:
        stored = read_outcomes(folder, name)
        keep = [number for number, one in enumerate(stored) if one.name not in kept and _is_newest(one, newest)]
        kept |= {stored[number].name for number in keep}
        yield _Shard(name, OUTCOMES, len(stored), keep, len(keep) * _OUTCOME_BYTES)


def _is_newest(stored: StoredOutcome, newest: NewestOutcomes) -> bool:
    other = newest[stored.name]
    return (stored.written_us, stored.writer) == (other.written_us, other.writer)


def _groups(shards: Iterable[_Shard], max_bytes: int) -> Iterator[list[_Shard]]:
    """What to merge into one shard each: small ones together, any that holds something to drop."""
    open_groups: dict[str, list[_Shard]] = {}
    closed: list[list[_Shard]] = []
    for shard in shards:
        if not shard.num_dropped and shard.kept_bytes > max_bytes / 2:
            continue
        group = open_groups.setdefault(shard.kind, [])
        if group and sum(other.kept_bytes for other in group) + shard.kept_bytes > max_bytes:
            closed.append(group)
            group = open_groups[shard.kind] = []
        group.append(shard)
    for group in [*closed, *open_groups.values()]:
        if len(group) > 1 or group[0].num_dropped:
            yield group


def _merge(folder: LocalFolder, group: Sequence[_Shard], writer: str, sequence: int) -> int:
    """Returns how many shards were written: one, or none where nothing of the group counts."""
    kept = [shard for shard in group if shard.keep]
    if kept:
        table = pa.concat_tables([_kept_rows(folder, shard) for shard in kept])
        home = kept[0].name.rpartition("/")[0]
        folder.put(shard_name(home, writer, sequence), shard_bytes(table), writer)
    for shard in group:
        folder.remove(shard.name)
    return 1 if kept else 0


def _kept_rows(folder: LocalFolder, shard: _Shard) -> pa.Table:
    table = read_table(folder, shard.name)
    return table.take(shard.keep) if shard.num_dropped else table


def _finished_keys(rows: Iterable[dict[tuple[str, str], RowPlace]], outcomes: NewestOutcomes) -> set[str]:
    whole = {row.key for of_stream in rows for row in of_stream.values()}
    ended = (stored.outcome for stored in outcomes.values())
    return whole | {outcome.key for outcome in ended if is_lasting(outcome)}
