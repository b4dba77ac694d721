"""The small files in ../shared/cases, of kinds that once failed, have the outcomes of its table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from decoding_checks import build, pictures_and_holes

from arabesque.manifests.recipes import load_recipe
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.records import Hole
from arabesque.pipeline.store.reader import FeatureStore

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.exists(), reason="needs the files of ../shared")
FRAMES = {
    "two_tracks_default_second.mkv": 100,
    "ts_concat_restart.ts": 100,
    "ts_channels_change.ts": 150,
    "camcorder.mpg": 50,
    "flash_inside.mp4": 100,
    "mirrored.mp4": 100,
    "avchd_interlaced.MTS": 100,
    "anamorphic.mp4": 100,
}
SOUND_S = {"ts_concat_restart.ts": 4.0, "ts_channels_change.ts": 6.0, "two_tracks_default_second.mkv": 4.0}


@pytest.mark.parametrize("name", FRAMES)
def test_every_frame_is_delivered(name):
    pictures, holes, metadata = pictures_and_holes(build("pyav"), CASES / name)
    assert (len(pictures), holes) == (FRAMES[name], [])
    assert metadata.end_s == pytest.approx(FRAMES[name] / 25, abs=0.001)
    assert metadata.pixel_aspect == pytest.approx(64 / 45 if name == "anamorphic.mp4" else 1.0)
    assert metadata.mirrored == (name == "mirrored.mp4")
    assert (metadata.field_order == "progressive") == (name != "avchd_interlaced.MTS")


@pytest.mark.parametrize("name", SOUND_S)
def test_all_audio_is_delivered(name):
    decoder = build("pyav")
    metadata = decoder.probe(CASES / name)
    assert metadata.audio is not None
    blocks = list(decoder.audio(CASES / name, metadata, metadata.end_s))
    samples = np.concatenate([block for block in blocks if not isinstance(block, Hole)], axis=1)
    assert not any(isinstance(block, Hole) for block in blocks)
    assert samples.shape[1] / metadata.audio.rate_hz == pytest.approx(SOUND_S[name], abs=0.05)
    assert np.abs(samples).max() > 0.1  # the first track of two is silent


def test_a_lost_packet_loses_the_frames_that_refer_to_it():
    pictures, (hole,), metadata = pictures_and_holes(build("pyav"), CASES / "glitch_at_10_percent_30s.ts")
    assert metadata.num_frames == 750
    assert len(pictures) >= 722
    assert set(range(750)) - pictures.keys() <= set(range(75, 100))
    assert (hole.start_s, hole.end_s) == (pytest.approx(3.0), pytest.approx(4.0))


@pytest.mark.slow
def test_a_run_has_the_outcomes_of_the_table(tmp_path):
    list(Extraction(CASES, load_recipe("starter"), tmp_path / "S"))
    outcomes = {(end.video_id, end.stream): end for end in FeatureStore(tmp_path / "S", partial=True).outcomes()}
    frames = FRAMES | {"glitch_at_10_percent_30s.ts": 750}
    assert {video_id for video_id, _ in outcomes} == {Path(name).stem for name in frames}
    for name, number in frames.items():
        video_id = Path(name).stem
        end = outcomes[video_id, "motion"]
        assert end.kind == ("partial" if name.startswith("glitch") else "done"), end
        assert end.frames_expected == number
        is_silent = name in ("anamorphic.mp4", "glitch_at_10_percent_30s.ts")
        assert outcomes[video_id, "rhythm"].kind == ("empty" if is_silent else "done")
    assert len(outcomes["glitch_at_10_percent_30s", "motion"].holes) == 1
