"""Extraction from end to end, on clips whose every frame and beep is known."""

from __future__ import annotations

import threading
import time
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from clips import Clip, write_clip
from known_extractors import RECIPE, SEGMENT
from threadpoolctl import threadpool_info, threadpool_limits

from arabesque.manifests.errors import ConfigError, InputError, StoreError, WeightsError
from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline import extraction, run_context
from arabesque.pipeline.decoding.decoder_pool import DecoderSettings
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.items import Notice, PhaseStarted, SegmentFeature, VideoSettled
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.records import Outcome
from arabesque.pipeline.store import store as store_module
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.writer import StoreWriter
from arabesque.pipeline.system.process_resources import resident_bytes


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


def run(videos, out, recipe=RECIPE, **options):
    """Execute a run; return ``(events, {(video, stream): outcome})``."""
    extracting = Extraction(videos, parse_recipe(recipe, "known.toml"), out, **options)
    events = list(extracting)
    return events, {(event.video_id, event.stream): event for event in events if isinstance(event, Outcome)}


def kinds(outcomes):
    return {name: outcome.kind for name, outcome in outcomes.items()}


def test_every_row_has_the_frames_and_the_audio_of_its_segment(videos, tmp_path):
    write_clip(videos / "a.mp4", Clip(num_frames=50, fps=Fraction(25), beeps_s=(0.4, 1.7)))
    write_clip(
        videos / "b.webm",
        Clip(num_frames=37, fps=Fraction(30), codec="libvpx", beeps_s=(), audio_codec="libopus", audio_rate_hz=48000),
    )
    _, outcomes = run(videos, tmp_path / "out")
    assert set(kinds(outcomes).values()) == {"done"}
    store = FeatureStore(tmp_path / "out")
    a = store["a"]["numbers"]
    assert a.values.tolist() == [list(range(8 * k, 8 * k + 8)) for k in range(6)]
    np.testing.assert_allclose(a.start_s, np.arange(6) * 0.32, atol=1e-9)
    np.testing.assert_allclose(a.end_s, np.arange(1, 7) * 0.32, atol=1e-9)
    loudness = store["a"]["loudness"]
    assert loudness.start_s.tolist() == a.start_s.tolist()
    loud = np.argwhere(loudness.values > 0.2)  # eighths of .04 s: the beeps at .4 and 1.7 s
    assert {(int(k), int(part)) for k, part in loud} >= {(1, 2), (5, 3)}
    assert len({int(k) for k, _ in loud}) == 2
    assert store["b"]["numbers"].values.shape == (4, SEGMENT)


def test_segments_of_different_videos_share_batches_and_events_count_up(videos, tmp_path):
    for name in "abc":
        write_clip(videos / f"{name}.mp4", Clip(num_frames=16))
    events, _ = run(videos, tmp_path / "out")
    counts = Counter(type(event) for event in events)
    assert counts[SegmentFeature] == 6  # silence
    assert counts[VideoSettled] == 3
    assert counts[Outcome] == 6


def test_a_second_run_opens_nothing(videos, tmp_path, monkeypatch):
    write_clip(videos / "a.mp4", Clip(num_frames=16))
    run(videos, tmp_path / "out")
    shards = sorted((tmp_path / "out").rglob("*.parquet"))

    def refuse(*_):
        raise AssertionError("a settled video was opened")

    monkeypatch.setattr(extraction, "process_videos", refuse)
    events, _ = run(videos, tmp_path / "out")
    assert events == []
    assert sorted((tmp_path / "out").rglob("*.parquet")) == shards


def test_a_run_opens_its_store_once(videos, tmp_path, monkeypatch):
    write_clip(videos / "a.mp4", Clip(num_frames=16))
    opened: list[object] = []
    to_open = store_module.as_store_path
    monkeypatch.setattr(store_module, "as_store_path", lambda place: opened.append(place) or to_open(place))
    _, outcomes = run(videos, tmp_path / "out")
    assert outcomes["a", "numbers"].kind == "done"
    assert opened == [tmp_path / "out"]


