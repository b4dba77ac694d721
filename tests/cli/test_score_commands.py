"""``train --dataset``, ``evaluate`` and ``reproduce`` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from arabesque.cli.evaluate import evaluate
from arabesque.cli.reproduce import reproduce
from arabesque.cli.train import train

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
    assert "caution the model was trained on 399 of the 400 videos: no measure of how it does on others" in told


def test_reproduce(fisv: tuple[str, str], tmp_path: Path) -> None:
    features, labels = fisv
    out = str(tmp_path / "reproduced")
    given = ("--features", features, "--stream", "vst", "--labels", labels)
    told = call("reproduce", "fisv", *given, "--out", out, "--row", "svr", "--workers", "1", "--column", "TES")
    assert "Average pooling + linear SVR TES – – – 0.9" in told
    assert "PCS" not in told
    assert Path(told.rsplit(" ", 1)[-1]).name == "table.md"


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
