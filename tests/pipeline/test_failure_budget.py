"""A run with too many failures is stopped, and all finished work is on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from clips import Clip, write_clip
from known_extractors import RECIPE

from arabesque.manifests.errors import ArabesqueError
from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.failure_budget import FailureBudget
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.store.reader import FeatureStore


@pytest.mark.parametrize(
    ("text", "num_failed", "num_videos", "allowed"),
    [
        ("0", 0, 10, True),
        ("0", 1, 10, False),
        ("3", 3, 3, True),
        ("3", 4, 1000, False),
        ("5%", 5, 100, True),
        ("5%", 6, 100, False),
        ("5%", 1, 10, False),
        ("0.5%", 1, 200, True),
        ("0.5%", 2, 200, False),
        ("100%", 7, 7, True),
    ],
)
def test_numbers_and_shares(text, num_failed, num_videos, allowed):
    assert FailureBudget(text).allows(num_failed, num_videos) is allowed


@pytest.mark.parametrize("text", ["", "some", "-1", "5 %", "1e3", "101%", "%", "1.5"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="neither a number of videos nor a share"):
        FailureBudget(text)


def folder_of(tmp_path: Path, num_bad: int) -> Path:
    """A good video, then bad ones, then more good ones, in the order in which they are taken."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for index in range(num_bad):
        (videos / f"b{index}.mp4").write_bytes(b"no video at all %d" % index)
    for name in ("a", *(f"c{index}" for index in range(12))):
        write_clip(videos / f"{name}.mp4", Clip(num_frames=16))
    return videos


def extracting(tmp_path: Path, text: str | None) -> Extraction:
    budget = None if text is None else FailureBudget(text)
    recipe = parse_recipe(RECIPE, "known.toml")
    return Extraction(tmp_path / "videos", recipe, tmp_path / "out", options=RunOptions(max_failures=budget))


def test_a_run_with_too_many_failures_stops_and_keeps_finished_work(tmp_path):
    folder_of(tmp_path, num_bad=5)
    with pytest.raises(
        ArabesqueError, match=r"3 of 18 videos failed, more than --max-failures 2 allows.*b\d\.mp4: cannot be opened"
    ):
        list(extracting(tmp_path, "2"))
    store = FeatureStore(tmp_path / "out")
    kinds = {end.video_id: end.kind for end in store.outcomes() if end.stream == "numbers"}
    assert {name for name, kind in kinds.items() if kind == "failed"} >= {"b0", "b1", "b2"}
    assert "c11" not in kinds
    list(extracting(tmp_path, None))
    kinds = {end.video_id: end.kind for end in FeatureStore(tmp_path / "out").outcomes() if end.stream == "numbers"}
    assert kinds == {f"b{index}": "failed" for index in range(5)} | dict.fromkeys(
        ["a", *(f"c{index}" for index in range(12))], "done"
    )


def test_a_run_within_its_budget_continues(tmp_path):
    folder_of(tmp_path, num_bad=3)
    list(extracting(tmp_path, "3"))
    assert len(FeatureStore(tmp_path / "out")) == 13
