"""The table of feature formats, and the detection of a format."""

from __future__ import annotations

import pickletools
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ...manifests.errors import InputError, StoreError, os_reason
from . import feature_archives as archives
from . import feature_folders as folders
from . import feature_hdf5 as hdf5
from . import video_features_output
from .feature_arrays import MODELS, SUFFIXES, ExportEntry, Listing, NamedArray

Read = Callable[[Path, bool, Mapping[str, str], ExitStack], Listing]
"""Function ``(path, trust, stream → label, stack)`` that lists arrays. The stack closes files that remain open."""


@dataclass(frozen=True)
class Format:
    """One feature format. Reading and writing are independent of stores."""

    used_by: str
    read: Read
    path_for: Callable[[ExportEntry], str]
    """Relative path of the file of an array. Raises UnfitId for an id that the format cannot represent."""
    member_for: Callable[[ExportEntry], str]
    """Name of an array in its file; empty if the file has a single array."""
    write: Callable[[BinaryIO, Iterable[NamedArray]], None]
    """Write a file with the given arrays."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    """Stream → its usual label in this format."""
    splits_at_underscore: bool = False
    """The label of the stream follows the last underscore of a file name."""
    suffixes: tuple[str, ...] = ()
    """Suffixes of a single file with all arrays. An output path with such a suffix is a file, not a folder."""


FORMATS: dict[str, Format] = {
    "npy-folder": Format(
        "ACTION-NET, GDLT, MS-LSTM, FS1000: <id>.npy",
        folders.read_npy_folder,
        folders.path_in_folder(".npy"),
        folders.no_member,
        folders.write_npy,
    ),
    "pamfn-folder": Format(
        "PAMFN's extractor: <id>_video.npy, _flow, _audio",
        folders.read_suffixed,
        folders.path_suffixed,
        folders.no_member,
        folders.write_npy,
        SUFFIXES,
        splits_at_underscore=True,
    ),
    "pamfn-dict": Format(
        "PAMFN's training and later projects: Ball_rgb_VST.npy, a pickled dict",
        archives.read_pamfn_dicts,
        archives.path_pamfn_dict,
        archives.key_member,
        archives.write_pamfn_dict,
        MODELS,
    ),
    "finefs-folder": Format(
        "FineFS: <id>.pkl, a pickled torch tensor",
        folders.read_pkl_folder,
        folders.path_in_folder(".pkl"),
        folders.no_member,
        folders.write_tensor,
    ),
    "logo-dict": Format(
        "LOGO: one .pkl, a dict with tuples as keys; in a folder, one for each stream",
        archives.read_dicts,
        archives.path_by_stream(".pkl"),
        archives.key_member,
        archives.write_dict,
        suffixes=(".pkl",),
    ),
    "npz": Format(
        "one .npz with an array for each id; in a folder, one for each stream",
        archives.read_npz,
        archives.path_by_stream(".npz"),
        archives.npz_member,
        archives.write_npz,
        suffixes=(".npz",),
    ),
    "npz-folder": Format(
        "HARP: <id>.npz with one array",
        folders.read_npz_folder,
        folders.path_in_folder(".npz"),
        folders.no_member,
        folders.write_lone_npz,
    ),
    "hdf5": Format(
        "one .h5 with a dataset for each stream and id, or a folder with one for each id",
        hdf5.read_hdf5,
        hdf5.path_hdf5,
        hdf5.hdf5_member,
        hdf5.write_hdf5,
        suffixes=hdf5.SUFFIXES,
    ),
    "webdataset": Format(
        "tar files with <id>.<stream>.npy",
        archives.read_webdataset,
        archives.path_webdataset,
        archives.tar_member,
        archives.write_webdataset,
    ),
}
READERS: dict[str, Read] = {
    **{name: format.read for name, format in FORMATS.items()},
    "video-features": video_features_output.read_video_features,
}
"""The formats that are read; those of `FORMATS` can also be written."""
_FOLDER_SUFFIXES = (".npy", ".pkl", ".npz", ".tar", *hdf5.SUFFIXES)
_KNOWN_SUFFIXES = {"video", "flow", "audio", "rgb", "vggish"}


def detect_format(path: Path) -> str:
    """Return the name of the format of a file or a folder.

    Raises:
        InputError: The format cannot be detected.
        StoreError: A file is damaged.
    """
    return _format_of_folder(path) if path.is_dir() else _format_of_file(path)


def _format_of_folder(path: Path) -> str:
    files = {suffix: [file for _, file in folders.files_below(path, suffix)] for suffix in _FOLDER_SUFFIXES}
    counts = {suffix: len(found) for suffix, found in files.items() if found}
    if len(counts) != 1:
        found = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items())) or "no feature files"
        raise InputError(f"{path}: {found}; name a folder of one kind, or give --format ({', '.join(READERS)})")
    [suffix] = counts
    readable = [file for file in files[suffix] if file.is_file()]
    if not readable:
        folders.check_file(files[suffix][0])
    if suffix == ".npy":
        return _format_of_npy(readable)
    if suffix == ".pkl":
        return "logo-dict" if all(map(_holds_a_dict, readable)) else "finefs-folder"
    if suffix == ".npz":
        return "npz-folder" if all(_num_arrays(file) == 1 for file in readable) else "npz"
    return "webdataset" if suffix == ".tar" else "hdf5"


def _num_arrays(file: Path) -> int:
    """Return the number of arrays in an ``.npz`` file. A damaged file counts as 1; reading it reports the error."""
    try:
        with zipfile.ZipFile(file) as archive:
            return len(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return 1


def _format_of_npy(files: list[Path]) -> str:
    if _holds_objects(min(files)):
        return "pamfn-dict"
    if video_features_output.is_output(files):
        return "video-features"
    if all(file.stem.rpartition("_")[2] in _KNOWN_SUFFIXES for file in files):
        return "pamfn-folder"
    return "npy-folder"


def _format_of_file(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            head = handle.read(8)
        if head.startswith(b"\x93NUMPY"):
            return "pamfn-dict" if _holds_objects(path) else "npy-folder"
        if head.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(path) as archive:
                return "npz" if any(name.endswith(".npy") for name in archive.namelist()) else "finefs-folder"
        if head == b"\x89HDF\r\n\x1a\n":
            return "hdf5"
        if head.startswith(b"\x80"):
            return "logo-dict" if _holds_a_dict(path) else "finefs-folder"
        if tarfile.is_tarfile(path):
            return "webdataset"
    except OSError as error:
        raise StoreError(f"{path}: {os_reason(error)}; check the path") from error
    except (zipfile.BadZipFile, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); get the file again") from error
    raise InputError(f"{path}: has the first bytes of no supported feature format; give --format")


def _holds_objects(path: Path) -> bool:
    with path.open("rb") as handle:
        return b"'|O'" in handle.read(256)


def _holds_a_dict(path: Path) -> bool:
    """Return whether a pickle is a dict or OrderedDict, judged by its first opcode without unpickling."""
    with path.open("rb") as handle:
        if not handle.peek(1).startswith(b"\x80"):
            return False
        for opcode, argument, _ in pickletools.genops(handle):
            if opcode.name not in ("PROTO", "FRAME"):
                return opcode.name == "EMPTY_DICT" or str(argument).startswith("collections")
    return False
