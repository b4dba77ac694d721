from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from arabesque.cli.main import commands
from arabesque.cli.train import parse_share
from arabesque.pipeline.records import FeatureRow
from arabesque.pipeline.store.manifest import write_manifest
from arabesque.pipeline.store.writer import StoreWriter


def make_store(root: Path, num_videos: int) -> Path:
    """Write a store with one stream whose single value is the score."""
    entry = {"settings_digest": "0" * 32, "dim": 1, "extractor_version": 1, "weights": {}}
    write_manifest(root, {"format": 1, "recipe": {}, "streams": {"motion": entry}, "made_with": {}})
    with StoreWriter(root) as writer:
        for number in range(num_videos):
            features = np.full((4, 1), number, dtype=np.float32)
            times = np.arange(4.0)
            digest = f"{number:064x}"
            writer.add(FeatureRow(f"v{number}", "motion", digest, digest, "0" * 32, "done", features, times, times + 1))
    return root


def test_it_prints_the_correlation_and_the_files(tmp_path: Path) -> None:
    store = make_store(tmp_path / "features", 12)
    labels = tmp_path / "scores.csv"
    labels.write_text("id,A,B\n" + "".join(f"v{n},{n},{100 - n}\n" for n in range(1, 14)))
    result = CliRunner().invoke(
        commands,
        ["train", str(store), "--labels", str(labels), "--target", "B", "--epochs", "2"],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    assert "Spearman" in result.stdout
    assert "n = 11" in " ".join(result.stdout.split())
    assert str(tmp_path / "model" / "model.pt") in result.stdout
    assert "1 video(s) without a label excluded: v0" in result.stderr
    assert "2 label(s) without a video excluded: v12, v13" in result.stderr
    assert (tmp_path / "model" / "predictions.csv").is_file()


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("0", 0), ("100 %", 1), (".5%", 0.005)])
def test_a_share_has_two_notations(text: str, share: float) -> None:
    assert parse_share(text, partial=False) == pytest.approx(share)
    assert parse_share(None, partial=True) is None


@pytest.mark.parametrize("text", ["5", "101%", "-1%", "nan", "five", "0,05", "5%%", ""])
def test_an_invalid_share_is_wrong_usage(tmp_path: Path, text: str) -> None:
    labels = tmp_path / "scores.csv"
    labels.write_text("v1,2\n")
    result = CliRunner().invoke(commands, ["train", str(tmp_path), "--labels", str(labels), f"--max-lost={text}"])
    assert result.exit_code == 2
    with pytest.raises(typer.BadParameter, match="give one of the two"):
        parse_share("5%", partial=True)
