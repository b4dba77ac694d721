"""``train --dataset``, ``evaluate`` and ``reproduce`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from seeded_networks import golden_state_dict
from typer.testing import CliRunner

from arabesque.cli.evaluate import evaluate
from arabesque.cli.reproduce import reproduce
from arabesque.cli.train import train
from arabesque.manifests.errors import WeightsError
from arabesque.models.published_checkpoints import load_gdlt
from arabesque.models.scoring import SegmentBatch

MANIFESTS = Path(__file__).parents[2] / "manifests"

commands = typer.Typer()
commands.command("train")(train)
commands.command("evaluate")(evaluate)
commands.command("reproduce")(reproduce)


@pytest.fixture
def fisv(tmp_path: Path) -> tuple[str, str]:
    rng = np.random.default_rng(0)
    skill = rng.random(500)
    arrays = {str(number): skill[number] + 0.1 * rng.standard_normal((4, 3)) for number in range(500)}
    np.savez(tmp_path / "vst.npz", **arrays)  # pyright: ignore[reportArgumentType]
    lines = [f"{number} {10 + 30 * skill[number]:.2f} {15 + 20 * skill[number]:.2f} 0" for number in range(500)]
    (tmp_path / "train.txt").write_text("\n".join(lines[:400]))
    (tmp_path / "test.txt").write_text("\n".join(lines[400:]))
    return str(tmp_path / "vst.npz"), str(tmp_path)


def call(*words: str) -> str:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(commands, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def test_train_then_evaluate(fisv: tuple[str, str], tmp_path: Path) -> None:
    features, labels = fisv
    out = str(tmp_path / "model")
    data = ("--labels", labels, "--dataset", "fisv", "--target", "PCS")
    options = ("--model", "pooled-svr", "--set", "pooling=max", "--set", "cost=0.01", "--out", out, "--threads", "1")
    told = call("train", features, *data, *options, "--drop-first", "--protocol", "score_range=[0,40]")
    assert "solved, no epochs" in told
    assert "99 test videos, seed 0" in told
    assert json.loads((tmp_path / "model" / "seed-0" / "model.json").read_text())["score_range"] == [0, 40]
    told = call("evaluate", f"{out}/seed-0", features, *data, "--out", str(tmp_path / "scores.csv"))
    assert "videos 100 Spearman 0.9" in told
    assert "caution" not in told
    assert (tmp_path / "scores.csv").read_text().startswith("video_id,true,predicted\n400,")
    told = call("evaluate", f"{out}/seed-0", features, *data, "--split", "train")
    assert "caution the model was trained on 399 of the 400 videos; the result does not apply to unseen videos" in told


def test_reproduce(fisv: tuple[str, str], tmp_path: Path) -> None:
    features, labels = fisv
    out = str(tmp_path / "reproduced")
    given = ("--features", features, "--stream", "vst", "--labels", labels)
    told = call("reproduce", "fisv", *given, "--out", out, "--row", "svr", "--workers", "1", "--column", "TES")
    assert "Average pooling + linear SVR TES – – – 0.9" in told
    assert "PCS" not in told
    assert Path(told.rsplit(" ", 1)[-1]).name == "table.md"
    page = (tmp_path / "reproduced" / "fisv" / "report" / "index.html").read_text()
    assert "Average pooling + linear SVR" in page
    table = json.loads((tmp_path / "reproduced" / "fisv" / "table.json").read_text())
    (cell,) = (row["cells"]["TES"] for row in table["rows"] if "TES" in row["cells"])
    interval = cell["last"]["interval"]
    assert f"{cell['last']['by_seed'][0]:.3f}" in page
    assert f"[{interval['low']:.3f}, {interval['high']:.3f}]" in page


def test_evaluate_a_checkpoint_of_its_authors(fisv: tuple[str, str], tmp_path: Path) -> None:
    """The scores are those of the network on the features, in points of the data set's range."""
    _, labels = fisv
    rng = np.random.default_rng(0)
    arrays = {str(number): rng.random((3, 1024), dtype=np.float32) for number in range(500)}
    np.savez(tmp_path / "vst.npz", **arrays)  # pyright: ignore[reportArgumentType]
    torch.save({"state_dict": golden_state_dict("gdlt")}, tmp_path / "theirs.pth")
    data = ("--labels", labels, "--dataset", "fisv", "--target", "TES", "--checkpoint", str(tmp_path / "theirs.pth"))
    out = tmp_path / "scores.csv"
    told = call("evaluate", str(tmp_path / "vst.npz"), *data, "--out", str(out))
    assert "videos 100" in told
    assert "caution the authors chose their epochs on the test videos: an upper bound" in told
    network = load_gdlt(tmp_path / "theirs.pth", "vst", released=True)
    with torch.inference_mode():
        features = {"vst": torch.from_numpy(arrays["400"])[None]}
        score = network(SegmentBatch(features, {"vst": torch.ones(1, 3, dtype=torch.bool)})).score
    first = out.read_text().splitlines()[1].split(",")
    assert first[0] == "400"
    assert float(first[2]) == pytest.approx(45 * score.item(), abs=1e-3)
    result = CliRunner().invoke(commands, ["evaluate", labels, str(tmp_path / "vst.npz"), *data])
    assert result.exit_code == 2
    assert "2 paths are given; give FEATURES" in result.output
    narrow, _ = fisv
    np.savez(narrow, **{name: array[:, :5] for name, array in arrays.items()})  # pyright: ignore[reportArgumentType]
    with pytest.raises(WeightsError, match=r"has 5 values per segment, .* needs 1024"):
        call("evaluate", narrow, *data)


