"""From a feature store and a label file to a trained model and an honest number: how well it ranks unseen videos."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..manifests.errors import ManifestError
from ..pipeline.store.folders import Root
from ..pipeline.store.reader import FeatureStore
from .checkpoints import ModelCard, new_network, put_whole, save_checkpoint, to_json
from .features import LabelledRoutines, label_routines, read_store, some
from .fitting import Fitting, cpu_threads, judge
from .labels import Labels, read_labels
from .metrics import Estimate, bootstrap, mean_squared_error, pearson
from .named_labels import widened_range
from .protocol import Cosine, Protocol
from .routines import rows_of
from .splits import folds, hold_out
from .standardising import Standardised
from .table import resolve_settings

SMALL_MODEL = "context-attention"
SMALL_SETTINGS: Mapping[str, Any] = {"hidden_dim": 64, "feature_dropout": 0.5}
SMALL_PROTOCOL = Protocol(
    epochs=60, batch_size=8, standardise=True, learning_rate=1e-3, weight_decay=1.0, schedule=Cosine()
)
"""For a few dozen to a few hundred videos: narrow, strongly regularised, no selection of an epoch."""

FEWEST_VIDEOS = 8
NUM_FOLDS = 5
HOLD_OUT_FROM = 100
"""With fewer videos than this, every one is held out once (cross-validation); from here on, a fifth of them is."""

Progress = Callable[[int, int], None]
"""Called with the number of epochs done and to do, over all trainings."""


@dataclass(frozen=True)
class Prediction:
    """A video's score by the judges and by a model that has not seen the video."""

    video_id: str
    true: float
    predicted: float
    fold: int


@dataclass(frozen=True)
class Report:
    """How a training went."""

    target: str
    streams: tuple[str, ...]
    scheme: str
    """How videos were held out, in words"""
    spearman: Estimate
    """Over the held-out videos, with a 95 % bootstrap interval"""
    pearson: float
    mean_squared_error: float
    """In squared score units"""
    predictions: tuple[Prediction, ...]
    num_videos: int
    without_label: tuple[str, ...]
    without_video: tuple[str, ...]
    partial: tuple[str, ...]
    unfinished: tuple[str, ...]
    files: tuple[Path, ...] = ()

    def rows(self) -> list[tuple[str, str]]:
        """What a person wants to know, as (name, value)."""
        return [
            ("score", f"{self.target} from {', '.join(self.streams)}"),
            ("videos", str(self.num_videos)),
            ("held out", self.scheme),
            ("Spearman", f"{self.spearman}  (held-out videos, n = {len(self.predictions)}, 95 % bootstrap interval)"),
            ("Pearson", f"{self.pearson:.3f}"),
            ("error", f"{self.mean_squared_error**0.5:.2f} points, root mean square"),
        ]

    def summary(self) -> str:
        return "\n".join(f"{name:10}{value}" for name, value in self.rows())


def train_and_evaluate(
    store: Root | FeatureStore,
    labels: Path | str | Labels,
    out: Path | str,
    *,
    target: str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    partial: bool = False,
    on_epoch: Progress | None = None,
) -> Report:
    """Train one small model on a store's videos; judge it on videos held out; write model, predictions and report.

    The written model has learnt from all labelled videos; the correlation is that of models trained in the same way
    without the videos they were judged on. ``partial``: take videos whose file breaks off, too.
    """
    opened = store if isinstance(store, FeatureStore) else FeatureStore(store, partial=partial)
    judged = labels if isinstance(labels, Labels) else read_labels(labels, target)
    data = label_routines(read_store(opened), judged.scores)
    _enough(data, opened.path, judged)
    protocol = SMALL_PROTOCOL if epochs is None else SMALL_PROTOCOL.shortened(epochs)
    held_out, scheme = _held_out(data.routines.video_ids, seed)
    trainings = _Trainings(data, protocol, judged.target, seed, on_epoch, count=len(held_out) + 1)
    with cpu_threads(1):
        predictions = tuple(
            prediction for fold, names in enumerate(held_out) for prediction in trainings.judge_without(names, fold)
        )
        network, card = trainings.train(torch.arange(len(data.routines)))
    report = _report(predictions, data, judged.target, scheme)
    return replace(report, files=tuple(_write(Path(out), network, card, report)))


