"""Estimate of a run: arithmetic on known costs, and the whole estimate on known extractors."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from bad_videos import flipped, spoilt
from clips import Clip, write_clip
from fakes import probe, stream
from known_extractors import RECIPE
from store_rows import new_store, row

from arabesque.extractors.protocol import AudioNeed
from arabesque.manifests.errors import DecodeError
from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.benchmarking.benchmark import Effort
from arabesque.pipeline.benchmarking.estimate import Estimate, estimate_run, least_time_s, sample, stage_times, typical
from arabesque.pipeline.benchmarking.estimate_file import pop_estimate, save_estimate, store_bytes
from arabesque.pipeline.benchmarking.report import StageCost, together
from arabesque.pipeline.benchmarking.stored_bytes import StoredBytes, stored_bytes
from arabesque.pipeline.benchmarking.workload import UnsuitableVideo, Workload
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.records import AudioTrack, VideoFile, VideoMetadata
from arabesque.pipeline.store.writer import StoreWriter

SHORT = Effort(stage_s=0.02, end_to_end_s=0.2)
DECODE = StageCost("decode", "", "frames", units_per_video_s=25, wall_s=0.1, cpu_s=0.1)
NETWORK = StageCost("network", "vst", "segments", units_per_video_s=1, wall_s=0.2, cpu_s=0.4)
MEASURED = Workload(
    num_videos=1,
    duration_s=10,
    frames=250,
    frame_pixels=2500,
    decoded_pixels=2500,
    segments={"vst": 10},
    rows={"vst": 1},
)
KEPT = Estimate(
    made="2026-11-20T12:00:00+00:00",
    recipe="known",
    device="cpu",
    num_videos=4,
    num_probed=4,
    num_unreadable=1,
    video_s=100.0,
    setup_s=1.0,
    reading_s=5.0,
    fetching_s=0.0,
    time_s=80.0,
    memory_bytes=None,
    device_bytes=None,
    disk_bytes=2_000_000,
    streams={},
)
SOUND = AudioTrack(rate_hz=8000, channels=1, start_s=0, duration_s=1)


def times(work: Workload) -> dict[str, float]:
    found = stage_times([DECODE, together([NETWORK]), NETWORK], MEASURED, work)
    return {time.cost.stage: time.wall_s for time in found}


def test_time_is_proportional_to_the_work():
    assert times(MEASURED) == pytest.approx({"decode": 1.0, "network": 2.0})
    assert times(MEASURED.times(100)) == pytest.approx({"decode": 100.0, "network": 200.0})


def test_larger_pictures_cost_decoding_and_not_the_network():
    larger = Workload(1, 10, 250, 4 * 2500, 4 * 2500, {"vst": 10}, {"vst": 1})
    assert times(larger) == pytest.approx({"decode": 4.0, "network": 2.0})


def test_an_audio_recipe_is_estimated_by_duration():
    deaf_to_frames = Workload(1, 10, 0, 0, 0, {"vst": 10}, {"vst": 1})
    found = stage_times([DECODE], deaf_to_frames, deaf_to_frames.times(3))
    assert found[0].wall_s == pytest.approx(3.0)


def test_the_lower_bound_of_time_is_the_slowest_stage_or_all_work_on_the_cores():
    found = stage_times([DECODE, NETWORK], MEASURED, MEASURED)
    assert least_time_s(found, cores=2) == pytest.approx(2.5)  # 1 s + 4 s of processor time
    assert least_time_s(found, cores=16) == pytest.approx(2.0)


def test_stored_bytes_grow_with_segments_and_with_videos():
    found = StoredBytes(rows=2, per_segment=100, per_row=50, per_shard=7)
    assert found.scaled(20, 4) == 2000 + 200 + 7
    assert found.scaled(0, 0) == 0


def store_of(root: Path, count: int, times: int = 1) -> Path:
    with StoreWriter(new_store(root)) as writer:
        for copy, number in product(range(times), range(count)):
            writer.add(replace(row(f"video {number:03d}", segments=8), video_id=f"video {number:03d} ({copy})"))
    return root


def test_the_size_of_few_rows_predicts_that_of_many(tmp_path):
    few, many = (store_of(tmp_path / str(count), count) for count in (3, 40))
    estimated = stored_bytes(few, "stream=vst").scaled(segments=40 * 8, rows=40)
    actual = sum(path.stat().st_size for path in (many / "stream=vst").glob("*.parquet"))
    assert estimated == pytest.approx(actual, rel=0.4)  # equal intervals of many rows are stored once


def test_a_video_processed_several_times_gives_the_same_estimate(tmp_path):
    once, often = (store_of(tmp_path / str(times), 2, times) for times in (1, 5))
    found = [stored_bytes(store, "stream=vst").scaled(segments=1000, rows=100) for store in (once, often)]
    assert found[1] == pytest.approx(found[0], rel=0.01)


def test_the_sample_is_deterministic():
    files = [VideoFile(str(number), Path(str(number))) for number in range(1000)]
    assert sample(files, 20) == sample(files, 20)
    assert len(set(sample(files, 20))) == 20
    assert sample(files[:5], 20) == files[:5]


STREAMS = [stream("seen"), stream("heard", audio=AudioNeed(8000))]


def video(name: str, px: int, audio: AudioTrack | None = None) -> tuple[VideoFile, VideoMetadata]:
    return VideoFile(name, Path(name)), probe(width_px=px, audio=audio)


def test_typical_videos_cover_all_streams_and_have_median_size():
    videos = [video(name, px, SOUND) for name, px in {"small": 8, "middle": 80, "large": 800}.items()]
    videos.append(video("silent", 80))
    assert [file.video_id for file, _ in typical(videos, STREAMS, 1)] == ["middle"]


def test_typical_videos_cover_every_stream_of_any_video():
    too_short = VideoFile("short", Path("short")), probe(num_frames=2, audio=SOUND)
    deaf = stream("seen", length=8)
    videos = [video("a", 70), too_short, video("b", 80), video("c", 90)]
    heard = stream("heard", length=2, frames=None, audio=AudioNeed(8000))
    assert {file.video_id for file, _ in typical(videos, [deaf, heard], 1)} == {"a", "short"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "videos").mkdir()
    for name, num_frames in (("a", 48), ("b", 96), ("c", 96)):
        write_clip(tmp_path / "videos" / f"{name}.mp4", Clip(num_frames=num_frames, beeps_s=(0.5,)))
    (tmp_path / "videos" / "noise.mp4").write_bytes(b"noise" * 100)
    return lambda: Extraction(tmp_path / "videos", parse_recipe(RECIPE, "known.toml"), tmp_path / "out")


def test_an_estimate_counts_remaining_work_and_writes_nothing(run, tmp_path):
    found = estimate_run(run(), SHORT)
    assert (found.num_videos, found.num_probed, found.num_unreadable) == (4, 4, 1)
    assert found.video_s == pytest.approx(240 / 25)
    assert {name: stream.segments for name, stream in found.streams.items()} == {"numbers": 30, "loudness": 30}
    assert all(stream.videos == 3 and stream.disk_bytes > 30 * 8 * 4 / 4 for stream in found.streams.values())
    assert found.time_s > found.setup_s
    assert found.disk_bytes > sum(stream.disk_bytes for stream in found.streams.values())
    assert not (tmp_path / "out").exists()

    list(run())  # the file with noise is done, too: its failure is permanent
    with pytest.raises(ValueError, match="nothing remains"):
        estimate_run(run(), SHORT)


def test_a_truncated_video_is_not_measured(run, tmp_path):
    for name in "bc":
        (tmp_path / "videos" / f"{name}.mp4").unlink()
    cut = write_clip(tmp_path / "videos" / "cut.mp4", Clip(num_frames=96, beeps_s=(0.5,)), movflags="faststart")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    found = estimate_run(run(), Effort(stage_s=0.02, end_to_end_s=1.0))
    assert (found.num_probed, found.num_unreadable) == (3, 1)


def test_a_video_with_hidden_damage_is_not_measured(run, tmp_path):
    for name in "ac":
        (tmp_path / "videos" / f"{name}.mp4").rename(tmp_path / "videos" / f"{name}2.mp4")
    spoilt(flipped(0.5, 40))(tmp_path / "videos" / "b.mp4")  # in the middle of the three
    steps = []
    found = estimate_run(run(), SHORT, steps.append)
    assert (found.num_probed, found.num_unreadable) == (4, 1)
    (left_out,) = (step for step in steps if step.startswith("measuring on other videos: "))
    assert "b.mp4" in left_out

    for name in ("a2", "c2"):
        spoilt(flipped(0.5, 40))(tmp_path / "videos" / f"{name}.mp4")
    with pytest.raises(UnsuitableVideo):
        estimate_run(run(), SHORT)


def test_an_estimate_needs_a_readable_video(run, tmp_path):
    for name in "abc":
        (tmp_path / "videos" / f"{name}.mp4").unlink()
    with pytest.raises(DecodeError, match="none of 1 videos"):
        estimate_run(run(), SHORT)


def test_an_estimate_is_saved_for_the_same_run_only(run, tmp_path):
    save_estimate(run(), KEPT)
    write_clip(tmp_path / "videos" / "d.mp4", Clip(num_frames=16))
    assert pop_estimate(run()) is None
    (tmp_path / "videos" / "d.mp4").unlink()
    assert pop_estimate(run()) == KEPT
    assert pop_estimate(run()) is None, "a resumed run has less to do"


def test_an_unwritable_cache_is_ignored(run, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    save_estimate(run(), KEPT)
    assert pop_estimate(run()) is None


def test_an_estimate_of_another_version_is_ignored(run, tmp_path):
    save_estimate(run(), KEPT)
    [path] = (tmp_path / "cache").rglob("*.json")
    path.write_text('{"made": "yesterday", "phase_of_the_moon": 3}')
    assert pop_estimate(run()) is None


def test_store_bytes_is_the_size_of_all_shards(run, tmp_path):
    assert store_bytes(run()) == 0
    list(run())
    shards = sorted((tmp_path / "out").rglob("*.parquet"))
    assert store_bytes(run()) == sum(path.stat().st_size for path in shards) > 0
