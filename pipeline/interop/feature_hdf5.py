"""HDF5: exports with a dataset per stream and video id, and other files with any datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from ...manifests.errors import StoreError
from ...manifests.untrusted_npy import refuse_oversized
from .array_files import damaged
from .feature_arrays import ExportEntry, FeatureArray, Listing, NamedArray, id_of, numbers, safe_path, stream_of
from .feature_folders import check_file, files_below

SUFFIXES = (".h5", ".hdf5")

_LAYOUT = "stream/video_id"
"""Value of the attribute ``layout`` in exported files: the form of dataset names."""


def read_hdf5(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> Listing:
    """Read datasets. Video ids are dataset names, or file names in a folder of files with one dataset each."""
    files = [(stem, file) for suffix in SUFFIXES for stem, file in files_below(path, suffix)] if path.is_dir() else []
    listing = Listing()
    for stem, file in files or [(path.stem, path)]:
        with listing.file(file, "HDF5 file"):
            check_file(file)
            found, tells_streams = _datasets(file)
            for name in found:
                stream, _, video_id = name.partition("/") if tells_streams else ("", "", name)
                if not tells_streams and len(found) == 1 < len(files):
                    video_id = stem
                stream = stream_of(stream, {}, names) if stream else ""
                load = partial(_load, file, name)
                listing.arrays.append(FeatureArray(id_of(video_id, str(file)), stream, file, load, name))
    return listing


def path_hdf5(entry: ExportEntry) -> str:
    return "features.h5"


def hdf5_member(entry: ExportEntry) -> str:
    return f"{entry.label}/{safe_path(entry.video_id)}"


def write_hdf5(handle: BinaryIO, members: Iterable[NamedArray]) -> None:
    import h5py  # pyright: ignore[reportMissingTypeStubs]

    opened: Any = h5py.File(handle, "w")
    with opened as file:
        file.attrs["layout"] = _LAYOUT
        for member in members:
            file.create_dataset(member.name, data=member.load())


def _datasets(file: Path) -> tuple[list[str], bool]:
    """Return the names of all datasets in a file, and whether they start with a stream name."""
    import h5py  # pyright: ignore[reportMissingTypeStubs]

    found: list[str] = []

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(name)

    with _opened(file) as content:
        content.visititems(add)
        return found, content.attrs.get("layout") == _LAYOUT


def _load(file: Path, name: str) -> NDArray[Any]:
    """Read a dataset. The file is opened for each read, because a folder may have more files than can be open."""
    where = f"{file}: {name}"
    with _opened(file) as content:
        try:
            dataset = content[name]
            if dataset.external or dataset.is_virtual:
                raise StoreError(
                    f"{where}: its values are in another file, which is not read; copy them into this file"
                )
            if dataset.dtype.kind not in "fiu":
                raise StoreError(
                    f"{where}: has type {dataset.dtype}, which is not numeric; check that it is a feature file"
                )
            refuse_oversized(dataset.size * dataset.dtype.itemsize, dataset.id.get_storage_size())
            return numbers(dataset[()], where)
        except StoreError:
            raise
        except Exception as error:
            raise damaged(where, "dataset", error) from error


def _opened(file: Path) -> Any:
    import h5py  # pyright: ignore[reportMissingTypeStubs]

    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise damaged(str(file), "HDF5 file", error) from error
