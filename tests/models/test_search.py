"""`train --search`: random settings, cross-validated on the training videos."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from arabesque.manifests.errors import ConfigError, InputError
from arabesque.models import dataset_training
from arabesque.models.dataset_runs import Task, make_task
from arabesque.models.dataset_training import experiment_for, train_on_dataset
from arabesque.models.named_labels import read_named_labels
from arabesque.models.released_features import read_features
from arabesque.models.search import Distribution, SearchSpace, load_space, search

SPACE = SearchSpace.model_validate({"settings": {"cost": {"log": [1e-6, 1.0]}}})


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, Path]:
    """Features and scores of forty videos."""
    rng = np.random.default_rng(0)
    quality = rng.random(40)
    arrays = {f"v{n:02d}": (quality[n] + 0.3 * rng.standard_normal((5, 6))).astype(np.float32) for n in range(40)}
    np.savez(tmp_path / "vst.npz", **arrays)  # pyright: ignore[reportArgumentType]
    labels = tmp_path / "scores.csv"
    labels.write_text("id,score\n" + "".join(f"v{n:02d},{quality[n]:.4f}\n" for n in range(40)))
    return tmp_path / "vst.npz", labels


def task_of(source: tuple[Path, Path]) -> Task:
    known, wanted = read_named_labels("csv", source[1], None)
    return make_task(read_features(source[0], ("vst",)), known, wanted)


def test_trials_are_ranked_and_listed(source: tuple[Path, Path], tmp_path: Path) -> None:
    experiment = experiment_for("csv", "pooled-svr", "score", streams=("vst",), settings={"cost": 1e-6})
    trials = search(task_of(source), experiment, 0, tmp_path / "out", trials=4, space=SPACE)
    assert [trial.spearman for trial in trials] == sorted((trial.spearman for trial in trials), reverse=True)
    assert {trial.number for trial in trials} == set(range(5))
    given = next(trial for trial in trials if trial.number == 0)
    assert (given.changes, given.experiment.settings) == ({}, {"cost": 1e-6})
    assert trials[0].spearman > 0.8
    with (tmp_path / "out" / "search.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in rows] == list(range(5))
    assert {row["cost"] for row in rows} == {"", *(str(trial.changes["cost"]) for trial in trials if trial.number)}
    again = search(task_of(source), experiment, 0, tmp_path / "other", trials=4, space=SPACE)
    assert [trial.changes for trial in again] == [trial.changes for trial in trials]


def test_the_test_videos_change_neither_the_figures_nor_the_choice(source: tuple[Path, Path], tmp_path: Path) -> None:
    """With other scores and features of the test videos, every trial has the same figure."""
    experiment = experiment_for("csv", "pooled-svr", "score", streams=("vst",))
    task, other = task_of(source), task_of(source)
    unseen = task.split(0).test
    assert len(unseen) == 8
    other.data.scores[unseen.numpy()] = other.data.scores[unseen.numpy()][::-1].copy()
    other.data.samples.features["vst"][unseen] = 7.0
    found = [
        search(each, experiment, 0, tmp_path / str(number), trials=3, space=SPACE)
        for number, each in enumerate((task, other))
    ]
    assert [trial.spearman for trial in found[0]] == [trial.spearman for trial in found[1]]


def test_the_best_is_trained(source: tuple[Path, Path], tmp_path: Path) -> None:
    experiment = experiment_for("csv", "pooled-svr", "score", streams=("vst",), settings={"cost": 1e-6})
    chosen: list[float] = []
    (report,) = train_on_dataset(
        *source,
        "csv",
        None,
        experiment,
        (0,),
        tmp_path / "out",
        trials=3,
        space=SPACE,
        on_search=lambda trials: chosen.append(trials[0].changes["cost"]),
    )
    assert report.num_test == 8
    card = (tmp_path / "out" / "seed-0" / "model.json").read_text()
    assert f'"cost": {chosen[0]}' in card
    assert "best of 4 by cross-validation on training videos: cost=" in (tmp_path / "out" / "report.json").read_text()
    with pytest.raises(InputError, match="--search with 2 seeds: csv has a different split for each seed"):
        train_on_dataset(*source, "csv", None, experiment, (0, 1), tmp_path / "two", trials=1)


def test_protocol_fields_are_drawn_for_trained_models_only(source: tuple[Path, Path], tmp_path: Path) -> None:
    plain = experiment_for("csv", "lstm", "score", streams=("vst",), epochs=1, settings={"hidden_dim": 4})
    space = load_space().model_copy(update={"settings": {"dropout": Distribution(uniform=(0.1, 0.9))}})
    trials = search(task_of(source), plain, 1, tmp_path, trials=1, space=space)
    drawn = next(trial for trial in trials if trial.number == 1)
    assert drawn.changes.keys() == {"learning_rate", "weight_decay", "batch_size", "dropout"}
    assert drawn.experiment.protocol.learning_rate == drawn.changes["learning_rate"]
    assert 0.1 <= drawn.experiment.settings["dropout"] <= 0.9


def test_invalid_spaces_are_rejected(source: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    for text, message in (
        ("[protocol]\nepochs = { choice = [3], uniform = [1, 2] }", r"protocol\.epochs.*give one of choice, uniform"),
        ("[protocol]\nepochs = { log = [0, 2] }", "above 0 for log"),
        ("[model]\n", r"model: this key is not known"),
        ("[protocol", "not a TOML file"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_space(file)
    with pytest.raises(InputError, match="cannot be read"):
        load_space(tmp_path / "none.toml")
    wrong = SearchSpace.model_validate({"protocol": {"epoch": {"choice": [3]}}})
    experiment = experiment_for("csv", "lstm", "score", streams=("vst",))
    with pytest.raises(ConfigError, match="search space: epoch"):
        search(task_of(source), experiment, 0, tmp_path, trials=1, space=wrong)


def test_the_packaged_space_suits_every_model() -> None:
    assert load_space().protocol.keys() <= set(dataset_training.Protocol.model_fields)
