"""The arithmetic of rates and ratios, on numbers that anyone can check."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from arabesque.pipeline.benchmarking.report import Report, StageCost, bounds, together
from arabesque.pipeline.benchmarking.resources import PeakMemory

DECODE = StageCost("decode", "", "frames", units_per_video_s=25, wall_s=0.1, cpu_s=0.1)
VST = StageCost("network", "vst", "segments", units_per_video_s=0.8, wall_s=0.3, cpu_s=0.6)
AST = StageCost("network", "ast", "segments", units_per_video_s=0.8, wall_s=0.1, cpu_s=0.2)

STAGES = (DECODE, together([VST, AST]), VST, AST)


def report(wall_s: float, cores: int = 2, stages: Sequence[StageCost] = STAGES) -> Report:
    return Report(
        recipe="known",
        weights="random:0",
        device="cpu",
        cores=cores,
        decoder="pyav",
        num_decoders=1,
        videos=("a",),
        setup_s=1.0,
        video_s=10.0,
        wall_s=wall_s,
        cpu_s=None,
        stages=tuple(stages),
        utilisation={"decode": 0.2},
        memory=PeakMemory(parent_bytes=100, decoder_bytes=10, num_decoders=3, device_bytes=None),
        versions={},
    )


def test_a_stage_alone_has_a_rate_in_its_units_and_in_seconds_of_video():
    assert DECODE.video_s_per_s == pytest.approx(10)
    assert DECODE.units_per_s == pytest.approx(250)


def test_a_stage_does_its_streams_one_after_the_other():
    network = together([VST, AST])
    assert (network.stage, network.stream, network.unit) == ("network", "", "segments")
    assert network.wall_s == pytest.approx(0.4)
    assert network.cpu_s == pytest.approx(0.8)
    assert network.units_per_s == pytest.approx(4)


def test_speed_of_light_is_the_slowest_stage_alone_and_not_a_streams_part():
    found = report(wall_s=5.0)  # 2 video seconds a second, of the 2.5 that the networks allow
    assert found.bounds.slowest.stage == "network"
    assert found.speed_of_light_ratio == pytest.approx(0.8)


def test_where_stages_share_cores_their_work_adds_up():
    found = report(wall_s=5.0)  # 0.9 s of processor time for a second of video
    assert found.bounds.cores_video_s_per_s == pytest.approx(2 / 0.9)
    assert found.shared_cores_ratio == pytest.approx(0.9)
    many = report(wall_s=5.0, cores=16)
    assert many.shared_cores_ratio == many.speed_of_light_ratio


def test_unknown_processor_time_gives_no_bound_in_place_of_it():
    unknown = StageCost("decode", "", "frames", units_per_video_s=25, wall_s=0.1, cpu_s=None)
    assert bounds([unknown, together([VST])], cores=2).cores_video_s_per_s is None
    assert report(5.0, stages=(unknown, together([VST]))).shared_cores_ratio == pytest.approx(0.6)
    assert together([VST, unknown]).cpu_s is None


def test_the_json_holds_every_stage_and_what_follows():
    facts = json.loads(json.dumps(report(wall_s=5.0).as_json()))
    assert facts["format"] == 1
    assert facts["slowest_stage"] == "network"
    assert facts["speed_of_light_ratio"] == pytest.approx(0.8)
    assert facts["end_to_end_video_s_per_s"] == pytest.approx(2)
    decode, *_, ast = facts["stages"]
    assert decode["bare_per_s"] == pytest.approx(250)
    assert decode["achieved_per_s"] == pytest.approx(50)
    assert (ast["stage"], ast["stream"], ast["bare_video_s_per_s"]) == ("network", "ast", pytest.approx(10))
    assert facts["memory"]["parent_bytes"] == 100


def test_peak_memory_is_everything_or_unknown():
    assert report(5.0).memory.total_bytes == 130
    assert PeakMemory(None, 10, 3, None).total_bytes is None