def test_a_new_video_and_a_changed_one_are_extracted(videos, tmp_path):
    write_clip(videos / "a.mp4", Clip(num_frames=16))
    write_clip(videos / "b.mp4", Clip(num_frames=16))
    run(videos, tmp_path / "out")
    write_clip(videos / "b.mp4", Clip(num_frames=24))
    write_clip(videos / "c.mp4", Clip(num_frames=8))
    _, outcomes = run(videos, tmp_path / "out")
    assert {video for video, _ in outcomes} == {"b", "c"}
    store = FeatureStore(tmp_path / "out")
    assert [len(store[name]["numbers"]) for name in "abc"] == [2, 3, 1]


def test_a_clock_that_was_a_day_ahead_is_reported_and_not_used(videos, tmp_path, monkeypatch):
    write_clip(videos / "a.mp4", Clip(num_frames=16))
    (videos / "b.mp4").write_bytes(b"no video")
    right = time.time_ns
    with monkeypatch.context() as fast:
        fast.setattr(time, "time_ns", lambda: right() + 86400 * 10**9)
        events, _ = run(videos, tmp_path / "out")
        assert not any(isinstance(event, Notice) for event in events)
    for name in "ab":
        write_clip(videos / f"{name}.mp4", Clip(num_frames=24))
    for expected in ([True], []):  # by then the compaction has dropped what the fast clock stamped
        events, _ = run(videos, tmp_path / "out")
        notices = [event.text for event in events if isinstance(event, Notice)]
        assert ["minutes in the future of this machine's clock; set the clocks" in text for text in notices] == expected
        store = FeatureStore(tmp_path / "out")
        assert [len(store[name]["numbers"]) for name in "ab"] == [3, 3]
        assert {end.kind for end in store.outcomes() if end.stream == "numbers"} == {"done"}


def test_a_file_that_became_unreadable_replaces_no_row(videos, tmp_path):
    write_clip(videos / "a.mp4", Clip(num_frames=16))
    run(videos, tmp_path / "out", streams=["numbers"])
    before = FeatureStore(tmp_path / "out").outcomes()
    (videos / "a.mp4").unlink()
    (videos / "a.mp4").symlink_to("nowhere")
    events, outcomes = run(videos, tmp_path / "out")
    assert kinds(outcomes) == {("a", "loudness"): "failed"}
    told = [event.text for event in events if isinstance(event, Notice)]
    assert len(told) == 1
    assert told[0].endswith("the stored outcomes of numbers are kept")
    ends = {end.stream: end for end in FeatureStore(tmp_path / "out").outcomes()}
    assert [ends["numbers"]] == before
    assert ends["loudness"].transient


def test_a_stream_that_is_left_out_may_have_a_clip_length_that_its_network_does_not_take(videos, tmp_path):
    write_clip(videos / "a.mp4", Clip(num_frames=16, beeps_s=()))
    color = '[streams.color]\nextractor = "i3d_rgb"\nweights = {network = "i3d_rgb_k400"}'
    recipe = parse_recipe(f"{RECIPE}\n{color}\nsampling = {{frames_per_segment = 2}}\n", source="test")
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"streams\.color.*not 2"):
        Extraction(videos, recipe, out)
    for _ in Extraction(videos, recipe, out, streams=["numbers"]):
        pass
    assert FeatureStore(out)["a"]["numbers"].values.shape == (2, SEGMENT)
    assert kinds(run(videos, out)[1]) == {("a", "loudness"): "done"}


def test_changed_settings_of_one_stream_recompute_that_stream_alone(videos, tmp_path):
    write_clip(videos / "a.mp4", Clip(num_frames=32, beeps_s=()))
    run(videos, tmp_path / "out")
    key = FeatureStore(tmp_path / "out")["a"]["loudness"].key
    changed = RECIPE.replace(
        'extractor = "known_extractors:FrameNumbers"',
        'extractor = "known_extractors:FrameNumbers"\nsampling = {frames_per_step = 4}',
    )
    _, outcomes = run(videos, tmp_path / "out", changed)
    assert set(outcomes) == {("a", "numbers")}
    store = FeatureStore(tmp_path / "out")
    assert store["a"]["numbers"].values[:, 0].tolist() == [0, 4, 8, 12, 16, 20, 24]
    assert store["a"]["loudness"].key == key
    import pandas

    assert len(pandas.read_parquet(tmp_path / "out" / "stream=numbers")) == 1


