"""Import of feature files into a store. Each row records its file and the digest of the file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..records import FeatureRow, Outcome, one_line
from ..store.concurrency.writer_locks import BusyStore, HeldSettings
from ..store.files.storage import StorePath
from ..store.maintenance.compaction import compact
from ..store.manifest import is_store, write_manifest
from ..store.reader import FeatureStore
from ..store.store import Store
from ..store.writer import StoreWriter
from .feature_arrays import FeatureArray
from .feature_files import FeatureSource
from .import_plans import IMPORTED, plan_of_export, plan_of_files
from .import_rows import Parts
from .import_sources import refuse_other_files
from .import_timing import TimeGrid

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Imported:
    """Result of an import."""

    added: int
    unchanged: int
    failed: int
    rounded: int
    """Number of added arrays that were rounded to float32."""


def import_features(
    source: FeatureSource,
    arrays: Sequence[FeatureArray],
    out: StorePath,
    *,
    grids: Mapping[str, TimeGrid],
    recipe_name: str | None = None,
    parts: Parts = "mean",
    replaces_sources: bool = False,
    on_array: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Import arrays into a new store or a store of earlier imports.

    Arrays that are already stored with the same content and settings are skipped. A damaged array, or one with values
    that are not finite or another shape than its stream, becomes a ``failed`` outcome. Exported files restore their
    rows.

    Args:
        source: The open source of the arrays.
        arrays: Arrays of the source.
        out: The store.
        grids: Stream → its time grid; not used for exported files.
        recipe_name: Name of the recipe in the store; for exported files the recipe of the export by default.
        parts: Conversion of ``[segments, parts, dim]``: the mean of the parts (as in PAMFN's training), or one row per
            part.
        replaces_sources: Allow the replacement of rows that were imported from other files.
        on_array: Called with the number of processed arrays and the number of all arrays.

    Raises:
        InputError: The arrays conflict with the store.
        StoreError: No array of a stream is valid, or the store cannot be written.
    """
    if source.exported is not None:
        plan = plan_of_export(source, source.exported, arrays, out, recipe_name)
    else:
        plan = plan_of_files(source, arrays, out, grids, recipe_name or IMPORTED, parts)
    if is_store(out) and not replaces_sources:
        refuse_other_files(out, source, arrays, plan)
    store = Store.open(out)
    with store.starting(HeldSettings(number="float32", streams=plan.settings)):
        write_manifest(store, plan.manifest)
        opened = StoreWriter(store, settings=plan.settings)
    stored = FeatureStore(out)
    known = {stream: stored.keys(stream) for stream in {array.stream for array in arrays}}
    added = unchanged = failed = rounded = 0
    with opened as writer:
        for done, array in enumerate(arrays):
            made = plan.row(array)
            if isinstance(made, FeatureRow) and known[array.stream].get(array.video_id) == made.key:
                unchanged += 1
            else:
                made = _added(writer, made)
                writer.add_outcome(made if isinstance(made, Outcome) else plan.outcome(array, made))
                failed += isinstance(made, Outcome) and made.kind == "failed"
                added += isinstance(made, FeatureRow)
                rounded += isinstance(made, FeatureRow) and "rounded_from" in made.provenance
            on_array(done + 1, len(arrays))
        for outcome in plan.others:
            writer.add_outcome(outcome)
    try:
        compact(store, writer.writer_id)
    except BusyStore as error:  # all rows are stored
        logger.warning("small shards are not merged: %s", error)
    return Imported(added, unchanged, failed, rounded)


def _added(writer: StoreWriter, made: FeatureRow | Outcome) -> FeatureRow | Outcome:
    """Add a row to the writer. Return the row, or an outcome with the reason if the store rejects it."""
    if isinstance(made, FeatureRow):
        try:
            writer.add(made)
        except ValueError as error:
            reason = one_line(str(error))
            return Outcome(made.video_id, made.stream, "failed", reason, settings_digest=made.settings_digest)
    return made
