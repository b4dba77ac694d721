"""Documentation of released features: their streams, the times of their rows, and the settings that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import InputError
from ...manifests.public_features import DocumentedStream, public_features
from ...manifests.recipes import load_recipe
from .feature_arrays import FeatureArray
from .feature_files import FeatureSource
from .stored_settings import SettingDifference, Settings, leaves

Documented = Mapping[str, DocumentedStream]


@dataclass(frozen=True, eq=False)
class Aligned:
    """Both sides, with the stream names of the documentation."""

    a: tuple[FeatureArray, ...]
    b: tuple[FeatureArray, ...]
    streams: Documented
    settings: Mapping[str, Settings]
    """Stream → settings of A, if a store has them."""
    checkpoints: Mapping[str, Mapping[str, str]]
    """Stream → role → checkpoint of A."""
    names: Mapping[str, str]
    """Stream of A → its name in the documentation."""

    def differences(self, stream: str) -> list[SettingDifference] | None:
        """Return the documented settings that A does not have; None if the settings of A are unknown."""
        if stream not in self.streams or stream not in self.settings:
            return None
        return setting_differences(self.streams[stream], self.settings[stream], self.checkpoints.get(stream, {}))


def documented_streams(name: str) -> Documented:
    """Return the streams of released features, or those of a recipe, whose settings are all known.

    Raises:
        ConfigError: There are no released features and no recipe of this name.
    """
    if (found := public_features(name)) is not None:
        return found.streams
    from ...extractors.table import resolved_recipe

    recipe = resolved_recipe(load_recipe(name))
    return {
        stream: DocumentedStream(
            extractor=spec.extractor,
            weights={role: (checkpoint,) for role, checkpoint in spec.weights.items()},
            sampling=spec.sampling.model_dump(mode="json"),
            settings=spec.settings,
        )
        for stream, spec in recipe.streams.items()
    }


def aligned(name: str, a: FeatureSource, b: FeatureSource) -> Aligned:
    """Rename the streams of both sides to those of released features, and add the times of the rows to B.

    Args:
        name: Name of the released features, or of a recipe.
        a: The features to compare.
        b: The released features.

    Raises:
        ConfigError: The name is not known.
        InputError: A has no stream like those of the released features.
    """
    streams = documented_streams(name)
    if not a.settings:  # files like those of B
        parts_a, parts_b = ([part for array in side.arrays for part in _parts(array, streams)] for side in (a, b))
        return Aligned(tuple(parts_a), tuple(parts_b), streams, {}, {}, {})
    named = {stream: _documented_name(stream, a.settings.get(stream, {}), streams) for stream in a.streams}
    names = {stream: known for stream, known in named.items() if known in streams}
    if not names:
        raise InputError(
            f"{a.path}: no stream like those of {name} in it; it has {', '.join(a.streams)}, {name} has "
            f"{', '.join(streams)}; extract such a stream, or compare without --as"
        )
    arrays_a = tuple(
        _without_last(replace(array, stream=names[array.stream]), streams[names[array.stream]].fewer_rows)
        for array in a.arrays
        if array.stream in names
    )
    settings = {names[stream]: found for stream, found in a.settings.items() if stream in names}
    times = {(array.video_id, array.stream): array.load_times for array in arrays_a if array.load_times is not None}
    arrays_b = [_with_times(part, streams, settings, times) for array in b.arrays for part in _parts(array, streams)]
    checkpoints = {names[stream]: found for stream, found in a.checkpoints.items() if stream in names}
    return Aligned(arrays_a, tuple(arrays_b), streams, settings, checkpoints, names)


def setting_differences(
    documented: DocumentedStream, settings: Settings, checkpoints: Mapping[str, str]
) -> list[SettingDifference]:
    """Return the documented settings that a stream does not have.

    Args:
        documented: Documentation of the stream in the released features.
        settings: Settings of the stream, as `stored_settings` returns them.
        checkpoints: Role → checkpoint of the stream.
    """
    known: dict[str, Any] = {"extractor": documented.extractor} if documented.extractor else {}
    known |= {"sampling": documented.sampling, **documented.settings}
    found = [
        SettingDifference(name, settings.get(name, "none"), text)
        for name, text in leaves(known)
        if settings.get(name) != text
    ]
    found += [
        SettingDifference(f"weights.{role}", checkpoints[role], " or ".join(same))
        for role, same in documented.weights.items()
        if role in checkpoints and checkpoints[role] not in same
    ]
    return found


def _documented_name(stream: str, settings: Settings, streams: Documented) -> str:
    """Return the documented name of a stream of A: the same name, or the only one with its extractor."""
    if stream in streams:
        return stream
    alike = [name for name, each in streams.items() if each.extractor and each.extractor == settings.get("extractor")]
    if not alike and len(streams) == 1 and not next(iter(streams.values())).extractor:
        alike = list(streams)
    return alike[0] if len(alike) == 1 else stream


def _without_last(array: FeatureArray, count: int) -> FeatureArray:
    """Remove the last ``count`` rows, which the released features do not have."""
    if not count:
        return array
    load, load_times = array.load, array.load_times

    def shorter_times() -> NDArray[np.float64] | None:
        times = None if load_times is None else load_times()
        return None if times is None else times[:, :-count]

    return replace(array, load=lambda: load()[:-count], load_times=None if load_times is None else shorter_times)


def _parts(array: FeatureArray, streams: Documented) -> Iterator[FeatureArray]:
    """Yield the arrays of the streams in a file, which may have the columns of several streams."""
    in_columns = {name: each for name, each in streams.items() if each.columns is not None}
    if array.stream in streams or not in_columns:
        name = array.stream if array.stream in streams or len(streams) > 1 else next(iter(streams))
        several = streams[name].rows_per_segment if name in streams else 1
        yield replace(array, stream=name, load=partial(_read, array.load, None, 0, several))
        return
    width = max(each.columns[1] for each in in_columns.values() if each.columns is not None)
    for name, each in in_columns.items():
        yield replace(array, stream=name, load=partial(_read, array.load, each.columns, width, each.rows_per_segment))


def _read(load: Callable[[], NDArray[Any]], columns: tuple[int, int] | None, width: int, several: int) -> NDArray[Any]:
    """Load an array, select its columns, and average the rows of each segment.

    An array of another width than ``width`` keeps all columns, so that the comparison reports the other dimension.
    """
    values = load()
    if columns is not None and values.shape[-1] == width:
        values = values[..., columns[0] : columns[1]]
    if several > 1 and values.ndim == 2:
        whole = len(values) // several * several
        values = values[:whole].reshape(-1, several, values.shape[1]).mean(axis=1)
    return values


def _with_times(
    array: FeatureArray,
    streams: Documented,
    settings: Mapping[str, Settings],
    times: Mapping[tuple[str, str], Callable[[], NDArray[np.float64] | None]],
) -> FeatureArray:
    """Add the times of the rows, computed from the documented sampling and the frame rate of the video in A."""
    documented, mine = streams.get(array.stream), settings.get(array.stream, {})
    of_a = times.get((array.video_id, array.stream))
    if array.load_times is not None or documented is None or of_a is None:
        return array
    sampling = documented.sampling
    frames, step = sampling.get("frames_per_segment"), sampling.get("frames_per_step")
    if frames is None or step is None or "fps" not in sampling:
        return array
    of_segment = int(mine.get("sampling.frames_per_segment", "0"))
    if sampling["fps"] == "native" and (mine.get("sampling.fps") != "native" or not of_segment):
        return array

    def load_times() -> NDArray[np.float64] | None:
        known = of_a()
        if known is None or not known.shape[1]:
            return None
        fps = of_segment / (known[1][0] - known[0][0]) if sampling["fps"] == "native" else sampling["fps"]
        start_s = known[0][0] + np.arange(len(array.load())) * step / fps
        return np.stack([start_s, start_s + frames / fps])

    return replace(array, load_times=load_times)


def unknown_settings(streams: Documented, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return stream → undocumented settings, for streams that have some."""
    return {name: streams[name].unknown for name in names if name in streams and streams[name].unknown}
