"""Notices of a run about videos with several tracks, and the keys of their rows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from av.stream import Disposition
from clips import Clip, write_clip
from known_extractors import RECIPE
from track_files import LOUD, SILENT, Sound, write_tracks

from arabesque.manifests.errors import ConfigError
from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.digests import row_key
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.items import Notice
from arabesque.pipeline.records import Outcome
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.reader import FeatureStore


def run(folder: Path, out: Path, recipe: str = RECIPE) -> tuple[list[str], int]:
    """Return the notices of a run, and the number of its outcomes."""
    events = list(Extraction(folder, parse_recipe(recipe, "known.toml"), out))
    notices = [event.text for event in events if isinstance(event, Notice)]
    return notices, sum(isinstance(event, Outcome) for event in events)


def test_the_chosen_tracks_are_in_key_and_provenance_and_one_line_names_them(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    two = write_tracks(videos / "two.mkv", [Sound(SILENT), Sound(LOUD, Disposition.default)])
    write_clip(videos / "one.mp4", Clip(num_frames=16, beeps_s=(0.1,)))
    notices, num_outcomes = run(videos, tmp_path / "out")
    assert num_outcomes == 4
    assert notices == ["1 video, 'two', has several video or audio tracks; audio_track = \"best\" chose one of each"]
    settings = Extraction(videos, parse_recipe(RECIPE, "known.toml"), tmp_path / "out").settings_digests["loudness"]
    store = FeatureStore(tmp_path / "out")
    heard, seen, one = store["two"]["loudness"], store["two"]["numbers"], store["one"]["loudness"]
    assert heard.values.max() == pytest.approx(LOUD, abs=0.1)
    assert heard.provenance["tracks"] == "audio=2"
    assert heard.key == row_key(heard.content_digest, settings, "audio=2")
    assert "tracks" not in seen.provenance
    assert "tracks" not in one.provenance
    assert one.key == row_key(one.content_digest, settings)
    assert check_store(tmp_path / "out").findings == []
    os.utime(two, ns=(1, 1))  # the second run finds that all is done
    assert run(videos, tmp_path / "out") == ([], 0)


def test_streams_of_one_run_agree_on_the_audio_track(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    write_tracks(videos / "a.mkv", [Sound(SILENT), Sound(LOUD)])
    second = RECIPE.replace("[sampling]", "audio_track = 1\n[sampling]")
    run(videos, tmp_path / "second", second)
    assert FeatureStore(tmp_path / "second")["a"]["loudness"].values.max() == pytest.approx(LOUD, abs=0.1)
    other = second + '[streams.other]\nextractor = "known_extractors:Loudness"\naudio_track = 0\n'
    with pytest.raises(ConfigError, match="audio_track is 1 and 0"):
        run(videos, tmp_path / "other", other)


def test_one_line_says_how_many_videos_are_interlaced_and_what_was_done(tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1:log-level=none"}
    for name in "ab":
        write_clip(videos / f"{name}.mp4", Clip(num_frames=16, options=options))
    write_clip(videos / "c.mp4", Clip(num_frames=16))
    notices, _ = run(videos, tmp_path / "woven")
    assert notices == ["2 videos, for example 'a', are interlaced; the recipe sets deinterlace = \"none\""]
    asked = RECIPE.replace("[sampling]", 'deinterlace = "bwdif"\n[sampling]')
    notices, _ = run(videos, tmp_path / "split", asked)
    assert notices == ["2 videos, for example 'a', are interlaced; the recipe sets deinterlace = \"bwdif\""]
    rows = [FeatureStore(tmp_path / out)["a"]["numbers"].values.tolist() for out in ("woven", "split")]
    assert rows[0] == rows[1] == [[*range(8)], [*range(8, 16)]]
