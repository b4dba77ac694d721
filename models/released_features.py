"""Features as authors release them: one array per video, in one ``.npz`` or in a folder of ``.npy`` files."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..manifests.errors import ManifestError
from ..pipeline.store.folders import Root, as_root
from ..pipeline.store.reader import FeatureStore
from .features import FeatureSet, read_store
from .routines import Placed


def read_features(
    source: Root, streams: Sequence[str] | None = None, *, one_grid: bool = False, partial: bool = False
) -> FeatureSet:
    """A feature store, or released features of the one stream that ``streams`` names."""
    place = as_root(source)
    if isinstance(place, Path) and _is_released(place):
        if streams is None or len(streams) != 1:
            raise ManifestError(f"{place}: released features are of one stream; name it, as in --streams vst")
        return read_released(place, streams[0])
    return read_store(FeatureStore(place, partial=partial), streams, one_grid=one_grid)


def _is_released(source: Path) -> bool:
    return source.suffix == ".npz" or (source.is_dir() and next(source.glob("*.npy"), None) is not None)


def read_released(source: Path, stream: str) -> FeatureSet:
    """``[segments, dim]`` per video, or ``[segments, halves, dim]``, whose halves are averaged as PAMFN averages them.

    Nothing is unpickled. Raises `ManifestError` where an array has another shape or is not finite.
    """
    videos: dict[str, dict[str, Placed]] = {}
    dims: dict[int, str] = {}
    digest = hashlib.sha256()
    try:
        for name, array in sorted(_arrays(source), key=lambda pair: pair[0]):
            values = _checked(array, f"{source}, {name}")
            dims.setdefault(values.shape[1], name)
            digest.update(name.encode() + values.tobytes())
            videos[name] = {stream: Placed(values)}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ManifestError(f"{source}: cannot be read as NumPy arrays ({error})") from error
    if len(dims) != 1:
        which = ", ".join(f"{dim} ({name})" for dim, name in dims.items()) or "nothing at all"
        raise ManifestError(f"{source}: rows should all have one length; there is {which}")
    entry = {"settings_digest": digest.hexdigest()[:32], "dim": next(iter(dims)), "released": source.name}
    return FeatureSet(
        videos=videos,
        dims={stream: next(iter(dims))},
        streams={stream: entry},
        known=frozenset(videos),
        source=source,
    )


def _arrays(source: Path) -> Iterator[tuple[str, np.ndarray]]:
    if source.is_dir():
        for path in source.glob("*.npy"):
            yield path.stem, np.load(path, allow_pickle=False)
        return
    with np.load(source, allow_pickle=False) as archive:
        for name in archive.files:
            yield name, archive[name]


def _checked(array: np.ndarray, place: str) -> np.ndarray:
    values = array.mean(axis=1, dtype=np.float32) if array.ndim == 3 else array
    if values.ndim != 2 or not len(values):
        raise ManifestError(f"{place}: an array of shape {array.shape} where [segments, dim] is expected")
    values = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise ManifestError(f"{place}: holds values that are no finite numbers")
    return values
