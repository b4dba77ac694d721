"""HDF5: ours with a dataset for each stream and id, and strangers' with whatever datasets they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from ...manifests.errors import StoreError
from .feature_arrays import FeatureArray, Member, Place, numbers, refuse_twins, safe_path, stream_of
from .feature_folders import files_below

SUFFIXES = (".h5", ".hdf5")

_LAYOUT = "stream/video_id"
"""What an attribute of our files says of their datasets' names."""


def read_hdf5(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> list[FeatureArray]:
    """Datasets by their names; in a folder of files with one dataset each, by the files'."""
    files = [(stem, file) for suffix in SUFFIXES for stem, file in files_below(path, suffix)] if path.is_dir() else []
    arrays: list[FeatureArray] = []
    for stem, file in files or [(path.stem, path)]:
        found, tells_streams = _datasets(file)
        for name in found:
            stream, _, video_id = name.partition("/") if tells_streams else ("", "", name)
            if not tells_streams and len(found) == 1 < len(files):
                video_id = stem
            load = _loader(file, name)
            arrays.append(FeatureArray(video_id, stream_of(stream, {}, names) if stream else "", file, load))
    refuse_twins(arrays)
    return arrays


def place_hdf5(wanted: Place) -> str:
    return "features.h5"


def write_hdf5(handle: BinaryIO, members: Iterable[Member]) -> None:
    import h5py

    with h5py.File(handle, "w") as file:
        file.attrs["layout"] = _LAYOUT
        for member in members:
            file.create_dataset(f"{member.label}/{safe_path(member.video_id)}", data=member.load())


def _datasets(file: Path) -> tuple[list[str], bool]:
    """The names of all datasets of a file, and whether they begin with a stream."""
    import h5py

    found: list[str] = []
    with _opened(file) as content:
        content.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        return found, content.attrs.get("layout") == _LAYOUT


def _loader(file: Path, name: str) -> Callable[[], NDArray[Any]]:
    """Opens the file for every read: a folder may hold more files than can be open at once."""

    def load() -> NDArray[Any]:
        where = f"{file}: {name}"
        with _opened(file) as content:
            dataset = content[name]
            if dataset.external or dataset.is_virtual:
                raise StoreError(f"{where}: its numbers lie in another file, which is not followed; copy them into it")
            try:
                return numbers(dataset[()], where)
            except OSError as error:
                raise StoreError(f"{where}: damaged ({error}); get the file anew") from error

    return load


def _opened(file: Path) -> Any:
    import h5py

    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise StoreError(f"{file}: a damaged or cut HDF5 file ({error}); get it anew") from error
