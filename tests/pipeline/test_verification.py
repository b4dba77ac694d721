"""Recomputed videos, and settings that are compared with their digests."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import Clip, write_clip
from known_extractors import RECIPE, FrameNumbers

from arabesque.manifests.errors import InputError
from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.decoding.source_files import Content, read_content
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.planning import metadata_cache
from arabesque.pipeline.records import FeatureRow
from arabesque.pipeline.stages import decode as reading
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.manifest import read_manifest, write_manifest
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.writer import StoreWriter
from arabesque.pipeline.verification import recompute, settings_problems


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index, name in enumerate("abc"):
        write_clip(folder / f"{name}.mp4", Clip(num_frames=24 + 8 * index, beeps_s=(0.2,)))
    return folder


def extracted(videos: Path, out: Path, **options) -> Path:
    list(Extraction(videos, parse_recipe(RECIPE, "known.toml"), out, options=RunOptions(**options)))
    return out


@pytest.fixture(scope="module")
def store(videos, tmp_path_factory) -> Path:
    return extracted(videos, tmp_path_factory.mktemp("stores") / "out")


def test_recomputed_rows_are_equal(store, videos):
    assert check_store(store).findings == []
    assert settings_problems(store) == {}
    again = recompute(store, videos, 2)
    assert len({one.video_id for one in again}) == 2
    assert [(one.relative_error, one.problem) for one in again] == [(0.0, "")] * 4
    assert {one.video_id for one in recompute(store, videos, 100)} == {"a", "b", "c"}


def test_cached_metadata_are_used_by_runs_and_not_by_verification(videos, tmp_path, monkeypatch):
    monkeypatch.setenv("ARABESQUE_METADATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(metadata_cache, "SETTLED_NS", 0)
    store = extracted(videos, tmp_path / "first")
    read: list[Path] = []

    def counted(path: Path) -> Content:
        read.append(path)
        return read_content(path)

    monkeypatch.setattr(reading, "read_content", counted)
    again = extracted(videos, tmp_path / "second")
    assert read == []
    for stream in FeatureStore(store).streams:
        assert FeatureStore(again).keys(stream) == FeatureStore(store).keys(stream)
    recompute(store, videos, 3)
    assert len(read) == 3


def test_rows_of_float16_are_compared_as_float16(videos, tmp_path):
    store = extracted(videos, tmp_path / "out", float16=True)
    again = recompute(store, videos, 3)
    assert [(one.relative_error, one.problem) for one in again] == [(0.0, "")] * 6
    assert {round(one.allowed, 6) for one in again if one.stream == "loudness"} == {round(1e-5 + 2**-10, 6)}


def test_different_rows_are_reported(store, videos, tmp_path):
    """A row that is intact and has the right key, but not the features of its video."""
    root = shutil.copytree(store, tmp_path / "out")
    found = FeatureStore(root)["a"]["numbers"]
    digest = read_manifest(root)["streams"]["numbers"]["settings_digest"]
    wrong = FeatureRow(
        "a", "numbers", found.key, found.content_digest, digest, "done", found.values + 1, found.start_s, found.end_s
    )
    with StoreWriter(root) as writer:
        writer.add(wrong)
    assert check_store(root).findings == []
    (one,) = (one for one in recompute(root, videos, 3) if one.problem)
    assert (one.video_id, one.stream) == ("a", "numbers")
    assert "its values differ" in one.problem
    with StoreWriter(root) as writer:
        writer.add(replace(wrong, start_s=found.start_s + 0.01))
    (one,) = (one for one in recompute(root, videos, 3) if one.problem)
    assert "the times of its segments differ" in one.problem


def test_another_video_and_another_version_are_reported(store, videos, tmp_path, monkeypatch):
    others = shutil.copytree(videos, tmp_path / "videos")
    write_clip(others / "a.mp4", Clip(num_frames=17))
    assert {one.problem for one in recompute(store, others, 3) if one.video_id == "a"} == {
        "the content of the video has changed since it was extracted",
        "the video no longer has features",
    }
    monkeypatch.setattr(FrameNumbers, "version", 2)
    problems = {one.stream: one.problem for one in recompute(store, videos, 1)}
    assert problems == {"numbers": "the settings or checkpoints differ from those of the store", "loudness": ""}
    assert settings_problems(store) == {}, "the manifest says which version it was"


def test_settings_that_do_not_match_their_digest_are_reported(store, tmp_path):
    root = shutil.copytree(store, tmp_path / "out")
    facts = read_manifest(root)
    facts["recipe"]["streams"]["numbers"]["sampling"]["frames_per_step"] = 4
    write_manifest(root, facts)
    problems = settings_problems(root)
    assert list(problems) == ["numbers"]
    assert "another version wrote them" in problems["numbers"]


def test_videos_of_another_folder_are_refused(store, tmp_path):
    write_clip(tmp_path / "other.mp4", Clip(num_frames=8))
    with pytest.raises(InputError, match=r"has no features of its videos"):
        recompute(store, tmp_path, 3)


def test_the_store_is_not_changed(store, videos):
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*.parquet")}
    recompute(store, videos, 1)
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*.parquet")} == before
    assert np.array_equal(FeatureStore(store)["a"]["numbers"].values.ravel(), np.arange(24))
