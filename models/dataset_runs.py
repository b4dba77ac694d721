"""A data set's features and labels, and the trainings that they make, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ..manifests.errors import ManifestError
from ..manifests.label_files import WHOLE, DatasetLabels
from .checkpoints import ModelCard
from .experiment import Experiment
from .features import FeatureSet, LabelledRoutines, label_routines, some
from .reports import SeedsReport, report_seeds
from .seed_run import SeedResult, SeedRun, Split, split_of
from .splits import shuffled
from .table import resolve_settings


@dataclass(frozen=True, eq=False)
class Task:
    """One score of one data set (and subset), with the features to predict it from: all in memory once."""

    labels: DatasetLabels
    target: str
    subset: str | None
    data: LabelledRoutines
    true: Mapping[str, float]

    @property
    def score_range(self) -> tuple[float, float]:
        return self.labels.dataset.targets[self.target].score_range

    @property
    def title(self) -> str:
        return title_of(self.labels.dataset.name, self.subset, self.target)

    def split(self, seed: int) -> Split:
        """The data set's own split, or where it has none, one drawn by the seed."""
        names = (scores_in(self.labels, self.target, part, self.subset, seed) for part in ("train", "test"))
        return split_of(self.data, *map(list, names))


def title_of(dataset: str, subset: str | None, target: str) -> str:
    """What a model is trained to predict, in one word: ``rg-Ball-total``."""
    return "-".join(part for part in (dataset, subset, target) if part)


def scores_in(labels: DatasetLabels, target: str, split: str, subset: str | None, seed: int) -> dict[str, float]:
    """video_id → score of a split, ``train`` or ``test``: the data set's own, or one drawn by the seed."""
    random = labels.dataset.random_splits
    splits = random or labels.splits
    if split not in splits:
        raise ManifestError(f"{labels.dataset.name} has no split {split!r}; there are {', '.join(splits)}")
    if not random:
        return labels.scores(target, split, subset)
    scores = labels.scores(target, WHOLE, subset)
    order = shuffled(list(scores), seed)
    chosen = order[: random["train"]] if split == "train" else order[random["train"] :][: random["test"]]
    return {name: scores[name] for name in chosen}


def make_task(features: FeatureSet, labels: DatasetLabels, target: str, subset: str | None = None) -> Task:
    """Raises `ManifestError` where a video of the data set is missing: a table is made of all of them."""
    if labels.dataset.subsets and subset is None:
        raise ManifestError(
            f"{labels.dataset.name} is trained by subset; --subset names one of {', '.join(labels.dataset.subsets)}"
        )
    splits = labels.splits if WHOLE not in labels.splits else (WHOLE,)
    true = {name: score for split in splits for name, score in labels.scores(target, split, subset).items()}
    data = label_routines(features, true)
    _refuse_missing(features, labels, data, len(true))
    return Task(labels, target, subset, data, true)


def _refuse_missing(features: FeatureSet, labels: DatasetLabels, data: LabelledRoutines, num_wanted: int) -> None:
    gone = [*data.without_video, *data.unfinished]
    if not gone and not data.partial:
        return
    parts = [f"not there: {some(gone)}; extract them, or train on a CSV of the others"] if gone else []
    parts += [f"partial: {some(data.partial)}; --partial takes them"] if data.partial else []
    raise ManifestError(
        f"{features.source}: {len(gone) + len(data.partial)} of {num_wanted} videos of {labels.dataset.name} are not "
        f"there whole ({'. '.join(parts)})"
    )


def seed_runs(task: Task, experiment: Experiment, seeds: Sequence[int], out: Path) -> list[SeedRun]:
    """One training per seed, each in its own folder below ``out``; none has begun."""
    splits = {seed: task.split(seed) for seed in seeds}
    return [
        SeedRun(task.data, split, experiment, _card(task, experiment, seed, split), out / f"seed-{seed}")
        for seed, split in splits.items()
    ]


def report(task: Task, results: Sequence[SeedResult], *, last: bool = False) -> SeedsReport:
    return report_seeds(results, task.true, task.score_range, last=last)


def _card(task: Task, experiment: Experiment, seed: int, split: Split) -> ModelCard:
    return ModelCard(
        model=experiment.model,
        settings=resolve_settings(experiment.model, experiment.settings),
        dims={stream: task.data.routines.dims[stream] for stream in experiment.streams},
        streams={stream: dict(task.data.streams[stream]) for stream in experiment.streams},
        target=task.title,
        score_range=experiment.protocol.score_range or task.score_range,
        protocol=experiment.protocol,
        seed=seed,
        trained_on=task.data.routines.names(split.train),
        chosen_on=task.data.routines.names(split.test) if experiment.chooses_on_test else (),
        made_with={package: version(package) for package in ("arabesque", "torch", "numpy")},
        recipe=None if task.data.recipe is None else dict(task.data.recipe),
    )
