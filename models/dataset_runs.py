"""Features and labels of a data set, and one training per seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ..manifests.errors import InputError
from ..manifests.label_files import WHOLE, DatasetLabels
from .checkpoints import ModelCard
from .experiment import Experiment
from .features import FeatureSet, LabeledSamples, contents_of, label_samples
from .highlights import AnyReport, HighlightDetection, cut_to_labels, report_highlights
from .label_matching import Matching, match_labels
from .metric_log import LogFormat
from .metrics import spearman
from .named_labels import CSV, widened_range
from .objective import Objective
from .reports import pair_of, report_seeds
from .splits import abbreviate, cut, duplicate_notes, folds, leak_note
from .table import code_of, model_class, resolve_settings
from .trainer import SeedResult, Split, Trainer, split_of


@dataclass(frozen=True, eq=False)
class Task:
    """One score of one data set (and subset) with its features, in memory."""

    labels: DatasetLabels
    target: str
    subset: str | None
    data: LabeledSamples
    true: Mapping[str, float]
    """video_id → score"""
    matching: Matching
    highlights: Mapping[str, tuple[bool, ...]] = field(default_factory=dict[str, tuple[bool, ...]])
    """video_id → whether each segment is a highlight, for data sets with labels of segments"""

    def objective(self, model: str) -> Objective | None:
        """Return the objective of a model: highlights of segments, or None for scores of videos.

        Raises:
            InputError: The data set has labels of segments, and the model predicts scores of videos.
        """
        if not self.highlights:
            return None
        if not getattr(model_class(model), "detects_highlights", False):
            raise InputError(
                f"{self.labels.dataset.name} has labels of segments, but {model} predicts scores of videos; choose "
                "--model pamfn-highlights or pamfn-branch-highlights"
            )
        return HighlightDetection(self.data.samples, self.highlights)

    @property
    def score_range(self) -> tuple[float, float]:
        """Score range for relative metrics: the range of the target, or for a CSV the range of all scores"""
        return self.labels.dataset.targets[self.target].score_range

    def training_range(self, split: Split) -> tuple[float, float]:
        """Return the scores that correspond to the fractions 0 and 1.

        This is the range of the target, or for a CSV the range of the training scores.
        """
        if self.labels.dataset.name != CSV:
            return self.score_range
        scores = self.data.scores[split.train.numpy()]
        if np.ptp(scores) == 0:
            raise InputError(f"all {len(scores)} training videos have the same score; add videos with other scores")
        return widened_range(scores)

    def notes(self, split: Split) -> list[str]:
        """Return notes on labels and videos for the report."""
        train, test = (self.data.samples.names(rows) for rows in (split.train, split.test))
        found = [*self.labels.notes, *self.data.notes, *duplicate_notes(self.true, self.data.contents)]
        return [*found, leak] if (leak := leak_note(train, test, self.data.contents)) else found

    @property
    def title(self) -> str:
        return title_of(self.labels.dataset.name, self.subset, self.target)

    def split(self, seed: int) -> Split:
        """Return the split of the data set; if it has no split, one that depends on the seed."""
        parts = (
            scores_in(self.labels, self.target, part, self.subset, seed, self._contents) for part in ("train", "test")
        )
        return split_of(self.data, *([self.matching.videos[label] for label in scores] for scores in parts))

    @property
    def _contents(self) -> Mapping[str, str]:
        return label_contents(self.matching, self.data.contents)


def title_of(dataset: str, subset: str | None, target: str) -> str:
    """Return the name of a predicted score, e.g. ``rg-Ball-total``."""
    return "-".join(part for part in (dataset, subset, target) if part)


def label_contents(matching: Matching, contents: Mapping[str, str]) -> dict[str, str]:
    """Return id of the label → content digest of the video."""
    return {label: contents[video] for label, video in matching.videos.items() if video in contents}


def scores_in(
    labels: DatasetLabels,
    target: str,
    split: str,
    subset: str | None,
    seed: int,
    contents: Mapping[str, str],
) -> dict[str, float]:
    """Return the scores of the ``train`` or ``test`` split: the split of the data set, or a random one.

    A random split depends on the ids of the labels, not on those of the videos. Videos of the same content are in the
    same split.

    Args:
        labels: Labels of the data set.
        target: Name of the score.
        split: ``train`` or ``test``.
        subset: Subset of the data set, or None.
        seed: Seed of a random split.
        contents: Id of a label → content digest of its video.
    """
    random = labels.dataset.random_splits
    splits = random or labels.splits
    if split not in splits:
        raise InputError(f"{labels.dataset.name} has no split {split!r}; there are {', '.join(splits)}")
    if not random:
        return labels.scores(target, split, subset)
    scores = labels.scores(target, WHOLE, subset)
    train, rest = cut(list(scores), random["train"], seed, contents)
    chosen = train if split == "train" else rest[: random["test"]]
    return {name: scores[name] for name in chosen}


def make_task(features: FeatureSet, labels: DatasetLabels, target: str, subset: str | None = None) -> Task:
    """Combine features and labels of a data set.

    Raises:
        InputError: A video of the data set has no features, or the subset is not given.
    """
    if labels.dataset.subset_names and subset is None:
        raise InputError(
            f"{labels.dataset.name} has subsets; choose one with --subset: {', '.join(labels.dataset.subset_names)}"
        )
    splits = labels.splits if WHOLE not in labels.splits else (WHOLE,)
    matching = match_labels(labels.video_ids, features.known, labels.dataset.name, labels.titles_of)
    scores = _of_all(labels, target, splits, subset)
    data = label_samples(features, scores, matching)
    _require_all_videos(features, labels, data, len(scores))
    true = {matching.videos[label]: score for label, score in scores.items()}
    others = {name: _of_all(labels, name, splits, subset) for name in labels.dataset.targets if name != target}
    by_video = {matching.videos[label]: label for label in scores}
    order = [by_video[name] for name in data.samples.video_ids]
    data = replace(data, others={name: np.array([values[label] for label in order]) for name, values in others.items()})
    marks = {matching.videos[label]: found for label, found in labels.highlights.items() if label in scores}
    data, marks = cut_to_labels(data, marks) if marks else (data, marks)
    return Task(labels, target, subset, data, true, matching, marks)


def _of_all(labels: DatasetLabels, target: str, splits: Iterable[str], subset: str | None) -> dict[str, float]:
    return {name: score for split in splits for name, score in labels.scores(target, split, subset).items()}


def _require_all_videos(features: FeatureSet, labels: DatasetLabels, data: LabeledSamples, num_wanted: int) -> None:
    missing = [*data.without_video, *data.unfinished]
    if not missing and not data.partial:
        return
    parts = [f"missing: {abbreviate(missing)}; extract them, or train on a CSV of the others"] if missing else []
    parts += [f"partial: {abbreviate(data.partial)}; include them with --partial"] if data.partial else []
    raise InputError(
        f"{features.source}: {len(missing) + len(data.partial)} of {num_wanted} videos of {labels.dataset.name} are "
        f"missing or partial ({'. '.join(parts)})"
    )


def trainers(
    task: Task, experiment: Experiment, seeds: Sequence[int], out: Path, *, log: LogFormat | None = None
) -> list[Trainer]:
    """Return one trainer per seed, not yet started, with the folder ``seed-N`` of ``out``."""
    splits = {seed: task.split(seed) for seed in seeds}
    objective = task.objective(experiment.model)
    return [
        Trainer(
            task.data,
            split,
            experiment,
            card_for(task, experiment, seed, split),
            out / f"seed-{seed}",
            objective=objective,
            log=log,
        )
        for seed, split in splits.items()
    ]


def fold_trainers(task: Task, experiment: Experiment, seed: int, num_folds: int, out: Path) -> list[Trainer]:
    """Return one trainer per fold of the training videos, with the folder ``fold-N`` of ``out``.

    The fold is used as test videos; the real test videos are not used. Copies of a video are in the same fold. A
    correlation needs two videos, so few videos have fewer folds, and less than four videos have no folds.
    """
    names = task.data.samples.names(task.split(seed).train)
    different = {task.data.contents.get(name, name) for name in names}
    num_folds = min(num_folds, len(different) // 2)
    runs: list[Trainer] = []
    if num_folds < 2:
        return runs
    for number, held in enumerate(folds(names, num_folds, seed, task.data.contents)):
        split = split_of(task.data, [name for name in names if name not in set(held)], held)
        card = card_for(task, experiment, seed, split)
        runs.append(Trainer(task.data, split, experiment, card, out / f"fold-{number}"))
    return runs


def fold_mean(task: Task, results: Sequence[SeedResult]) -> float:
    """Return the mean over the folds of Spearman's correlation at the last epoch."""
    return float(np.mean([spearman(*pair_of(result.last, task.true)) for result in results]))


