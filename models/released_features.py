"""Read features that authors released, one array per video, from an ``.npz`` file or a folder of ``.npy`` files."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ..manifests.errors import InputError
from ..manifests.untrusted_npy import read_data, read_header
from ..pipeline.store.files.storage import StorePath, as_store_path
from ..pipeline.store.reader import FeatureStore
from .features import FeatureSet, read_store
from .samples import StreamSegments


def read_features(
    source: StorePath,
    streams: Sequence[str] | None = None,
    *,
    one_grid: bool = False,
    partial: bool = False,
    max_lost: float | None = None,
) -> FeatureSet:
    """Read a feature store or released features.

    Args:
        source: Feature store, ``.npz`` file, or folder of ``.npy`` files.
        streams: Streams of the store, or the name of the stream of released features.
        one_grid: Resample all streams to the segments of the first one.
        partial: Include partial videos of a store.
        max_lost: Include partial videos of a store that lost at most this share (0 to 1) of their duration.

    Raises:
        InputError: The source cannot be read, or a stream is missing.
    """
    place = as_store_path(source)
    if isinstance(place, Path) and is_released(place):
        if streams is None or len(streams) != 1:
            raise InputError(f"{place}: released features have one stream; name it, as in --streams vst")
        return read_released(place, streams[0])
    store = FeatureStore(place, partial=partial or max_lost is not None)
    return read_store(store, streams, one_grid=one_grid, max_lost=max_lost)


def is_released(source: StorePath) -> bool:
    """Return whether the path contains released features, not a feature store."""
    place = as_store_path(source)
    if not isinstance(place, Path):
        return False
    return place.suffix == ".npz" or (place.is_dir() and next(place.glob("*.npy"), None) is not None)


def released_names(source: StorePath) -> list[str]:
    """Return the ids of the videos in released features, without reading the arrays.

    Raises:
        InputError: The file is not an archive.
    """
    place = Path(source)
    if place.is_dir():
        return sorted(path.stem for path in place.glob("*.npy"))
    try:
        with zipfile.ZipFile(place) as archive:
            return sorted(name.removesuffix(".npy") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{source}: cannot be read as NumPy arrays ({error})") from error


def read_released(source: Path, stream: str) -> FeatureSet:
    """Read arrays ``[segments, dim]``, or ``[segments, halves, dim]``, whose halves are averaged as in PAMFN.

    Pickles are not read.

    Raises:
        InputError: A file cannot be read, or an array has another shape or is not finite.
    """
    videos: dict[str, dict[str, StreamSegments]] = {}
    contents: dict[str, str] = {}
    dims: dict[int, str] = {}
    digest = hashlib.sha256()
    try:
        for name, array in sorted(_arrays(source), key=lambda pair: pair[0]):
            values = _checked(array, f"{source}, {name}")
            dims.setdefault(values.shape[1], name)
            digest.update(name.encode() + values.tobytes())
            videos[name] = {stream: StreamSegments(values)}
            contents[name] = hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()
    except (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{source}: cannot be read as NumPy arrays ({error})") from error
    if len(dims) != 1:
        which = ", ".join(f"{dim} ({name})" for dim, name in dims.items()) or "no array"
        raise InputError(f"{source}: all rows must have the same length; found {which}")
    entry = {"settings_digest": digest.hexdigest()[:32], "dim": next(iter(dims)), "released": source.name}
    return FeatureSet(
        videos=videos,
        dims={stream: next(iter(dims))},
        streams={stream: entry},
        known=frozenset(videos),
        source=source,
        contents=contents,
    )


def _arrays(source: Path) -> Iterator[tuple[str, np.ndarray]]:
    if source.is_dir():
        for path in source.glob("*.npy"):
            with path.open("rb") as handle:
                yield path.stem, read_data(handle, read_header(handle), path.stat().st_size)
        return
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            with archive.open(member) as content:
                handle = cast(BinaryIO, content)
                array = read_data(handle, read_header(handle), member.compress_size)
                if content.read(1):  # the checksum is compared at the end
                    raise ValueError(f"{member.filename}: has bytes after the array")
            yield member.filename.removesuffix(".npy"), array


def _checked(array: np.ndarray, place: str) -> np.ndarray:
    values = array.mean(axis=1, dtype=np.float32) if array.ndim == 3 else array
    if values.ndim != 2 or not len(values):
        raise InputError(f"{place}: is an array of shape {array.shape}, expected [segments, dim]")
    values = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{place}: some values are not finite; correct or remove the array")
    return values
