"""Planning of an import: the manifest of the store, and a row or an outcome for each array."""

from __future__ import annotations

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ...manifests.errors import InputError, StoreError
from ...manifests.recipes import list_recipes
from ..records import FeatureRow, Outcome, one_line
from ..store.files.storage import StorePath
from ..store.manifest import is_store, read_manifest, refuse_other_recipe
from ..store.reader import FeatureStore
from ..store.shards import stream_folder
from .export_manifest import ExportManifest
from .feature_arrays import FeatureArray
from .feature_files import STORE, FeatureSource
from .import_rows import (
    ImportStream,
    Parts,
    UnfitArray,
    imported_row,
    outcome_of,
    parts_and_dim,
    restored_outcome,
    restored_outcome_of,
    restored_row,
)
from .import_timing import TimeGrid

IMPORTED = "imported"
"""Name of the recipe in stores of imported features."""
_SHAPES_COMPARED = 5


@dataclass(frozen=True)
class ImportPlan:
    """An import into a store."""

    manifest: Mapping[str, Any]
    row: Callable[[FeatureArray], FeatureRow | Outcome]
    """Return the row of an array, or an outcome with the reason why it has no row."""
    outcome: Callable[[FeatureArray, FeatureRow], Outcome]
    """Return the outcome of a row."""
    others: Sequence[Outcome] = ()
    """Outcomes of videos without an array."""

    @property
    def settings(self) -> dict[str, str]:
        """Stream → settings digest."""
        return {name: entry["settings_digest"] for name, entry in self.manifest["streams"].items()}


def plan_of_files(
    source: FeatureSource,
    arrays: Sequence[FeatureArray],
    out: StorePath,
    grids: Mapping[str, TimeGrid],
    recipe_name: str,
    parts: Parts,
) -> ImportPlan:
    """Return the plan for files that `export` did not write. Raises InputError if they conflict with the store."""
    earlier = _earlier_manifest(out, source, recipe_name)
    _refuse_recipe(recipe_name)
    streams = _described(arrays, grids, parts, recipe_name, earlier)
    known: dict[str, Any] = earlier.get("streams", {})
    path = one_line(str(Path(source.path).resolve()))
    entries = {
        name: {
            "settings_digest": stream.settings_digest,
            "dim": stream.dim,
            "extractor_version": 0,
            "weights": {},
            "time": stream.grid.facts(),
            "sources": sorted({path, *known.get(name, {}).get("sources", [])}),
        }
        for name, stream in streams.items()
    }
    stored = FeatureStore(out).video_ids if earlier else ()
    manifest = {
        "format": 1,
        "created": earlier.get("created", datetime.now(UTC).isoformat(timespec="seconds")),
        "recipe": {"name": recipe_name, "summary": "features that others computed, imported from their files"},
        "streams": known | entries,
        "inputs": {"folder": f"{path} (imported)", "videos": len({*stored, *(array.video_id for array in arrays)})},
        "made_with": {"arabesque": version("arabesque"), "numpy": np.__version__, "python": platform.python_version()},
    }
    return ImportPlan(manifest, lambda array: imported_row(array, streams[array.stream], source.format), outcome_of)


def plan_of_export(
    source: FeatureSource,
    exported: ExportManifest,
    arrays: Sequence[FeatureArray],
    out: StorePath,
    recipe_name: str | None,
) -> ImportPlan:
    """Return the plan that restores the rows of an export. Raises InputError if they conflict with the store."""
    known: Mapping[str, Any] = exported.header.store
    name = recipe_name or str(known["recipe"]["name"])
    if recipe_name is not None:
        _refuse_recipe(recipe_name)
    earlier = _earlier_manifest(out, source, name)
    named = {array.stream for array in arrays}
    streams = {stream: entry for stream, entry in known["streams"].items() if stream in named}
    _refuse_other_streams(streams, earlier.get("streams", {}))
    others = [restored_outcome(one) for one in exported.outcomes if one.get("stream") in streams]
    stored = FeatureStore(out).outcomes() if earlier else []
    video_ids = {*(array.video_id for array in arrays), *(one.video_id for one in (*others, *stored))}
    manifest = {
        **known,
        **earlier,
        "recipe": {**known["recipe"], "name": name},
        "streams": {**earlier.get("streams", {}), **streams},
        "inputs": {**known.get("inputs", {}), **earlier.get("inputs", {}), "videos": len(video_ids)},
    }
    return ImportPlan(manifest, restored_row, restored_outcome_of, others)


