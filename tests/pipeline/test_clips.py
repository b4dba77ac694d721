"""Clips of longer files: exact frames, one decoding pass for each file, separate keys."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import Clip, write_clip
from known_extractors import RECIPE

from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.decoding import pyav_backend
from arabesque.pipeline.decoding.chunks import Span
from arabesque.pipeline.decoding.decoder_pool import DecoderProcess
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.planning.clips import clip_of
from arabesque.pipeline.planning.discovery import Inputs
from arabesque.pipeline.records import ClippedFile, Outcome, VideoFile, fragment_of, grouped, state_of
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.workers.local_pool import LocalWorkers

FPS = 10
LONG = Clip(num_frames=900, width_px=64, height_px=48, fps=Fraction(FPS), beeps_s=tuple(range(90)))
"""90 s with a keyframe every 12 frames and B-frames, and a beep every second."""


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("long") / "long.mp4", LONG)


@pytest.fixture
def passes(monkeypatch):
    """Record the spans of each decoding pass."""
    found = []
    decode = DecoderProcess.decode

    def counted(self, path, *arguments, spans=(), **options):
        found.append((Path(path).name, [(span.first, span.last) for span in spans]))
        return decode(self, path, *arguments, spans=spans, **options)

    monkeypatch.setattr(DecoderProcess, "decode", counted)
    return found


def clips_of(path, **ranges):
    state = state_of(path)
    return [
        VideoFile(name, path, state, path.name, str(path.parent), start_s=start_s, end_s=end_s)
        for name, (start_s, end_s) in ranges.items()
    ]


def prepared(files, out, **options):
    inputs = Inputs(tuple(files), {}, 0, is_selection=True)
    options = {"options": RunOptions()} | options
    return Extraction([], parse_recipe(RECIPE, "known.toml"), out, inputs=inputs, **options)


def extract(files, out, **options):
    events = list(prepared(files, out, **options))
    return {(event.video_id, event.stream): event for event in events if isinstance(event, Outcome)}


def numbers_in(out, video_id):
    return FeatureStore(out)[video_id]["numbers"].values.ravel().astype(int).tolist()


RANGES = {
    "b": (60.0, 63.3),
    "a": (20.05, 22.4),
    "overlap": (62.0, 64.8),
    "from the start": (None, 1.6),
    "to the end": (85.6, None),
    "near": (65.0, 66.6),
}


def test_all_clips_of_a_file_are_decoded_in_one_pass_and_exact_to_the_frame(long, tmp_path, passes):
    outcomes = extract(clips_of(long, **RANGES), tmp_path / "out")
    assert {outcome.kind for outcome in outcomes.values()} == {"done"}
    assert passes == [("long.mp4", [(0, 16), (201, 224), (600, 648), (650, 666), (856, 900)])]
    firsts = {"b": 600, "a": 201, "overlap": 620, "from the start": 0, "to the end": 856, "near": 650}
    for name, first in firsts.items():
        numbers = numbers_in(tmp_path / "out", name)
        assert numbers == list(range(first, first + len(numbers))), name
        assert len(numbers) >= 16
        features = FeatureStore(tmp_path / "out")[name]["numbers"]
        assert features.start_s[0] == 0
        assert outcomes[name, "numbers"].frames_expected < 50


def test_each_clip_has_its_own_key_and_an_unchanged_one_is_not_read_again(long, tmp_path, passes):
    files = clips_of(long, **RANGES)
    outcomes = extract(files, tmp_path / "out")
    keys = {outcome.key for outcome in outcomes.values()}
    assert len(keys) == len(outcomes)
    digests = {outcome.content_digest for outcome in outcomes.values()}
    assert len({digest.partition("#")[0] for digest in digests}) == 1
    assert fragment_of(outcomes["b", "numbers"].content_digest) == "#t=60,63.3"
    assert prepared(files, tmp_path / "out").remaining == []
    changed = [replace(file, end_s=63.2) if file.video_id == "b" else file for file in files]
    run = prepared(changed, tmp_path / "out")
    assert [file.video_id for file in run.remaining] == ["b"]
    passes.clear()
    list(run)
    assert passes == [("long.mp4", [(600, 632)])]
    assert prepared(changed, tmp_path / "out").remaining == []


def cut(path, out, first, last):
    """Copy the packets of the frames from a keyframe on to a new file, without encoding them again."""
    with av.open(path) as source, av.open(out, "w") as target:
        stream = source.streams.video[0]
        copied = target.add_stream_from_template(stream)
        start = None
        for packet in source.demux(stream):
            if packet.pts is None or packet.time_base is None:
                continue
            number = round(float(packet.pts * packet.time_base) * FPS)
            if first <= number < last:
                assert start is not None or packet.is_keyframe
                start = packet.pts if start is None else start
                packet.pts -= start
                packet.dts = (packet.dts or 0) - start
                packet.stream = copied
                target.mux(packet)
    return out


@pytest.mark.parametrize("fps", ["native", 5, 7.3, 4])
def test_rows_are_those_of_a_cut_file(long, tmp_path, fps):
    recipe = RECIPE.replace('fps = "native"', f"fps = {fps!r}".replace("'", '"'))
    recipe = parse_recipe(recipe, "known.toml")
    whole = cut(long, tmp_path / "cut.mp4", 240, 300)
    options = {"streams": ["numbers"], "options": RunOptions()}
    (clip,) = clips_of(long, cut=(24.0, 30.0))
    list(Extraction([], recipe, tmp_path / "a", inputs=Inputs((clip,), {}, 0), **options))
    list(Extraction(whole, recipe, tmp_path / "b", **options))
    of_clip, of_file = (FeatureStore(tmp_path / name)["cut"]["numbers"] for name in "ab")
    assert np.array_equal(of_clip.values, of_file.values)
    assert np.array_equal(of_clip.start_s, of_file.start_s)
    assert np.array_equal(of_clip.end_s, of_file.end_s)


def test_the_audio_of_a_clip_is_that_of_its_interval(long, tmp_path):
    extract(clips_of(long, a=(20.5, 26.9), b=(60.5, 66.9)), tmp_path / "out")
    loud = [FeatureStore(tmp_path / "out")[name]["loudness"].values > 0.1 for name in "ab"]
    # segments of 0.8 s in eighths of 0.1 s: the first beep is 0.5 s after the start of the clip
    expected = [abs((tenth * 0.1 - 0.5) % 1.0) < 0.01 or (tenth * 0.1 - 0.5) % 1.0 > 0.99 for tenth in range(64)]
    assert np.array_equal(loud[0].ravel(), expected)
    assert np.array_equal(loud[1], loud[0])


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".avi", pytest.param(".webm", marks=pytest.mark.slow)])
def test_other_containers(tmp_path, suffix, passes):
    options = {".avi": {"codec": "mpeg4", "options": {}}, ".webm": {"codec": "libvpx", "options": {}}}.get(suffix, {})
    path = write_clip(tmp_path / f"long{suffix}", replace(LONG, num_frames=500, beeps_s=None, **options))
    outcomes = extract(clips_of(path, a=(30.0, 31.6), b=(46.5, 48.1)), tmp_path / "out", streams=["numbers"])
    assert [outcome.kind for outcome in outcomes.values()] == ["done", "done"]
    assert numbers_in(tmp_path / "out", "a") == list(range(300, 316))
    assert numbers_in(tmp_path / "out", "b") == list(range(465, 481))
    assert len(passes) == 1


def test_a_range_outside_of_its_file_fails_and_the_others_are_done(long, tmp_path):
    ranges = {
        "good": (20, 22),
        "behind": (90, 95),
        "too long": (80, 95),
        "rounded up": (88, 90.9),
        "short": (1.01, 1.05),
    }
    outcomes = extract(clips_of(long, **ranges), tmp_path / "out", streams=["numbers"])
    kinds = {name: outcome.kind for (name, _), outcome in outcomes.items()}
    assert kinds == {"good": "done", "rounded up": "done", "behind": "failed", "too long": "failed", "short": "failed"}
    assert (
        "the clip from 80 s to 95 s is outside of the file, which ends at 90.000 s"
        in outcomes["too long", "numbers"].reason
    )
    assert "has no frame; the next one is shown at 1.100 s" in outcomes["short", "numbers"].reason
    assert prepared(clips_of(long, **ranges), tmp_path / "out", streams=["numbers"]).remaining == []


def test_a_hole_belongs_to_the_clip_that_contains_it(long, tmp_path):
    content = bytearray(long.read_bytes())
    with av.open(long) as container:
        packets: list[Any] = [packet for packet in container.demux(video=0) if packet.size]
    lost = next(
        packet for packet in packets if packet.is_keyframe and round(float(packet.pts * packet.time_base) * FPS) == 612
    )
    content[lost.pos + 4 : lost.pos + lost.size] = bytes(lost.size - 4)
    path = tmp_path / "long.mp4"
    path.write_bytes(content)
    outcomes = extract(clips_of(path, a=(59, 64), b=(20, 22), c=(70, 72)), tmp_path / "out", streams=["numbers"])
    kinds = {name: outcome.kind for (name, _), outcome in outcomes.items()}
    assert kinds == {"a": "partial", "b": "done", "c": "done"}
    holes = outcomes["a", "numbers"].holes
    assert holes[0][0] >= 1.0
    assert holes[-1][1] <= 3.5


@pytest.mark.slow
def test_several_workers_take_the_clips_of_a_file_together(long, tmp_path):
    import torch

    other = tmp_path / "other.mp4"
    other.write_bytes(long.read_bytes())
    files = clips_of(long, **RANGES) + clips_of(other, c=(3.0, 4.6), d=(70, 72))
    assert [len(source.videos) for source in grouped(files)] == [6, 2]
    outcomes = extract(files, tmp_path / "out", executor=LocalWorkers([torch.device("cpu")] * 2))
    assert {outcome.kind for outcome in outcomes.values()} == {"done"}
    assert len(outcomes) == 16
    assert numbers_in(tmp_path / "out", "d") == list(range(700, 716))


def test_a_seek_that_finds_no_keyframe_decodes_from_the_start(long, tmp_path, monkeypatch):
    monkeypatch.setattr(pyav_backend, "SEEK_BACK_S", ())
    with DecoderProcess() as decoder:
        metadata = decoder.probe(long)
    clip = clip_of(clips_of(long, a=(60.0, 60.4))[0], metadata)
    backend = pyav_backend.PyAvDecoder(lambda: None)
    wanted, span = np.arange(clip.first, clip.last), Span(clip.first, clip.last)
    found = [item[0] for item in backend.frames(long, metadata, wanted, spans=[span]) if isinstance(item, tuple)]
    assert found == [600, 601, 602, 603]


def test_clips_and_whole_files_are_grouped_by_file(long, tmp_path):
    one, two = clips_of(long, a=(1, 2), b=(3, 4))
    whole = VideoFile("whole", long)
    (other,) = clips_of(tmp_path / "x.mp4", c=(1, 2))
    assert grouped([one, whole, other, two]) == [ClippedFile((one, two)), whole, other]


def test_a_clip_by_the_python_api_has_the_times_of_a_cut_file(long, tmp_path):
    import arabesque

    found = arabesque.extract(long, recipe="starter", start_s=20, end_s=26, streams=["motion"])
    assert found["motion"].start_s[0] == 0
    assert found["motion"].end_s[-1] <= 6
    for start_s, end_s in ((5, 5), (-1, None)):
        with pytest.raises(arabesque.InputError, match="is not after start_s"):
            arabesque.extract(long, start_s=start_s, end_s=end_s)


def test_an_estimate_and_a_verification_of_clips(long, tmp_path):
    from arabesque.pipeline.benchmarking.benchmark import Effort
    from arabesque.pipeline.benchmarking.estimate import estimate_run
    from arabesque.pipeline.planning.selection import InputSelection, find_inputs
    from arabesque.pipeline.verification import recompute

    table = tmp_path / "clips.csv"
    table.write_text(f"path,id,start_s,end_s,score\n{long},a,20,22.4,1\n{long},b,60,64,2\n{long},out,95,96,3\n")
    inputs = find_inputs(InputSelection(clips=table))
    run = Extraction([], parse_recipe(RECIPE, "known.toml"), tmp_path / "out", inputs=inputs, options=RunOptions())
    estimate = estimate_run(run, Effort(stage_s=0.05, end_to_end_s=0.5))
    assert (estimate.num_videos, estimate.num_unreadable) == (3, 1)
    assert estimate.streams["numbers"].segments == round((3 + 5) * 3 / 3)
    list(run)
    assert (tmp_path / "out" / "clips.csv").read_text().startswith("path,id,start_s,end_s,score\n")
    found = recompute(tmp_path / "out", None, 2, clips=table, options=RunOptions())
    assert found
    assert not any(one.problem for one in found)
