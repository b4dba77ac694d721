"""Side table of a store: the extracted clips with the other columns of their table, as ``clips.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...manifests.errors import StoreError
from ...manifests.label_text import CLIP_COLUMNS
from .store import Store

CLIPS_FILE = "clips.csv"


@dataclass(frozen=True)
class ClipColumns:
    """Columns of a table of clips."""

    titles: tuple[str, ...]
    """`CLIP_COLUMNS`, then the titles of the other columns."""
    rows: Mapping[str, tuple[str, ...]]
    """Video id → cells."""


def read_clip_columns(store: Store) -> ClipColumns:
    """Read the side table of a store; it is empty if no clips were extracted.

    Raises:
        StoreError: The file is damaged.
    """
    if not store.storage.exists(CLIPS_FILE):
        return ClipColumns(CLIP_COLUMNS, {})
    try:
        titles, *rows = csv.reader(io.StringIO(store.storage.read(CLIPS_FILE).decode(), newline=""), strict=True)
        at = titles.index("id")
        if any(len(cells) != len(titles) for cells in rows) or titles[:4] != list(CLIP_COLUMNS):
            raise ValueError("a line has another number of cells than the first")
    except (ValueError, csv.Error) as error:
        where = store.storage.where(CLIPS_FILE)
        raise StoreError(
            f"{where}: is damaged ({error}); remove it, and extract the clips again to restore it"
        ) from None
    return ClipColumns(tuple(titles), {cells[at]: tuple(cells) for cells in rows})


def keep_clip_columns(store: Store, added: ClipColumns, owner: str) -> None:
    """Add clips to the side table of a store. Their cells replace those of earlier tables.

    Args:
        store: The store, which no other run changes at the same time.
        added: The clips of a run.
        owner: Id of the writer.
    """
    known = read_clip_columns(store)
    titles = tuple(dict.fromkeys((*known.titles, *added.titles)))
    rows = _rows_with(titles, known) | _rows_with(titles, added)
    if (titles, rows) == (known.titles, dict(known.rows)):
        return
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([titles, *(rows[video_id] for video_id in sorted(rows))])
    store.storage.put(CLIPS_FILE, text.getvalue().encode(), owner)


def _rows_with(titles: Sequence[str], table: ClipColumns) -> dict[str, tuple[str, ...]]:
    """Return the rows of a table with these columns; cells of missing columns are empty."""
    if titles == table.titles:
        return dict(table.rows)
    places = {title: place for place, title in enumerate(table.titles)}
    at = [places.get(title, -1) for title in titles]
    return {video_id: tuple([*cells, ""][place] for place in at) for video_id, cells in table.rows.items()}
