"""Named feature arrays, the common form of all formats, and the names of streams in published code."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import InputError, StoreError
from .array_files import built, damaged

if TYPE_CHECKING:
    from ..store.files.storage import StorePath
    from .export_manifest import ExportedArray

SUFFIXES = {"vst": "video", "i3d_rgb": "rgb", "i3d_flow": "flow", "ast": "audio"}
"""Stream → suffix of file names in PAMFN's extractor."""
MODELS = {
    "vst": "rgb_VST",
    "umt": "rgb_UMT",  # PAMFN's name for features of UNMT, the unmasked teacher
    "i3d_rgb": "rgb_I3D",
    "i3d_flow": "flow_I3D",
    "ast": "audio_AST",
    "mast": "audio_MAST",
}
"""Stream → modality and network in the names of PAMFN's dict files."""

MAX_NAME_BYTES = 255
"""Maximal length of a file name on Linux and macOS."""

_NO_STREAM_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


class UnfitId(InputError):
    """A video id that a format cannot represent."""


@dataclass(frozen=True, eq=False)
class FeatureArray:
    """Features of one video and stream in a file: ``[segments, dim]`` or ``[segments, halves, dim]``."""

    video_id: str
    stream: str
    """Empty if the format has no stream names."""
    file: StorePath
    load: Callable[[], NDArray[Any]]
    """Read the array. Raises StoreError if it is damaged or not numeric."""
    member: str = ""
    """Name of the array in its file; empty if the file has a single array."""
    load_times: Callable[[], NDArray[np.float64] | None] | None = None
    """Load ``float64 [2, segments]``, start and end in seconds; None if the format has no times.

    The function returns None for rows whose times count segments, and raises StoreError if the times are damaged.
    """
    resize: str = ""
    """Arithmetic that resized the frames, ``pil`` or ``torch``; empty if it is unknown."""
    exported: ExportedArray | None = None
    """Record of the exported row, if `arabesque export` wrote the file."""
    file_sha256: str = ""
    """SHA-256 of the exported file."""


@dataclass(eq=False)
class Listing:
    """The arrays found in feature files, and the errors of unreadable files."""

    arrays: list[FeatureArray] = field(default_factory=list[FeatureArray])
    problems: list[str] = field(default_factory=list[str])

    @contextmanager
    def file(self, file: Path, kind: str) -> Generator[None, None, None]:
        """Record an error in the block as a problem of this file, so that other files are still read."""
        try:
            yield
        except StoreError as error:
            self.problems.append(str(error))
        except Exception as error:
            self.problems.append(str(damaged(str(file), kind, error)))


@dataclass(frozen=True, eq=False)
class NamedArray:
    """One array to write into a file."""

    video_id: str
    label: str
    """Name of the stream in the format or given by the user."""
    name: str
    """Name in the file; empty if the file has a single array."""
    load: Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class ExportEntry:
    """An array for which a format determines file and member."""

    video_id: str
    label: str
    position: int
    """Position of the video among all exported videos."""
    alone: bool
    """This is the only exported stream."""
    action: str | None
    """PAMFN's dict file of the video: ``Ball``, ``FISV``, …; None to derive it from the video id."""


def stream_of(label: str, known: Mapping[str, str], given: Mapping[str, str]) -> str:
    """Return the stream for a label: from ``given`` (stream → label), from ``known``, else the label in lower case."""
    for names in (given, known):
        for stream, name in names.items():
            if name == label:
                return stream
    return _NO_STREAM_NAME.sub("_", label.lower()).strip("_.-") or "unnamed"


def label_of(stream: str, known: Mapping[str, str], given: Mapping[str, str]) -> str:
    """Return the label of a stream, the inverse of `stream_of`. The label of an unknown stream is its name."""
    return given.get(stream, known.get(stream, stream))


def id_of(key: Any, name: str) -> str:
    """Return the video id of a dict key. The parts of a tuple (LOGO) are joined with ``/``."""
    if isinstance(key, bytes):
        return key.decode("utf-8", errors="backslashreplace")
    if isinstance(key, str):
        return key.encode("utf-8", errors="backslashreplace").decode()
    if isinstance(key, int) and not isinstance(key, bool) and abs(key) < 1 << 128:
        return str(key)
    if isinstance(key, tuple) and key:
        return "/".join(id_of(part, name) for part in cast("tuple[Any, ...]", key))
    shown = ascii(cast("object", key))[:80]
    raise StoreError(f"{name}: the key {shown} is not a video id; keys must be strings, integers or tuples of them")


def safe_path(video_id: str) -> str:
    """Return the id as a relative path. Raises UnfitId if the path would leave the folder."""
    parts = video_id.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in video_id or "\0" in video_id:
        raise UnfitId(
            f"video id {video_id!r} cannot be a file name; choose a format with ids inside the file, such as npz"
        )
    return video_id


def safe_file(video_id: str, suffix: str) -> str:
    """Return the id as a relative file path. Raises UnfitId for hidden, invalid or too long names."""
    path = f"{safe_path(video_id)}{suffix}"
    for part in path.split("/"):
        if part.startswith("."):
            raise UnfitId(
                f"video id {video_id!r} would be a hidden file; choose a format with ids inside the file, such as npz"
            )
        if part.endswith((".", " ")):
            raise UnfitId(
                f"video id {video_id!r}: a folder name cannot end with {part[-1]!r}; choose a format with ids "
                "inside the file, such as npz"
            )
        if len(os.fsencode(part)) > MAX_NAME_BYTES:
            raise UnfitId(
                f"video id {video_id!r} is too long for a file name ({len(os.fsencode(part))} bytes, at most "
                f"{MAX_NAME_BYTES}); choose a format with ids inside the file, such as npz"
            )
    return path


def numbers(value: Any, name: str) -> NDArray[Any]:
    """Return the value as a numeric array in native byte order. Raises StoreError for any other value."""
    try:
        array = np.asarray(built(value, name))
    except (ValueError, OverflowError) as error:
        raise damaged(name, "array", error) from error
    if array.dtype.kind not in "fiu":
        raise StoreError(f"{name}: has type {array.dtype}, which is not numeric; check that it is a feature file")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def add_dict(found: Any, file: Path, stream: str, listing: Listing) -> None:
    """List the arrays of a pickled dict, each built when it is loaded. A key that is not an id is one problem."""
    if not isinstance(found, Mapping) or not found:
        kind = type(cast("object", found)).__name__
        raise StoreError(f"{file}: contains {kind}, not a dict of video names and features")
    for key, value in cast("Mapping[Any, Any]", found).items():
        try:
            video_id = id_of(key, str(file))
        except StoreError as error:
            listing.problems.append(str(error))
            continue
        load = partial(numbers, value, f"{file}: {video_id}")
        listing.arrays.append(FeatureArray(video_id, stream, file, load, video_id))


def without_twins(arrays: Sequence[FeatureArray]) -> list[FeatureArray]:
    """Return the arrays without duplicates: arrays of the same (video, stream) become one that cannot be loaded."""
    files: dict[tuple[str, str], list[StorePath]] = {}
    for array in arrays:
        files.setdefault((array.video_id, array.stream), []).append(array.file)
    kept = {(array.video_id, array.stream): array for array in reversed(arrays)}
    return [
        array if len(files[name]) == 1 else replace(array, load=partial(_refuse_twin, array, files[name]))
        for name, array in reversed(kept.items())
    ]


def _refuse_twin(array: FeatureArray, files: Sequence[StorePath]) -> NDArray[Any]:
    places = ", ".join(dict.fromkeys(map(str, files)))
    raise StoreError(f"{places}: video {array.video_id!r} is there twice; remove one")
