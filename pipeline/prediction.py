"""Class names that the classifiers of networks assign to a video: a check of weights and preprocessing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..extractors.class_scores import class_names, logits_kind, with_classifier
from ..extractors.table import resolved_recipe
from ..manifests.errors import ConfigError, ExtractionError, WeightsError
from ..manifests.recipes import Recipe
from ..manifests.streams import StreamSpec
from .extraction import Extraction
from .items import Event
from .options import RunOptions
from .store.files.storage import StorePath
from .store.reader import FeatureStore
from .weights.cache import open_cache
from .weights.required import require_checkpoints


@dataclass(frozen=True)
class ClassScore:
    """A class and its probability, 0 to 1."""

    name: str
    probability: float


@dataclass(frozen=True)
class SegmentClasses:
    """The most probable classes of one segment, most probable first."""

    start_s: float
    end_s: float
    classes: tuple[ClassScore, ...]


@dataclass(frozen=True)
class StreamClasses:
    """The most probable classes of a video for one stream, most probable first."""

    stream: str
    extractor: str
    checkpoint: str
    classes: tuple[ClassScore, ...]
    """Computed from the mean over all segments before the softmax."""
    segments: tuple[SegmentClasses, ...]


@dataclass(frozen=True)
class Prediction:
    """Classes of a video."""

    streams: tuple[StreamClasses, ...]
    skipped: Mapping[str, str]
    """Stream → reason why it has no classes."""


def predict(
    video: StorePath,
    recipe: Recipe,
    *,
    streams: Sequence[str] | None = None,
    weights: str | None = None,
    top: int = 5,
    options: RunOptions | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Prediction:
    """Classify one video with the streams of a recipe, with the recipe's sampling and preprocessing.

    Args:
        video: A video file or URL.
        recipe: The recipe.
        streams: Streams to use, all with known class names; by default all streams that have them.
        weights: ``random:SEED`` replaces the checkpoints, as in `Extraction`.
        top: Number of classes.
        options: How the run is executed.
        on_event: Called with each event of the run.

    Returns:
        Classes by stream, and the streams that were skipped with the reasons.

    Raises:
        ConfigError: No stream has a classifier whose class names are known.
        WeightsError: All checkpoints are missing.
        ExtractionError: The video cannot be decoded, or is shorter than a segment.

    Example:
        >>> predict(Path("skater.mp4"), load_recipe("video-features-i3d"))  # doctest: +SKIP
        Prediction(streams=(StreamClasses(stream='rgb', extractor='i3d_rgb', ...
    """
    recipe = resolved_recipe(recipe)
    names, skipped = _streams_with_classes(recipe, streams, weights)
    with_logits = {name: with_classifier(recipe.streams[name]) for name in names}
    with tempfile.TemporaryDirectory(prefix="arabesque-predict-") as folder:
        run = Extraction(
            video,
            recipe.model_copy(update={"streams": with_logits}),
            Path(folder) / "logits",
            weights=weights,
            options=replace(options or RunOptions(), float16=False),
        )
        for event in run:
            on_event(event)
        store = FeatureStore(run.out, partial=True)
        (file,) = run.inputs.videos
        reasons = {one.stream: one.reason for one in store.outcomes() if one.kind in ("failed", "empty")}
        found = list[StreamClasses]()
        for name, classes in names.items():
            if name in reasons or file.video_id not in store or name not in store[file.video_id]:
                skipped[name] = reasons.get(name, "the video has no segment")
                continue
            features = store[file.video_id][name]
            found.append(
                StreamClasses(
                    stream=name,
                    extractor=recipe.streams[name].extractor,
                    checkpoint=weights or recipe.streams[name].weights["network"],
                    classes=_top(features.values.mean(axis=0), classes, top),
                    segments=tuple(
                        SegmentClasses(float(start_s), float(end_s), _top(row, classes, top))
                        for start_s, end_s, row in zip(features.start_s, features.end_s, features.values, strict=True)
                    ),
                )
            )
    if not found:
        raise ExtractionError(f"{video}: {'; '.join(f'stream {name}: {reason}' for name, reason in skipped.items())}")
    return Prediction(tuple(found), skipped)


def _streams_with_classes(
    recipe: Recipe, streams: Sequence[str] | None, weights: str | None
) -> tuple[dict[str, Sequence[str]], dict[str, str]]:
    """Return stream → names of its classes, and the other streams with the reason."""
    cache = open_cache(recipe.weights)
    names, skipped = dict[str, Sequence[str]](), dict[str, str]()
    missing: WeightsError | None = None
    for name in streams or recipe.streams:
        spec = recipe.streams[name]
        try:
            logits_kind(spec.extractor)
            found = class_names(spec, cache.entry)
            require_checkpoints(recipe, {name: spec}, weights)
            names[name] = found
        except ConfigError as error:
            if streams:
                raise ConfigError(f"stream {name}: {error}") from error
            skipped[name] = str(error)
        except WeightsError as error:
            error = WeightsError(f"{error}{_alternatives(name, spec)}")
            if streams:
                raise error from None
            missing, skipped[name] = missing or error, str(error)
    if not names:
        if missing is not None:
            raise missing
        reasons = "; ".join(f"stream {name}: {reason}" for name, reason in skipped.items())
        raise ConfigError(f"recipe {recipe.name}: no stream can name classes; {reasons}")
    return names, skipped


def _alternatives(stream: str, spec: StreamSpec) -> str:
    """Return the options that use another checkpoint on this machine, with the same classes and input."""
    cache = open_cache()
    known = cache.manifest.weights
    wanted = known.get(spec.weights.get("network", ""))
    if wanted is None:
        return ""
    present = [
        name
        for name, entry in known.items()
        if entry.classes == wanted.classes and entry.trained_on == wanted.trained_on and cache.is_present(name)
    ]
    return "".join(f"; --weights {stream}.network={name} uses a file on this machine" for name in present)


def _top(row: NDArray[np.float32], names: Sequence[str], top: int) -> tuple[ClassScore, ...]:
    if len(row) != len(names):
        raise WeightsError(f"the network has {len(row)} classes, but {len(names)} names are known; use other weights")
    exponentials = np.exp(row.astype(np.float64) - row.max())
    probabilities = exponentials / exponentials.sum()
    order = np.argsort(-probabilities, kind="stable")[:top]
    return tuple(ClassScore(names[int(index)], float(probabilities[index])) for index in order)
