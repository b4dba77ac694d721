"""Clips of real files: six codecs and containers, against the files that are cut from them."""

from __future__ import annotations

import csv
from collections import Counter
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from arabesque.manifests.recipes import Recipe, parse_recipe
from arabesque.pipeline.decoding.decoder_pool import DecoderProcess
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.planning.selection import InputSelection, find_inputs
from arabesque.pipeline.records import Outcome
from arabesque.pipeline.store.reader import FeatureStore

VIDEOS = Path(__file__).resolve().parents[3] / "shared" / "videos"
NUM_CLIPS = {
    "dancer_518x496_25fps_63s.avi": 14,
    "gymnast_394x496_60fps_silent.mp4": 2,
    "odd_rate_1280x720.webm": 6,
    "skater_640x480_30fps.avi": 8,
    "skating_720x1280_portrait.mp4": 4,
    "v_ZNVhz7ctTq0.mp4": 6,
}
PACKED = "skater_640x480_30fps.avi"
"""Packets of this file hold two frames or none: cuts are written without loss instead of copied."""
MIN_FRAMES, MAX_FRAMES = 26, 90
RECIPE = """
name = "real"
summary = "classical features of the frames themselves"
[sampling]
fps = "native"
frames_per_segment = 12
frames_per_step = 12
remainder = "drop-tail"
[streams.motion]
extractor = "motion"
settings = { short_side_px = 64 }
"""
CUT = tuple[int, int, float, float]
"""First packet, packet after the last, and the times in seconds of both; frames of the packed file."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not VIDEOS.is_dir(), reason="needs ../shared/videos"),
]


def recipe() -> Recipe:
    return parse_recipe(RECIPE, "real.toml")


def packets_of(container: Any) -> list[Any]:
    return [packet for packet in container.demux(container.streams.video[0]) if packet.size]


def cuts_of(path: Path, count: int) -> list[CUT]:
    """Return stretches that begin at a keyframe and that no reference crosses: they can be cut without encoding."""
    with av.open(path) as container:
        packets: list[Any] = [*container.decode(video=0)] if path.name == PACKED else packets_of(container)
        times = [float(packet.pts * packet.time_base) for packet in packets]
    frame_s = (max(times) - min(times)) / (len(times) - 1)
    latest, earliest = np.maximum.accumulate(times), np.minimum.accumulate(times[::-1])[::-1]
    safe = [0, *(place for place in range(1, len(times)) if latest[place - 1] < earliest[place]), len(times)]
    at = [*times, max(times) + frame_s]
    starts = [place for place in safe[:-1] if path.name == PACKED or packets[place].is_keyframe]
    pairs = [
        (start, end, at[start] - times[0], at[end] - times[0])
        for start in starts
        for end in safe
        if start + MIN_FRAMES <= end <= start + MAX_FRAMES
    ]
    places = np.linspace(0, len(pairs) - 1, count).round().astype(int)
    return [pairs[place] for place in places]


def write_cut(path: Path, out: Path, cut: CUT) -> None:
    """Copy packets into a separate file."""
    if path.name == PACKED:
        write_frames(path, out.with_suffix(".mkv"), cut)
        return
    with av.open(path) as source, av.open(out, "w") as target:
        copied = target.add_stream_from_template(source.streams.video[0])
        chosen = packets_of(source)[cut[0] : cut[1]]
        first = chosen[0].pts
        for packet in chosen:
            packet.pts -= first
            packet.dts = None if packet.dts is None else packet.dts - first
            packet.stream = copied
            target.mux(packet)


def write_frames(path: Path, out: Path, cut: CUT) -> None:
    """Encode frames without loss."""
    with av.open(path) as source, av.open(out, "w") as target:
        read = source.streams.video[0]
        written = target.add_stream("ffv1", rate=read.average_rate)
        written.width, written.height, written.pix_fmt = read.width, read.height, read.pix_fmt
        for number, frame in enumerate(islice(source.decode(read), *cut[:2])):
            frame.pts, frame.time_base = number, 1 / Fraction(read.average_rate or 0)
            target.mux(written.encode(frame))
        target.mux(written.encode(None))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """File → number of decoding passes."""
    found = Counter[str]()
    decode = DecoderProcess.decode

    def counted(self: DecoderProcess, path: Path, *arguments: Any, **options: Any) -> Any:
        found[Path(path).name] += 1
        return decode(self, path, *arguments, **options)

    monkeypatch.setattr(DecoderProcess, "decode", counted)
    return found


def extract(selection: InputSelection, out: Path) -> dict[str, Outcome]:
    run = Extraction([], recipe(), out, inputs=find_inputs(selection), options=RunOptions())
    return {event.video_id: event for event in run if isinstance(event, Outcome)}


def test_forty_clips_of_six_files_are_the_cut_files_in_one_pass_per_file(tmp_path: Path, passes: Counter[str]) -> None:
    cuts = {
        f"{Path(name).stem}/{number}": (VIDEOS / name, cut)
        for name, count in NUM_CLIPS.items()
        for number, cut in enumerate(cuts_of(VIDEOS / name, count))
    }
    with (tmp_path / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "id", "start_s", "end_s"])
        table.writerows([path.name, name, f"{cut[2]:.6f}", f"{cut[3]:.6f}"] for name, (path, cut) in cuts.items())
    outcomes = extract(InputSelection((VIDEOS,), clips=tmp_path / "clips.csv"), tmp_path / "clips")
    assert len(outcomes) == 40
    assert {name: one.reason for name, one in outcomes.items() if one.kind != "done"} == {}
    assert passes == dict.fromkeys(NUM_CLIPS, 1)

    for name, (path, cut) in cuts.items():
        (tmp_path / "cut" / name).parent.mkdir(parents=True, exist_ok=True)
        write_cut(path, tmp_path / "cut" / f"{name}{path.suffix}", cut)
    extract(InputSelection((tmp_path / "cut",)), tmp_path / "files")
    of_clips, of_files = FeatureStore(tmp_path / "clips"), FeatureStore(tmp_path / "files")
    for name, (path, _) in cuts.items():
        clip, whole = of_clips[name]["motion"], of_files[name]["motion"]
        assert len(clip.values) >= 2
        if path.name == PACKED:  # encoded again
            assert cosine(clip.values, whole.values).min() >= 0.999, name
        else:
            assert np.array_equal(clip.values, whole.values), name
        assert np.allclose(clip.start_s, whole.start_s, atol=2e-3), name
        assert np.allclose(clip.end_s, whole.end_s, atol=2e-3), name


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.sum(a * b, axis=1, dtype=np.float64) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
