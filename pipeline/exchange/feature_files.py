"""Feature files in every format in circulation: the one table of formats, and how a file's format is told."""

from __future__ import annotations

import pickletools
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from ...manifests.errors import ManifestError, StoreError
from ..store.folders import Root, as_root
from ..store.manifest import MANIFEST, read_manifest
from ..store.reader import FeatureStore
from . import feature_archives as archives
from . import feature_folders as folders
from . import feature_hdf5 as hdf5
from .feature_arrays import MODELS, SUFFIXES, FeatureArray, Member, Place
from .stored_settings import Settings, stored_settings

Read = Callable[[Path, bool, Mapping[str, str], ExitStack], list[FeatureArray]]
"""``(path, trust, stream → label, stack)``: what a file holds; files that stay open are closed with the stack."""


@dataclass(frozen=True)
class Format:
    """One row of the table. Reading and writing know nothing of stores."""

    used_by: str
    read: Read
    place: Callable[[Place], str]
    """Below the output folder, where an array goes."""
    write: Callable[[BinaryIO, Iterable[Member]], None]
    """A whole file, from the arrays that `place` put there."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    """Stream → what the format's users call it."""
    suffixes: tuple[str, ...] = ()
    """Of a single file for everything; an output with such a suffix is that file, not a folder."""


FORMATS: dict[str, Format] = {
    "npy-folder": Format(
        "ACTION-NET, GDLT, MS-LSTM, FS1000: <id>.npy",
        folders.read_npy_folder,
        folders.place_in_folder(".npy"),
        folders.write_npy,
    ),
    "pamfn-folder": Format(
        "PAMFN's extractor: <id>_video.npy, _flow, _audio",
        folders.read_suffixed,
        folders.place_suffixed,
        folders.write_npy,
        SUFFIXES,
    ),
    "pamfn-dict": Format(
        "PAMFN's training and its followers: Ball_rgb_VST.npy, a pickled dict",
        archives.read_pamfn_dicts,
        archives.place_pamfn_dict,
        archives.write_pamfn_dict,
        MODELS,
    ),
    "finefs-folder": Format(
        "FineFS: <id>.pkl, a pickled torch tensor",
        folders.read_pkl_folder,
        folders.place_in_folder(".pkl"),
        folders.write_tensor,
    ),
    "logo-dict": Format(
        "LOGO: one .pkl, a dict with tuples as keys; in a folder, one for each stream",
        archives.read_dicts,
        archives.place_by_stream(".pkl"),
        archives.write_dict,
        suffixes=(".pkl",),
    ),
    "npz": Format(
        "one .npz with an array for each id; in a folder, one for each stream",
        archives.read_npz,
        archives.place_by_stream(".npz"),
        archives.write_npz,
        suffixes=(".npz",),
    ),
    "npz-folder": Format(
        "HARP: <id>.npz with one array",
        folders.read_npz_folder,
        folders.place_in_folder(".npz"),
        folders.write_lone_npz,
    ),
    "hdf5": Format(
        "one .h5 with a dataset for each stream and id, or a folder with one for each id",
        hdf5.read_hdf5,
        hdf5.place_hdf5,
        hdf5.write_hdf5,
        suffixes=hdf5.SUFFIXES,
    ),
    "webdataset": Format(
        "tars of <id>.<stream>.npy", archives.read_webdataset, archives.place_webdataset, archives.write_webdataset
    ),
}
STORE = "store"

_FOLDER_SUFFIXES = (".npy", ".pkl", ".npz", ".tar", *hdf5.SUFFIXES)
_KNOWN_SUFFIXES = {"video", "flow", "audio", "rgb", "vggish"}


@dataclass(frozen=True, eq=False)
class FeatureSource:
    """What lies at a path, or a URL, while it is open."""

    path: Root
    format: str
    arrays: tuple[FeatureArray, ...]
    settings: Mapping[str, Settings] = field(default_factory=dict[str, Settings])
    """Stream → how it was computed, where a store's manifest says so."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Sorted; the empty name stands for arrays whose stream the format does not say."""
        return tuple(sorted({array.stream for array in self.arrays}))


