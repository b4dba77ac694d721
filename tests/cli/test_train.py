from __future__ import annotations

from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from arabesque.cli.main import commands
from arabesque.pipeline.records import FeatureRow
from arabesque.pipeline.store.manifest import write_manifest
from arabesque.pipeline.store.writer import StoreWriter


def make_store(root: Path, num_videos: int) -> Path:
    """One stream of one number, which is the score."""
    entry = {"settings_digest": "0" * 32, "dim": 1, "extractor_version": 1, "weights": {}}
    write_manifest(root, {"format": 1, "recipe": {}, "streams": {"motion": entry}, "made_with": {}})
    with StoreWriter(root) as writer:
        for number in range(num_videos):
            features = np.full((4, 1), number, dtype=np.float32)
            times = np.arange(4.0)
            digest = f"{number:064x}"
            writer.add(FeatureRow(f"v{number}", "motion", digest, digest, "0" * 32, "done", features, times, times + 1))
    return root


def test_it_prints_the_held_out_correlation_and_the_files(tmp_path: Path) -> None:
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
    assert "1 video(s) without a label left out: v0" in result.stderr
    assert "2 label(s) without a video left out: v12, v13" in result.stderr
    assert (tmp_path / "model" / "predictions.csv").is_file()
