"""``train --search``: random search of settings by cross-validation on the training videos, without the test videos."""

from __future__ import annotations

import csv
import io
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError, model_validator

from ..manifests.errors import ConfigError, InputError
from ..manifests.streams import Record
from ..manifests.validation import validation_message
from .checkpoints import write_atomically
from .dataset_runs import Task, card_for
from .experiment import Experiment, Stage
from .metrics import spearman
from .parallel_training import EpochsDone, PoolSize, run_all
from .protocol import Protocol
from .samples import rows_of
from .splits import folds
from .table import model_class
from .trainer import Split, Trainer

NUM_FOLDS = 5


class Distribution(Record):
    """Distribution of the values of one setting. Exactly one of the three fields must be given."""

    choice: tuple[Any, ...] = ()
    """One of these values"""
    uniform: tuple[float, float] | None = None
    """A number between these limits"""
    log: tuple[float, float] | None = None
    """A number between these limits, with a uniform logarithm"""

    @model_validator(mode="after")
    def _is_one_distribution(self) -> Distribution:
        if sum([bool(self.choice), self.uniform is not None, self.log is not None]) != 1:
            raise ValueError("give one of choice, uniform and log")
        for low, high in filter(None, (self.uniform, self.log)):
            if not low < high or (self.log is not None and low <= 0):
                raise ValueError(f"the limits {low:g} and {high:g} must ascend, and be above 0 for log")
        return self

    def draw(self, rng: np.random.Generator) -> Any:
        """Return a value; numbers have three significant digits."""
        if self.choice:
            return self.choice[int(rng.integers(len(self.choice)))]
        if self.uniform is not None:
            return float(f"{rng.uniform(*self.uniform):.3g}")
        assert self.log is not None
        low, high = self.log
        return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.3g}")


class SearchSpace(Record):
    """Distributions of protocol fields and model settings."""

    protocol: dict[str, Distribution] = Field(default_factory=dict)
    """Field of the last stage's `Protocol` → its values"""
    settings: dict[str, Distribution] = Field(default_factory=dict)
    """Setting of the model → its values; settings that the model does not have are ignored"""


@dataclass(frozen=True)
class Trial:
    """One configuration of a search."""

    number: int
    """Number of the trial; 0 is the given experiment"""
    changes: Mapping[str, Any]
    """Name of a setting → drawn value"""
    experiment: Experiment
    spearman: float
    """Correlation over all training videos, each predicted by the model that was trained without its fold"""


def load_space(path: Path | None = None) -> SearchSpace:
    """Return the search space of a TOML file, or that of `manifests/search.toml`.

    Raises:
        ConfigError: The file is not valid.
        InputError: The file cannot be read.
    """
    source: Any = path or resources.files("arabesque.manifests") / "search.toml"
    try:
        return SearchSpace.model_validate(tomllib.loads(source.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: not a TOML file: {error}") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}); give the path of a TOML file") from None
    except ValidationError as error:
        raise ConfigError(f"{source}: {validation_message(error)}") from None


def search(
    task: Task,
    experiment: Experiment,
    seed: int,
    out: Path,
    *,
    trials: int,
    space: SearchSpace,
    pool_size: PoolSize | None = None,
    on_epoch: EpochsDone | None = None,
) -> list[Trial]:
    """Cross-validate the given experiment and random variants of it on the training videos.

    Every configuration is trained on the same folds, and the last epoch is evaluated. Finished trainings in ``out`` are
    not repeated. ``out/search.csv`` lists every trial.

    Args:
        task: Features and labels.
        experiment: The configuration that the trials change.
        seed: Seed of the split, the folds, the weights and the drawn values.
        out: Folder for the trainings and ``search.csv``.
        trials: Number of random configurations, in addition to the given one.
        space: Search space.
        pool_size: Number of parallel trainings and threads.
        on_epoch: Called with the index of a training, its finished epochs and their total number.

    Returns:
        All trials, the best first. Equal trials keep their order.

    Raises:
        ConfigError: The model or the protocol does not accept a value.
        InputError: There are too few training videos.
    """
    drawn = [_drawn(experiment, space, seed, number) for number in range(trials + 1)]
    split = task.split(seed)
    samples = task.data.samples
    names = list(samples.names(split.train))
    if len(names) < 2 * NUM_FOLDS:
        raise InputError(f"{len(names)} training videos are too few for {NUM_FOLDS} folds; remove --search")
    parts = folds(names, NUM_FOLDS, seed, task.data.contents)
    runs: list[Trainer] = []
    for number, (_, variant) in enumerate(drawn):
        for fold, unseen in enumerate(parts):
            held_out = set(unseen)
            rest = Split(rows_of(samples, [name for name in names if name not in held_out]), rows_of(samples, unseen))
            folder = out / f"trial-{number:03d}" / f"fold-{fold}"
            runs.append(Trainer(task.data, rest, variant, card_for(task, variant, seed, rest), folder))
    results = iter(run_all(runs, pool_size or PoolSize(), on_epoch))
    found: list[Trial] = []
    for number, (changes, variant) in enumerate(drawn):
        predicted = {name: value for _ in parts for name, value in next(results).test.items()}
        quality = spearman([predicted[name] for name in names], [task.true[name] for name in names])
        found.append(Trial(number, changes, variant, quality))
    write_atomically(out / "search.csv", _as_csv(found))
    return sorted(found, key=lambda trial: -math.inf if math.isnan(trial.spearman) else trial.spearman, reverse=True)


def _drawn(experiment: Experiment, space: SearchSpace, seed: int, number: int) -> tuple[dict[str, Any], Experiment]:
    """Return the changes and the changed experiment of one trial; trial 0 has none. The last epoch is evaluated."""
    rng = np.random.default_rng((seed, number))
    made = model_class(experiment.model)
    protocol: dict[str, Any] = {}
    if number and not hasattr(made, "solve"):  # a closed solver has no protocol
        protocol = {name: values.draw(rng) for name, values in space.protocol.items()}
    settings: dict[str, Any] = {}
    if number:
        known = made.Settings.model_fields
        settings = {name: values.draw(rng) for name, values in space.settings.items() if name in known}
    try:
        stages: list[Any] = [
            stage.model_copy(update={"protocol": stage.protocol.model_copy(update={"selection": "last"})})
            for stage in experiment.stages
        ]
        last: Stage = stages[-1]
        changed = Protocol.model_validate({**last.protocol.model_dump(), **protocol})
        stages[-1] = last.model_copy(update={"protocol": changed})
        made.Settings.model_validate({**experiment.settings, **settings})
    except ValidationError as error:
        raise ConfigError(f"search space: {validation_message(error)}") from None
    variant = experiment.model_copy(update={"stages": tuple(stages), "settings": {**experiment.settings, **settings}})
    return {**protocol, **settings}, variant


def _as_csv(trials: Sequence[Trial]) -> bytes:
    names = list(dict.fromkeys(name for trial in trials for name in trial.changes))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "spearman", *names])
    for trial in trials:
        writer.writerow([trial.number, f"{trial.spearman:.4f}", *(trial.changes.get(name, "") for name in names)])
    return text.getvalue().encode()
