"""Formats that store many videos in one file."""

from __future__ import annotations

import io
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import StoreError
from ...manifests.untrusted_pickles import unboxed
from .array_files import damaged, read_npy, unpickled
from .feature_arrays import (
    MODELS,
    ExportEntry,
    FeatureArray,
    Listing,
    NamedArray,
    UnfitId,
    add_dict,
    id_of,
    numbers,
    safe_path,
    stream_of,
)
from .feature_folders import files_below, opened_file, opened_zip, read_npz_member

PAMFN_NAME = re.compile(r"(?P<action>[A-Za-z0-9]+)_(?P<label>(?:rgb|flow|audio)_\w+)")
VIDEOS_PER_TAR = 256
_MAX_ZIP_NAME_BYTES = 65_000

_RG_ID = re.compile(r"(Ball|Clubs|Hoop|Ribbon)_")
# NumPy 2 writes a module name into pickles that NumPy 1, which PAMFN's code requires, cannot import.
_NEW_NAME, _OLD_NAME = b"cnumpy._core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\n_reconstruct\n"


def read_pamfn_dicts(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> Listing:
    listing = Listing()
    for stem, file in files_below(path, ".npy"):
        match = PAMFN_NAME.fullmatch(Path(stem).name)
        stream = stream_of(match["label"], MODELS, names) if match else ""
        with listing.file(file, ".npy file"):
            found = read_npy(stack.enter_context(opened_file(file)), str(file), trust=trust)
            add_dict(unboxed(found), file, stream, listing)
    return listing


def read_dicts(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> Listing:
    listing = Listing()
    for stream, file in _by_stream(path, ".pkl", names):
        with listing.file(file, "pickle"):
            found = unpickled(stack.enter_context(opened_file(file)), str(file), trust=trust)
            add_dict(found, file, stream, listing)
    return listing


def read_npz(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> Listing:
    listing = Listing()
    for stream, file in _by_stream(path, ".npz", names):
        with listing.file(file, ".npz file"):
            archive = stack.enter_context(opened_zip(stack.enter_context(opened_file(file)), file))
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    video_id = id_of(member.filename.removesuffix(".npy"), str(file))
                    load = partial(_load_npz, file, archive, member, trust)
                    listing.arrays.append(FeatureArray(video_id, stream, file, load, member.filename))
    return listing


def _by_stream(path: Path, suffix: str, names: Mapping[str, str]) -> list[tuple[str, Path]]:
    """Return (stream, file). Files of a folder have the names of their streams; a single file has no stream."""
    if path.is_file():
        return [("", path)]
    return [(stream_of(stem, {}, names), file) for stem, file in files_below(path, suffix)]


def read_webdataset(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> Listing:
    """Read ``<id>.<stream>.npy`` members of one tar file or a folder of them; other members are ignored."""
    listing = Listing()
    for _, file in files_below(path, ".tar"):
        with listing.file(file, "tar file"):
            handle = stack.enter_context(opened_file(file))
            archive = stack.enter_context(tarfile.open(fileobj=handle, mode="r:*"))  # noqa: SIM115 - on the stack
            for member in [member for member in archive if member.isfile()]:
                folder, slash, name = member.name.rpartition("/")
                key, _, extension = name.partition(".")
                if extension != "npy" and not extension.endswith(".npy"):
                    continue
                label = extension.removesuffix("npy").removesuffix(".")
                stream = stream_of(label, {}, names) if label else ""
                load = partial(_load_tar, file, archive, member, trust)
                video_id = id_of(folder + slash + key, str(file))
                listing.arrays.append(FeatureArray(video_id, stream, file, load, member.name))
    return listing


def path_pamfn_dict(entry: ExportEntry) -> str:
    match = _RG_ID.match(entry.video_id)
    action = entry.action or (match[1] if match else "")
    if not action:
        raise UnfitId(
            f"video {entry.video_id!r}: does not start with Ball_, Clubs_, Hoop_ or Ribbon_; give the action of the "
            "dict file, such as --action FISV"
        )
    return f"{action}_{entry.label}.npy"


def path_by_stream(suffix: str) -> Callable[[ExportEntry], str]:
    """Return a function for the file ``<stream><suffix>``: one file per stream."""
    return lambda entry: f"{safe_path(entry.label)}{suffix}"


def path_webdataset(entry: ExportEntry) -> str:
    if "." in entry.video_id.rpartition("/")[2]:
        raise UnfitId(
            f"video id {entry.video_id!r}: WebDataset truncates an id at its first dot; choose another format"
        )
    return f"features-{entry.position // VIDEOS_PER_TAR:06d}.tar"


def key_member(entry: ExportEntry) -> str:
    """Return the key in a dict."""
    return entry.video_id


def npz_member(entry: ExportEntry) -> str:
    if "\0" in entry.video_id or len(entry.video_id.encode()) > _MAX_ZIP_NAME_BYTES:
        raise UnfitId(f"video id {entry.video_id[:80]!r} cannot be a name in a zip file; choose logo-dict")
    return f"{entry.video_id}.npy"


def tar_member(entry: ExportEntry) -> str:
    return f"{safe_path(entry.video_id)}.{entry.label}.npy"


def write_pamfn_dict(handle: BinaryIO, members: Iterable[NamedArray]) -> None:
    boxed = np.empty((), object)
    boxed[()] = {member.video_id: member.load() for member in members}
    np.lib.format.write_array_header_1_0(handle, {"descr": "|O", "fortran_order": False, "shape": ()})
    handle.write(_readable_anywhere(pickle.dumps(boxed, protocol=3)))


def write_dict(handle: BinaryIO, members: Iterable[NamedArray]) -> None:
    """Write a dict with LOGO's keys: an id with ``/`` becomes a tuple, whose integers are ints."""
    found = {_key_of(member.video_id): member.load() for member in members}
    handle.write(_readable_anywhere(pickle.dumps(found, protocol=3)))


def write_npz(handle: BinaryIO, members: Iterable[NamedArray]) -> None:
    with zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for member in members:
            with archive.open(member.name, "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(member.load()), allow_pickle=False)


def write_webdataset(handle: BinaryIO, members: Iterable[NamedArray]) -> None:
    with tarfile.open(fileobj=handle, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(member.load()), allow_pickle=False)
            entry = tarfile.TarInfo(member.name)
            entry.size = content.tell()
            content.seek(0)
            archive.addfile(entry, content)


def _load_npz(file: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, trust: bool) -> NDArray[Any]:
    name = f"{file}: {member.filename}"
    return numbers(read_npz_member(archive, member, name, trust), name)


def _load_tar(file: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, trust: bool) -> NDArray[Any]:
    name = f"{file}: {member.name}"
    if member.sparse is not None:
        raise StoreError(
            f"{name}: is stored as a sparse file, which is not supported; write the tar file without --sparse"
        )
    try:
        content = archive.extractfile(member)
        if content is None:
            raise ValueError("not a file")
        return numbers(read_npy(cast(BinaryIO, content), name, stored_bytes=member.size, trust=trust), name)
    except StoreError:
        raise
    except Exception as error:
        raise damaged(name, "tar file", error) from error


def _key_of(video_id: str) -> str | tuple[str | int, ...]:
    parts = video_id.split("/")
    return tuple(map(_part_of, parts)) if len(parts) > 1 else video_id


def _part_of(part: str) -> str | int:
    """Return an int if the text is its canonical form (``7``, not ``007``), else the text."""
    is_number = part.isdecimal() and part.isascii() and len(part) < 20 and str(int(part)) == part
    return int(part) if is_number else part


def _readable_anywhere(pickled: bytes) -> bytes:
    return pickled.replace(_NEW_NAME, _OLD_NAME, 1)
