"""Mending a store: what is damaged goes aside, what is good of it stays, and the next run makes the rest anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .folders import Folder, Root
from .manifest import MANIFEST, MANIFEST_COPY, is_manifest_intact
from .neighbours import neighbours
from .shard_reading import stored_number
from .shard_writing import rows_table, shard_bytes
from .shards import DAMAGED, OUTCOMES, PROGRESS, StoredRow, shard_name
from .verifying import OnFile, StoreChecker


@dataclass(frozen=True)
class Repair:
    """What a repair did. Nothing is deleted: ``set_aside`` lies below ``.damaged``."""

    set_aside: tuple[str, ...]
    rows_kept: int
    """Of damaged files; they stand in new ones now."""
    manifest_restored: bool
    missing: tuple[tuple[str, str], ...]
    """(video_id, stream) that the next run computes again, as far as outcomes tell of them."""
    leftovers: int
    """Temporary files of writers that were killed."""


def repair_store(root: Root, on_file: OnFile = lambda done, total: None) -> Repair:
    """Check the whole store and mend it. Runs may go on meanwhile; StoreError where the folder is no store."""
    checker, kept = StoreChecker(root), 0
    folder = checker.folder
    others = neighbours(folder)
    with others.reorganising(), others.enter() as presence:
        found = checker.check(on_file)
        manifests = [name for name in found.damaged_files if name in (MANIFEST, MANIFEST_COPY)]
        shards = [name for name in found.damaged_files if name not in manifests]
        for sequence, shard in enumerate(shards):
            is_of_rows = shard.split("/")[0] not in (OUTCOMES, PROGRESS)
            good = list(checker.good_rows(shard)) if is_of_rows else []
            _keep(folder, shard, good, presence.writer_id, sequence)
            kept += len(good)
        restored = _mend_manifest(folder, manifests, presence.writer_id)
        leftovers = others.sweep()
    return Repair(found.damaged_files, kept, restored, found.missing, leftovers)


def _keep(folder: Folder, shard: str, rows: Sequence[StoredRow], writer: str, sequence: int) -> None:
    """The good rows first, the damaged file after them: killed in between, rows stand twice, of which one counts."""
    if rows:
        is_half = stored_number(folder, shard) == "float16"
        home = shard.rpartition("/")[0]
        folder.put(shard_name(home, writer, sequence), shard_bytes(rows_table(rows, float16=is_half)), writer, new=True)
    folder.move(shard, f"{DAMAGED}/{shard}")


def _mend_manifest(folder: Folder, damaged: Sequence[str], writer: str) -> bool:
    """From its copy, or its copy from it; where both are lost, the next run writes them."""
    names = (MANIFEST, MANIFEST_COPY)
    whole = [name for name in names if folder.exists(name) and is_manifest_intact(folder.read(name))]
    for name in damaged:
        if folder.exists(name):
            folder.move(name, f"{DAMAGED}/{name}")
        if whole:
            folder.put(name, folder.read(whole[0]), writer)
    return MANIFEST in damaged and bool(whole)
