"""Two folders of videos and one store: output and exit status of the commands, and the counts of `status`."""

from __future__ import annotations

from pathlib import Path

import pytest
from clips import Clip, write_clip
from typer.testing import CliRunner

from arabesque.cli.main import commands
from arabesque.manifests.errors import InputError
from arabesque.pipeline.status import read_status
from arabesque.pipeline.store.reader import FeatureStore


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """``a`` with ``r1`` and ``r2``, ``b`` with another ``r1`` and ``r3``."""
    for folder, name, frames in (("a", "r1", 60), ("a", "r2", 60), ("b", "r1", 70), ("b", "r3", 60)):
        (tmp_path / folder).mkdir(exist_ok=True)
        write_clip(tmp_path / folder / f"{name}.mp4", Clip(num_frames=frames))
    return tmp_path / "a", tmp_path / "b"


def run(*arguments: object, status: int = 0):
    result = CliRunner().invoke(commands, list(map(str, arguments)), env={"COLUMNS": "200"})
    assert result.exit_code == status, result.output
    return result


def test_a_second_folder_is_refused_prefixed_or_replaces(folders: tuple[Path, Path], tmp_path: Path):
    a, b = folders
    out = tmp_path / "out"
    to = ("--recipe", "starter", "--stream", "motion", "--out", out, "--threads", 1)
    run("extract", a, *to)
    refused = run("extract", b, *to, status=1)  # cli/main.py turns it into status 2
    assert isinstance(refused.exception, InputError)
    assert f"'r1' is of {a}/r1.mp4, not of {b}/r1.mp4" in str(refused.exception)

    found = read_status(out)
    assert found.num_videos == 2
    lacking = run("status", out, b).stdout
    assert "2 videos in the store" in lacking
    assert f"2 videos of {b}: remaining: motion 2" in lacking
    assert "1 of these have an id that the store uses for another file: 'r1'" in lacking
    assert f"2 videos of {a}: nothing remains to be done" in run("status", out).stdout

    run("extract", b, *to, "--id-prefix", "b")
    assert FeatureStore(out).video_ids == ("b/r1", "b/r3", "r1", "r2")
    after = run("status", out).stdout
    assert "4 videos in the store" in after
    assert f"2 videos of {b}: nothing remains to be done" in after
    assert f"2 videos of {b}: nothing remains to be done" in run("status", out, b, "--id-prefix", "b").stdout

    run("extract", b, *to, "--replace")
    stored = FeatureStore(out)
    assert stored["r1"]["motion"].content_digest == stored["b/r1"]["motion"].content_digest
    assert read_status(out).num_videos == 5

    run("verify", out, "--videos", b, "--id-prefix", "b", "--sample", 2)


def test_usage_errors_of_prefix_and_status(folders: tuple[Path, Path], tmp_path: Path):
    a, _ = folders
    bad = run("extract", a, "--recipe", "starter", "--out", tmp_path / "out", "--id-prefix", "../x", status=1)
    assert isinstance(bad.exception, InputError)
    assert not (tmp_path / "out").exists()


def test_status_without_the_inputs_counts_the_store(folders: tuple[Path, Path], tmp_path: Path):
    a, b = folders
    out = tmp_path / "out"
    to = ("--recipe", "starter", "--stream", "motion", "--out", out, "--threads", 1)
    (a / "noise.mp4").write_bytes(b"no video")
    run("extract", a, *to, status=3)
    run("extract", b, *to, "--id-prefix", "b")  # its videos have no failure
    for file in [*a.iterdir(), *b.iterdir()]:
        file.unlink()
    a.rmdir()
    b.rmdir()
    shown = run("status", out, status=3).stdout
    assert "5 videos in the store" in shown
    assert f"2 videos of {b}: nothing remains to be done" in shown
    assert "failed: 'noise' [motion]" in shown
