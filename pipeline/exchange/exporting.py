"""From a feature store to the files that published code reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import ManifestError, StoreError
from ..store.reader import FeatureStore, StreamFeatures
from .feature_arrays import Member, Place, label_of
from .feature_files import FORMATS, Format

Number = Literal["source", "float32", "float16"]

_FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    files: tuple[Path, ...]
    num_arrays: int


def export(
    store: FeatureStore,
    out: Path,
    format: str,
    *,
    streams: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    action: str | None = None,
    number: Number = "source",
    force: bool = False,
    on_file: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Write all features of ``streams`` (of all streams where none is named). Each file is there whole or not at all.

    ``names``: stream → folder, suffix or dict file's label. ``number``: ``source`` is the type that an imported array
    had in its file, float32 for what arabesque computed. Nothing that exists is replaced without ``force``.
    """
    if format not in FORMATS:
        raise ManifestError(f"format {format!r} is not known; there are {', '.join(FORMATS)}")
    chosen = FORMATS[format]
    files = _planned(store, _streams(store, streams), out, chosen, names or {}, action, number)
    if not files:
        raise ManifestError(f"{store.path}: no features of {', '.join(streams or store.streams)} to export")
    _refuse_existing(files, force=force)
    for done, (path, members) in enumerate(files.items()):
        with written_whole(path) as handle:
            chosen.write(handle, members)
        on_file(done + 1, len(files))
    return Exported(tuple(files), sum(map(len, files.values())))


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file under a temporary name, flushed to disk and renamed when the block ends well, removed when it does not."""
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w+b") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror or error}); mend that, export again") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _streams(store: FeatureStore, wanted: Sequence[str]) -> tuple[str, ...]:
    for stream in wanted:
        if stream not in store.streams:
            raise ManifestError(f"{store.path}: no stream {stream!r}; it has {', '.join(store.streams)}")
    return tuple(wanted) or store.streams


def _planned(
    store: FeatureStore,
    streams: Sequence[str],
    out: Path,
    chosen: Format,
    names: Mapping[str, str],
    action: str | None,
    number: Number,
) -> dict[Path, list[Member]]:
    """File → what goes into it, in the order of the ids."""
    is_file = out.suffix in chosen.suffixes
    planned: dict[Path, list[Member]] = {}
    claimed: dict[tuple[str, str, str], str] = {}
    inner_names = set[str]()
    for position, video_id in enumerate(store.video_ids):
        for stream in streams:
            if not store.holds(video_id, stream):
                continue
            label = label_of(stream, chosen.labels, names)
            place = Place(video_id, label, position, alone=len(streams) == 1 and stream not in names, action=action)
            inner = chosen.place(place)
            inner_names.add(inner)
            if (other := claimed.setdefault((inner, label, video_id), stream)) != stream:
                raise ManifestError(f"streams {other} and {stream} would both be {label!r}; give one a --name")
            path = out if is_file else out / inner
            planned.setdefault(path, []).append(Member(video_id, label, _loader(store, video_id, stream, number)))
    if is_file and len(inner_names) > 1:
        raise ManifestError(f"{out}: one file cannot hold {', '.join(streams)}; choose one with --stream, or a folder")
    return planned


def _loader(store: FeatureStore, video_id: str, stream: str, number: Number) -> Callable[[], NDArray[Any]]:
    return lambda: _as_number(store.read(video_id, stream), number)


def _as_number(features: StreamFeatures, number: Number) -> NDArray[Any]:
    wanted = features.provenance.get("source_dtype", "float32") if number == "source" else number
    values = features.values
    if wanted == "float16" and float(np.abs(values).max()) > _FLOAT16_MAX:
        raise StoreError(f"{features.video_id}, stream {features.stream}: too large for float16; export float32")
    return values.astype(wanted)


def _refuse_existing(files: Mapping[Path, object], *, force: bool) -> None:
    existing = [path for path in files if path.exists()]
    if existing and not force:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise ManifestError(f"{existing[0]}{more}: there already; --force overwrites, or choose another --out")
    folders = [path for path in existing if path.is_dir()]
    if folders:
        raise ManifestError(f"{folders[0]}: is a folder where a file is to be written; choose another --out")
