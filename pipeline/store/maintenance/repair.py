"""Repair of a store: damaged files are moved, intact rows are kept, and the next run computes the other rows again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from ..files.storage import Storage, StorePath
from ..manifest import MANIFEST, MANIFEST_COPY, is_manifest_intact
from ..shard_reading import read_keys, stored_number
from ..shard_stamp import is_intact, restored
from ..shard_writing import rows_table, shard_bytes
from ..shards import BOXES, DAMAGED, OUTCOMES, PROGRESS, StoredRow, shard_name
from ..store import Store
from .verify import OnFile, StoreCheck, StoreChecker


@dataclass(frozen=True)
class Repair:
    """Result of a repair. Nothing is deleted: the files ``set_aside`` are in ``.damaged``."""

    set_aside: tuple[str, ...]
    rows_kept: int
    """Rows of damaged files that were written to new files."""
    manifest_restored: bool
    missing: tuple[tuple[str, str], ...]
    """(video_id, stream) pairs that the next run computes again, as far as the outcomes are known."""
    leftovers: int
    """Number of temporary files that killed writers had left."""


def repair_store(place: Store | StorePath, on_file: OnFile = lambda done, total: None) -> Repair:
    """Check the whole store and repair it. Runs may write to it at the same time.

    Args:
        place: The store, or its folder or URL.
        on_file: Called with (files checked, files listed).

    Raises:
        StoreError: The folder is not a store.
    """
    store = Store.open(place)
    checker, kept = StoreChecker(store), 0
    storage, others = store.storage, store.coordination
    with others.reorganizing(), closing(others.enter()) as lease:
        found = checker.check(on_file)
        set_aside = list(found.damaged_files)
        sequence = itertools.count()
        tried = [_restore(storage, shard, lease.writer_id, next(sequence)) for shard in _shards(found)]
        whole = [new for new in tried if new]
        kept += sum(len(read_keys(storage, new)) for new in whole if _holds_rows(new))
        if whole:  # restored outcomes may show which rows of the other files are valid
            checker = StoreChecker(store)
            found = checker.check(on_file)
        for shard in _shards(found):
            good = list(checker.good_rows(shard)) if _holds_rows(shard) else []
            _keep(storage, shard, good, lease.writer_id, next(sequence))
            kept += len(good)
        manifests = [name for name in found.damaged_files if name in (MANIFEST, MANIFEST_COPY)]
        restored = _restore_manifest(storage, manifests, lease.writer_id)
        leftovers = others.sweep()
    return Repair(tuple(dict.fromkeys([*set_aside, *found.damaged_files])), kept, restored, found.missing, leftovers)


def _shards(found: StoreCheck) -> list[str]:
    return [name for name in found.damaged_files if name not in (MANIFEST, MANIFEST_COPY)]


def _holds_rows(shard: str) -> bool:
    return shard.split("/")[0] not in (OUTCOMES, BOXES, PROGRESS)


def _restore(storage: Storage, shard: str, writer: str, sequence: int) -> str:
    """Write a damaged shard in its original form under a new name. Return the name, empty if parity is insufficient.

    The restored file is written before the damaged one is moved. If the process is killed in between, rows are stored
    twice, and one of them counts.
    """
    damaged = storage.read(shard)
    whole = None if is_intact(damaged) else restored(damaged)
    if whole is None:
        return ""
    name = shard_name(shard.rpartition("/")[0], writer, sequence)
    storage.put(name, whole, writer, new=True)
    storage.move(shard, f"{DAMAGED}/{shard}")
    return name


def _keep(storage: Storage, shard: str, rows: Sequence[StoredRow], writer: str, sequence: int) -> None:
    """Write the intact rows, then move the damaged file, as in `_restore`."""
    if rows:
        is_half = stored_number(storage, shard) == "float16"
        home = shard.rpartition("/")[0]
        storage.put(
            shard_name(home, writer, sequence), shard_bytes(rows_table(rows, float16=is_half)), writer, new=True
        )
    storage.move(shard, f"{DAMAGED}/{shard}")


def _restore_manifest(storage: Storage, damaged: Sequence[str], writer: str) -> bool:
    """Restore the manifest from its copy, or the copy from the manifest. If both are lost, the next run writes them."""
    names = (MANIFEST, MANIFEST_COPY)
    whole = [name for name in names if storage.exists(name) and is_manifest_intact(storage.read(name))]
    for name in damaged:
        if storage.exists(name):
            storage.move(name, f"{DAMAGED}/{name}")
        if whole:
            storage.put(name, storage.read(whole[0]), writer)
    return MANIFEST in damaged and bool(whole)
