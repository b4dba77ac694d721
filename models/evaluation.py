"""``arabesque evaluate``: a trained model's scores beside the judges', and what must be known to believe them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..manifests.errors import ManifestError
from ..pipeline.store.folders import Root
from .checkpoints import ModelCard, check_streams, load_checkpoint
from .dataset_runs import scores_in, title_of
from .features import label_routines
from .fitting import judge
from .labels import UNTITLED, read_labels
from .metrics import Estimate, bootstrap
from .named_labels import CSV, read_named_labels
from .released_features import read_features
from .table import model_class


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well a model ranks labelled videos."""

    scores: Mapping[str, tuple[float, float]]
    """video_id → what the judges gave, what the model predicts"""
    spearman: Estimate
    """With a 95 % bootstrap interval"""
    cautions: tuple[str, ...]
    """What keeps these numbers from telling how the model does on videos that it has not seen"""


def evaluate(
    model: Path,
    features: Root,
    labels: Path,
    *,
    dataset: str | None = None,
    target: str | None = None,
    subset: str | None = None,
    split: str = "test",
    partial: bool = False,
) -> Evaluation:
    """A trained model on the labelled ones among the videos, of a CSV or of a data set's split.

    Features made under other settings than those it was trained on raise `WeightsError`.
    """
    network, card = load_checkpoint(model)
    one_grid = bool(model_class(card.model).one_grid)
    found = read_features(features, tuple(card.dims), one_grid=one_grid, partial=partial)
    check_streams(card, found.streams, features, found.recipe)
    true, title = _labels(card, labels, dataset, target, subset, split)
    data = label_routines(found, true)
    if len(data.routines) < 2:
        raise ManifestError(f"{features}: {len(data.routines)} of the labelled videos are there; a rank needs two")
    low, high = card.score_range
    predicted = low + (high - low) * judge(network, data.routines, torch.arange(len(data.routines))).numpy()
    video_ids = data.routines.video_ids
    pairs = zip(data.scores.tolist(), predicted.tolist(), strict=True)
    return Evaluation(
        scores=dict(zip(video_ids, pairs, strict=True)),
        spearman=bootstrap(predicted, data.scores),
        cautions=tuple(_cautions(card, set(video_ids), title)),
    )


def _labels(
    card: ModelCard, labels: Path, dataset: str | None, target: str | None, subset: str | None, split: str
) -> tuple[Mapping[str, float], str]:
    """The judges' scores, and what they are scores of as a card's ``target`` says it."""
    if dataset is None:
        found = read_labels(labels, target)
        return found.scores, found.target
    known, wanted = read_named_labels(dataset, labels, target)
    return scores_in(known, wanted, split, subset, card.seed), title_of(known.dataset.name, subset, wanted)


def _cautions(card: ModelCard, judged: set[str], title: str) -> Iterator[str]:
    trained = len(judged.intersection(card.trained_on))
    chosen = len(judged.intersection(card.chosen_on))
    if trained:
        yield f"the model was trained on {trained} of the {len(judged)} videos: no measure of how it does on others"
    if chosen:
        yield f"best on test: {chosen} of the {len(judged)} videos chose the epoch of its weights: an upper bound"
    wanted, given = card.target.removeprefix(f"{CSV}-"), title.removeprefix(f"{CSV}-")
    same = wanted == given or wanted.endswith(f"-{given}") or given.endswith(f"-{wanted}")
    if not same and UNTITLED not in (wanted, given):
        yield f"the model was trained to predict {wanted}, these are scores of {given}"