class _Trainings:
    """The same training, over and over on other videos."""

    def __init__(
        self, data: LabelledRoutines, protocol: Protocol, target: str, seed: int, on_epoch: Progress | None, count: int
    ) -> None:
        self._data = data
        self._protocol = protocol
        self._target = target
        self._seed = seed
        self._on_epoch = on_epoch
        self._to_do = count * protocol.epochs
        self._done = 0

    def judge_without(self, names: Sequence[str], fold: int) -> list[Prediction]:
        """Predictions for these videos by a model that was trained on all others."""
        routines, scores = self._data.routines, self._data.scores
        unseen = rows_of(routines, names)
        network, card = self.train(rows_of(routines, [name for name in routines.video_ids if name not in set(names)]))
        low, high = card.score_range
        predicted = low + (high - low) * judge(network, routines, unseen).numpy()
        true = scores[unseen.numpy()]
        return [Prediction(*row, fold) for row in zip(names, true.tolist(), predicted.tolist(), strict=True)]

    def train(self, rows: Tensor) -> tuple[nn.Module, ModelCard]:
        """A model trained on these videos alone: features' statistics and score range are theirs, too."""
        routines, protocol = self._data.routines, self._protocol
        card = self._card(rows)
        network = new_network(card)
        if isinstance(network, Standardised):
            network.learn(routines, rows)
        low, high = card.score_range
        fractions = torch.from_numpy((self._data.scores - low) / (high - low))
        fitting = Fitting(network, routines, fractions, rows, protocol, self._seed)
        while fitting.epoch < protocol.epochs:
            fitting.run_epoch()
            self._done += 1
            if self._on_epoch is not None:
                self._on_epoch(self._done, self._to_do)
        return network, card

    def _card(self, rows: Tensor) -> ModelCard:
        return ModelCard(
            model=SMALL_MODEL,
            settings=resolve_settings(SMALL_MODEL, SMALL_SETTINGS),
            dims=self._data.routines.dims,
            streams={name: dict(entry) for name, entry in self._data.streams.items()},
            target=self._target,
            score_range=widened_range(self._data.scores[rows.numpy()]),
            protocol=self._protocol,
            seed=self._seed,
            trained_on=self._data.routines.names(rows),
            made_with={package: version(package) for package in ("arabesque", "torch", "numpy")},
            recipe=None if self._data.recipe is None else dict(self._data.recipe),
        )


def _enough(data: LabelledRoutines, store: Root, labels: Labels) -> None:
    count = len(data.routines)
    if count < FEWEST_VIDEOS:
        missing = f"; no label for {some(data.without_label)}" if data.without_label else ""
        missing += f"; no video for {some(data.without_video)}" if data.without_video else ""
        missing += f"; partial, taken with --partial: {some(data.partial)}" if data.partial else ""
        missing += f"; not extracted whole: {some(data.unfinished)}" if data.unfinished else ""
        raise ManifestError(
            f"{store}: {count} labelled videos, {FEWEST_VIDEOS} are needed to train and hold some out{missing}"
        )
    if np.ptp(data.scores) == 0:
        raise ManifestError(
            f"every one of the {count} videos has the {labels.target} {data.scores[0]:g}; there is nothing to learn"
        )


def _held_out(video_ids: Sequence[str], seed: int) -> tuple[list[list[str]], str]:
    if len(video_ids) < HOLD_OUT_FROM:
        return folds(video_ids, NUM_FOLDS, seed), f"{NUM_FOLDS}-fold cross-validation: each video judged unseen, once"
    _, unseen = hold_out(video_ids, 1 / NUM_FOLDS, seed)
    return [unseen], f"{len(unseen)} of {len(video_ids)} videos held out of training"


def _report(predictions: tuple[Prediction, ...], data: LabelledRoutines, target: str, scheme: str) -> Report:
    predicted = [prediction.predicted for prediction in predictions]
    true = [prediction.true for prediction in predictions]
    return Report(
        target=target,
        streams=tuple(data.streams),
        scheme=scheme,
        spearman=bootstrap(predicted, true),
        pearson=pearson(predicted, true),
        mean_squared_error=mean_squared_error(predicted, true),
        predictions=predictions,
        num_videos=len(data.routines),
        without_label=data.without_label,
        without_video=data.without_video,
        partial=data.partial,
        unfinished=data.unfinished,
    )


def _write(out: Path, network: nn.Module, card: ModelCard, report: Report) -> list[Path]:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["video_id", "true", "predicted", "fold"])
    writer.writerows([row.video_id, row.true, f"{row.predicted:.4f}", row.fold] for row in report.predictions)
    put_whole(out / "predictions.csv", table.getvalue().encode())
    summary = {name: value for name, value in asdict(report).items() if name not in ("predictions", "files")}
    put_whole(out / "report.json", to_json(summary))
    return [*save_checkpoint(out, network, card), out / "predictions.csv", out / "report.json"]
