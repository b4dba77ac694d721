"""``arabesque evaluate``: compare the scores of a trained model with those of the judges, and list caveats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from ..manifests.errors import InputError, WeightsError
from ..pipeline.store.files.storage import StorePath
from .checkpoints import ModelCard, check_streams, load_checkpoint
from .dataset_runs import label_contents, scores_in, title_of
from .features import FeatureSet, LabeledSamples, label_samples
from .highlights import cut_to_labels, predict_highlights
from .label_matching import match_labels
from .labels import UNTITLED, read_labels
from .metrics import Estimate, average_precision, bootstrap, spearman
from .named_labels import CSV, read_named_labels
from .prediction import predict, predict_intervals
from .published_checkpoints import load_published
from .released_features import read_features
from .splits import abbreviate, duplicate_notes
from .stream_subsets import subsets, with_only
from .table import model_class


@dataclass(frozen=True, eq=False)
class LabeledFeatures:
    """Features and labels for the evaluation of a model."""

    features: StorePath
    """A feature store, or a file or folder of released features."""
    labels: Path
    """CSV of scores, or if ``dataset`` is given the folder of its label files."""
    dataset: str | None = None
    """Name of the data set or path of its ``.toml`` file; None for a CSV."""
    target: str | None = None
    """Name of the score, if there are several."""
    subset: str | None = None
    """Subset of the data set, e.g. ``Ball`` of RG."""
    split: str = "test"
    """Split of the data set."""
    partial: bool = False
    """Include partial videos."""
    max_lost: float | None = None
    """Include partial videos that lost at most this share (0 to 1) of their duration."""
    device: torch.device | str = "cpu"
    """Device of features and network, e.g. ``cuda:0``."""

    def read(self, model: str, streams: Sequence[str]) -> FeatureSet:
        """Read the features of these streams in the form that a model needs."""
        one_grid = bool(model_class(model).one_grid)
        return read_features(
            self.features, tuple(streams), one_grid=one_grid, partial=self.partial, max_lost=self.max_lost
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Result of the evaluation of a model on labeled videos."""

    scores: Mapping[str, tuple[float, float]]
    """video_id → score by the judges, predicted score"""
    spearman: Estimate
    """Spearman's correlation with a 95 % bootstrap interval"""
    cautions: tuple[str, ...]
    """Reasons why the numbers do not measure the quality on unseen videos"""
    notes: tuple[str, ...] = ()
    """Notes on reading labels and matching them to videos"""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    """video_id → lowest and highest score, for models that state intervals"""
    by_streams: Mapping[tuple[str, ...], float] = field(default_factory=dict[tuple[str, ...], float])
    """Subset of the streams → Spearman's correlation if all other streams are missing"""

    @property
    def coverage(self) -> float | None:
        """Share of the videos whose score by the judges is in the predicted interval; None without intervals"""
        if not self.intervals:
            return None
        within = [low <= self.scores[name][0] <= high for name, (low, high) in self.intervals.items()]
        return sum(within) / len(within)

    @property
    def mean_over_streams(self) -> float | None:
        """Mean correlation over the subsets of the streams, as in MCMoE and LIMSSR; None without subsets"""
        return sum(self.by_streams.values()) / len(self.by_streams) if self.by_streams else None


def evaluate(model: Path, given: LabeledFeatures, *, stream_subsets: bool = False) -> Evaluation:
    """Evaluate a trained model on labeled videos.

    Args:
        model: Folder of the trained model.
        given: The features and their labels.
        stream_subsets: Also evaluate every subset of the streams, with the other streams missing.

    Raises:
        WeightsError: The model cannot be loaded, or its training features were made with other settings.
        InputError: The labels cannot be read, or fewer than two labeled videos have features.
    """
    network, card = load_checkpoint(model)
    found = given.read(card.model, tuple(card.dims))
    check_streams(card, found.streams, given.features, found.recipe)
    network.to(given.device)
    data, title, notes = _labeled(card.seed, found, given, given.target)
    cautions = tuple(_cautions(card, data, title))
    left = tuple(subsets(tuple(card.dims))) if stream_subsets else ()
    return _compared(network, data, card.score_range, given.features, cautions, notes, left)


