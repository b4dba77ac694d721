"""``arabesque train --labels``: train a small model on a store and a label file, and evaluate it on held-out videos."""

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

from ..manifests.errors import InputError
from ..manifests.json_text import to_json
from ..pipeline.store.files.storage import StorePath
from ..pipeline.store.reader import FeatureStore
from .checkpoints import ModelCard, save_checkpoint, write_atomically
from .experiment import Experiment, Stage
from .features import LabeledSamples, contents_of, label_samples, read_store
from .fitting import cpu_threads
from .label_matching import match_labels
from .labels import Labels, read_labels
from .metrics import Estimate, bootstrap, mean_squared_error, pearson
from .named_labels import widened_range
from .protocol import Cosine, Protocol
from .samples import rows_of
from .splits import abbreviate, duplicate_notes, folds, hold_out, shuffled_groups
from .table import resolve_settings
from .trainer import SeedResult, Split, Trainer

SMALL_MODEL = "context-attention"
SMALL_SETTINGS: Mapping[str, Any] = {"hidden_dim": 64, "feature_dropout": 0.5}
SMALL_PROTOCOL = Protocol(
    epochs=60, batch_size=8, standardize=True, learning_rate=1e-3, weight_decay=1.0, schedule=Cosine()
)
"""Protocol for tens to hundreds of videos: few parameters, strong regularization, no selection of an epoch."""

FEWEST_VIDEOS = 8
NUM_FOLDS = 5
HOLD_OUT_FROM = 100
"""With at least this number of videos, a fifth is held out. With fewer videos, cross-validation holds out each once."""

Progress = Callable[[int, int], None]
"""Called with the number of finished epochs and the total number over all trainings."""


@dataclass(frozen=True)
class Prediction:
    """Score of a video by the judges and by a model that was not trained on the video."""

    video_id: str
    true: float
    predicted: float
    fold: int


@dataclass(frozen=True)
class Report:
    """Result of a training."""

    target: str
    streams: tuple[str, ...]
    scheme: str
    """Description of the held-out videos"""
    spearman: Estimate
    """Spearman's correlation over the held-out videos, with a 95 % bootstrap interval"""
    pearson: float
    mean_squared_error: float
    """Mean squared error in squared score units"""
    predictions: tuple[Prediction, ...]
    num_videos: int
    without_label: tuple[str, ...]
    without_video: tuple[str, ...]
    partial: tuple[str, ...]
    unfinished: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """Notes on reading and matching labels, and on videos of the same content"""
    files: tuple[Path, ...] = ()

    def rows(self) -> list[tuple[str, str]]:
        """Return the main results as (name, value)."""
        return [
            ("score", f"{self.target} from {', '.join(self.streams)}"),
            ("videos", str(self.num_videos)),
            ("held out", self.scheme),
            ("Spearman", f"{self.spearman}  (held-out videos, n = {len(self.predictions)}, 95 % bootstrap interval)"),
            ("Pearson", f"{self.pearson:.3f}"),
            ("error", f"{self.mean_squared_error**0.5:.2f} points, root mean square"),
        ]

    def summary(self) -> str:
        """Return the main results as text, one line each."""
        return "\n".join(f"{name:10}{value}" for name, value in self.rows())


def train_and_evaluate(
    store: StorePath | FeatureStore,
    labels: Path | str | Labels,
    out: Path | str,
    *,
    target: str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    partial: bool = False,
    max_lost: float | None = None,
    device: torch.device | str = "cpu",
    on_epoch: Progress | None = None,
) -> Report:
    """Train a small model on a store, evaluate it on held-out videos, and write model, predictions and report.

    The saved model is trained on all labeled videos. The reported correlation is that of models with the same settings,
    each trained without the videos that it predicts.

    Args:
        store: The feature store or its path.
        labels: File of scores, or scores that were already read.
        out: Folder for ``model.pt``, ``model.json``, ``predictions.csv`` and ``report.json``.
        target: Name of the score, if the file has several.
        epochs: Number of epochs; None for the default.
        seed: Seed of weights, batches and held-out videos.
        partial: Include partial videos.
        max_lost: Include partial videos that lost at most this share (0 to 1) of their duration.
        device: Device of features and networks, e.g. ``cuda:0``.
        on_epoch: Progress callback.

    Raises:
        InputError: The labels cannot be read, or there are too few labeled videos.
        StoreError: The store cannot be read, or a file cannot be written.
    """
    opened = store if isinstance(store, FeatureStore) else FeatureStore(store, partial=partial or max_lost is not None)
    scored_labels = labels if isinstance(labels, Labels) else read_labels(labels, target)
    features = read_store(opened, max_lost=max_lost).on(device)
    matching = match_labels(
        scored_labels.scores,
        features.known,
        labels if scored_labels is not labels else "labels",
        scored_labels.titles_of,
    )
    data = label_samples(features, scored_labels.scores, matching)
    _require_enough_videos(data, opened.path, scored_labels)
    protocol = SMALL_PROTOCOL if epochs is None else SMALL_PROTOCOL.shortened(epochs)
    held_out, scheme = _held_out(data, seed)
    trainings = _Trainings(data, protocol, scored_labels.target, seed, on_epoch, count=len(held_out) + 1)
    with cpu_threads(1):
        predictions = tuple(
            prediction for fold, names in enumerate(held_out) for prediction in trainings.predict_held_out(names, fold)
        )
        everything = torch.arange(len(data.samples))
        network, _, card = trainings.train(everything, everything[:0])
    report = _report(predictions, data, scored_labels, scheme)
    return replace(report, files=tuple(_write(Path(out), network, card, report)))


