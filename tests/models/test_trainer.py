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

from arabesque.manifests.errors import ConfigError
from arabesque.models import trainer
from arabesque.models.checkpoints import load_checkpoint
from arabesque.models.experiment import Experiment, PartStage, Stage
from arabesque.models.metrics import spearman
from arabesque.models.prediction import predict
from arabesque.models.protocol import Protocol
from arabesque.models.trainer import RESULT, STATE


def test_best_on_test_selects_the_best_epoch(tmp_path: Path) -> None:
    result = make_run(tmp_path).result()
    assert len(result.history) == 6
    assert result.epoch == 1 + int(np.argmax(result.history))
    assert sorted(result.test) == [f"v{number}" for number in range(20, 30)]
    truths = make_data(("vst", "ast")).scores[20:]
    assert spearman(list(result.test.values()), truths) == pytest.approx(max(result.history))
    assert spearman(list(result.last.values()), truths) == pytest.approx(result.history[-1])


def test_validation_does_not_use_the_test_videos(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", selection="validation")
    result = run.result()
    twisted = make_run(tmp_path / "two", selection="validation")
    twisted.data.scores[20:] = twisted.data.scores[20:][::-1].copy()
    other = twisted.result()
    assert (other.epoch, other.history, other.test) == (result.epoch, result.history, result.test)
    best_on_test = make_run(tmp_path / "three")
    best_on_test.data.scores[20:] = best_on_test.data.scores[20:][::-1].copy()
    assert best_on_test.result().history != make_run(tmp_path / "four").result().history


def test_the_last_epoch_has_no_history(tmp_path: Path) -> None:
    result = make_run(tmp_path, selection="last").result()
    assert (result.epoch, result.history) == (6, ())
    assert result.test == result.last


def test_a_finished_run_is_read_unless_it_belongs_to_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_run(tmp_path).result()
    monkeypatch.setattr(trainer, "Fitting", None)
    assert make_run(tmp_path).result() == first
    with pytest.raises(TypeError):
        make_run(tmp_path, learning_rate=0.004).result()


def test_the_saved_model_has_the_selected_weights(tmp_path: Path) -> None:
    run = make_run(tmp_path, standardize=True)
    result = run.result()
    network, card = load_checkpoint(tmp_path)
    fractions = predict(network, run.data.samples, run.split.test).numpy()
    low, high = card.score_range
    np.testing.assert_allclose(low + (high - low) * fractions, list(result.test.values()), atol=1e-6)


def test_an_interrupted_run_gives_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    through = make_run(tmp_path / "through").result()
    monkeypatch.setattr(trainer, "SAVE_EVERY_S", 0.0)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_run(tmp_path / "stopped").result(stop)
    assert (tmp_path / "stopped" / STATE).is_file()
    epochs: list[int] = []
    resumed = make_run(tmp_path / "stopped").result(lambda done, total: epochs.append(done))
    assert epochs == [4, 5, 6]  # the fourth was reported but not saved
    assert resumed == through
    assert not (tmp_path / "stopped" / STATE).exists()


@pytest.mark.parametrize("name", [RESULT, "model.pt", "model.json"])
def test_a_finished_run_with_a_damaged_file_is_repeated(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path, epochs=2)
    first = run.result()
    assert run.finished() == first
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 2
    (tmp_path / name).write_bytes(content)
    assert run.finished() is None
    assert run.result() == first
    assert run.finished() == first


def test_a_damaged_state_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "SAVE_EVERY_S", 0.0)
    through = make_run(tmp_path / "through", epochs=3).result()

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_run(tmp_path / "stopped", epochs=3).result(stop)
    whole = (tmp_path / "stopped" / STATE).read_bytes()
    for place in (5, len(whole) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (tmp_path / "stopped" / STATE).write_bytes(damaged)
        epochs: list[int] = []
        again = make_run(tmp_path / "stopped", epochs=3)
        assert again.result(lambda done, total, epochs=epochs: epochs.append(done)) == through
        assert epochs == [1, 2, 3]
        (tmp_path / "stopped" / RESULT).unlink()


CHILD = """
import sys; sys.path.insert(0, {folder!r})
from pathlib import Path
import torch; torch.set_num_threads(1)
from arabesque.manifests.errors import ConfigError
from arabesque.models import trainer
from small_trainings import make_run
trainer.SAVE_EVERY_S = 0.0
make_run(Path({out!r}), epochs=300).result(lambda done, total: print(done, flush=True))
"""


@pytest.mark.slow
def test_a_killed_run_resumes(tmp_path: Path) -> None:
    through = make_run(tmp_path / "through", epochs=300).result()
    out = tmp_path / "killed"
    code = CHILD.format(folder=str(Path(__file__).parents[1]), out=str(out))
    for attempt in range(4):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            first, *_ = [int(child.stdout.readline()) for _ in range(3)]  # an epoch is reported before it is saved
            time.sleep(0.02 * attempt)
            child.kill()
        assert attempt == 0 or first > 1, "the training started from the first epoch"
    assert not (out / RESULT).exists(), "it was done before it was killed for the last time"
    assert make_run(out, epochs=300).result() == through


def test_a_model_with_a_closed_solver(tmp_path: Path) -> None:
    result = make_run(tmp_path, model="pooled-svr", settings={}).result()
    assert (result.selection, result.history) == ("solved", ())
    assert spearman(list(result.test.values()), make_data(("vst", "ast")).scores[20:]) > 0.8
    assert json.loads((tmp_path / RESULT).read_text())["selection"] == "solved"


BRANCHES = PartStage(
    model="pamfn-branch",
    settings={"dropout": 0.0},
    copy_from="branch",
    copy_to="branches.{stream}",
    protocol=Protocol(epochs=2, batch_size=8),
)
TWO_STAGES = [
    ("pamfn", {"num_nets": 2, "ms_heads": 1, "cm_heads": 1}),
    ("late-fusion", {"combination": "attention"}),
]


def branch_differences(folder: Path, network: torch.nn.Module, stream: str) -> set[str]:
    """Names of the weights and statistics of a branch that differ from those of the branch that was trained alone."""
    branch, card = load_checkpoint(folder / f"branches-{stream}")
    assert card.dims == {stream: DIMS[stream]}
    state = network.state_dict()
    return {
        name
        for name, value in branch.state_dict().items()
        if not name.startswith("branch.fc")
        and not torch.equal(value, state[f"branches.{stream}.{name.removeprefix('branch.')}"])
    }


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(("model", "settings"), TWO_STAGES)
def test_two_stages_start_from_trained_branches(tmp_path: Path, model: str, settings: dict[str, object]) -> None:
    stages = {"before": (BRANCHES,), "stage": {"frozen": ("branches.vst",)}}
    make_run(tmp_path, model=model, settings=settings, epochs=1, **stages).result()
    network, _ = load_checkpoint(tmp_path)
    assert branch_differences(tmp_path, network, "vst") == set()  # frozen, including statistics
    assert len(branch_differences(tmp_path, network, "ast")) > 20
    assert all(parameter.requires_grad for parameter in network.get_submodule("branches.vst.stage1").parameters())


@pytest.mark.usefixtures("narrow")
def test_frozen_modules_in_training_mode_update_their_statistics(tmp_path: Path) -> None:
    model, settings = TWO_STAGES[0]
    stages = {"before": (BRANCHES,), "stage": {"frozen": ("branches",), "frozen_mode": "training"}}
    make_run(tmp_path, model=model, settings=settings, epochs=1, **stages).result()
    network, _ = load_checkpoint(tmp_path)
    for stream in DIMS:
        kinds = {name.rpartition(".")[2] for name in branch_differences(tmp_path, network, stream)}
        assert kinds == {"running_mean", "running_var", "num_batches_tracked"}


def test_a_stage_continues_with_the_selected_weights_of_the_stage_before(tmp_path: Path) -> None:
    """With everything frozen, the second stage ends with the weights that the first one selected."""
    first = Stage(protocol=Protocol(epochs=6, batch_size=8, learning_rate=0.003, selection="best-test"))
    alone = make_run(tmp_path / "alone").result()
    assert alone.epoch < 6
    both = make_run(tmp_path / "both", before=(first,), stage={"frozen": ("streams", "head.0")}, epochs=2).result()
    network, _ = load_checkpoint(tmp_path / "both")
    selected, _ = load_checkpoint(tmp_path / "alone")
    state = selected.state_dict()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, state[name])}
    assert changed == {"head.3.weight", "head.3.bias"}
    assert len(both.history) == 2


