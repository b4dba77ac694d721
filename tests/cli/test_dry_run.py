"""`arabesque extract --dry-run` on the command line, and the estimate error that the next run prints."""

from __future__ import annotations

import fsspec
import pytest
from clips import Clip, write_clip
from known_extractors import RECIPE
from typer.testing import CliRunner

from arabesque.cli.dry_run import duration_text, estimate_error, size_text
from arabesque.cli.main import commands
from arabesque.pipeline.benchmarking import estimate as estimating
from arabesque.pipeline.benchmarking.benchmark import Effort
from arabesque.pipeline.benchmarking.estimate import Estimate
from arabesque.pipeline.benchmarking.estimate_file import Actual
from arabesque.pipeline.benchmarking.resources import PeakMemory


@pytest.fixture(autouse=True)
def short_benchmarks(monkeypatch):
    monkeypatch.setattr(estimating, "EFFORT", Effort(stage_s=0.02, end_to_end_s=0.2))


def forecast(**facts) -> Estimate:
    known = {
        "made": "2026-11-20T12:00:00+00:00",
        "recipe": "known",
        "device": "cpu",
        "num_videos": 1,
        "num_probed": 1,
        "num_unreadable": 0,
        "video_s": 100.0,
        "setup_s": 1.0,
        "reading_s": 5.0,
        "fetching_s": 0.0,
        "time_s": 80.0,
        "memory_bytes": 1_000_000_000,
        "device_bytes": None,
        "disk_bytes": 2_000_000,
        "streams": {},
    }
    return Estimate.model_validate(known | facts)


def test_the_error_is_relative_to_the_estimate():
    actual = Actual(time_s=100.0, memory=PeakMemory(800_000_000, 50_000_000, 2, None), disk_bytes=2_200_000)
    line = estimate_error(forecast(), actual)
    assert "time 1 min 20 s, actual 1 min 40 s (+25%)" in line
    assert "memory 1.0 GB, actual 900.0 MB (-10%)" in line
    assert "disk 2.0 MB, actual 2.2 MB (+10%)" in line
    assert "GPU" not in line


def test_unknown_values_are_not_compared():
    actual = Actual(time_s=80.0, memory=PeakMemory(None, None, 2, None), disk_bytes=None)
    assert estimate_error(forecast(), actual) == "estimate: time 1 min 20 s, actual 1 min 20 s (+0%)"


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.34, "12.3 s"), (200, "3 min 20 s"), (59.99, "60.0 s"), (7500, "2 h 05 min")]
)
def test_duration_text(seconds, text):
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(None, "?"), (6_400, "6.4 kB"), (34_500_000, "34.5 MB"), (1_200_000_000, "1.2 GB")]
)
def test_size_text(size, text):
    assert size_text(size) == text


def test_several_workers_are_refused(tmp_path):
    more = ["--recipe", "starter", "--out", str(tmp_path / "out"), "--workers", "2", "--dry-run"]
    done = CliRunner().invoke(commands, ["extract", str(tmp_path), *more], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert "--workers 1" in done.output


@pytest.fixture
def short_effort(monkeypatch):
    """Estimates measure for a fraction of a second."""
    monkeypatch.setattr(estimating, "EFFORT", Effort(stage_s=0.02, end_to_end_s=0.2))


@pytest.mark.usefixtures("short_effort")
def test_the_run_after_a_dry_run_reports_the_estimate_error(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "a.mp4", Clip(num_frames=48, beeps_s=(0.5,)))
    (tmp_path / "known.toml").write_text(RECIPE)
    command = ["extract", tmp_path / "videos", "--recipe", tmp_path / "known.toml", "--out", tmp_path / "out"]

    def arabesque(*more):
        done = CliRunner().invoke(commands, [*map(str, command), *more], env={"COLUMNS": "160"})
        assert done.exit_code == 0, done.output
        return done.output

    estimate = arabesque("--dry-run")
    assert "total: " in estimate
    assert "loudness" in estimate
    assert not (tmp_path / "out").exists()
    assert "estimate: time" in arabesque()
    assert "estimate: " not in arabesque()
    assert "nothing remains to be done" in arabesque("--dry-run")


@pytest.mark.usefixtures("short_effort")
def test_videos_at_a_url_are_fetched_for_the_estimate(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(estimating, "MAX_FETCHED", 2)
    clip = write_clip(tmp_path / "a.mp4", Clip(num_frames=48, beeps_s=(0.5,)))
    for name in "abc":
        fsspec.filesystem("memory").put(str(clip), f"/{tmp_path.name}/{name}.mp4")
    (tmp_path / "known.toml").write_text(RECIPE)
    command = ["extract", f"memory://{tmp_path.name}", "--recipe", tmp_path / "known.toml", "--out", tmp_path / "out"]
    done = CliRunner().invoke(commands, [*map(str, command), "--dry-run"], env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert "fetching 2 of 3 videos" in done.output
    assert "fetching, in parallel" in done.output
    assert "3 videos, 5.8 s in total, estimated from 2 of them" in done.output