def test_reproduce_lists_what_each_row_needs(fisv: tuple[str, str], tmp_path: Path) -> None:
    features, labels = fisv
    told = call("reproduce", "--list", "--out", str(tmp_path))
    for name in (*(f"action-net-{number}" for number in range(1, 5)), *(f"pamfn-{number}" for number in range(1, 10))):
        assert name in told
    assert "Free FusionNets rg, fisv missing: needs features: vst, i3d_flow, ast" in told
    given = ("--features", features, "--stream", "vst", "--labels", f"fisv={labels}", "--out", str(tmp_path))
    told = call("reproduce", "pamfn-1", "--list", *given)
    assert "GDLT rg missing: needs the labels of rg GDLT fisv runnable" in told
    result = CliRunner().invoke(commands, ["reproduce", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "name a table, or add --list" in result.output
    result = CliRunner().invoke(commands, ["reproduce", "pamfn-1", *given, "--features", features])
    assert result.exit_code == 2
    assert "given twice" in result.output


BRIEF = ("--seeds", "1", "--epochs", "1", "--best-test-only")


def test_a_table_of_two_data_sets_runs_where_there_are_features(fisv: tuple[str, str], tmp_path: Path) -> None:
    """Rows and data sets without features are named; figures find predictions and attention of each training."""
    features, labels = fisv
    out, table = tmp_path / "out", tmp_path / "pamfn-1.toml"
    published = (MANIFESTS / "tables" / "pamfn-1.toml").read_text()
    table.write_text(published.replace('method = "gdlt"', 'method = "gdlt"\nsettings = { hidden_dim = 8 }'))
    given = ("--features", f"fisv={features}", "--stream", "vst", "--labels", f"fisv={labels}", "--out", str(out))
    told = call("reproduce", str(table), *given, "--row", "gdlt", *BRIEF, "--folds", "0")
    assert "TES 0.685" in told
    assert "average (Fisher-z) 0.761" in told
    assert "GDLT: parameters 1.84 M printed, " in told
    assert "not run: GDLT rg: needs features: vst" in told
    folder = out / "pamfn-1" / "gdlt" / "tes" / "best-test" / "seed-0"
    assert len((folder / "predictions.csv").read_text().splitlines()) == 101
    told = call("reproduce", str(table), "--list", *given)
    assert "GDLT fisv done: 1 seed" in told


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--dataset", "fisv"), "--target"),
        (("--dataset", "fisv", "--target", "TES", "--selection", "best"), "--selection"),
        (("--dataset", "fisv", "--target", "TES", "--set", "dropout"), "--set"),
        (("--dataset", "fisv", "--target", "TES", "--protocol", "epochs"), "--protocol"),
    ],
)
def test_wrong_usage(fisv: tuple[str, str], words: tuple[str, ...], complaint: str) -> None:
    features, labels = fisv
    result = CliRunner().invoke(commands, ["train", features, "--labels", labels, *words])
    assert result.exit_code == 2
    assert complaint in result.output
