"""`arabesque verify` and `arabesque repair` on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from clips import Clip, write_clip
from known_extractors import RECIPE
from typer.testing import CliRunner

from arabesque.cli.main import commands
from arabesque.manifests.errors import StoreError


def run(*arguments: object, status: int = 0) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(commands, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with ``videos``, ``known.toml`` and the ``store`` that was extracted from them."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "videos").mkdir()
    for name in "ab":
        write_clip(folder / "videos" / f"{name}.mp4", Clip(num_frames=24, beeps_s=(0.2,)))
    (folder / "known.toml").write_text(RECIPE)
    extract(folder)
    return folder


def extract(folder: Path) -> str:
    return run("extract", folder / "videos", "--recipe", folder / "known.toml", "--out", folder / "store")


def test_an_undamaged_store(made):
    said = run("verify", made / "store", "--videos", made / "videos", "--sample", 1)
    assert "4 rows, 4 outcomes" in said
    assert said.count("recomputed: ") == 2
    assert "no damage found" in said
    assert "nothing is damaged" in run("repair", made / "store")


def test_damage_is_found_repaired_and_recomputed(made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "made")
    store = folder / "store"
    (shard,) = (store / "stream=numbers").glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:-4000])  # more than the parity can restore
    said = run("verify", store, status=3)
    assert f"stream=numbers/{shard.name}: " in said
    assert f"`arabesque repair {store}`" in said
    told = json.loads(run("verify", store, "--json", "--videos", folder / "videos", status=3))
    assert (told["sound"], told["num_rows"], told["recomputed"]) == (False, 2, [])
    with pytest.raises(StoreError, match=r"damaged .*arabesque repair"):
        extract(folder)
    said = run("repair", store, status=3)
    assert "'a' [numbers]: has to be recomputed" in said
    assert "recomputes 2 rows" in said
    assert json.loads(run("repair", store, "--json", status=3))["missing"] == [["a", "numbers"], ["b", "numbers"]]
    assert "`arabesque extract` with this --out computes the missing rows" in run("verify", store, status=3)
    extract(folder)
    assert "no damage found" in run("verify", store, "--videos", folder / "videos")


def test_a_folder_without_a_store_is_reported(tmp_path):
    for command in ("verify", "repair"):
        with pytest.raises(StoreError, match="is not a feature store"):
            run(command, tmp_path)
