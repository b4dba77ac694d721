"""The output folder of v-iashin/video_features: ``ID_rgb.npy`` beside ``ID_fps.npy`` and ``ID_timestamps_ms.npy``.

Its command line writes ``OUTPUT/i3d/ID_rgb.npy``, or ``OUTPUT/resnet/resnet50/ID_resnet.npy`` for families with several
networks. A path can be one of these folders, or OUTPUT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import StoreError
from .feature_arrays import FeatureArray, Listing, id_of, stream_of
from .feature_folders import files_below, load_npy

FPS, TIMESTAMPS = "fps", "timestamps_ms"
PIL_RESIZED = ("rgb", "flow", "resnet", "clip", "timm", "raft")
"""Names of features whose frames the package resizes as PIL images, and whose times it writes.

r21d and s3d resize tensors; they and vggish have no times.
"""
FEATURES = (*PIL_RESIZED, "r21d", "s3d", "vggish")
_FAMILIES = ("i3d", "resnet", "r21d", "s3d", "clip", "timm", "raft", "vggish")
"""Names of the folders of its command line."""
_KINDS = (TIMESTAMPS, FPS, *FEATURES)


def split_name(name: str) -> tuple[str, str]:
    """Return video id and kind, such as ``rgb`` or ``timestamps_ms``; the kind is empty for other names."""
    for kind in _KINDS:
        if name.endswith(f"_{kind}") and len(name) > len(kind) + 1:
            return name.removesuffix(f"_{kind}"), kind
    return name, ""


def is_output(files: Sequence[Path]) -> bool:
    """Return whether ``.npy`` files are an output of video_features. Color and flow without times may be PAMFN's."""
    kinds = {split_name(file.stem)[1] for file in files}
    return "" not in kinds and bool(kinds & set(FEATURES)) and not kinds <= {"rgb", "flow", "vggish"}


def read_video_features(path: Path, trust: bool, names: Mapping[str, str], stack: ExitStack) -> Listing:
    """List the features, each with the times of its rows if the folder has them."""
    found = files_below(path, ".npy")
    by_name = dict(found)
    labels = _labels([name for name, _ in found])
    listing = Listing()
    for name, file in found:
        beginning, kind = split_name(name)
        if kind in (FPS, TIMESTAMPS):
            continue
        if not kind:
            problem = f"its name does not end with one of _{', _'.join(FEATURES)}; move or rename it"
            listing.problems.append(f"{file}: {problem}")
            continue
        times, fps = by_name.get(f"{beginning}_{TIMESTAMPS}"), by_name.get(f"{beginning}_{FPS}")
        listing.arrays.append(
            FeatureArray(
                video_id=id_of(_video_id(beginning), ""),
                stream=stream_of(labels[name], {}, names),
                file=file,
                load=partial(load_npy, file),
                load_times=partial(_load_times, file, times, fps) if times and kind in PIL_RESIZED else None,
                resize="pil" if kind in PIL_RESIZED else "",
            )
        )
    return listing


def _family_parts(name: str) -> tuple[str, ...]:
    """Return the folders of the command line in a relative path: ``("resnet", "resnet50")``, ``("i3d",)`` or none."""
    folders = name.split("/")[:-1]
    if not folders or folders[0] not in _FAMILIES:
        return ()
    return tuple(folders[:2]) if folders[0] in ("resnet", "r21d", "clip", "timm") else tuple(folders[:1])


def _video_id(name: str) -> str:
    return "/".join(name.split("/")[len(_family_parts(name)) :])


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Return relative path → label: ``resnet``, or ``resnet50`` where there are several networks of the family."""
    kinds = {name: split_name(name)[1] for name in names}
    folders: dict[str, set[tuple[str, ...]]] = {}
    for name, kind in kinds.items():
        folders.setdefault(kind, set()).add(_family_parts(name))
    return {
        name: _family_parts(name)[-1] if len(folders[kind]) > 1 and _family_parts(name) else kind
        for name, kind in kinds.items()
    }


def _load_times(file: Path, timestamps: Path, fps: Path | None) -> NDArray[np.float64]:
    """Return ``float64 [2, rows]``, start and end in seconds.

    If the network has stacks of frames, these are the times of the frames after each stack, and the first stack begins
    at 0. If it has single frames, these are the times of the frames, and the first one is 0.
    """
    times_s = np.asarray(load_npy(timestamps), np.float64).reshape(-1) / 1000
    num_rows = len(load_npy(file))
    if len(times_s) != num_rows:
        found = f"has {len(times_s)} times for {num_rows} rows of {file.name}"
        raise StoreError(f"{timestamps}: {found}; compute both again")
    is_ascending = num_rows == 0 or bool(times_s[0] >= 0 and (np.diff(times_s) > 0).all())
    if not (is_ascending and np.isfinite(times_s).all()):
        raise StoreError(f"{timestamps}: its times are not ascending numbers; compute both again")
    if num_rows and times_s[0] > 0:
        step_s = float(np.median(np.diff(times_s))) if num_rows > 1 else times_s[0]
        follows = abs(step_s - times_s[0]) < 0.1 * step_s  # each stack begins where the one before ends
        return np.stack([np.r_[0.0, times_s[:-1]] if follows else times_s - times_s[0], times_s])
    return np.stack([times_s, times_s + _frame_s(times_s, fps)])


def _frame_s(times_s: NDArray[np.float64], fps: Path | None) -> float:
    rate: Any = load_npy(fps) if fps is not None else np.zeros(0)
    if rate.size == 1 and np.isfinite(rate).all() and float(rate.reshape(-1)[0]) > 0:
        return 1 / float(rate.reshape(-1)[0])
    return float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1.0
