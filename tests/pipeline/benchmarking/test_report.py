"""Arithmetic of rates and ratios, on numbers that can be checked by hand."""

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
        utilization={"decode": 0.2},
        memory=PeakMemory(parent_bytes=100, decoder_bytes=10, num_decoders=3, device_bytes=None),
        versions={},
    )


def test_an_isolated_stage_has_a_rate_in_its_units_and_in_seconds_of_video():
    assert DECODE.video_s_per_s == pytest.approx(10)
    assert DECODE.units_per_s == pytest.approx(250)


def test_times_of_streams_are_added():
    network = together([VST, AST])
    assert (network.stage, network.stream, network.unit) == ("network", "", "segments")
    assert network.wall_s == pytest.approx(0.4)
    assert network.cpu_s == pytest.approx(0.8)
    assert network.units_per_s == pytest.approx(4)


def test_the_upper_bound_is_the_slowest_stage_and_not_a_streams_part():
    found = report(wall_s=5.0)  # 2 video seconds a second, of the 2.5 that the networks allow
    assert found.bounds.slowest.stage == "network"
    assert found.slowest_stage_ratio == pytest.approx(0.8)


def test_processor_time_of_stages_that_share_cores_is_added():
    found = report(wall_s=5.0)  # 0.9 s of processor time for a second of video
    assert found.bounds.cores_video_s_per_s == pytest.approx(2 / 0.9)
    assert found.shared_cores_ratio == pytest.approx(0.9)
    many = report(wall_s=5.0, cores=16)
    assert many.shared_cores_ratio == many.slowest_stage_ratio


def test_unknown_processor_time_gives_no_bound():
    unknown = StageCost("decode", "", "frames", units_per_video_s=25, wall_s=0.1, cpu_s=None)
    assert bounds([unknown, together([VST])], cores=2).cores_video_s_per_s is None
    assert report(5.0, stages=(unknown, together([VST]))).shared_cores_ratio == pytest.approx(0.6)
    assert together([VST, unknown]).cpu_s is None


def test_the_json_contains_every_stage_and_derived_figures():
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


def test_total_memory_is_unknown_if_a_part_is():
    assert report(5.0).memory.total_bytes == 130
    assert PeakMemory(None, 10, 3, None).total_bytes is None