@pytest.mark.usefixtures("narrow")
def test_an_interrupted_run_of_three_stages_gives_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs 1 to 4 train the branches, 5 and 6 the whole network, 7 and 8 its head."""
    middle = Stage(protocol=Protocol(epochs=2, batch_size=8, selection="best-test"))
    options = {"model": "late-fusion", "settings": {}, "before": (BRANCHES, middle)}
    options |= {"stage": {"frozen": ("branches",)}, "epochs": 2}
    through = make_run(tmp_path / "through", **options).result()
    monkeypatch.setattr(trainer, "SAVE_EVERY_S", 0.0)
    epochs: list[int] = []

    def stop(done: int, total: int) -> None:
        epochs.append(done)
        if len(epochs) in (4, 7, 9):
            raise KeyboardInterrupt

    for _ in range(3):  # in the second branch, in the second stage and in the last one
        with pytest.raises(KeyboardInterrupt):
            make_run(tmp_path / "stopped", **options).result(stop)
    assert make_run(tmp_path / "stopped", **options).result(stop) == through
    assert epochs == [1, 2, 1, 2, 2, 1, 2, 2, 1, 1, 2]  # an epoch that was reported but not saved is repeated
    states = [load_checkpoint(tmp_path / name)[0].state_dict() for name in ("through", "stopped")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.usefixtures("narrow")
def test_standardized_branches_fit_a_standardized_network(tmp_path: Path) -> None:
    branches = BRANCHES.model_copy(update={"protocol": Protocol(epochs=2, batch_size=8, standardize=True)})
    options = {"before": (branches,), "stage": {"frozen": ("branches",)}, "standardize": True, "epochs": 1}
    make_run(tmp_path, model="late-fusion", settings={}, **options).result()
    network, _ = load_checkpoint(tmp_path)
    for stream in DIMS:
        alone = dict(load_checkpoint(tmp_path / f"branches-{stream}")[0].named_buffers())
        for name in (f"mean_{stream}", f"deviation_{stream}"):
            assert torch.equal(alone[name], dict(network.named_buffers())[name])


@pytest.mark.usefixtures("narrow")
def test_invalid_stages_are_rejected(tmp_path: Path) -> None:
    last = Stage(protocol=Protocol(epochs=1))
    with pytest.raises(ValueError, match="the last stage trains pamfn-branch; it must train pamfn"):
        Experiment(model="pamfn", streams=("vst",), stages=(last, BRANCHES))
    mixed = Stage(protocol=Protocol(epochs=1, standardize=True))
    with pytest.raises(ValueError, match="standardize must be the same in all stages"):
        Experiment(model="pamfn", streams=("vst",), stages=(BRANCHES, mixed))
    with pytest.raises(ValueError, match="crop: ast is not one of the streams vst"):
        Experiment(model="gdlt", streams=("vst",), stages=(Stage(protocol=Protocol(epochs=1, crop={"ast": 3})),))
    with pytest.raises(ConfigError, match=r"stage 1 names the module 'branches\.vst', but the network only has "):
        make_run(tmp_path / "one", before=(BRANCHES,)).result()
    with pytest.raises(ConfigError, match=r"stage 1 names the module 'haed'.*only has feature_dropout, head, head\.0"):
        make_run(tmp_path / "two", stage={"frozen": ("haed",)}).result()
    with pytest.raises(ConfigError, match="the weights of all of pamfn-branch do not fit"):
        make_run(tmp_path / "three", model="late-fusion", settings={}, before=(whole_branch(),)).result()
    assert not (tmp_path / "one").exists()


def whole_branch() -> PartStage:
    return BRANCHES.model_copy(update={"copy_from": ""})
