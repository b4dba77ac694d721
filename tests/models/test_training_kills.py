"""A training killed at any change of the disk leaves a complete model or none; the same command then finishes.

The fast tests kill at a quarter of the changes, the slow ones at each.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_trainings import make_run
from workloads import workload_process

from arabesque.manifests.errors import WeightsError
from arabesque.models.checkpoints import load_checkpoint

Order = Callable[..., dict[str, Any]]

every = pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
"""Kill at each change, or at the first and each fourth after it."""


@pytest.fixture(scope="module")
def order() -> Iterator[Order]:
    with workload_process("training_workload.py") as give:
        yield give


def model_in(folder: Path) -> tuple[int, dict[str, list[float]]] | None:
    """Return the seed and the weights of the model in the folder; None if it is not accepted."""
    try:
        network, card = load_checkpoint(folder)
    except WeightsError:
        return None
    return card.seed, {name: value.flatten().tolist() for name, value in network.state_dict().items()}


def kill_often(order: Order, folder: Path, options: dict[str, Any], every: int) -> Iterator[Path]:
    """Train seed 1 in the folder of a finished seed 0, killed at changes of the disk; yield the folder each time."""
    before = folder / "before"
    order(**options, seed=0, out=before)
    whole = folder / "whole"
    through = order(**options, seed=1, out=whole)
    models = [model_in(before), model_in(whole)]
    assert None not in models
    assert through["changes"] >= 8
    for change in range(0, through["changes"], every):
        out = folder / f"killed {change}"
        shutil.copytree(before, out)
        killed = order(**options, seed=1, out=out, kill_at=change)
        assert killed["killed"]
        assert model_in(out) in [*models, None]
        yield out
        again = order(**options, seed=1, out=out)
        assert again["result"] == through["result"]
        assert model_in(out) == models[1]
        assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}


@every
def test_a_killed_small_training_leaves_a_complete_model(
    order: Order, learnable: Callable[..., tuple[Path, Path]], tmp_path: Path, every: int
) -> None:
    store, labels = learnable(8)
    options = {"do": "train", "store": str(store), "labels": str(labels)}
    assert sum(1 for _ in kill_often(order, tmp_path, options, every)) >= 8 / every


@every
def test_a_killed_resumable_training_leaves_a_complete_model(order: Order, tmp_path: Path, every: int) -> None:
    done = 0
    for out in kill_often(order, tmp_path, {"do": "train seed"}, every):
        # a result exists only with its own model
        results = [make_run(out, epochs=3, seed=seed).finished() for seed in (0, 1)]
        model = model_in(out)
        assert [result is not None for result in results] in (
            [model is not None and model[0] == seed for seed in (0, 1)],
        ) or (results == [None, None])
        done += 1
    assert done > 12 / every