def test_centered_segments_have_a_row_for_each_step(videos, tmp_path):
    write_clip(videos / "a.mp4", Clip(num_frames=21))
    recipe = RECIPE.replace("drop-tail", "pad-both").replace("frames_per_step = 8", "frames_per_step = 4")
    recipe = recipe.replace('fps = "native"', "fps = 25")
    run(videos, tmp_path / "out", recipe, streams=["numbers"])
    rows = FeatureStore(tmp_path / "out")["a"]["numbers"]
    assert rows.values.tolist() == [
        [min(max(center + offset, 0), 20) for offset in range(-4, 4)] for center in (0, 4, 8, 12, 16, 20)
    ]
    np.testing.assert_allclose(rows.start_s, np.arange(0, 24, 4) / 25, atol=1e-9)
    np.testing.assert_allclose(rows.end_s, [*(np.arange(4, 24, 4) / 25), 21 / 25], atol=1e-9)
    check = check_store(tmp_path / "out")
    assert not check.damaged_files


def test_bad_files_have_their_expected_outcomes_and_do_not_stop_the_run(videos, tmp_path):
    write_clip(videos / "good.mp4", Clip(num_frames=40, beeps_s=()))
    whole = (videos / "good.mp4").read_bytes()
    (videos / "empty.mp4").touch()
    (videos / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (videos / "folder.mp4").mkdir()
    (videos / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (videos / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:1,\ngood.mp4\n")
    (videos / "headless.mp4").write_bytes(whole[: len(whole) // 2])
    write_clip(videos / "silent.mp4", Clip(num_frames=16))
    write_clip(videos / "short.mp4", Clip(num_frames=5, beeps_s=()))
    write_clip(videos / "twice.mp4", Clip(num_frames=16))
    write_clip(videos / "twice.avi", Clip(num_frames=16, codec="mpeg4"))
    (videos / "notes.txt").write_text("not a video")
    _, outcomes = run(videos, tmp_path / "out")
    failed = ["empty", "noise", "folder", "gone", "playlist", "headless", "twice"]
    ends = {"good": ("done", "done"), "silent": ("done", "empty"), "short": ("empty", "empty")}
    ends |= dict.fromkeys(failed, ("failed", "failed"))
    assert kinds(outcomes) == {
        (name, stream): kind
        for name, both in ends.items()
        for stream, kind in zip(("numbers", "loudness"), both, strict=True)
    }
    for outcome in outcomes.values():
        assert bool(outcome.reason) == (outcome.kind != "done")
        assert "\n" not in outcome.reason
    assert outcomes["empty", "numbers"].reason.endswith("is empty (0 bytes); get the file again")
    assert "twice.avi, twice.mp4" in outcomes["twice", "numbers"].reason
    stored = {(outcome.video_id, outcome.stream): outcome.kind for outcome in FeatureStore(tmp_path / "out").outcomes()}
    assert stored == kinds(outcomes)


def test_a_truncated_video_is_partial_and_shown_only_on_request(videos, tmp_path):
    write_clip(videos / "cut.mp4", Clip(num_frames=200), movflags="faststart")
    whole = (videos / "cut.mp4").read_bytes()
    (videos / "cut.mp4").write_bytes(whole[: int(len(whole) * 0.6)])
    _, outcomes = run(videos, tmp_path / "out")
    assert outcomes["cut", "numbers"].kind == "partial"
    assert outcomes["cut", "loudness"].kind == "empty"
    assert "cut" not in FeatureStore(tmp_path / "out")
    rows = FeatureStore(tmp_path / "out", partial=True)["cut"]["numbers"].values
    assert 0 < len(rows) < 25
    assert rows.ravel().tolist() == list(range(rows.size))
    _, again = run(videos, tmp_path / "out")
    assert again == {}
    _, retried = run(videos, tmp_path / "out", options=RunOptions(retry_failed=True))
    assert retried["cut", "numbers"].kind == "partial"


def test_transient_failures_are_retried_and_permanent_ones_are_not(videos, tmp_path):
    (videos / "noise.mp4").write_bytes(b"no video at all")
    (videos / "gone.mp4").symlink_to(tmp_path / "later.mp4")
    run(videos, tmp_path / "out")
    write_clip(tmp_path / "later.mp4", Clip(num_frames=16))
    _, outcomes = run(videos, tmp_path / "out")
    assert kinds(outcomes) == {("gone", "numbers"): "done", ("gone", "loudness"): "empty"}


def test_audio_that_ends_early_gives_fewer_segments(videos, tmp_path):
    write_clip(videos / "a.mp4", Clip(num_frames=50, fps=Fraction(25), beeps_s=(0.1,), audio_until_s=1.0))
    _, outcomes = run(videos, tmp_path / "out")
    store = FeatureStore(tmp_path / "out")
    assert len(store["a"]["numbers"]) == 6
    assert 2 < len(store["a"]["loudness"]) < 5
    assert "segments have no row" in outcomes["a", "loudness"].reason


def test_variable_frame_rates_are_sampled_by_time(videos, tmp_path):
    times = [*range(20), *range(20, 80, 4)]  # twenty frames at 20 fps, then fifteen at 5 fps
    clip = Clip(num_frames=len(times), times=tuple(times), time_base=Fraction(1, 20))
    write_clip(videos / "a.mp4", clip)
    ticking = RECIPE.replace('fps = "native"', "fps = 5").replace(
        '[streams.loudness]\nextractor = "known_extractors:Loudness"', ""
    )
    run(videos, tmp_path / "out", ticking)
    numbers = FeatureStore(tmp_path / "out")["a"]["numbers"]
    assert numbers.values[0].tolist() == [0, 4, 8, 12, 16, 20, 21, 22]
    assert numbers.start_s.tolist() == [0.0, 1.6]


@pytest.mark.parametrize(
    ("arrange", "complaint"),
    [
        (lambda videos, out: videos.rmdir(), "no such folder"),
        (lambda videos, out: (videos / "notes.txt").touch(), "contains no videos among its 1 files"),
        (
            lambda videos, out: (videos / "a.mp4").touch() or out.mkdir() or (out / "thesis.tex").touch(),
            "not a feature store",
        ),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_written(videos, tmp_path, arrange, complaint):
    out = tmp_path / "out"
    arrange(videos, out)
    with pytest.raises(InputError, match=complaint):
        run(videos, out)
    assert not (out / "arabesque.toml").exists()


def test_a_store_of_another_recipe_is_refused(videos, tmp_path):
    write_clip(videos / "a.mp4", Clip(num_frames=16))
    run(videos, tmp_path / "out")
    with pytest.raises(InputError, match="contains features of recipe 'known', not 'other'"):
        run(videos, tmp_path / "out", RECIPE.replace('"known"', '"other"'))


def test_a_missing_checkpoint_is_reported_before_anything_is_written(videos, tmp_path, monkeypatch):
    monkeypatch.setenv("ARABESQUE_WEIGHTS", str(tmp_path / "weights"))
    write_clip(videos / "a.mp4", Clip(num_frames=16))
    recipe = RECIPE.replace(
        'extractor = "known_extractors:Loudness"',
        'extractor = "resnet_frame"\nweights = {network = "resnet50_imagenet"}',
    )
    with pytest.raises(WeightsError, match="arabesque weights fetch resnet50_imagenet"):
        run(videos, tmp_path / "out", recipe)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_keeps_reported_work_and_the_next_run_continues(videos, tmp_path):
    for index in range(4):
        write_clip(videos / f"{index}.mp4", Clip(num_frames=80))
    extracting = iter(Extraction(videos, parse_recipe(RECIPE, "known.toml"), tmp_path / "out"))
    told = []
    for event in extracting:
        told.append(event)
        if sum(isinstance(item, VideoSettled) for item in told) == 2:
            break
    extracting.close()
    done = {event.video_id for event in told if isinstance(event, Outcome) and event.kind == "done"}
    assert done <= set(FeatureStore(tmp_path / "out").video_ids)
    _, outcomes = run(videos, tmp_path / "out")
    assert not done & {video for video, _ in outcomes}
    store = FeatureStore(tmp_path / "out")
    assert sorted(store) == ["0", "1", "2", "3"]
    assert all(store[name]["numbers"].values.ravel().tolist() == list(range(80)) for name in store)


def test_frames_as_planes_give_the_same_rows(videos, tmp_path):
    write_clip(videos / "a.mp4", Clip(num_frames=24))
    write_clip(videos / "b.mp4", Clip(num_frames=24, pix_fmt="yuv444p"))
    run(videos, tmp_path / "rgb")
    run(videos, tmp_path / "planes", options=RunOptions(decoding=DecoderSettings(planar=True)))
    rgb, planes = FeatureStore(tmp_path / "rgb"), FeatureStore(tmp_path / "planes")
    for name in ("a", "b"):
        assert planes[name]["numbers"].values.tolist() == rgb[name]["numbers"].values.tolist()
        assert planes[name]["numbers"].key == rgb[name]["numbers"].key


def test_a_run_stays_within_its_memory_limit_or_is_refused(videos, tmp_path, monkeypatch):
    write_clip(videos / "a.mp4", Clip(num_frames=24))
    with pytest.raises(InputError, match=r"--memory 0.01 GiB is too little for this recipe: it needs at least \d"):
        run(videos, tmp_path / "out", options=RunOptions(memory_bytes=1 << 20))
    assert not (tmp_path / "out").exists()
    opened: list[int] = []
    pool = run_context.DecoderPool
    monkeypatch.setattr(run_context, "DecoderPool", lambda count, *rest: opened.append(count) or pool(count, *rest))
    allowed = (resident_bytes() or 0) + (2 << 30)
    _, outcomes = run(videos, tmp_path / "out", options=RunOptions(memory_bytes=allowed, num_decoders=9))
    assert kinds(outcomes)["a", "numbers"] == "done"
    assert 1 <= opened[0] < 9


def test_numpy_computes_on_one_thread_as_long_as_a_run_lasts(videos, tmp_path):
    write_clip(videos / "a.mp4", Clip(num_frames=24))

    def numbers_of_threads():
        return {library["num_threads"] for library in threadpool_info() if library["internal_api"] == "openblas"}

    with threadpool_limits(2, user_api="blas"):
        events = Extraction(videos, parse_recipe(RECIPE, "known.toml"), tmp_path / "out")
        during = [numbers_of_threads() for event in events if not isinstance(event, PhaseStarted)]
        assert during
        assert all(numbers == {1} for numbers in during)
        assert numbers_of_threads() == {2}


def test_a_failing_run_reports_the_reason_and_does_not_hang(videos, tmp_path, monkeypatch):
    for index in range(3):
        write_clip(videos / f"{index}.mp4", Clip(num_frames=200))

    def full(*_):
        raise StoreError("out: no space left on device; make room and run again") from OSError("ENOSPC")

    monkeypatch.setattr(StoreWriter, "add_progress", full)
    # windows of one frame: when the stages stop, some are under way and never released
    options = RunOptions(decoding=DecoderSettings(buffer_bytes=40_000))
    before = set(threading.enumerate())
    with pytest.raises(StoreError, match="no space left"):
        run(videos, tmp_path / "out", options=options)
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in left)


def test_a_format_that_is_not_supported_fails_and_is_named(videos, tmp_path):
    write_clip(videos / "good.mp4", Clip(num_frames=16))
    (videos / "real.RM").write_bytes(b".RMF\0\0\0\x12" + bytes(1000))
    (videos / "moves.gif").write_bytes(b"GIF89a" + bytes(20) + b"NETSCAPE2.0" + bytes(100))
    (videos / "notes.txt").write_text("nothing")
    _, outcomes = run(videos, tmp_path / "out")
    assert kinds(outcomes) == {
        ("good", "numbers"): "done",
        ("good", "loudness"): "empty",
        **{(name, stream): "failed" for name in ("real", "moves") for stream in ("numbers", "loudness")},
    }
    assert "RealMedia" in outcomes["real", "numbers"].reason
    assert "GIF" in outcomes["moves", "numbers"].reason
