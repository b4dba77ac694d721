"""The outcome of every (video, stream) of a store, in columns."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..records import Outcome, fragment_of
from .boxes import lost_boxes
from .files.storage import Storage
from .index import (
    OUTCOME_COLUMNS,
    Columns,
    codes,
    current_row_columns,
    encoded,
    newest_outcome_columns,
    numbers,
    of_stream,
    pc,
    position_in,
    row_places,
    sorted_by,
    string_array,
)
from .shard_reading import read_provenance
from .shard_writing import outcomes_table
from .shards import OUTCOME_FIELDS, RowPlace, StoredOutcome, outcome_from, outcome_values


class OutcomeTable:
    """Outcomes sorted by video and stream, in columns; each record is built on access."""

    def __init__(self, table: Columns) -> None:
        self._table = table
        self._ids: pa.Array[Any] = table.column("video_id").combine_chunks()

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> OutcomeTable:
        table = outcomes_table([StoredOutcome(outcome_values(one), 0, "") for one in outcomes])
        return cls(sorted_by(encoded(table, OUTCOME_COLUMNS), ("video_id", "stream")))

    def __len__(self) -> int:
        return len(self._table)

    @property
    def streams(self) -> list[str]:
        return sorted(self._table.column("stream").unique().to_pylist())

    def outcomes(self, chosen: NDArray[np.bool_] | slice = slice(None)) -> list[Outcome]:
        """Return all outcomes, or those selected by a mask or a slice."""
        part = self._table[chosen] if isinstance(chosen, slice) else self._table.filter(pa.array(chosen))
        columns = (part.column(name).to_pylist() for name in OUTCOME_FIELDS)
        return [outcome_from(values) for values in zip(*columns, strict=True)]

    def span(self, video_id: str) -> slice:
        """Return the positions of a video's outcomes."""
        first = bisect_left(self._ids, video_id, key=pa.StringScalar.as_py)
        return slice(first, bisect_right(self._ids, video_id, first, key=pa.StringScalar.as_py))

    def of_video(self, video_id: str) -> list[Outcome]:
        return self.outcomes(self.span(video_id))

    def numbers(self, name: str) -> NDArray[np.int64]:
        """Return a column of integers or booleans."""
        return numbers(self._table.column(name))

    def codes(self, name: str) -> NDArray[np.int64]:
        """Return a column of texts as numbers: equal for equal texts."""
        return codes(self._table.column(name))

    def are(self, name: str, *values: str) -> NDArray[np.bool_]:
        """Return where a column of texts has one of these values."""
        return _are(self._table, name, *values)

    def fragments(self) -> NDArray[np.object_]:
        """Return the fragment of each outcome's content; see `VideoFile.fragment`."""
        digests = self._table.column("content_digest").cast(pa.string())
        found = np.full(len(digests), "", object)
        for place in np.flatnonzero(numbers(pc.match_substring(digests, "#"))).tolist():
            found[place] = fragment_of(digests[place].as_py())
        return found

    def source_paths(self) -> pa.ChunkedArray[Any]:
        """Return input root and source of each outcome, joined by ``/``; only ``/`` if they are unknown."""
        roots, sources = (self._table.column(name).cast(pa.string()) for name in ("input_root", "source"))
        return pc.binary_join_element_wise(roots, sources, "/")

    def places_of(self, video_ids: Sequence[str], stream: str) -> NDArray[np.int64]:
        """Return the position of each video's outcome of a stream; -1 without an outcome."""
        mine = np.flatnonzero(self.are("stream", stream))
        at = position_in(string_array(video_ids), self._ids.take(pa.array(mine, pa.int64())))
        return np.append(mine, -1)[at]


def read_outcome_table(storage: Storage, settings: Mapping[str, str]) -> OutcomeTable:
    """Read the outcomes that count under these settings.

    The rows decide. A row without an outcome (its writer was killed in between) gets an outcome that is derived from
    it. An outcome whose row or boxes are absent is omitted, so that a run computes them again.

    Args:
        storage: The store.
        settings: Stream → settings digest.
    """
    outcomes = newest_outcome_columns(storage)
    counts = np.zeros(len(outcomes), bool)
    alone: list[StoredOutcome] = []
    for stream, digest in settings.items():
        mine, places = of_stream(outcomes, stream)
        rows = current_row_columns(storage, stream, mine)
        rows = rows.filter(pc.equal(rows.column("settings_digest").cast(pa.string()), digest))
        matched, rest = _match_outcomes(mine, rows, digest)
        counts[places[matched]] = True
        alone += _derived_outcomes(storage, stream, rest)
    table = outcomes if counts.all() else outcomes.filter(pa.array(counts))
    if alone:
        both = [table, encoded(outcomes_table(alone), OUTCOME_COLUMNS)]
        table = sorted_by(pa.concat_tables(both).unify_dictionaries().combine_chunks(), ("video_id", "stream"))
    searched = np.flatnonzero(numbers(table.column("frames_seen")))
    if len(searched):
        keys = table.column("key").take(pa.array(searched)).cast(pa.string()).combine_chunks()
        whole = np.ones(len(table), bool)
        whole[searched[lost_boxes(storage, keys)]] = False
        table = table.filter(pa.array(whole))
    return OutcomeTable(table)


def _match_outcomes(outcomes: Columns, rows: Columns, settings: str) -> tuple[NDArray[np.bool_], list[RowPlace]]:
    """Return which outcomes of one stream count, and the rows without an outcome."""
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
    return numbers(pc.is_in(table.column(name).cast(pa.string()), value_set=string_array(values))).astype(bool)


def _derived_outcomes(storage: Storage, stream: str, rows: Sequence[RowPlace]) -> Iterator[StoredOutcome]:
    """Derive outcomes from rows that have no outcome."""
    provenances: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if row.shard not in provenances:
            provenances[row.shard] = read_provenance(storage, row.shard)
        outcome = _outcome_of(row, stream, provenances[row.shard][row.number])
        yield StoredOutcome(outcome_values(outcome), row.written_us, "", row.counter)


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
        frames_seen=int(provenance.get("frames_seen", 0)),
        frames_with_person=int(provenance.get("frames_with_person", 0)),
        source=provenance.get("source", "") if "input_root" in provenance else "",
        input_root=provenance.get("input_root", ""),
    )
