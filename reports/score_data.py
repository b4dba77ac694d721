"""Data of a model for the report: predicted and judged scores of videos, effects, attention, inner values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..models.checkpoints import ModelCard, check_streams, load_checkpoint
from ..models.features import FeatureSet, read_store
from ..models.figure_data import traces
from ..models.label_matching import match_labels
from ..models.labels import Labels
from ..models.metrics import Estimate, bootstrap, pearson
from ..models.samples import stack_samples
from ..models.table import model_class
from ..models.video_scores import VideoScore, score_videos
from ..pipeline.store.reader import FeatureStore


@dataclass(frozen=True, eq=False)
class ModelScores:
    """Scores of the videos of a store by one model."""

    card: ModelCard
    scores: Mapping[str, VideoScore]
    """Video → score, for the videos whose streams are complete or empty"""
    judged: Mapping[str, float] = field(default_factory=dict[str, float])
    """Video → score by the judges"""
    label_target: str = ""
    traces: Mapping[str, Mapping[str, NDArray[np.float32]]] = field(
        default_factory=dict[str, Mapping[str, NDArray[np.float32]]]
    )
    """Video → name → ``[steps, …]``: decisions and weights of PAMFN; see `models.figure_data`"""
    notes: tuple[str, ...] = ()

    def ranked(self) -> list[VideoScore]:
        """Return the scores, the highest first."""
        return sorted(self.scores.values(), key=lambda each: (-each.score, each.video_id))

    def correlation(self, *, trained_on: bool) -> tuple[Estimate, float, int] | None:
        """Return Spearman's correlation with its 95 % interval, Pearson's, and the number of videos.

        Args:
            trained_on: Whether to use the training videos of the model, or the other videos.

        Returns:
            None for fewer than three judged videos.
        """
        names = [each.video_id for each in self.scores.values() if each.trained_on == trained_on]
        names = [name for name in names if name in self.judged]
        if len(names) < 3:
            return None
        pair = [self.scores[name].score for name in names], [self.judged[name] for name in names]
        return bootstrap(*pair), pearson(*pair), len(names)

    @property
    def agreement(self) -> tuple[float, int] | None:
        """Return the rank correlation of attention and absolute effect, averaged over videos, and their number."""
        known = [each.attention_agreement for each in self.scores.values()]
        values = [value for value in known if value is not None]
        return (float(np.mean(values)), len(values)) if values else None

    @property
    def num_without_outstanding(self) -> int:
        """Return the number of videos without an outstanding segment."""
        return sum(not each.outstanding for each in self.scores.values())

    def decision_frequencies(self) -> dict[int, NDArray[np.float64]]:
        """Return stage → share of each decision of the PolicyNet over all steps of all videos; empty without decisions.

        Decision k is the index of the last active FusionNet, so that decision 0 uses one FusionNet.
        """
        num_nets = int(self.card.settings.get("num_nets", 0))
        found: dict[int, NDArray[np.float64]] = {}
        for stage in (1, 2, 3):
            steps = [values[f"decision_{stage}"] for values in self.traces.values() if f"decision_{stage}" in values]
            if steps and num_nets:
                counts = np.bincount(np.concatenate(steps).astype(np.int64), minlength=num_nets)
                found[stage] = counts / counts.sum()
        return found


def score_store(
    model: Path,
    store: FeatureStore,
    labels: Labels | None = None,
    labels_path: Path | None = None,
    *,
    device: torch.device | str = "cpu",
    on_done: Callable[[int, int], None] | None = None,
) -> ModelScores:
    """Score every video of a store that has the model's streams.

    Args:
        model: Folder of a trained model.
        store: The store.
        labels: Scores by the judges.
        labels_path: File of these scores, for error messages.
        device: Device of the network.
        on_done: Called with the number of scored videos and the number of all videos.

    Raises:
        WeightsError: The model is damaged, or the features were made with other settings.
        InputError: A label matches several videos.
    """
    network, card = load_checkpoint(model)
    check_streams(card, store.manifest["streams"], str(store.path), store.manifest["recipe"])
    network.to(device)
    features = read_store(store, tuple(card.dims), one_grid=bool(model_class(card.model).one_grid)).on(device)
    names = sorted(features.videos)
    scores: dict[str, VideoScore] = {}
    inner: dict[str, Mapping[str, NDArray[np.float32]]] = {}
    for name in names:
        (scores[name],) = score_videos(network, card, features, store, [name])
        inner[name] = _traces_of(network, card, features, name)
        if on_done is not None:
            on_done(len(scores), len(names))
    judged: dict[str, float] = {}
    notes: list[str] = [card.unverified] if card.unverified else []
    if labels is not None:
        matching = match_labels(labels.scores, features.known, labels_path or "labels", labels.titles_of)
        judged = {matching.videos[label]: score for label, score in labels.scores.items() if label in matching.videos}
        notes += [*labels.notes, *([matching.note] if matching.note else [])]
        if labels.target != card.target:
            notes.append(f"the labels are {labels.target!r}, but the model predicts {card.target!r}")
        if lone := len(labels.scores) - len(judged):
            notes.append(f"{lone} of {len(labels.scores)} labels have no video in the store")
    if missing := len(features.known) - len(names):
        notes.append(f"{missing} of {len(features.known)} videos have no score: a stream is missing, partial or failed")
    return ModelScores(
        card=card,
        scores=scores,
        judged=judged,
        label_target=labels.target if labels is not None else "",
        traces={name: each for name, each in inner.items() if each},
        notes=tuple(notes),
    )


def _traces_of(network: nn.Module, card: ModelCard, features: FeatureSet, name: str) -> dict[str, NDArray[np.float32]]:
    samples = stack_samples({name: features.videos[name]}, card.dims).to(features.device)
    found = traces(network, samples, torch.zeros(1, dtype=torch.int64))
    values = {key.removeprefix(f"{name}/"): each for key, each in found.items()}
    return {key: each for key, each in values.items() if not key.startswith("importance/")}


def step_times(num_steps: int, ends_s: Sequence[float]) -> list[tuple[float, float]]:
    """Return (start_s, end_s) of each step of a stage. All steps pool the same number of segments.

    Args:
        num_steps: Number of steps.
        ends_s: Start of the first and end of the last segment.
    """
    edges = np.linspace(ends_s[0], ends_s[1], num_steps + 1)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
