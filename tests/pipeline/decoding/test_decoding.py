"""One contract for every decoder: the right frames at the right times, upright, and no others."""

from __future__ import annotations

import importlib.util
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import Clip, number_of, set_edit_list, write_cut_transport_stream, write_size_change
from decoding_checks import MPEG4, VP9, build, deliver

from arabesque.manifests.errors import ArabesqueError
from arabesque.pipeline.decoding.decoders import IndexMismatch, build_decoder, check_backend
from arabesque.pipeline.records import Probe

SHARED = Path(__file__).resolve().parents[4] / "shared" / "videos"


GOOD = {
    "b-frames.mp4": {},
    "b-frames.mkv": {},
    "mpeg4-b-frames.avi": MPEG4,
    "h264-b-frames.avi": {},
    "vp9.webm": VP9,
    "vp8.webm": {"codec": "libvpx", "options": {"cpu-used": "8"}},
    "intra.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {}},
    "odd-width.avi": {**MPEG4, "width_px": 131},
    "odd-height.avi": {**MPEG4, "height_px": 97},
    "odd.webm": {**VP9, "width_px": 131, "height_px": 97},
    "odd-444.mp4": {"width_px": 131, "height_px": 97, "pix_fmt": "yuv444p"},
    "10-bit.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
    "interlaced.mp4": {"options": {"flags": "+ildct+ilme", "x264-params": "tff=1:log-level=none"}},
}


@pytest.mark.parametrize("name", GOOD)
def test_every_frame_is_the_right_one_at_the_right_time(decoder, write, name):
    path = write(name, **GOOD[name])
    probe = decoder.probe(path)
    assert probe.num_frames == 50
    assert probe.frame_times_s == pytest.approx(np.arange(50) / 25, abs=0.001)
    assert probe.end_s == pytest.approx(2.0, abs=0.001)
    assert probe.declared_end_s == pytest.approx(2.0, abs=0.001)
    assert probe.fps == pytest.approx(25, abs=0.1)
    assert deliver(decoder, path) == (list(range(50)), "")


@pytest.mark.parametrize("wanted", [[0], [49], [3, 4, 5, 30], [], range(0, 50, 7)])
def test_only_the_wanted_frames_come(decoder, write, wanted):
    path = write("a.mp4")
    assert deliver(decoder, path, np.array(wanted, np.int64)) == (list(wanted), "")


@pytest.mark.parametrize("rotation_deg", [90, 180, 270])
def test_frames_come_upright(decoder, write, rotation_deg):
    path = write("a.mp4", rotation_deg=rotation_deg, num_frames=5)
    probe = decoder.probe(path)
    assert (probe.rotation_deg, probe.width_px, probe.height_px) == (rotation_deg, 128, 96)
    assert deliver(decoder, path) == ([0, 1, 2, 3, 4], "")


def test_variable_rates_keep_their_times(decoder, write):
    times_ms = [40 * number + 9 * (number % 3) + 500 * (number > 30) for number in range(50)]
    path = write("a.mkv", time_base=Fraction(1, 1000), times=times_ms)
    assert decoder.probe(path).frame_times_s == pytest.approx(np.array(times_ms) / 1000, abs=1e-9)
    assert deliver(decoder, path) == (list(range(50)), "")


def test_one_frame_is_a_video(decoder, write):
    path = write("a.mp4", num_frames=1)
    assert decoder.probe(path).end_s == pytest.approx(0.04)
    assert deliver(decoder, path) == ([0], "")


def test_a_transport_stream_is_right_or_refused(decoder, write, request):
    path = write("a.ts")
    probe = decoder.probe(path)
    assert (probe.num_frames, probe.declared_end_s) == (50, None)
    numbers, error = deliver(decoder, path)
    if "decord" in request.node.name:  # it begins with the second keyframe
        assert numbers == []
        assert "decord gives a picture that is" in error
    else:
        assert (numbers, error) == (list(range(50)), "")


def test_what_an_edit_list_hides_does_not_come(decoder, write, request):
    path = set_edit_list(write("a.mp4"), skipped_frames=17, shown_frames=23, clip=Clip())
    probe = decoder.probe(path)
    assert probe.frame_times_s == pytest.approx(np.arange(23) / 25)
    assert probe.declared_end_s == pytest.approx(probe.end_s)
    numbers, error = deliver(decoder, path)
    if "decord" in request.node.name:  # it shows what is hidden, and repeats frames at the end
        assert numbers == []
        assert "decord counts 38 frames, the container presents 23" in error
    else:
        assert (numbers, error) == (list(range(17, 40)), "")


@pytest.mark.parametrize("name", ["a.webm", "a.ts"])
def test_a_change_of_size_ends_the_video_where_it_comes(pyav, tmp_path, name):
    clip = Clip(**VP9) if name.endswith("webm") else Clip(options={"bf": "0", "x264-params": "log-level=none"})
    path = write_size_change(tmp_path / name, clip, 96, 64)
    numbers, error = deliver(pyav, path)
    assert numbers == list(range(25))
    assert "broke at frame 25 of 50 (1.00 s of 2.00 s): the picture changes from 128×96 to 96×64" in error


