"""What feature files of any format come down to: named arrays, and the names that published code gives to streams."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import ManifestError, StoreError
from ..store.folders import Root

SUFFIXES = {"vst": "video", "i3d_rgb": "rgb", "i3d_flow": "flow", "ast": "audio"}
"""Stream → what PAMFN's extractor appends to a video's name."""
MODELS = {
    "vst": "rgb_VST",
    "umt": "rgb_UMT",  # PAMFN's name for features of UNMT, the unmasked teacher
    "i3d_rgb": "rgb_I3D",
    "i3d_flow": "flow_I3D",
    "ast": "audio_AST",
    "mast": "audio_MAST",
}
"""Stream → modality and network in the names of PAMFN's dict files."""

_NO_STREAM_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, eq=False)
class FeatureArray:
    """One video's features of one stream, as a file holds them: ``[segments, dim]`` or ``[segments, halves, dim]``."""

    video_id: str
    stream: str
    """Empty where the format does not say."""
    file: Root
    load: Callable[[], NDArray[Any]]
    """Reads the array; StoreError where it is damaged or no array of numbers."""


@dataclass(frozen=True, eq=False)
class Member:
    """One array on its way into a file."""

    video_id: str
    label: str
    """The stream, as the format or the user calls it."""
    load: Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class Place:
    """Which array a format is asked to find a file for."""

    video_id: str
    label: str
    position: int
    """Of the video among all that are written."""
    alone: bool
    """No other stream is written beside this one."""
    action: str | None
    """``Ball``, ``FISV``, …: which dict file of PAMFN's a video belongs to; None where its id tells."""


def stream_of(label: str, known: Mapping[str, str], given: Mapping[str, str]) -> str:
    """The stream that a file calls ``label``: as the user says (stream → label), as is known, else in lower case."""
    for names in (given, known):
        for stream, name in names.items():
            if name == label:
                return stream
    return _NO_STREAM_NAME.sub("_", label.lower()).strip("_.-") or "unnamed"


def label_of(stream: str, known: Mapping[str, str], given: Mapping[str, str]) -> str:
    """What a file calls ``stream``: the other way round; an unknown stream goes by its own name."""
    return given.get(stream, known.get(stream, stream))


def id_of(key: Any, name: str) -> str:
    """A video id from a dict's key; the parts of a tuple (LOGO) are joined by ``/``."""
    if isinstance(key, bytes):
        return key.decode("utf-8", errors="backslashreplace")
    if isinstance(key, str | int) and not isinstance(key, bool):
        return str(key)
    if isinstance(key, tuple) and key:
        return "/".join(id_of(part, name) for part in key)
    raise StoreError(f"{name}: the key {key!r} names no video; keys are texts, numbers or tuples of them")


def safe_path(video_id: str) -> str:
    """The id as a path below a folder; ManifestError for one that would lead out of it."""
    parts = video_id.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in video_id or "\0" in video_id:
        raise ManifestError(f"video id {video_id!r} cannot be a file's name; choose a format with ids inside, as npz")
    return video_id


def numbers(value: Any, name: str) -> NDArray[Any]:
    """The value as an array of numbers, byte order of this machine; StoreError for anything else."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise StoreError(f"{name}: holds {array.dtype} instead of numbers; is it a feature file?")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def from_dict(found: Any, name: str, file: Path, stream: str) -> list[FeatureArray]:
    """The arrays of a pickled dict, which lies in memory anyway."""
    if not isinstance(found, Mapping) or not found:
        raise StoreError(f"{name}: holds {type(found).__name__}, not a dict of video names and features")
    arrays: list[FeatureArray] = []
    for key, value in found.items():
        video_id = id_of(key, name)
        arrays.append(FeatureArray(video_id, stream, file, lambda v=value, i=video_id: numbers(v, f"{name}: {i}")))
    refuse_twins(arrays)
    return arrays


def refuse_twins(arrays: Iterable[FeatureArray]) -> None:
    """StoreError where two arrays claim the same (video, stream)."""
    seen: dict[tuple[str, str], Root] = {}
    for array in arrays:
        name = array.video_id, array.stream
        if name in seen:
            raise StoreError(f"{array.file}: video {array.video_id!r} is there twice, also in {seen[name]}; remove one")
        seen[name] = array.file
