"""From feature files to a feature store, every row with the file that it came from and that file's digest."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ...manifests.errors import ManifestError, StoreError
from ...manifests.recipes import list_recipes
from ..records import Outcome
from ..store.compaction import compact
from ..store.folders import Root
from ..store.manifest import is_free, is_store, read_manifest, write_manifest
from ..store.reader import FeatureStore
from ..store.shards import stream_folder
from ..store.writer import StoreWriter
from .feature_arrays import FeatureArray
from .feature_files import STORE, FeatureSource
from .import_rows import ImportStream, Parts, UnfitArray, imported_row, outcome_of, shape_of
from .import_timing import TimeGrid


@dataclass(frozen=True)
class Imported:
    """What an import did to the store."""

    added: int
    unchanged: int
    failed: int
    rounded: int
    """Of those added: arrays whose numbers float32 cannot hold exactly."""


def import_features(
    source: FeatureSource,
    arrays: Sequence[FeatureArray],
    out: Root,
    *,
    grids: Mapping[str, TimeGrid],
    recipe_name: str = "imported",
    parts: Parts = "mean",
    on_array: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Bring ``arrays`` of ``source`` into the store at ``out``, a new one or one that an import made.

    ``grids``: stream → its time grid. ``parts``: what becomes of ``[segments, parts, dim]``, their mean (as PAMFN's
    training takes it) or a row for each part. An array whose (content, settings) is stored already is left alone. One
    that is damaged, not finite or of another shape than its stream ends as a ``failed`` outcome.
    """
    earlier = _earlier_manifest(out, source, recipe_name)
    streams = _described(arrays, grids, parts, recipe_name, earlier)
    _write_manifest(out, source, arrays, streams, recipe_name, earlier)
    known = _known_keys(out, streams)
    added = unchanged = failed = rounded = 0
    with StoreWriter(out) as writer:
        for done, array in enumerate(arrays):
            made = imported_row(array, streams[array.stream], source.format)
            if isinstance(made, Outcome):
                failed += made.kind == "failed"
            elif known[array.stream].get(array.video_id) == made.key:
                unchanged += 1
                on_array(done + 1, len(arrays))
                continue
            else:
                writer.add(made)
                added += 1
                rounded += "rounded_from" in made.provenance
            writer.add_outcome(made if isinstance(made, Outcome) else outcome_of(array, made))
            on_array(done + 1, len(arrays))
    compact(out, writer.writer_id)
    return Imported(added, unchanged, failed, rounded)


def _described(
    arrays: Sequence[FeatureArray],
    grids: Mapping[str, TimeGrid],
    parts_as: Parts,
    recipe_name: str,
    earlier: Mapping[str, Any],
) -> dict[str, ImportStream]:
    """The streams as their first sound array shows them, or as the store knows them."""
    described: dict[str, ImportStream] = {}
    for name in dict.fromkeys(array.stream for array in arrays):
        stream_folder(_named(name, arrays[0].file))
        parts, dim = _first_shape([array for array in arrays if array.stream == name])
        facts = {"imported_as": recipe_name, "stream": name, "time": grids[name].facts()}
        facts |= {"parts": parts, "parts_as": parts_as} if parts else {}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        described[name] = ImportStream(name, dim, parts, grids[name], parts_as, digest)
        _refuse_other_facts(described[name], earlier.get("streams", {}))
    return described


def _named(stream: str, file: Root) -> str:
    if not stream:
        raise ManifestError(f"{file}: this format does not say which stream it holds; name it, as in --stream vst")
    return stream


def _first_shape(arrays: Sequence[FeatureArray]) -> tuple[int, int]:
    problem: Exception | None = None
    for array in arrays:
        try:
            values = array.load()
            if values.size:
                return shape_of(values)
        except (StoreError, UnfitArray) as error:
            problem = problem or error
    stream = arrays[0].stream
    raise StoreError(f"{arrays[0].file}: no array of stream {stream!r} can be used: {problem or 'all are empty'}")


def _refuse_other_facts(stream: ImportStream, known: Mapping[str, Any]) -> None:
    for name, entry in known.items():
        unit = entry.get("time", {}).get("unit")
        if unit != stream.grid.unit:
            raise ManifestError(
                f"stream {name!r} of this store counts time in {unit}, {stream.name!r} would in {stream.grid.unit}; "
                "give --fps and --frames-per-segment for both or for neither, or choose another --out"
            )
    entry = known.get(stream.name)
    if entry is not None and (entry["settings_digest"], entry["dim"]) != (stream.settings_digest, stream.dim):
        raise ManifestError(
            f"stream {stream.name!r} is in this store with other facts ({entry['dim']} numbers a row, time "
            f"{entry['time']}); import with the same, or choose another --stream or --out"
        )


def _earlier_manifest(out: Root, source: FeatureSource, recipe_name: str) -> dict[str, Any]:
    if source.format == STORE:
        raise ManifestError(f"{source.path}: is a feature store already; `arabesque compare` and `export` read it")
    if recipe_name in list_recipes():
        raise ManifestError(
            f"--recipe-name {recipe_name}: `arabesque extract --recipe {recipe_name}` would take the store for its "
            f"own; choose another name, as {recipe_name}-released-features"
        )
    if not is_store(out):
        if not is_free(out):
            raise ManifestError(f"{out}: is not empty and no feature store; give --out a new or empty folder")
        return {}
    earlier = read_manifest(out)
    if earlier["recipe"]["name"] != recipe_name:
        raise ManifestError(
            f"{out}: holds {earlier['recipe']['name']!r}, not {recipe_name!r}; give --out another folder"
        )
    return earlier


def _write_manifest(
    out: Root,
    source: FeatureSource,
    arrays: Sequence[FeatureArray],
    streams: Mapping[str, ImportStream],
    recipe_name: str,
    earlier: Mapping[str, Any],
) -> None:
    known: dict[str, Any] = earlier.get("streams", {})
    path = str(Path(source.path).resolve())
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
    num_videos = len({*stored, *(array.video_id for array in arrays)})
    manifest = {
        "format": 1,
        "created": earlier.get("created", datetime.now(UTC).isoformat(timespec="seconds")),
        "recipe": {"name": recipe_name, "summary": "features that others computed, imported from their files"},
        "streams": known | entries,
        "inputs": {"folder": f"{path} (imported)", "videos": num_videos},
        "made_with": {"arabesque": version("arabesque"), "numpy": np.__version__, "python": platform.python_version()},
    }
    write_manifest(out, manifest)


def _known_keys(out: Root, streams: Mapping[str, ImportStream]) -> dict[str, dict[str, str]]:
    store = FeatureStore(out)
    return {name: store.keys(name) for name in streams}