@contextmanager
def opened(
    place: Root, format: str | None = None, *, trust: bool = False, names: Mapping[str, str] | None = None
) -> Iterator[FeatureSource]:
    """The arrays at a path, a store's included. ``names``: stream → what the files call it, where that is unusual.

    ManifestError where nothing is there or its format is not told, StoreError where it is damaged or not trusted.
    """
    path = as_root(place)
    if isinstance(path, Path) and not path.exists():
        raise ManifestError(f"{path}: there is no such file or folder; check the path")
    chosen = format or detect(path)
    if chosen not in FORMATS and chosen != STORE:
        raise ManifestError(f"format {chosen!r} is not known; there are {', '.join(FORMATS)}")
    if isinstance(path, str) and chosen != STORE:
        raise ManifestError(f"{path}: only feature stores are read by URL, {chosen} is not; download it")
    with ExitStack() as stack:
        found = _of_store(path) if chosen == STORE else FORMATS[chosen].read(Path(path), trust, names or {}, stack)
        if not found:
            raise ManifestError(f"{path}: no features in it (read as {chosen}); check the path, or give --format")
        settings = stored_settings(read_manifest(path)) if chosen == STORE else {}
        yield FeatureSource(path, chosen, tuple(found), settings)


def detect(path: Root) -> str:
    """The format by what is there, which is a store at a URL; ManifestError where that does not tell."""
    if isinstance(path, str):
        return STORE
    return _format_of_folder(path) if path.is_dir() else _format_of_file(path)


def _format_of_folder(path: Path) -> str:
    if (path / MANIFEST).exists():
        return STORE
    files = {suffix: [file for _, file in folders.files_below(path, suffix)] for suffix in _FOLDER_SUFFIXES}
    counts = {suffix: len(found) for suffix, found in files.items() if found}
    if len(counts) != 1:
        found = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items())) or "no feature files"
        raise ManifestError(f"{path}: {found}; name a folder of one kind, or give --format ({', '.join(FORMATS)})")
    [suffix] = counts
    if suffix == ".npy":
        return _format_of_npy(files[suffix])
    if suffix == ".pkl":
        return "logo-dict" if all(map(_holds_a_dict, files[suffix])) else "finefs-folder"
    if suffix == ".npz":
        return "npz-folder" if all(_num_arrays(file) == 1 for file in files[suffix]) else "npz"
    return "webdataset" if suffix == ".tar" else "hdf5"


def _num_arrays(file: Path) -> int:
    """In an ``.npz``; 1 for a damaged one, which is named when it is read."""
    try:
        with zipfile.ZipFile(file) as archive:
            return len(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return 1


def _format_of_npy(files: list[Path]) -> str:
    if _holds_objects(min(files)):
        return "pamfn-dict"
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
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); is it whole?") from error
    raise ManifestError(f"{path}: begins like no feature file; if you know its format, give --format")


def _holds_objects(path: Path) -> bool:
    with path.open("rb") as handle:
        return b"'|O'" in handle.read(256)


def _holds_a_dict(path: Path) -> bool:
    """A dict's pickle opens a dict before anything else, or names OrderedDict; nothing is unpickled to find out."""
    with path.open("rb") as handle:
        if not handle.peek(1).startswith(b"\x80"):
            return False
        for opcode, argument, _ in pickletools.genops(handle):
            if opcode.name not in ("PROTO", "FRAME"):
                return opcode.name == "EMPTY_DICT" or str(argument).startswith("collections")
    return False


def _of_store(path: Root) -> list[FeatureArray]:
    store = FeatureStore(path)
    return [
        FeatureArray(video_id, stream, path, lambda v=video_id, s=stream: store.read(v, s).values)
        for video_id in store.video_ids
        for stream in store[video_id]
    ]


def of_stream(source: FeatureSource, stream: str | None) -> tuple[FeatureArray, ...]:
    """The arrays of ``stream`` where the files tell several, all of them under that name where they tell one or none.

    Without ``stream`` all of them as the files name them; the name stays empty where they do not.
    """
    if stream is None:
        return source.arrays
    if stream in source.streams:
        return tuple(array for array in source.arrays if array.stream == stream)
    if len(source.streams) > 1:
        raise ManifestError(f"{source.path}: no stream {stream!r} in it; it has {', '.join(source.streams)}")
    return tuple(replace(array, stream=stream) for array in source.arrays)
