"""A finished run is recognized without torch, and unfinished ones are not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clips import Clip, write_clip

from arabesque.manifests.recipes import Recipe, parse_recipe
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.finished import is_finished, remember
from arabesque.pipeline.planning.discovery import required_videos
from arabesque.pipeline.store.shards import PROGRESS, shard_name
from arabesque.pipeline.store.store import Store

RECIPE = """
name = "motion"
summary = "classical features"
[streams.motion]
extractor = "motion"
sampling = { fps = "native", frames_per_segment = 16, frames_per_step = 16, remainder = "drop-tail" }
"""
PROGRAM = """
import sys
from arabesque.cli.main import app
try:
    app()
except SystemExit as exit:
    print([exit.code or 0, "torch" in sys.modules])
"""


def recipe(text: str = RECIPE) -> Recipe:
    return parse_recipe(text, "r.toml")


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a video, a broken video, the recipe and the store of a finished run."""
    root = tmp_path_factory.mktemp("finished")
    (root / "videos").mkdir()
    write_clip(root / "videos" / "a.mp4", Clip(num_frames=40))
    (root / "videos" / "broken.mp4").write_bytes(b"no video" * 100)
    (root / "r.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        run = Extraction(root / "videos", recipe(), root / "store")
        list(run)
        remember(recipe(), run.streams)
    return root


@pytest.fixture
def root(extracted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the store; the videos are not copied, because their times count."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(extracted / "cache"))
    shutil.copytree(extracted / "store", tmp_path / "store")
    return tmp_path


def finished(root: Path, videos: Path, text: str = RECIPE, *, retry_failed: bool = False) -> bool:
    return is_finished(
        Store.open(root / "store"),
        recipe(text),
        None,
        None,
        required_videos([videos], ""),
        roots=[videos],
        retry_failed=retry_failed,
    )


def test_a_finished_run_is_recognized_and_others_are_not(root: Path, extracted: Path) -> None:
    videos = extracted / "videos"
    assert finished(root, videos)
    assert not finished(root, videos, retry_failed=True), "the broken video is retried"
    assert not finished(root, videos, RECIPE.replace("16,", "8,")), "other settings"
    assert not finished(root, videos / "a.mp4"), "the manifest records other inputs"
    interrupted = root / "store" / f"{shard_name(PROGRESS, '0123abcd', 0)}"
    interrupted.parent.mkdir(exist_ok=True)
    interrupted.touch()
    assert not finished(root, videos), "a killed run has left segments"


def test_a_new_video_and_an_unknown_stream_are_work(root: Path, extracted: Path, monkeypatch) -> None:
    videos = root / "videos"
    shutil.copytree(extracted / "videos", videos, copy_function=shutil.copy2)
    write_clip(videos / "b.mp4", Clip(num_frames=20))
    assert not finished(root, videos)
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "empty"))
    assert not finished(root, extracted / "videos"), "the stream is not in the cache"


def test_streams_that_other_users_may_have_written_are_not_used(root: Path, extracted: Path, monkeypatch) -> None:
    shutil.copytree(extracted / "cache", root / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    assert finished(root, extracted / "videos")
    [kept] = (root / "cache" / "arabesque" / "resolved-streams").glob("*.json")
    kept.chmod(0o666)
    assert not finished(root, extracted / "videos")


def test_the_command_does_not_import_torch(root: Path, extracted: Path) -> None:
    words = ["extract", extracted / "videos", "--recipe", extracted / "r.toml", "--out", root / "store"]
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)], capture_output=True, text=True, check=True, env=os.environ
    )
    assert program.stdout.splitlines()[-1] == "[3, False]", "the broken video has failed"
    assert "2 videos, 2 finished by earlier runs, 0 remaining" in program.stderr
