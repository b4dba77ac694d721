"""Two runs with different settings on one store: the second is refused, and the differences are listed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from clips import Clip, write_clip
from typer.testing import CliRunner, Result

from arabesque.cli.main import commands
from arabesque.manifests.errors import ConfigError

ARABESQUE = [sys.executable, "-c", "from arabesque.cli.main import app; app()"]
RECIPE = """
name = "mine"
summary = "starter's motion at a rate of our own"
[sampling]
fps = {fps}
frames_per_segment = 36
frames_per_step = 18
remainder = "pad-last"
[streams.motion]
extractor = "motion"
settings = {{ short_side_px = 144 }}
"""


def command(videos: Path, recipe: Path, out: Path) -> list[str]:
    return ["extract", str(videos), "--recipe", str(recipe), "--out", str(out), "--threads", "1"]


def extract(videos: Path, recipe: Path, out: Path) -> Result:
    """Run the command in this process, which has imported torch."""
    return CliRunner().invoke(commands, command(videos, recipe, out))


def begin(videos: Path, recipe: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*ARABESQUE, *command(videos, recipe, out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_until_it_holds_settings(run: subprocess.Popen[str], out: Path) -> None:
    until_s = time.monotonic() + 300
    while time.monotonic() < until_s:
        assert run.poll() is None, run.communicate()
        for lock in (out / ".writers").glob("*.lock"):
            text = lock.read_text()
            if text and json.loads(text)["streams"]:
                return
        time.sleep(0.01)
    raise AssertionError("the first run did not begin to write")


def test_two_shells_with_different_settings_on_one_store(tmp_path):
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    for name in "ab":
        write_clip(videos / f"{name}.mp4", Clip(num_frames=60))
    for fps in (12, 6):
        (tmp_path / f"at_{fps}.toml").write_text(RECIPE.format(fps=fps))
    first = begin(videos, tmp_path / "at_12.toml", out)
    try:
        wait_until_it_holds_settings(first, out)
        first.send_signal(signal.SIGSTOP)
        refused = extract(videos, tmp_path / "at_6.toml", out)
        assert isinstance(refused.exception, ConfigError)  # cli/main.py turns it into status 2
        said = str(refused.exception)
        assert f"(process {first.pid}) writes stream 'motion' with other settings" in said
        assert "sampling.fps is 12.0 there, 6.0 here" in said
        assert "give --out another folder" in said
        first.send_signal(signal.SIGCONT)
        ended = first.communicate(timeout=300)
        assert first.returncode == 0, ended
    finally:
        first.kill()
        first.wait()
    rows = pd.read_parquet(out / "stream=motion")
    assert sorted(rows.video_id) == ["a", "b"]
    assert rows.settings_digest.nunique() == 1
    assert not (out / "superseded").exists()

    third = extract(videos, tmp_path / "at_6.toml", out)
    assert third.exit_code == 0, third.output
    after = pd.read_parquet(out / "stream=motion")
    assert sorted(after.video_id) == ["a", "b"]
    assert after.settings_digest.nunique() == 1
    assert set(after.settings_digest) != set(rows.settings_digest)
