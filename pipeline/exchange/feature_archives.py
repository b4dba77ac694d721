"""Formats with many videos in one file."""

from __future__ import annotations

import io
import pickle
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import ManifestError, StoreError
from .feature_arrays import (
    MODELS,
    FeatureArray,
    Member,
    Place,
    from_dict,
    numbers,
    refuse_twins,
    safe_path,
    stream_of,
)
from .feature_folders import files_below, opened_file
from .safe_pickles import read_npy, read_pickle

PAMFN_NAME = re.compile(r"(?P<action>[A-Za-z0-9]+)_(?P<label>(?:rgb|flow|audio)_\w+)")
VIDEOS_PER_TAR = 256

_RG_ID = re.compile(r"(Ball|Clubs|Hoop|Ribbon)_")
# NumPy 2 writes its own module's new name into pickles, which NumPy 1, where PAMFN's code runs, does not know.
_NEW_NAME, _OLD_NAME = b"cnumpy._core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\n_reconstruct\n"


def read_pamfn_dicts(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> list[FeatureArray]:
    arrays: list[FeatureArray] = []
    for stem, file in files_below(path, ".npy"):
        match = PAMFN_NAME.fullmatch(Path(stem).name)
        stream = stream_of(match["label"], MODELS, names) if match else ""
        with opened_file(file) as handle:
            found = read_npy(handle, str(file), trust=trust)
        is_dict = isinstance(found, np.ndarray) and found.dtype == object and found.shape == ()
        arrays += from_dict(found.item() if is_dict else found, str(file), file, stream)
    refuse_twins(arrays)
    return arrays


def read_dicts(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> list[FeatureArray]:
    arrays: list[FeatureArray] = []
    for stream, file in _by_stream(path, ".pkl", names):
        with opened_file(file) as handle:
            arrays += from_dict(read_pickle(handle, str(file), trust=trust), str(file), file, stream)
    return arrays


def read_npz(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> list[FeatureArray]:
    arrays: list[FeatureArray] = []
    for stream, file in _by_stream(path, ".npz", names):
        try:
            archive = stack.enter_context(zipfile.ZipFile(file))
        except (zipfile.BadZipFile, OSError) as error:
            raise StoreError(f"{file}: a damaged or cut .npz file ({error}); get it anew") from error
        for member in archive.namelist():
            if member.endswith(".npy"):
                load = _npz_loader(file, archive, member, trust)
                arrays.append(FeatureArray(member.removesuffix(".npy"), stream, file, load))
    return arrays


def _by_stream(path: Path, suffix: str, names: Mapping[str, str]) -> list[tuple[str, Path]]:
    """``(stream, file)``: a folder's files are named for their streams; of a single file that is not believed."""
    if path.is_file():
        return [("", path)]
    return [(stream_of(stem, {}, names), file) for stem, file in files_below(path, suffix)]


def read_webdataset(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> list[FeatureArray]:
    """``<id>.<stream>.npy`` in one tar or a folder of them; other members (labels, texts) are passed over."""
    arrays: list[FeatureArray] = []
    for _, file in files_below(path, ".tar"):
        try:
            archive = stack.enter_context(tarfile.open(file, "r:*"))  # noqa: SIM115 - the stack closes it
            members = [member for member in archive if member.isfile()]
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise StoreError(f"{file}: a damaged or cut tar file ({error}); get it anew") from error
        for member in members:
            folder, slash, name = member.name.rpartition("/")
            key, _, extension = name.partition(".")
            if extension != "npy" and not extension.endswith(".npy"):
                continue
            label = extension.removesuffix("npy").removesuffix(".")
            stream = stream_of(label, {}, names) if label else ""
            load = _member_loader(file, archive, member, trust)
            arrays.append(FeatureArray(folder + slash + key, stream, file, load))
    refuse_twins(arrays)
    return arrays


def place_pamfn_dict(wanted: Place) -> str:
    match = _RG_ID.match(wanted.video_id)
    action = wanted.action or (match[1] if match else "")
    if not action:
        raise ManifestError(
            f"video {wanted.video_id!r}: no Ball_, Clubs_, Hoop_ or Ribbon_ at its head; name the dict file's action "
            "with --action, as in --action FISV"
        )
    return f"{action}_{wanted.label}.npy"


def place_by_stream(suffix: str) -> Callable[[Place], str]:
    """``<stream>.npz``: one file for each stream."""
    return lambda wanted: f"{safe_path(wanted.label)}{suffix}"


def place_webdataset(wanted: Place) -> str:
    if "." in wanted.video_id:
        raise ManifestError(f"video id {wanted.video_id!r}: WebDataset ends an id at its first dot; use another format")
    return f"features-{wanted.position // VIDEOS_PER_TAR:06d}.tar"


def write_pamfn_dict(handle: BinaryIO, members: Iterable[Member]) -> None:
    boxed = np.empty((), object)
    boxed[()] = {member.video_id: member.load() for member in members}
    np.lib.format.write_array_header_1_0(handle, {"descr": "|O", "fortran_order": False, "shape": ()})
    handle.write(_readable_anywhere(pickle.dumps(boxed, protocol=3)))


def write_dict(handle: BinaryIO, members: Iterable[Member]) -> None:
    """Keys as LOGO has them: an id with ``/`` becomes a tuple, its whole numbers become ints."""
    found = {_key_of(member.video_id): member.load() for member in members}
    handle.write(_readable_anywhere(pickle.dumps(found, protocol=3)))


def write_npz(handle: BinaryIO, members: Iterable[Member]) -> None:
    with zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for member in members:
            with archive.open(f"{member.video_id}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(member.load()), allow_pickle=False)


def write_webdataset(handle: BinaryIO, members: Iterable[Member]) -> None:
    with tarfile.open(fileobj=handle, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(member.load()), allow_pickle=False)
            entry = tarfile.TarInfo(f"{safe_path(member.video_id)}.{member.label}.npy")
            entry.size = content.tell()
            content.seek(0)
            archive.addfile(entry, content)


def _npz_loader(file: Path, archive: zipfile.ZipFile, member: str, trust: bool) -> Callable[[], NDArray[Any]]:
    name = f"{file}: {member}"

    def load() -> NDArray[Any]:
        try:
            content = archive.read(member)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise StoreError(f"{name}: damaged ({error}); get the file anew") from error
        return numbers(read_npy(io.BytesIO(content), name, trust=trust), name)

    return load


def _member_loader(
    file: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, trust: bool
) -> Callable[[], NDArray[Any]]:
    name = f"{file}: {member.name}"

    def load() -> NDArray[Any]:
        try:
            content = archive.extractfile(member)
            data = b"" if content is None else content.read()
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise StoreError(f"{name}: damaged ({error}); get the file anew") from error
        return numbers(read_npy(io.BytesIO(data), name, trust=trust), name)

    return load


def _key_of(video_id: str) -> str | tuple[str | int, ...]:
    parts = video_id.split("/")
    return tuple(int(part) if part.isdecimal() else part for part in parts) if len(parts) > 1 else video_id


def _readable_anywhere(pickled: bytes) -> bytes:
    return pickled.replace(_NEW_NAME, _OLD_NAME, 1)