def report(task: Task, results: Sequence[SeedResult], *, last: bool = False) -> AnyReport:
    """Return the report of all seeds; with ``last``, of the last epoch instead of the selected one."""
    found: AnyReport
    if task.highlights:
        found = report_highlights(results, task.highlights, last=last)
    else:
        found = report_seeds(results, task.true, task.score_range, last=last)
    notes = dict.fromkeys(note for result in results for note in task.notes(task.split(result.seed)))
    return replace(found, notes=tuple(notes))


def card_for(task: Task, experiment: Experiment, seed: int, split: Split) -> ModelCard:
    """Return the description of the model that is trained on this split."""
    return ModelCard(
        model=experiment.model,
        settings=resolve_settings(experiment.model, experiment.settings),
        dims={stream: task.data.samples.dims[stream] for stream in experiment.streams},
        streams={stream: dict(task.data.streams[stream]) for stream in experiment.streams},
        target=task.title,
        score_range=experiment.protocol.score_range or task.training_range(split),
        protocol=experiment.protocol,
        seed=seed,
        trained_on=task.data.samples.names(split.train),
        trained_contents=contents_of(task.data, task.data.samples.names(split.train)),
        chosen_on=task.data.samples.names(split.test) if experiment.chooses_on_test else (),
        made_with={package: version(package) for package in ("arabesque", "torch", "numpy")}
        | code_of(experiment.model),
        recipe=None if task.data.recipe is None else dict(task.data.recipe),
    )