def _refuse_other_streams(streams: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for name, entry in streams.items():
        stream_folder(name)
        if name in known and known[name]["settings_digest"] != entry["settings_digest"]:
            raise InputError(
                f"stream {name!r} is in this store with other settings ({known[name]['settings_digest']}, not "
                f"{entry['settings_digest']}); choose another --out"
            )


def _described(
    arrays: Sequence[FeatureArray],
    grids: Mapping[str, TimeGrid],
    parts_as: Parts,
    recipe_name: str,
    earlier: Mapping[str, Any],
) -> dict[str, ImportStream]:
    """Return stream → its properties, with the shape of the majority of its first arrays."""
    described: dict[str, ImportStream] = {}
    with_times = [name for name, grid in grids.items() if grid.in_files]
    if with_times and len({grid.unit for grid in grids.values()}) > 1:
        without = ", ".join(name for name, grid in grids.items() if grid.unit != "seconds")
        raise InputError(
            f"the files have times of {', '.join(with_times)} and none of {without}; import these into another store "
            "with --stream, or give --fps and --frames-per-segment"
        )
    for name in dict.fromkeys(array.stream for array in arrays):
        stream_folder(_named(name, arrays[0].file))
        parts, dim = _usual_shape([array for array in arrays if array.stream == name])
        facts = {"imported_as": recipe_name, "stream": name, "time": grids[name].facts()}
        facts |= {"parts": parts, "parts_as": parts_as} if parts else {}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        described[name] = ImportStream(name, dim, parts, grids[name], parts_as, digest)
        _refuse_other_facts(described[name], earlier.get("streams", {}))
    return described


def _named(stream: str, file: StorePath) -> str:
    if not stream:
        raise InputError(f"{file}: this format has no stream names; give one, such as --stream vst")
    return stream


def _usual_shape(arrays: Sequence[FeatureArray]) -> tuple[int, int]:
    """Return the most frequent (parts, dim) of the first valid arrays, because the first one may be an exception."""
    problem: Exception | None = None
    shapes: list[tuple[int, int]] = []
    for array in arrays:
        try:
            values = array.load()
            if values.size:
                shapes.append(parts_and_dim(values))
        except (StoreError, UnfitArray) as error:
            problem = problem or error
        if len(shapes) == _SHAPES_COMPARED:
            break
    if shapes:
        return Counter(shapes).most_common(1)[0][0]
    stream = arrays[0].stream
    raise StoreError(f"{arrays[0].file}: no array of stream {stream!r} is valid: {problem or 'all are empty'}")


def _refuse_other_facts(stream: ImportStream, known: Mapping[str, Any]) -> None:
    for name, entry in known.items():
        unit = entry.get("time", {}).get("unit", "seconds")
        if unit != stream.grid.unit:
            raise InputError(
                f"stream {name!r} of this store counts time in {unit}, stream {stream.name!r} in {stream.grid.unit}; "
                "give --fps and --frames-per-segment for both or for neither, or choose another --out"
            )
    entry = known.get(stream.name)
    if entry is not None and (entry["settings_digest"], entry["dim"]) != (stream.settings_digest, stream.dim):
        raise InputError(
            f"stream {stream.name!r} is in this store with other properties ({entry['dim']} values per row, time "
            f"{entry.get('time')}); import with the same, or choose another --stream or --out"
        )


def _refuse_recipe(recipe_name: str) -> None:
    if recipe_name in list_recipes():
        raise InputError(
            f"--recipe-name {recipe_name}: `arabesque extract --recipe {recipe_name}` would add to this store; "
            f"choose another name, such as {recipe_name}-released-features"
        )


def _earlier_manifest(out: StorePath, source: FeatureSource, recipe_name: str) -> dict[str, Any]:
    if source.format == STORE:
        raise InputError(f"{source.path}: is a feature store already; `arabesque compare` and `export` read it")
    refuse_other_recipe(out, recipe_name)
    return read_manifest(out) if is_store(out) else {}
