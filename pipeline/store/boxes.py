"""The side table ``boxes/``: people detected in the frames of a video, one row for each box.

A *run* is the boxes of one (video, stream, key), which are written together and never split. If there are several runs,
the one with the greatest counter counts, and only if the outcome or the row of the video has the same key. Boxes are
written before the row and the outcome. If an outcome states that frames were searched for people, but there are no
boxes with its key, the boxes were lost, and the stream of the video is computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...extractors.protocol import PersonBoxes
from .files.storage import Storage
from .index import Columns, codes, encoded, newest_places, numbers, pc, string_array
from .shard_reading import read_table
from .shards import BOX_RUN_KEYS, BOXES, shards_in

BOX_IDENTITY, BOX_AGE = ("video_id", "stream", "key"), ("counter", "written_at")
_EDGES = ("left", "top", "right", "bottom")
_READ = ("time_s", *_EDGES, "confidence", "track", "chosen", "frame_width", "frame_height")


class BoxRun(NamedTuple):
    """The location of the boxes of one (video, stream, key)."""

    shard: str
    number: int
    """First row in the shard."""
    num_boxes: int


def box_runs(storage: Storage, shards: Sequence[str] | None = None) -> Columns:
    """Return location and `BOX_RUN_KEYS` of all runs. FileNotFoundError if a listed shard was merged."""
    parts = list(storage.each(partial(_runs_of, storage), shards_in(storage, BOXES) if shards is None else shards))
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks() if parts else _no_runs()


def current_run_places(runs: Columns, keys: pa.Array[Any]) -> NDArray[np.int64]:
    """Return the positions of the newest run of each (video, stream) whose key is one of ``keys``."""
    known = np.flatnonzero(numbers(pc.is_in(runs.column("key"), value_set=keys)))
    return known[newest_places(runs.take(pa.array(known, pa.int64())), BOX_IDENTITY, BOX_AGE)]


def current_runs(storage: Storage) -> dict[tuple[str, str, str], BoxRun]:
    """Return (video_id, stream, key) → the newest run."""
    runs = box_runs(storage)
    newest = runs.take(pa.array(newest_places(runs, BOX_IDENTITY, BOX_AGE), pa.int64()))
    names = zip(*(newest.column(name).to_pylist() for name in BOX_IDENTITY), strict=True)
    places = zip(*(newest.column(name).to_pylist() for name in BoxRun._fields), strict=True)
    return dict(zip(names, map(BoxRun._make, places), strict=True))


def read_boxes(storage: Storage, run: BoxRun) -> PersonBoxes:
    """Read the boxes of a run. FileNotFoundError if its shard was merged."""
    table: Any = read_table(storage, run.shard, _READ).slice(run.number, run.num_boxes)

    def column(name: str, absent: float, kind: type[np.generic]) -> NDArray[Any]:
        filled = pc.fill_null(table.column(name), absent).combine_chunks()
        return np.array(np.from_dlpack(filled), kind)

    return PersonBoxes(
        time_s=column("time_s", 0.0, np.float64),
        edges_px=np.stack([column(name, np.nan, np.float32) for name in _EDGES], axis=1),
        confidence=column("confidence", np.nan, np.float32),
        track=column("track", -1, np.int32),
        chosen=numbers(table.column("chosen")).astype(bool),
        height_px=int(table.column("frame_height")[0].as_py()),
        width_px=int(table.column("frame_width")[0].as_py()),
    )


def boxes_problem(storage: Storage, shard: str) -> str:
    """Return the problem of the boxes in a shard; empty if there is none."""
    table: Any = read_table(storage, shard)
    for name in ("video_id", "stream", "key", "time_s", "chosen", "frame_width", "frame_height"):
        if table.column(name).null_count:
            return f"column {name} has empty cells"
    edges = {name: np.array(pc.fill_null(table.column(name), np.nan).to_pylist(), np.float64) for name in _EDGES}
    present = ~np.isnan(edges["left"])
    inside = (edges["left"] >= 0) & (edges["top"] >= 0)
    inside &= edges["right"] <= numbers(table.column("frame_width"))
    inside &= edges["bottom"] <= numbers(table.column("frame_height"))
    if not (inside & (edges["left"] < edges["right"]) & (edges["top"] < edges["bottom"]))[present].all():
        return "a box has no area or lies outside of its frame"
    if (numbers(table.column("chosen")).astype(bool) & ~present).any():
        return "a chosen box has no edges"
    return ""


def lost_boxes(storage: Storage, keys: pa.Array[Any]) -> NDArray[np.bool_]:
    """Return for each key whether the side table has no boxes with this key."""
    runs = box_runs(storage)
    return ~numbers(pa.chunked_array([pc.is_in(keys, value_set=runs.column("key").combine_chunks())])).astype(bool)


def _runs_of(storage: Storage, shard: str) -> Columns:
    table = encoded(read_table(storage, shard, BOX_RUN_KEYS), BOX_RUN_KEYS)
    if not len(table):
        return _no_runs()
    columns = [numbers(table.column(name)) if name in BOX_AGE else codes(table.column(name)) for name in BOX_RUN_KEYS]
    first = np.flatnonzero(np.append([True], np.any([np.diff(column) != 0 for column in columns], axis=0)))
    counts = np.diff(first, append=len(table))
    dictionaries: Any = pa.DictionaryArray
    places = dictionaries.from_arrays(pa.array(np.zeros(len(first), np.int32)), string_array([shard]))
    texts = table.take(pa.array(first))
    return pa.table(
        [
            places,
            pa.array(first),
            pa.array(counts),
            *(texts.column(name) if name in BOX_AGE else texts.column(name).cast(pa.string()) for name in BOX_RUN_KEYS),
        ],
        ["shard", "number", "num_boxes", *BOX_RUN_KEYS],
    )


def _no_runs() -> Columns:
    text, number = pa.string(), pa.int64()
    shard: Any = pa.dictionary(pa.int32(), text)
    kinds = [shard, number, number, *(number if name in BOX_AGE else text for name in BOX_RUN_KEYS)]
    return pa.table([pa.array([], kind) for kind in kinds], ["shard", "number", "num_boxes", *BOX_RUN_KEYS])
