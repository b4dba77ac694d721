from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_trainings import DIMS, make_data, make_run

from arabesque.models import seed_run
from arabesque.models.checkpoints import load_checkpoint
from arabesque.models.experiment import BranchStage, Experiment
from arabesque.models.protocol import Protocol
from arabesque.models.seed_run import RESULT, STATE


def test_best_on_test_is_the_best_of_its_history(tmp_path: Path) -> None:
    result = make_run(tmp_path).result()
    assert len(result.history) == 6
    assert result.epoch == 1 + int(np.argmax(result.history))
    assert sorted(result.test) == [f"v{number}" for number in range(20, 30)]
    truths = make_data(("vst", "ast")).scores[20:]
    assert seed_run.spearman(list(result.test.values()), truths) == pytest.approx(max(result.history))
    assert seed_run.spearman(list(result.last.values()), truths) == pytest.approx(result.history[-1])


def test_validation_never_looks_at_the_test_videos(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", selection="validation")
    result = run.result()
    twisted = make_run(tmp_path / "two", selection="validation")
    twisted.data.scores[20:] = twisted.data.scores[20:][::-1].copy()
    other = twisted.result()
    assert (other.epoch, other.history, other.test) == (result.epoch, result.history, result.test)
    best_on_test = make_run(tmp_path / "three")
    best_on_test.data.scores[20:] = best_on_test.data.scores[20:][::-1].copy()
    assert best_on_test.result().history != make_run(tmp_path / "four").result().history


def test_the_last_epoch_needs_no_history(tmp_path: Path) -> None:
    result = make_run(tmp_path, selection="last").result()
    assert (result.epoch, result.history) == (6, ())
    assert result.test == result.last


def test_a_finished_run_is_read_back_and_another_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_run(tmp_path).result()
    monkeypatch.setattr(seed_run, "Fitting", None)
    assert make_run(tmp_path).result() == first
    with pytest.raises(TypeError):
        make_run(tmp_path, learning_rate=0.004).result()


def test_the_model_it_leaves_is_the_chosen_one(tmp_path: Path) -> None:
    run = make_run(tmp_path, standardise=True)
    result = run.result()
    network, card = load_checkpoint(tmp_path)
    fractions = seed_run.judge(network, run.data.routines, run.split.test).numpy()
    low, high = card.score_range
    np.testing.assert_allclose(low + (high - low) * fractions, list(result.test.values()), atol=1e-6)


def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    through = make_run(tmp_path / "through").result()
    monkeypatch.setattr(seed_run, "SAVE_EVERY_S", 0.0)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_run(tmp_path / "stopped").result(stop)
    assert (tmp_path / "stopped" / STATE).is_file()
    epochs: list[int] = []
    resumed = make_run(tmp_path / "stopped").result(lambda done, total: epochs.append(done))
    assert epochs == [4, 5, 6]  # the fourth was told before it was saved
    assert resumed == through
    assert not (tmp_path / "stopped" / STATE).exists()


CHILD = """
import sys; sys.path.insert(0, {folder!r})
from pathlib import Path
import torch; torch.set_num_threads(1)
from arabesque.models import seed_run
from small_trainings import make_run
seed_run.SAVE_EVERY_S = 0.0
make_run(Path({out!r}), epochs=300).result(lambda done, total: print(done, flush=True))
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    through = make_run(tmp_path / "through", epochs=300).result()
    out = tmp_path / "killed"
    code = CHILD.format(folder=str(Path(__file__).parents[1]), out=str(out))
    for attempt in range(4):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            first, *_ = [int(child.stdout.readline()) for _ in range(3)]  # an epoch is told before it is saved
            time.sleep(0.02 * attempt)
            child.kill()
        assert attempt == 0 or first > 1, "it began anew"
    assert not (out / RESULT).exists(), "it was done before it was killed for the last time"
    assert make_run(out, epochs=300).result() == through


def test_a_model_that_is_solved(tmp_path: Path) -> None:
    result = make_run(tmp_path, model="pooled-svr", settings={}).result()
    assert (result.selection, result.history) == ("solved", ())
    assert seed_run.spearman(list(result.test.values()), make_data(("vst", "ast")).scores[20:]) > 0.8
    assert json.loads((tmp_path / RESULT).read_text())["selection"] == "solved"


def test_two_stages_begin_with_trained_branches(tmp_path: Path) -> None:
    stage = BranchStage(settings={"dropout": 0.0}, protocol=Protocol(epochs=2, batch_size=8))
    settings = {"num_nets": 2, "ms_heads": 1, "cm_heads": 1, "frozen": ["vst"]}
    make_run(tmp_path, model="pamfn", settings=settings, branches=stage, epochs=2).result()
    network, _ = load_checkpoint(tmp_path)
    for stream in ("vst", "ast"):
        branch, card = load_checkpoint(tmp_path / f"branch-{stream}")
        assert card.dims == {stream: DIMS[stream]}
        same = [
            torch.equal(value, network.state_dict()[f"branches.{stream}.{name.removeprefix('branch.')}"])
            for name, value in branch.state_dict().items()
            if not name.startswith("branch.fc")
        ]
        assert all(same) == (stream == "vst")  # frozen, statistics included; the other one is tuned


def test_what_stages_need_is_checked() -> None:
    stage = BranchStage(protocol=Protocol(epochs=1))
    with pytest.raises(ValueError, match="branches are PAMFN's; gdlt has none"):
        Experiment(model="gdlt", streams=("vst",), protocol=Protocol(epochs=1), branches=stage)
    with pytest.raises(ValueError, match="standardise must be off"):
        Experiment(model="pamfn", streams=("vst",), protocol=Protocol(epochs=1, standardise=True), branches=stage)
