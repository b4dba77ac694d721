"""What stands in a store at this moment: of all rows and outcomes, the ones that count.

Several writers, interrupted merges and changed videos leave more than one row for a (video, stream). One rule decides,
for readers and for compaction alike: under equal settings the newest row counts, unless a newer outcome says that the
video's bytes have changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...manifests.errors import StoreError
from .folders import Folder
from .key_columns import Columns, newest_outcome_columns, newest_row_columns, numbers, pc, position_in, row_places
from .shards import OUTCOME_FIELDS, RowPlace, StoredOutcome

T = TypeVar("T")

NewestOutcomes = Mapping[tuple[str, str], StoredOutcome]
"""(video_id, stream) → its newest outcome."""

_RELISTS = 100  # each one means that a merge finished since the last


def newest_outcomes(folder: Folder) -> dict[tuple[str, str], StoredOutcome]:
    table = relisting(lambda: newest_outcome_columns(folder), folder)
    values = zip(*(table.column(name).to_pylist() for name in OUTCOME_FIELDS), strict=True)
    whole = zip(values, table.column("written_at").to_pylist(), table.column("writer").to_pylist(), strict=True)
    return {stored.name: stored for stored in map(StoredOutcome._make, whole)}


def current_rows(folder: Folder, stream: str, outcomes: NewestOutcomes) -> dict[tuple[str, str], RowPlace]:
    """(video_id, settings digest) → the row that counts."""
    rows = row_places(relisting(lambda: newest_row_columns(folder, stream), folder))
    current = (row for row in rows if not _overtaken(row, outcomes.get((row.video_id, stream))))
    return {(row.video_id, row.settings_digest): row for row in current}


def current_row_columns(folder: Folder, stream: str, outcomes: Columns) -> Columns:
    """The same in columns. ``outcomes``: of `of_stream`. FileNotFoundError where a shard is gone."""
    rows = newest_row_columns(folder, stream)
    at = position_in(rows.column("video_id"), outcomes.column("video_id"))
    known = at >= 0
    spoken = outcomes.take(pa.array(at[known]))
    told, kept = spoken.column("content_digest"), rows.filter(pa.array(known)).column("content_digest")
    other = numbers(pc.and_(pc.not_equal(told, kept), pc.not_equal(told, ""))).astype(bool)
    newer = numbers(spoken.column("written_at")) > numbers(rows.column("written_at"))[known]
    counts = ~known
    counts[known] = ~(newer & other)
    return rows.filter(pa.array(counts))


def of_stream(outcomes: Columns, stream: str) -> tuple[Columns, NDArray[np.int64]]:
    """What decides about rows, of the newest outcomes of one stream, and where those stand."""
    places = np.flatnonzero(numbers(pc.equal(outcomes.column("stream").cast(pa.string()), stream)))
    names = ["video_id", "kind", "key", "content_digest", "settings_digest", "written_at"]
    return outcomes.select(names).take(pa.array(places)), places


def current_places(folder: Folder, stream: str, settings_digest: str, outcomes: Columns) -> dict[str, RowPlace]:
    """Video → its row that counts under these settings. ``outcomes``: of `newest_outcome_columns`."""
    rows = relisting(lambda: current_row_columns(folder, stream, of_stream(outcomes, stream)[0]), folder)
    mine = rows.filter(pc.equal(rows.column("settings_digest").cast(pa.string()), settings_digest))
    return {row.video_id: row for row in row_places(mine)}


def relisting(read: Callable[[], T], folder: Folder) -> T:
    """Read again from the list of files onwards when a listed file is gone: a writer has merged it meanwhile."""
    for _ in range(_RELISTS):
        try:
            return read()
        except FileNotFoundError:
            continue
    raise StoreError(f"{folder.root}: files keep vanishing while they are read; try again when no run is writing there")


def _overtaken(row: RowPlace, stored: StoredOutcome | None) -> bool:
    """Whether the video has other bytes since the row was made; an unread file (no digest) proves nothing."""
    if stored is None or stored.written_us <= row.written_us:
        return False
    return stored.content_digest not in ("", row.content_digest)
