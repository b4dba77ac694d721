"""Opening of features in any supported format."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import InputError, StoreError
from ...manifests.validation import suggestion
from ..store.files.storage import StorePath, as_store_path
from ..store.manifest import MANIFEST, read_manifest
from ..store.reader import FeatureStore
from .export_manifest import ExportManifest, read_complete
from .feature_arrays import FeatureArray, without_twins
from .formats import READERS, detect_format
from .reading_process import ReadingProcess, ReadLimits, SourceListing
from .stored_settings import Settings, stored_checkpoints, stored_settings

STORE = "store"


@dataclass(frozen=True, eq=False)
class FeatureSource:
    """The open features at a path or URL."""

    path: StorePath
    format: str
    arrays: tuple[FeatureArray, ...]
    settings: Mapping[str, Settings] = field(default_factory=dict[str, Settings])
    """Stream → its settings, if the manifest of a store has them."""
    checkpoints: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    """Stream → role → checkpoint, if the manifest of a store has them."""
    problems: tuple[str, ...] = ()
    """Errors of files that could not be read, one sentence each."""
    exported: ExportManifest | None = None
    """Manifest of the export, if `arabesque export` wrote the files."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Sorted names of the streams. The name is empty if the format has no stream names."""
        return tuple(sorted({array.stream for array in self.arrays}))

    def with_prefixed_outcomes(self, prefix: str) -> FeatureSource:
        """Return the source with ``prefix/`` before the video ids of exported outcomes without an array."""
        if self.exported is None:
            return self
        outcomes = ({**one, "video_id": f"{prefix}/{one['video_id']}"} for one in self.exported.outcomes)
        return replace(self, exported=replace(self.exported, outcomes=tuple(outcomes)))


@contextmanager
def opened(
    place: StorePath,
    format: str | None = None,
    *,
    trust: bool = False,
    names: Mapping[str, str] | None = None,
    limits: ReadLimits | None = None,
) -> Generator[FeatureSource, None, None]:
    """Open the arrays at a path or in a store. Untrusted files are parsed in a child process.

    Args:
        place: A file, a folder, or the URL of a store.
        format: A name of `READERS`; detected by default.
        trust: Unpickle with the standard library, which executes code of the files.
        names: Stream → label in the files, if it is unusual.
        limits: Memory and time limits of the child process.

    Raises:
        InputError: The path does not exist or has no features, or its format cannot be detected.
        StoreError: A file is damaged or not trusted.
    """
    path = as_store_path(place)
    if isinstance(path, Path) and not path.exists():
        raise InputError(f"{path}: the path does not exist; name a feature file, a folder or a store")
    if format is not None and format not in READERS and format != STORE:
        hint = suggestion(format, READERS)
        raise InputError(f"format {format!r} is not known{hint}; there are {', '.join(READERS)}")
    if isinstance(path, str) and format not in (None, STORE):
        raise InputError(f"{path}: only feature stores can be read from a URL; download the {format} files")
    if format == STORE or (format is None and _is_store(path)):
        arrays = _of_store(path)
        if not arrays:
            raise InputError(f"{path}: no features in it (read as {STORE}); check the path, or give --format")
        manifest = read_manifest(path)
        yield FeatureSource(path, STORE, tuple(arrays), stored_settings(manifest), stored_checkpoints(manifest))
        return
    export = read_complete(Path(path))
    if export is not None and format in (None, export.header.format) and not names:
        format = export.header.format
    else:
        export = None
    with ReadingProcess(Path(path), format, trust, names or {}, limits or ReadLimits()) as process:
        found = process.listing
        if export is not None:
            yield _of_export(Path(path), export, found)
            return
        if not found.arrays:
            raise InputError(f"{path}: no features in it (read as {found.format}); check the path, or give --format")
        yield FeatureSource(path, found.format, tuple(without_twins(found.arrays)), problems=found.problems)


def _of_export(path: Path, export: ExportManifest, found: SourceListing) -> FeatureSource:
    """Return the arrays of an export as rows of the exported store."""
    arrays: list[FeatureArray] = []
    listed = {
        (array.file.name if array.file == path else Path(array.file).relative_to(path).as_posix(), array.member): array
        for array in found.arrays
        if isinstance(array.file, Path)
    }
    for file, record in export.files.items():
        place = path if path.is_file() else path / file
        for one in record.arrays:
            array = listed.pop((file, one.member), None)
            load = partial(_refuse_missing, place, one.member) if array is None else array.load
            arrays.append(
                FeatureArray(one.video_id, one.stream, place, load, one.member, exported=one, file_sha256=record.sha256)
            )
    strays = [
        f"{path}: {file}{f': {member}' if member else ''} is not part of the export; move it to import it separately"
        for file, member in listed
    ]
    settings, checkpoints = stored_settings(export.header.store), stored_checkpoints(export.header.store)
    return FeatureSource(path, found.format, tuple(arrays), settings, checkpoints, (*found.problems, *strays), export)


def _refuse_missing(file: Path, member: str) -> NDArray[Any]:
    raise StoreError(f"{file}: {f'{member} is' if member else 'is'} missing from the export; export again")


def detect(path: StorePath) -> str:
    """Return the format at a path. A URL is a store. Raises InputError if the format cannot be detected."""
    return STORE if _is_store(path) else detect_format(Path(path))


def _is_store(path: StorePath) -> bool:
    return isinstance(path, str) or (path / MANIFEST).exists()


def _of_store(path: StorePath) -> list[FeatureArray]:
    store = FeatureStore(path)
    settings = stored_settings(store.manifest)
    return [
        FeatureArray(
            video_id,
            stream,
            path,
            partial(_load_stored, store, video_id, stream),
            load_times=partial(_load_stored_times, store, video_id, stream),
            resize=_resize(settings.get(stream, {})),
        )
        for video_id in store.video_ids
        for stream in store[video_id]
    ]


def _load_stored(store: FeatureStore, video_id: str, stream: str) -> NDArray[Any]:
    return store.read(video_id, stream).values


def _load_stored_times(store: FeatureStore, video_id: str, stream: str) -> NDArray[np.float64] | None:
    features = store.read(video_id, stream)
    if features.provenance.get("time_unit", "seconds") != "seconds":
        return None
    return np.stack([features.start_s, features.end_s])


def _resize(settings: Settings) -> str:
    """Return `FeatureArray.resize` of a stream. Stores that were written before this setting existed used torch."""
    has_frames = any(name.startswith("geometry.") for name in settings)
    return settings.get("geometry.resize_arithmetic", "torch") if has_frames else ""


def of_stream(source: FeatureSource, stream: str | None) -> tuple[FeatureArray, ...]:
    """Select the arrays of a stream.

    If the files name at most one stream, all arrays are returned with the name ``stream``. Without ``stream`` they
    are returned unchanged.

    Raises:
        InputError: The files name several streams, but not this one.
    """
    if stream is None:
        return source.arrays
    if stream in source.streams:
        return tuple(array for array in source.arrays if array.stream == stream)
    if len(source.streams) > 1 or source.exported is not None:
        raise InputError(f"{source.path}: no stream {stream!r} in it; it has {', '.join(source.streams)}")
    return tuple(replace(array, stream=stream) for array in source.arrays)