def test_decord_does_not_repeat_frames_after_a_change_of_size(tmp_path):
    path = write_size_change(tmp_path / "a.webm", Clip(**VP9), 96, 64)
    numbers, error = deliver(build("decord"), path)
    assert numbers == list(range(25))
    assert "changes from 128×96 to 96×64" in error


def test_a_recording_that_begins_between_keyframes_begins_with_its_first_keyframe(pyav, tmp_path):
    path = write_cut_transport_stream(tmp_path / "a.ts", Clip(), missing=0.3)
    probe = pyav.probe(path)
    assert probe.timed_by == "frames"
    numbers, error = deliver(pyav, path)
    assert error == ""
    assert numbers == list(range(numbers[0], 50))
    assert numbers[0] % 12 == 0
    assert numbers[0] > 0


def test_frames_that_are_not_packets_are_a_mismatch_until_the_probe_is_thorough(pyav, tmp_path):
    path = write_cut_transport_stream(tmp_path / "a.ts", Clip(), missing=0.3)
    thorough = pyav.probe(path, thorough=True)
    superficial = Probe(
        **{
            **vars(thorough),
            "frame_times_s": np.arange(thorough.num_frames + 5) / 25,
            "start_s": thorough.start_s - 0.2,
            "timed_by": "packets",
        }
    )
    with pytest.raises(IndexMismatch, match=r"broke at frame 0 of .*the next frame comes at"):
        list(pyav.frames(path, superficial, np.arange(3)))
    assert deliver(pyav, path, probe=thorough)[1] == ""


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.webm"])
def test_thorough_and_quick_probes_agree_on_good_files(pyav, write, name):
    path = write(name, **{"a.mp4": {}, "a.avi": MPEG4, "a.webm": VP9}[name])
    quick, thorough = pyav.probe(path), pyav.probe(path, thorough=True)
    assert (quick.timed_by, thorough.timed_by) == ("packets", "frames")
    assert quick.frame_times_s.tolist() == thorough.frame_times_s.tolist()
    assert quick.end_s == thorough.end_s


@pytest.mark.parametrize("name", ["Übung №1 – 技.mp4", "two\nlines.mp4", "concat:a.mp4", "100%d.mp4", "-i.mp4"])
def test_any_name_can_be_opened(decoder, write, name):
    assert deliver(decoder, write(name, num_frames=3)) == ([0, 1, 2], "")


def test_a_name_that_is_no_utf8_can_be_opened(pyav, write, tmp_path):
    odd = tmp_path / "\udcff\udcfe.mp4"
    write("a.mp4", num_frames=3).rename(odd)
    probe = pyav.probe(odd)
    assert [number_of(picture) for _, picture in pyav.frames(odd, probe, np.arange(3))] == [0, 1, 2]


def test_unknown_and_missing_backends_are_named(monkeypatch):
    with pytest.raises(ValueError, match="'opencv' is none of pyav, decord"):
        check_backend("opencv")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "decord" else find(name))
    check_backend("pyav")
    with pytest.raises(ArabesqueError, match="decord: the package decord is not installed"):
        check_backend("decord")
    with pytest.raises(ArabesqueError, match="does not load"):
        build_decoder("no_such_module:Decoder", lambda: None)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/videos")
@pytest.mark.parametrize("path", sorted(SHARED.glob("*")), ids=lambda path: path.stem)
def test_both_decoders_agree_pixel_for_pixel_on_real_clips(path):
    ours: Any = build("pyav")
    theirs: Any = build("decord")
    probe = ours.probe(path)
    assert probe.declared_end_s == pytest.approx(probe.end_s, abs=1.5 / probe.fps)
    every = np.arange(probe.num_frames)
    both = zip(ours.frames(path, probe, every), theirs.frames(path, probe, every), strict=True)
    differences = (np.abs(seen.astype(np.int16) - other) for (_, seen), (_, other) in both)
    unequal = [difference for difference in differences if difference.any()]
    if path.stem.startswith("dancer"):  # MPEG-4 leaves the inverse transform's rounding open, and FFmpeg changed it
        assert len(unequal) < 0.06 * probe.num_frames
        assert max(difference.max() for difference in unequal) <= 2
        assert max((difference > 0).mean() for difference in unequal) < 1e-4
    else:
        assert unequal == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/videos")
def test_the_dropped_frame_of_the_dancer_is_a_gap(pyav):
    probe = pyav.probe(SHARED / "dancer_518x496_25fps_63s.avi")
    gaps_s = np.diff(probe.frame_times_s)
    assert probe.num_frames == 1571
    assert gaps_s[0] == pytest.approx(0.08)
    assert gaps_s[1:] == pytest.approx(0.04)