@dataclass(frozen=True, eq=False)
class HighlightEvaluation:
    """Result of the evaluation of a highlight detector on labeled videos."""

    precisions: Mapping[str, float]
    """video_id → average precision"""
    mean_average_precision: Estimate
    """Mean average precision with a 95 % bootstrap interval over the videos"""
    cautions: tuple[str, ...]
    """Reasons why the numbers do not measure the quality on unseen videos"""
    notes: tuple[str, ...] = ()
    """Notes on reading labels and matching them to videos"""


def evaluate_highlights(model: Path, given: LabeledFeatures) -> HighlightEvaluation:
    """Evaluate a trained highlight detector on videos whose segments have labels.

    Args:
        model: Folder of the trained model.
        given: The features, and the labels of a data set with labels of segments. Its target is ignored.

    Raises:
        WeightsError: The model cannot be loaded, or its training features were made with other settings.
        InputError: The data set has no labels of segments, or no labeled video has features.
        ArabesqueError: The model does not detect highlights.
    """
    network, card = load_checkpoint(model)
    found = given.read(card.model, tuple(card.dims))
    check_streams(card, found.streams, given.features, found.recipe)
    if given.dataset is None:
        raise InputError(f"{given.labels}: a CSV has no labels of segments; name the data set")
    known, wanted = read_named_labels(given.dataset, given.labels, None)
    if not known.highlights:
        raise InputError(f"{given.dataset} has scores of videos, not labels of segments; remove --metric")
    data, title, notes = _labeled(card.seed, found, given, wanted)
    if not len(data.samples):
        raise InputError(f"{given.features}: none of the labeled videos has features")
    videos = match_labels(known.video_ids, found.known, given.labels, known.titles_of).videos
    used = set(data.samples.video_ids)
    marks = {videos[label]: each for label, each in known.highlights.items() if videos.get(label) in used}
    data, marks = cut_to_labels(data, marks)
    predictions = predict_highlights(network.to(given.device), data.samples, torch.arange(len(data.samples)))
    precisions = {name: average_precision(values, marks[name]) for name, values in predictions.items()}
    values = list(precisions.values())
    estimate = Estimate(values[0], float("nan"), float("nan"))
    if len(values) > 1:
        contents = [data.contents.get(name, name) for name in precisions]
        estimate = bootstrap(values, [0.0] * len(values), _mean_of_first, contents=contents)
    return HighlightEvaluation(precisions, estimate, tuple(_cautions(card, data, title)), (*notes, *data.notes))


def _mean_of_first(values: ArrayLike, _: ArrayLike) -> float:
    return float(np.asarray(values, np.float64).mean())


def evaluate_published(checkpoint: Path, given: LabeledFeatures, *, streams: Sequence[str] | None = None) -> Evaluation:
    """Evaluate a checkpoint that the authors of ACTION-NET, GDLT or PAMFN published.

    Args:
        checkpoint: File of the authors.
        given: The features, and the labels of a data set; the range of its target is the range of the scores.
        streams: Our names of the streams in the order of the authors; None for those of `PUBLISHED_STREAMS`.

    Raises:
        WeightsError: The checkpoint cannot be read, or the features have other dims.
        InputError: The labels cannot be read, or fewer than two labeled videos have features.
    """
    published = load_published(checkpoint, streams)
    found = given.read(published.model, published.streams)
    for stream, dim in published.dims.items():
        if found.dims[stream] != dim:
            raise WeightsError(
                f"{given.features}: stream {stream!r} has {found.dims[stream]} values per segment, but {checkpoint} "
                f"needs {dim}; give the features that its authors used"
            )
    if given.dataset is None:
        raise InputError(f"{given.labels}: a CSV does not state the range of the scores; name the data set")
    data, _, notes = _labeled(0, found, given, given.target)
    known, wanted = read_named_labels(given.dataset, given.labels, given.target)
    cautions = [f"{published.model} of its authors: the file does not record the training videos"]
    if given.split == "train":
        cautions.append("the authors trained on this split; the result does not apply to unseen videos")
    else:
        cautions.append("the authors chose their epochs on the test videos: an upper bound")
    score_range = known.dataset.targets[wanted].score_range
    return _compared(published.network.to(given.device), data, score_range, given.features, tuple(cautions), notes)


