"""Benchmark on extractors with known content and cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from clips import Clip, write_clip
from fakes import probe, stream, video
from known_extractors import RECIPE

from arabesque.cli.bench_chart import draw_chart
from arabesque.extractors.protocol import SegmentInput, Shared
from arabesque.manifests.errors import ArabesqueError
from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.benchmarking.benchmark import (
    Effort,
    benchmark,
    choose_sample_of_run,
    chosen_videos,
    evenly,
    probed_clip,
)
from arabesque.pipeline.benchmarking.isolated_stages import (
    IsolatedStage,
    repeat_until,
    run_alone,
    scaled_to_total,
    uncomputed,
)
from arabesque.pipeline.benchmarking.resources import Spent
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.items import SegmentTask
from arabesque.pipeline.planning.plan import plan_video
from arabesque.pipeline.records import VideoFile
from arabesque.pipeline.runner import Stage

SHORT = Effort(stage_s=0.02, end_to_end_s=0.2)
STAGES = ["decode", "transfer", "preprocess", "assemble", "prepare", "batch", "network", "collect", "write"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    (folder / "videos").mkdir()
    for name, beep_s in (("a", 0.5), ("b", 0.8)):
        write_clip(folder / "videos" / f"{name}.mp4", Clip(num_frames=48, beeps_s=(beep_s,)))
    run = Extraction(folder / "videos", parse_recipe(RECIPE, "known.toml"), folder / "out")
    steps: list[str] = []
    found = benchmark(run, SHORT, steps.append)
    assert not (folder / "out").exists(), "a benchmark writes nothing into the run's store"
    return found, steps


def test_every_stage_of_the_run_is_measured_alone_and_for_each_stream(found):
    report = found[0].report
    assert [cost.stage for cost in report.stages if not cost.stream] == STAGES
    parts = [(cost.stage, cost.stream) for cost in report.stages if cost.stream]
    assert parts == [(stage, name) for stage in ("prepare", "network") for name in ("numbers", "loudness")]
    assert all(cost.wall_s > 0 for cost in report.stages)
    assert {step.removesuffix(" in isolation") for step in found[1]} >= set(STAGES)


def test_densities_are_those_of_the_videos(found):
    costs = {(cost.stage, cost.stream): cost for cost in found[0].report.stages}
    assert costs["decode", ""].units_per_video_s == pytest.approx(25)
    assert costs["network", "numbers"].units_per_video_s == pytest.approx(25 / 8)
    assert costs["network", ""].units_per_video_s == pytest.approx(2 * 25 / 8)


def test_the_run_from_end_to_end_goes_through_whole_videos(found):
    report, sample = found[0].report, found[0].sample
    assert report.video_s == pytest.approx(sample.work.duration_s)
    assert found[0].end_to_end.segments == sum(sample.work.segments.values())
    assert found[0].end_to_end.stored["numbers"].rows == 2
    assert report.video_s_per_s == pytest.approx(report.video_s / report.wall_s)
    assert set(report.utilization) <= set(STAGES)
    assert json.dumps(report.as_json())


def test_the_report_can_be_drawn(found, tmp_path):
    draw_chart(found[0].report, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_a_truncated_video_is_refused_by_the_benchmark(tmp_path):
    whole = write_clip(tmp_path / "whole.avi", Clip(num_frames=40, codec="mpeg4", options={})).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 3])
    run = Extraction(tmp_path / "cut.avi", parse_recipe(RECIPE, "known.toml"), tmp_path / "out")
    with pytest.raises(ArabesqueError, match="cut"):
        benchmark(run, SHORT)


def test_the_exception_of_a_stage_is_raised():
    def broken(_):
        raise ModuleNotFoundError("No module named 'soxr'")

    with pytest.raises(ModuleNotFoundError, match="soxr"):
        list(run_alone(Stage("assemble", int, broken), [1]))


def test_passes_are_repeated_until_they_last_and_only_the_last_round_counts():
    """The passes take 1 ms, 0.4 s and 1.2 s by a simulated clock."""
    walls_s, calls = iter([0.001, 0.4, 1.2]), list[int]()

    class Clock:
        def spent(self):
            return Spent(next(walls_s), None)

    stage = Stage("count", int, lambda item: calls.append(item))
    passes, spent = repeat_until(stage, lambda number: [number], 1.0, Clock)
    assert (passes, spent.wall_s) == (250, 1.2)
    assert calls == list(range(1 + 100 + 250))


def test_streams_without_segments_are_left_out_and_a_recipe_of_such_is_refused(tmp_path):
    write_clip(tmp_path / "silent.mp4", Clip(num_frames=16))
    write_clip(tmp_path / "short.mp4", Clip(num_frames=7))
    recipe, steps = parse_recipe(RECIPE, "known.toml"), list[str]()
    found = benchmark(Extraction(tmp_path / "silent.mp4", recipe, tmp_path / "out"), SHORT, steps.append)
    assert [stream.name for stream in found.bench.streams] == ["numbers"]
    assert any("leaving out loudness" in step for step in steps)
    with pytest.raises(ArabesqueError, match="no stream of the recipe has segments"):
        benchmark(Extraction(tmp_path / "short.mp4", recipe, tmp_path / "out"), SHORT)


def test_every_pass_prepares_segments_again_and_shares_inputs_as_in_a_run():
    plan, _ = plan_video(video(), [stream()], {})
    both, alone = Shared(), Shared()
    work = [
        SegmentTask(plan, plan.streams["fake"].stream, SegmentInput(0, 0, 1, shared=one)) for one in (both, both, alone)
    ]
    both.once("athlete", lambda: "of the pass before")
    first, second, third = (item.segment.shared for item in uncomputed(work))
    assert first is second is not third
    assert first.once("athlete", lambda: "computed") == "computed"


def test_shared_work_of_streams_is_counted_once():
    """One pass takes 1 s for each stream, and 1.5 s for both; measured in 2, 4 and 10 passes."""
    parts = [
        IsolatedStage("prepare", "a", 5, 2, Spent(2.0, 4.0)),
        IsolatedStage("prepare", "b", 7, 4, Spent(4.0, None)),
    ]
    found = scaled_to_total(parts, IsolatedStage("prepare", "", 12, 10, Spent(15.0, 20.0)))
    assert [part.one_pass.wall_s for part in found] == [0.75, 0.75]
    assert [part.one_pass.cpu_s for part in found] == [2.0, None]


VIDEOS = [(VideoFile(name, Path(name)), probe(num_frames=10 * length)) for name, length in (("short", 2), ("long", 10))]


@pytest.mark.parametrize(
    ("wanted_s", "ends_s", "got_s"),
    [
        (1.0, [1.0, 1.0], 2.0),
        (6.0, [None, 4.0], 6.0),
        (12.0, [None, None], 12.0),
        (30.0, [None, None, None, None], 24.0),
    ],
    ids=["at least two segments", "heads", "whole", "twice"],
)
def test_the_end_to_end_run_has_the_requested_duration(wanted_s, ends_s, got_s):
    sample = choose_sample_of_run(VIDEOS, [stream()], wanted_s)
    assert [source.end_s for source in sample.sources] == pytest.approx(ends_s, nan_ok=True)
    assert sample.work.duration_s == pytest.approx(got_s, abs=0.2)
    assert len({source.video_id for source in sample.sources}) == len(ends_s)


def test_each_repetition_reads_all_clips_of_a_file_in_one_pass():
    whole = probe(num_frames=100)
    clips = [
        replace(VIDEOS[1][0], video_id=name, start_s=start_s, end_s=start_s + 2.0)
        for name, start_s in (("jump", 1.0), ("spin", 5.0))
    ]
    sample = choose_sample_of_run([probed_clip(clip, whole) for clip in clips], [stream()], 8.0)
    assert [[clip.video_id for clip in source.videos] for source in sample.sources] == [
        ["jump (0)", "spin (0)"],
        ["jump (1)", "spin (1)"],
    ]


def test_clips_of_up_to_four_files_are_chosen():
    clips = [
        VideoFile(f"{name}{number}", Path(name), start_s=float(number)) for name in "abcdef" for number in range(9)
    ]
    chosen = chosen_videos(clips)
    assert [file.video_id for file in chosen] == [f"{name}{number}" for name in "acdf" for number in (1, 3, 5, 7)]


def test_videos_are_chosen_evenly():
    assert evenly("abcdefgh", 4) == list("bdfh")
    assert evenly("ab", 4) == list("ab")
