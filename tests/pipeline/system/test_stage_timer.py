"""Busy time by stage, as the progress display and the benchmark use it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from clips import Clip, write_clip
from known_extractors import RECIPE

from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline import runner
from arabesque.pipeline.decoding.decoder_pool import DecoderSettings
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.system import stage_timer
from arabesque.pipeline.system.stage_timer import StageTimer


def test_shares_add_up_and_the_busiest_comes_first():
    timer = StageTimer()
    timer.add("decode", 1.0)
    timer.add("network", 3.0)
    assert timer.shares() == {"network": 0.75, "decode": 0.25}
    assert list(timer.shares()) == ["network", "decode"]
    assert StageTimer().shares() == {}


def test_a_block_that_raises_is_timed():
    timer = StageTimer()
    with pytest.raises(OSError, match="gone"), timer.busy("decode"):
        raise OSError("gone")
    assert timer.busy_s["decode"] > 0


def test_decoding_counts_the_child_processes_time_without_waiting(tmp_path, monkeypatch):
    """The timer's own clock is stopped, so that only the times that the decoder processes report are counted."""
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "a.mp4", Clip(num_frames=40, width_px=64, height_px=48))
    options = RunOptions(decoding=DecoderSettings(buffer_bytes=8 * 64 * 48 * 3))
    monkeypatch.setattr(stage_timer, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    preprocess, reported_s = runner.preprocess, list[float]()

    def record(item):
        reported_s.append(item.chunk.decode_s)
        return preprocess(item)

    monkeypatch.setattr(runner, "preprocess", record)
    run = Extraction(tmp_path / "videos", parse_recipe(RECIPE, "known.toml"), tmp_path / "out", options=options)
    list(run)
    assert len(reported_s) == 5
    assert all(seconds > 0 for seconds in reported_s)
    assert run.clock.busy_s["decode"] == pytest.approx(sum(reported_s))
    assert run.clock.busy_s["preprocess"] == 0
