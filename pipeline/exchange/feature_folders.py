"""Formats with one file for each video and stream."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import ManifestError, StoreError
from .feature_arrays import SUFFIXES, FeatureArray, Member, Place, numbers, safe_path, stream_of
from .safe_pickles import read_npy, read_pickle


def read_npy_folder(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> list[FeatureArray]:
    return _read_folder(path, ".npy", _load_npy)


def read_suffixed(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> list[FeatureArray]:
    arrays: list[FeatureArray] = []
    for array in _read_folder(path, ".npy", _load_npy):
        video_id, _, suffix = array.video_id.rpartition("_")
        if not video_id:
            raise StoreError(f"{array.file}: has no _video, _flow, _audio, … after the video's name; rename it")
        arrays.append(FeatureArray(video_id, stream_of(suffix, SUFFIXES, names), array.file, array.load))
    return arrays


def read_pkl_folder(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> list[FeatureArray]:
    def load(file: Path) -> NDArray[Any]:
        with opened_file(file) as handle:
            return numbers(read_pickle(handle, str(file), trust=trust), str(file))

    return _read_folder(path, ".pkl", load)


def read_npz_folder(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> list[FeatureArray]:
    return _read_folder(path, ".npz", lambda file: _load_lone_npz(file, trust))


def place_in_folder(suffix: str) -> Callable[[Place], str]:
    """``<id>.npy``, below a folder for each stream where there are several; ids with ``/`` make folders, too."""

    def place(wanted: Place) -> str:
        below = "" if wanted.alone else f"{wanted.label}/"
        return f"{below}{safe_path(wanted.video_id)}{suffix}"

    return place


def place_suffixed(wanted: Place) -> str:
    if "_" in wanted.label:
        raise ManifestError(
            f"label {wanted.label!r}: this format finds a video's name before the last underscore; give the stream "
            f"another with --name {wanted.label}=…"
        )
    return f"{safe_path(wanted.video_id)}_{wanted.label}.npy"


def write_npy(handle: BinaryIO, members: Iterable[Member]) -> None:
    for member in members:
        np.lib.format.write_array(handle, np.ascontiguousarray(member.load()), allow_pickle=False)


def write_tensor(handle: BinaryIO, members: Iterable[Member]) -> None:
    """For ``pickle.load``."""
    import torch

    for member in members:
        pickle.dump(torch.from_numpy(np.array(member.load())), handle, protocol=4)


def write_lone_npz(handle: BinaryIO, members: Iterable[Member]) -> None:
    for member in members:
        np.savez_compressed(handle, member.load())


@contextmanager
def opened_file(path: Path) -> Iterator[BinaryIO]:
    """The file, for reading; StoreError where it is gone or may not be read."""
    try:
        handle = path.open("rb")
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    with handle:
        yield handle


def files_below(path: Path, suffix: str) -> list[tuple[str, Path]]:
    """``(path below the folder without suffix, file)`` of all such files, sorted; hidden ones are left out."""
    if path.is_file():
        return [(path.stem, path)]
    found = sorted(file for file in path.rglob(f"*{suffix}") if file.is_file())
    relative = [(file.relative_to(path), file) for file in found]
    return [
        (name.as_posix().removesuffix(suffix), file)
        for name, file in relative
        if not any(part.startswith(".") for part in name.parts)
    ]


def _read_folder(path: Path, suffix: str, load: Callable[[Path], NDArray[Any]]) -> list[FeatureArray]:
    return [
        FeatureArray(video_id, "", file, lambda file=file: load(file)) for video_id, file in files_below(path, suffix)
    ]


def _load_npy(file: Path) -> NDArray[Any]:
    with opened_file(file) as handle:
        if _is_pickled(handle):
            raise StoreError(f"{file}: holds pickled objects, not one array; --format pamfn-dict reads a dict")
        return numbers(read_npy(handle, str(file)), str(file))


def _is_pickled(handle: BinaryIO) -> bool:
    head = handle.read(256)
    handle.seek(0)
    return b"'|O'" in head


def _load_lone_npz(file: Path, trust: bool) -> NDArray[Any]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.namelist()
            if len(members) != 1:
                raise StoreError(f"{file}: holds {len(members)} arrays, not one; --format npz reads one per video")
            return numbers(read_npy(io.BytesIO(archive.read(members[0])), str(file), trust=trust), str(file))
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise StoreError(f"{file}: a damaged or cut .npz file ({error}); get it anew") from error
