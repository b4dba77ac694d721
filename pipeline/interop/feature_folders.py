"""Formats with one file per video and stream."""

from __future__ import annotations

import io
import os
import pickle
import stat
import zipfile
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import InputError, StoreError
from ...manifests.untrusted_npy import refuse_oversized
from .array_files import damaged, read_npy, read_pickle
from .feature_arrays import (
    SUFFIXES,
    ExportEntry,
    FeatureArray,
    Listing,
    NamedArray,
    id_of,
    numbers,
    safe_file,
    stream_of,
)


def read_npy_folder(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> Listing:
    return _read_folder(path, ".npy", load_npy)


def read_suffixed(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> Listing:
    listing = Listing()
    for array in _read_folder(path, ".npy", load_npy).arrays:
        video_id, _, suffix = array.video_id.rpartition("_")
        if video_id:
            listing.arrays.append(replace(array, video_id=video_id, stream=stream_of(suffix, SUFFIXES, names)))
        else:
            listing.problems.append(f"{array.file}: has no suffix such as _video, _flow or _audio; rename it")
    return listing


def read_pkl_folder(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> Listing:
    def load(file: Path) -> NDArray[Any]:
        with opened_file(file) as handle:
            return numbers(read_pickle(handle, str(file), trust=trust), str(file))

    return _read_folder(path, ".pkl", load)


def read_npz_folder(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> Listing:
    return _read_folder(path, ".npz", lambda file: _load_lone_npz(file, trust))


def path_in_folder(suffix: str) -> Callable[[ExportEntry], str]:
    """Return a function for the file ``<id><suffix>``, in a folder per stream if several are exported."""

    def path_for(entry: ExportEntry) -> str:
        below = "" if entry.alone else f"{entry.label}/"
        return f"{below}{safe_file(entry.video_id, suffix)}"

    return path_for


def path_suffixed(entry: ExportEntry) -> str:
    if "_" in entry.label:
        raise InputError(
            f"label {entry.label!r}: has an underscore, which in this format separates id and label; choose another "
            f"with --name {entry.label}=…"
        )
    return safe_file(entry.video_id, f"_{entry.label}.npy")


def no_member(entry: ExportEntry) -> str:
    """Return an empty name, for files with a single array."""
    return ""


def write_npy(handle: BinaryIO, members: Iterable[NamedArray]) -> None:
    for member in members:
        np.lib.format.write_array(handle, np.ascontiguousarray(member.load()), allow_pickle=False)


def write_tensor(handle: BinaryIO, members: Iterable[NamedArray]) -> None:
    """Write a torch tensor for ``pickle.load``."""
    import torch

    for member in members:
        pickle.dump(torch.as_tensor(np.array(member.load())), handle, protocol=4)


def write_lone_npz(handle: BinaryIO, members: Iterable[NamedArray]) -> None:
    for member in members:
        np.savez_compressed(handle, member.load())


@contextmanager
def opened_file(path: Path) -> Generator[BinaryIO, None, None]:
    """Open a file for reading. Raises StoreError if it is missing, not readable, or a device or a pipe."""
    check_file(path)
    try:
        handle = path.open("rb")
    except OSError as error:
        raise damaged(str(path), "file", error) from error
    with handle:
        yield handle


def check_file(path: Path) -> None:
    """Raise StoreError for a broken link, and for a pipe, which would wait for its writer if it were opened."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise damaged(str(path), "file", error) from error
    if not stat.S_ISREG(mode):
        raise StoreError(f"{path}: is a pipe, a socket or a device, not a file; remove it")


def files_below(path: Path, suffix: str) -> list[tuple[str, Path]]:
    """Return (relative path without suffix, file) of all files with the suffix, sorted, without hidden files.

    Broken links and pipes are included, so that reading them fails instead of leaving a video out.
    """
    if path.is_file():
        return [(path.stem, path)]
    found = sorted(file for file in path.rglob(f"*{suffix}") if not file.is_dir())
    relative = [(file.relative_to(path), file) for file in found]
    return [
        (name.as_posix().removesuffix(suffix), file)
        for name, file in relative
        if not any(part.startswith(".") for part in name.parts)
    ]


def _read_folder(path: Path, suffix: str, load: Callable[[Path], NDArray[Any]]) -> Listing:
    found = files_below(path, suffix)
    return Listing([FeatureArray(id_of(name, ""), "", file, partial(load, file)) for name, file in found])


def load_npy(file: Path) -> NDArray[Any]:
    """Return the array of a ``.npy`` file. Raises StoreError if it is damaged or not numeric."""
    with opened_file(file) as handle:
        if _is_pickled(handle):
            raise StoreError(f"{file}: contains pickled objects, not one array; give --format pamfn-dict for a dict")
        return numbers(read_npy(handle, str(file)), str(file))


def _is_pickled(handle: BinaryIO) -> bool:
    head = handle.read(256)
    handle.seek(0)
    return b"'|O'" in head


def _load_lone_npz(file: Path, trust: bool) -> NDArray[Any]:
    with opened_file(file) as handle, opened_zip(handle, file) as archive:
        members = archive.infolist()
        if len(members) != 1:
            raise StoreError(
                f"{file}: contains {len(members)} arrays, not one; give --format npz for one array per video"
            )
        return numbers(read_npz_member(archive, members[0], str(file), trust), str(file))


def opened_zip(handle: BinaryIO, file: Path) -> zipfile.ZipFile:
    """Open an archive. Raises StoreError if it is damaged, or if members overlap, as in a zip bomb."""
    try:
        archive = zipfile.ZipFile(handle)
    except Exception as error:
        raise damaged(str(file), ".npz file", error) from error
    size_bytes = handle.seek(0, os.SEEK_END)
    if sum(member.compress_size for member in archive.infolist()) > size_bytes:
        raise StoreError(f"{file}: its members overlap, as in a zip bomb; get it from another source")
    return archive


def read_npz_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, trust: bool) -> Any:
    """Return one array of an ``.npz`` file, or the pickled object in it."""
    try:
        with archive.open(member) as content:
            head = content.read(256)
        if b"'|O'" in head:  # read into memory, because the pickle reader must seek
            refuse_oversized(member.file_size, member.compress_size)
            return read_npy(io.BytesIO(archive.read(member)), name, trust=trust)
        with archive.open(member) as content:
            found = read_npy(cast(BinaryIO, content), name, stored_bytes=member.compress_size, trust=trust)
            if content.read(1):  # reading to the end verifies the checksum
                raise ValueError("bytes after the array")
            return found
    except StoreError:
        raise
    except Exception as error:
        raise damaged(name, ".npz file", error) from error