def _compared(
    network: nn.Module,
    data: LabeledSamples,
    score_range: tuple[float, float],
    features: StorePath,
    cautions: tuple[str, ...],
    notes: tuple[str, ...],
    stream_subsets: Sequence[tuple[str, ...]] = (),
) -> Evaluation:
    if len(data.samples) < 2:
        raise InputError(
            f"{features}: {len(data.samples)} of the labeled videos have features, but a rank correlation needs two"
        )
    lowest, highest = score_range
    rows = torch.arange(len(data.samples))
    bounds = predict_intervals(network, data.samples, rows)
    fractions = predict(network, data.samples, rows) if bounds is None else bounds[0]
    predicted = (lowest + (highest - lowest) * fractions).numpy()
    video_ids = data.samples.video_ids
    intervals: dict[str, tuple[float, float]] = {}
    if bounds is not None:
        low, high = (list(map(float, lowest + (highest - lowest) * each)) for each in bounds[1:])
        intervals = dict(zip(video_ids, zip(low, high, strict=True), strict=True))
    pairs = zip(data.scores.tolist(), predicted.tolist(), strict=True)
    return Evaluation(
        scores=dict(zip(video_ids, pairs, strict=True)),
        spearman=bootstrap(predicted, data.scores, contents=[data.contents.get(name, name) for name in video_ids]),
        cautions=cautions,
        notes=(*notes, *data.notes),
        intervals=intervals,
        by_streams={
            streams: spearman(predict(network, with_only(data.samples, streams), rows).numpy(), data.scores)
            for streams in stream_subsets
        },
    )


def _labeled(
    seed: int, found: FeatureSet, given: LabeledFeatures, target: str | None
) -> tuple[LabeledSamples, str, tuple[str, ...]]:
    """Return the labeled videos, the title of their score as in `ModelCard.target`, and notes on the labels."""
    features = found.on(given.device)
    if given.dataset is None:
        plain = read_labels(given.labels, target)
        matching = match_labels(plain.scores, features.known, given.labels, plain.titles_of)
        return label_samples(features, plain.scores, matching), plain.target, plain.notes
    known, wanted = read_named_labels(given.dataset, given.labels, target)
    matching = match_labels(known.video_ids, features.known, given.labels, known.titles_of)
    contents = label_contents(matching, features.contents)
    scores = scores_in(known, wanted, given.split, given.subset, seed, contents)
    title = title_of(known.dataset.name, given.subset, wanted)
    return label_samples(features, scores, matching), title, known.notes


def _cautions(card: ModelCard, data: LabeledSamples, title: str) -> Iterator[str]:
    if card.unverified:
        yield card.unverified
    video_ids = set(data.samples.video_ids)
    trained = len(video_ids.intersection(card.trained_on))
    chosen = len(video_ids.intersection(card.chosen_on))
    if trained:
        yield (
            f"the model was trained on {trained} of the {len(video_ids)} videos; "
            "the result does not apply to unseen videos"
        )
    twins = {
        name: card.trained_duplicate(content) for name, content in data.contents.items() if name not in card.trained_on
    }
    pairs = [f"{name} = {twin}" for name, twin in twins.items() if twin is not None]
    if pairs:
        yield (
            f"{len(pairs)} of the {len(video_ids)} videos have the same content as videos that the model was trained "
            f"on, under other ids: {abbreviate(pairs)}"
        )
    yield from duplicate_notes(dict(zip(data.samples.video_ids, data.scores.tolist(), strict=True)), data.contents)
    if chosen:
        yield f"best on test: {chosen} of the {len(video_ids)} videos chose the epoch of its weights: an upper bound"
    wanted, given = card.target.removeprefix(f"{CSV}-"), title.removeprefix(f"{CSV}-")
    same = wanted == given or wanted.endswith(f"-{given}") or given.endswith(f"-{wanted}")
    if not same and UNTITLED not in (wanted, given):
        yield f"the model was trained to predict {wanted}, these are scores of {given}"
