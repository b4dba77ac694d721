"""What the display and the benchmark are told of where a run's time goes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from clips import Clip, write_clip
from known_extractors import RECIPE, known_extractors

from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline import runner, stage_clock
from arabesque.pipeline.decoding.slots import SlotSettings
from arabesque.pipeline.extraction import Extraction, RunOptions
from arabesque.pipeline.stage_clock import StageClock
from arabesque.pipeline.transfer import DecodedWindow


def test_shares_add_up_and_the_busiest_comes_first():
    clock = StageClock()
    clock.add("decode", 1.0)
    clock.add("network", 3.0)
    assert clock.shares() == {"network": 0.75, "decode": 0.25}
    assert list(clock.shares()) == ["network", "decode"]
    assert StageClock().shares() == {}


def test_a_block_counts_even_where_it_raises():
    clock = StageClock()
    with pytest.raises(OSError, match="gone"), clock.busy("decode"):
        raise OSError("gone")
    assert clock.busy_s["decode"] > 0


def test_of_decoding_counts_what_the_child_worked_and_no_wait_for_it(tmp_path, monkeypatch):
    """The clock's own time stands still here: what is left is what the children told."""
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "a.mp4", Clip(num_frames=40, width_px=64, height_px=48))
    options = RunOptions(decoding=SlotSettings(buffer_bytes=8 * 64 * 48 * 3))
    monkeypatch.setattr(stage_clock, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    preprocess, told_s = runner.preprocess, list[float]()

    def listening(item):
        if isinstance(item, DecodedWindow):
            told_s.append(item.window.decode_s)
        return preprocess(item)

    monkeypatch.setattr(runner, "preprocess", listening)
    with known_extractors():
        run = Extraction(tmp_path / "videos", parse_recipe(RECIPE, "known.toml"), tmp_path / "out", options=options)
        list(run)
    assert len(told_s) == 5
    assert all(seconds > 0 for seconds in told_s)
    assert run.clock.busy_s["decode"] == pytest.approx(sum(told_s))
    assert run.clock.busy_s["preprocess"] == 0
