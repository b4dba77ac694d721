"""What stands in a store at this moment: of all rows and outcomes, the ones that count.

Several writers, interrupted merges and changed videos leave more than one row for a (video, stream). One rule decides,
for readers and for compaction alike: under equal settings the newest row counts, unless a newer outcome says that the
video's bytes have changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from ...manifests.errors import StoreError
from .folders import Folder
from .shard_reading import read_outcomes, read_places
from .shards import OUTCOMES, RowPlace, StoredOutcome, shards_in, stream_folder

T = TypeVar("T")

NewestOutcomes = Mapping[tuple[str, str], StoredOutcome]
"""(video_id, stream) → its newest outcome."""

_RELISTS = 100  # each one means that a merge finished since the last


def newest_outcomes(folder: Folder) -> dict[tuple[str, str], StoredOutcome]:
    return relisting(lambda: _newest_outcomes(folder), folder)


def current_rows(folder: Folder, stream: str, outcomes: NewestOutcomes) -> dict[tuple[str, str], RowPlace]:
    """(video_id, settings digest) → the row that counts."""
    newest = relisting(lambda: _newest_rows(folder, stream), folder)
    return {name: row for name, row in newest.items() if not _overtaken(row, outcomes.get((row.video_id, stream)))}


def relisting(read: Callable[[], T], folder: Folder) -> T:
    """Read again from the list of files onwards when a listed file is gone: a writer has merged it meanwhile."""
    for _ in range(_RELISTS):
        try:
            return read()
        except FileNotFoundError:
            continue
    raise StoreError(f"{folder.root}: files keep vanishing while they are read; try again when no run is writing there")


def _newest_outcomes(folder: Folder) -> dict[tuple[str, str], StoredOutcome]:
    newest: dict[tuple[str, str], StoredOutcome] = {}
    for outcomes in folder.each(partial(read_outcomes, folder), shards_in(folder, OUTCOMES)):
        for stored in outcomes:
            if stored.name not in newest or _when(stored) > _when(newest[stored.name]):
                newest[stored.name] = stored
    return newest


def _newest_rows(folder: Folder, stream: str) -> dict[tuple[str, str], RowPlace]:
    newest: dict[tuple[str, str], RowPlace] = {}
    for rows in folder.each(partial(read_places, folder), shards_in(folder, stream_folder(stream))):
        for row in rows:
            name = row.video_id, row.settings_digest
            if name not in newest or row.written_us > newest[name].written_us:
                newest[name] = row
    return newest


def _when(stored: StoredOutcome) -> tuple[int, str]:
    """Of two writers' outcomes of one microsecond all readers take the same."""
    return stored.written_us, stored.writer


def _overtaken(row: RowPlace, stored: StoredOutcome | None) -> bool:
    """Whether the video has other bytes since the row was made; an unread file (no digest) proves nothing."""
    if stored is None or stored.written_us <= row.written_us:
        return False
    return stored.content_digest not in ("", row.content_digest)