class _Trainings:
    """Trainings with equal settings on different subsets of the videos."""

    def __init__(
        self, data: LabeledSamples, protocol: Protocol, target: str, seed: int, on_epoch: Progress | None, count: int
    ) -> None:
        self._data = data
        self._protocol = protocol
        self._target = target
        self._seed = seed
        self._on_epoch = on_epoch
        self._to_do = count * protocol.epochs
        self._done = 0

    def predict_held_out(self, names: Sequence[str], fold: int) -> list[Prediction]:
        """Predict these videos with a model that is trained on all others."""
        samples, scores = self._data.samples, self._data.scores
        unseen = rows_of(samples, names)
        others = [name for name in samples.video_ids if name not in set(names)]
        _, result, _ = self.train(rows_of(samples, others), unseen)
        true = scores[unseen.numpy()].tolist()
        return [Prediction(name, score, result.test[name], fold) for name, score in zip(names, true, strict=True)]

    def train(self, rows: Tensor, unseen: Tensor) -> tuple[nn.Module, SeedResult, ModelCard]:
        """Train on these videos only. Feature statistics and score range are computed on the same videos."""
        card = self._card(rows)
        experiment = Experiment(
            model=card.model,
            settings=card.settings,
            streams=tuple(card.dims),
            stages=(Stage(protocol=self._protocol),),
        )
        trainer = Trainer(self._data, Split(rows, unseen), experiment, card, None)
        network, result = trainer.fit(self._count_epoch)
        return network, result, card

    def _count_epoch(self, *_: int) -> None:
        self._done += 1
        if self._on_epoch is not None:
            self._on_epoch(self._done, self._to_do)

    def _card(self, rows: Tensor) -> ModelCard:
        return ModelCard(
            model=SMALL_MODEL,
            settings=resolve_settings(SMALL_MODEL, SMALL_SETTINGS),
            dims=self._data.samples.dims,
            streams={name: dict(entry) for name, entry in self._data.streams.items()},
            target=self._target,
            score_range=widened_range(self._data.scores[rows.numpy()]),
            protocol=self._protocol,
            seed=self._seed,
            trained_on=self._data.samples.names(rows),
            trained_contents=contents_of(self._data, self._data.samples.names(rows)),
            made_with={package: version(package) for package in ("arabesque", "torch", "numpy")},
            recipe=None if self._data.recipe is None else dict(self._data.recipe),
        )


def _require_enough_videos(data: LabeledSamples, store: StorePath, labels: Labels) -> None:
    count = len(data.samples)
    if count < FEWEST_VIDEOS:
        missing = f"; no label for {abbreviate(data.without_label)}" if data.without_label else ""
        missing += f"; no video for {abbreviate(data.without_video)}" if data.without_video else ""
        missing += (
            f"; partial, included with --partial or --max-lost: {abbreviate(data.partial)}" if data.partial else ""
        )
        missing += f"; not extracted completely: {abbreviate(data.unfinished)}" if data.unfinished else ""
        raise InputError(
            f"{store}: has {count} labeled videos, but {FEWEST_VIDEOS} are needed to train and hold some out; "
            f"extract and label more{missing}"
        )
    different = len(shuffled_groups(data.samples.video_ids, 0, data.contents))
    if different < FEWEST_VIDEOS:
        raise InputError(
            f"{store}: the {count} labeled videos have {different} different contents, but {FEWEST_VIDEOS} are needed "
            "to train and hold some out; the others have the same content under another id, or are clips that overlap"
        )
    if np.ptp(data.scores) == 0:
        raise InputError(
            f"all {count} videos have the same {labels.target}, {data.scores[0]:g}; add videos with other scores"
        )


def _held_out(data: LabeledSamples, seed: int) -> tuple[list[list[str]], str]:
    video_ids = data.samples.video_ids
    if len(video_ids) < HOLD_OUT_FROM:
        scheme = f"{NUM_FOLDS}-fold cross-validation: each video is held out once"
        return folds(video_ids, NUM_FOLDS, seed, data.contents), scheme
    _, unseen = hold_out(video_ids, 1 / NUM_FOLDS, seed, data.contents)
    return [unseen], f"{len(unseen)} of {len(video_ids)} videos held out of training"


def _report(predictions: tuple[Prediction, ...], data: LabeledSamples, labels: Labels, scheme: str) -> Report:
    predicted = [prediction.predicted for prediction in predictions]
    true = [prediction.true for prediction in predictions]
    scores = dict(zip(data.samples.video_ids, data.scores.tolist(), strict=True))
    return Report(
        target=labels.target,
        streams=tuple(data.streams),
        scheme=scheme,
        spearman=bootstrap(
            predicted, true, contents=[data.contents.get(each.video_id, each.video_id) for each in predictions]
        ),
        pearson=pearson(predicted, true),
        mean_squared_error=mean_squared_error(predicted, true),
        predictions=predictions,
        num_videos=len(data.samples),
        without_label=data.without_label,
        without_video=data.without_video,
        partial=data.partial,
        unfinished=data.unfinished,
        notes=(*labels.notes, *data.notes, *duplicate_notes(scores, data.contents)),
    )


def _write(out: Path, network: nn.Module, card: ModelCard, report: Report) -> list[Path]:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["video_id", "true", "predicted", "fold"])
    writer.writerows([row.video_id, row.true, f"{row.predicted:.4f}", row.fold] for row in report.predictions)
    write_atomically(out / "predictions.csv", table.getvalue().encode())
    summary = {name: value for name, value in asdict(report).items() if name not in ("predictions", "files")}
    write_atomically(out / "report.json", to_json(summary).encode())
    return [*save_checkpoint(out, network, card), out / "predictions.csv", out / "report.json"]
