"""How every (video, stream) of a store ended, in columns: what planning, resuming and `arabesque status` go by."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..records import Outcome
from .folders import Folder
from .index import current_row_columns, of_stream
from .key_columns import (
    OUTCOME_COLUMNS,
    Columns,
    codes,
    encoded,
    newest_outcome_columns,
    numbers,
    pc,
    position_in,
    row_places,
    sorted_by,
    texts,
)
from .shard_reading import read_provenance
from .shard_writing import outcomes_table
from .shards import OUTCOME_FIELDS, RowPlace, StoredOutcome


class Ends:
    """Outcomes by video and stream; each is built when somebody asks for it."""

    def __init__(self, table: Columns) -> None:
        self._table = table
        self._ids: pa.Array = table.column("video_id").combine_chunks()

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> Ends:
        table = outcomes_table([StoredOutcome(astuple(one), 0, "") for one in outcomes])
        return cls(sorted_by(encoded(table, OUTCOME_COLUMNS), ("video_id", "stream")))

    def __len__(self) -> int:
        return len(self._table)

    @property
    def streams(self) -> list[str]:
        return sorted(self._table.column("stream").unique().to_pylist())

    def outcomes(self, chosen: NDArray[np.bool_] | slice = slice(None)) -> list[Outcome]:
        """All of them, or those that a mask or a slice chooses."""
        part = self._table[chosen] if isinstance(chosen, slice) else self._table.filter(pa.array(chosen))
        columns = (part.column(name).to_pylist() for name in OUTCOME_FIELDS)
        return [Outcome(*values) for values in zip(*columns, strict=True)]

    def of_video(self, video_id: str) -> list[Outcome]:
        first = bisect_left(self._ids, video_id, key=pa.StringScalar.as_py)
        return self.outcomes(slice(first, bisect_right(self._ids, video_id, first, key=pa.StringScalar.as_py)))

    def numbers(self, name: str) -> NDArray[np.int64]:
        """A column of whole numbers or of yes and no."""
        return numbers(self._table.column(name))

    def codes(self, name: str) -> NDArray[np.int64]:
        """A column of texts as numbers, equal for equal texts."""
        return codes(self._table.column(name))

    def are(self, name: str, *values: str) -> NDArray[np.bool_]:
        """Where a column of texts is one of these."""
        return _are(self._table, name, *values)

    def places_of(self, video_ids: Sequence[str], stream: str) -> NDArray[np.int64]:
        """Where each of these videos' outcome of a stream stands; -1 for none."""
        mine = np.flatnonzero(self.are("stream", stream))
        at = position_in(texts(video_ids), self._ids.take(pa.array(mine)))
        return np.append(mine, -1)[at]


def read_ends(folder: Folder, settings: Mapping[str, str]) -> Ends:
    """``settings``: stream → its settings' digest; what was made under others does not count.

    Rows are the truth: one without an outcome (its writer was killed in between) is reported as what it is, and an
    outcome that speaks of a row that is not there is left out, so that a run makes it again.
    """
    outcomes = newest_outcome_columns(folder)
    counts = np.zeros(len(outcomes), bool)
    alone: list[StoredOutcome] = []
    for stream, digest in settings.items():
        mine, places = of_stream(outcomes, stream)
        rows = current_row_columns(folder, stream, mine)
        rows = rows.filter(pc.equal(rows.column("settings_digest").cast(pa.string()), digest))
        told, rest = _told_and_alone(mine, rows, digest)
        counts[places[told]] = True
        alone += _made_up(folder, stream, rest)
    table = outcomes if counts.all() else outcomes.filter(pa.array(counts))
    if alone:
        both = [table, encoded(outcomes_table(alone), OUTCOME_COLUMNS)]
        table = sorted_by(pa.concat_tables(both).unify_dictionaries().combine_chunks(), ("video_id", "stream"))
    return Ends(table)


def _told_and_alone(outcomes: Columns, rows: Columns, settings: str) -> tuple[NDArray[np.bool_], list[RowPlace]]:
    """Of one stream: which outcomes count, and the rows that none of them speaks of."""
    counts = _are(outcomes, "settings_digest", "", settings)
    at = position_in(outcomes.column("video_id"), rows.column("video_id"))
    has_row = at >= 0
    same = np.zeros(len(outcomes), bool)
    same[has_row] = _agree(outcomes.filter(pa.array(has_row)), rows.take(pa.array(at[has_row])))
    same &= counts
    alone = np.ones(len(rows), bool)
    alone[at[same]] = False
    rowless = ~has_row & counts & _are(outcomes, "kind", "empty", "failed")
    return same | rowless, row_places(rows.filter(pa.array(alone)))


def _agree(outcomes: Columns, rows: Columns) -> NDArray[np.bool_]:
    keys = pc.equal(outcomes.column("key"), rows.column("key"))
    kinds = pc.equal(outcomes.column("kind").cast(pa.string()), rows.column("outcome").cast(pa.string()))
    return numbers(pc.and_(keys, kinds)).astype(bool)


def _are(table: Columns, name: str, *values: str) -> NDArray[np.bool_]:
    return numbers(pc.is_in(table.column(name).cast(pa.string()), value_set=texts(values))).astype(bool)


def _made_up(folder: Folder, stream: str, rows: Sequence[RowPlace]) -> Iterator[StoredOutcome]:
    """What rows without an outcome tell of theirs."""
    told: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if row.shard not in told:
            told[row.shard] = read_provenance(folder, row.shard)
        yield StoredOutcome(astuple(_outcome_of(row, stream, told[row.shard][row.number])), row.written_us, "")


def _outcome_of(row: RowPlace, stream: str, provenance: Mapping[str, str]) -> Outcome:
    return Outcome(
        video_id=row.video_id,
        stream=stream,
        kind="done" if row.outcome == "done" else "partial",
        reason=provenance.get("reason", ""),
        key=row.key,
        content_digest=row.content_digest,
        settings_digest=row.settings_digest,
        frames_expected=int(provenance.get("frames_expected", 0)),
        frames_delivered=int(provenance.get("frames_delivered", 0)),
        segments=row.segments,
    )
