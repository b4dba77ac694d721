"""One contract for every decoder: the right frames at the right times, upright, and no others."""

from __future__ import annotations

import struct
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np
import pytest
from clips import Clip, number_of, set_edit_list, write_clip, write_cut_transport_stream, write_size_change
from decoding_checks import MPEG4, VP9, build, deliver
from simulated_nvdec import SimulatedNvdec

from arabesque.manifests.errors import ArabesqueError, DecodeError, MissingPackageError
from arabesque.pipeline.decoding.decoders import IndexMismatch, build_decoder, check_backend
from arabesque.pipeline.decoding.pyav_backend import PyAvDecoder
from arabesque.pipeline.records import VideoMetadata

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
}


@pytest.mark.parametrize("name", GOOD)
def test_every_frame_is_the_right_one_at_the_right_time(decoder, write, name):
    path = write(name, **GOOD[name])
    metadata = decoder.probe(path)
    assert metadata.num_frames == 50
    assert metadata.frame_times_s == pytest.approx(np.arange(50) / 25, abs=0.001)
    assert metadata.end_s == pytest.approx(2.0, abs=0.001)
    assert metadata.declared_end_s == pytest.approx(2.0, abs=0.001)
    assert metadata.fps == pytest.approx(25, abs=0.1)
    assert deliver(decoder, path) == (list(range(50)), "")


@pytest.mark.parametrize("wanted", [[0], [49], [3, 4, 5, 30], [], range(0, 50, 7)])
def test_only_the_wanted_frames_are_delivered(decoder, write, wanted):
    path = write("a.mp4")
    assert deliver(decoder, path, np.array(wanted, np.int64)) == (list(wanted), "")


def test_interlaced_pictures_are_ffmpegs_or_refused(decoder, write):
    """decord's FFmpeg converts the chroma of both fields as one."""
    path = write("a.mp4", num_frames=24, options={"flags": "+ildct+ilme", "x264-params": "tff=1:log-level=none"})
    assert decoder.probe(path).field_order == "top-first"
    numbers, complaint = deliver(decoder, path)
    if type(decoder) in (PyAvDecoder, SimulatedNvdec):
        assert (numbers, complaint) == ([*range(24)], "")
    else:
        assert "chroma of a progressive picture" in complaint


ORIENTATIONS = [(turns, flips) for turns in range(4) for flips in (False, True)]
"""Display matrices of clockwise quarter turns, followed by a flip from left to right."""


@pytest.mark.parametrize(("turns", "flips"), ORIENTATIONS)
def test_frames_are_turned_and_flipped_as_ffmpeg_does(pyav, write, turns, flips):
    """The angles are those with which the pictures were FFmpeg's (``ffmpeg -i``), for all eight matrices."""
    path = write("a.mp4", num_frames=5)
    set_display_matrix(path, turns, flips)
    metadata = pyav.probe(path)
    assert (metadata.rotation_deg, metadata.mirrored) == ({0: 0, 1: 270, 2: 180, 3: 90}[turns], flips)
    assert (metadata.width_px, metadata.height_px) == ((128, 96) if turns % 2 == 0 else (96, 128))
    for index, seen in pyav.frames(path, metadata, np.arange(5)):
        unflipped = seen[:, ::-1] if flips else seen
        assert number_of(np.ascontiguousarray(np.rot90(unflipped, turns))) == index


def set_display_matrix(path: Path, turns: int, flips: bool) -> None:
    """Replace the matrix in the track header of an MP4 file."""
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][turns]
    left = -1 if flips else 1
    matrix = (left * cosine, sine, 0, -left * sine, cosine, 0, 0, 0)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    content[at : at + 36] = struct.pack(">9i", *(number << 16 for number in matrix), 1 << 30)
    path.write_bytes(content)


@pytest.mark.parametrize("rotation_deg", [90, 180, 270])
def test_frames_are_delivered_upright(decoder, write, rotation_deg):
    path = write("a.mp4", rotation_deg=rotation_deg, num_frames=5)
    metadata = decoder.probe(path)
    assert (metadata.rotation_deg, metadata.width_px, metadata.height_px) == (rotation_deg, 128, 96)
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
    metadata = decoder.probe(path)
    assert (metadata.num_frames, metadata.declared_end_s) == (50, None)
    numbers, error = deliver(decoder, path)
    if "decord" in request.node.name:  # it begins with the second keyframe
        assert numbers == []
        assert "decord gives a picture that is" in error
    else:
        assert (numbers, error) == (list(range(50)), "")


def test_frames_hidden_by_an_edit_list_are_not_delivered(decoder, write, request):
    path = set_edit_list(write("a.mp4"), skipped_frames=17, shown_frames=23, clip=Clip())
    metadata = decoder.probe(path)
    assert metadata.frame_times_s == pytest.approx(np.arange(23) / 25)
    assert metadata.declared_end_s == pytest.approx(metadata.end_s)
    numbers, error = deliver(decoder, path)
    if "decord" in request.node.name:  # it shows what is hidden, and repeats frames at the end
        assert numbers == []
        assert "decord counts 38 frames, the container presents 23" in error
    else:
        assert (numbers, error) == (list(range(17, 40)), "")


@pytest.mark.parametrize("name", ["a.webm", "a.ts"])
def test_a_change_of_size_ends_the_video(pyav, tmp_path, name):
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
    metadata = pyav.probe(path)
    assert metadata.timed_by == "frames"
    numbers, error = deliver(pyav, path)
    assert error == ""
    assert numbers == list(range(numbers[0], 50))
    assert numbers[0] % 12 == 0
    assert numbers[0] > 0


def test_frames_that_are_not_packets_are_a_mismatch_until_the_probe_is_thorough(pyav, tmp_path):
    path = write_cut_transport_stream(tmp_path / "a.ts", Clip(), missing=0.3)
    thorough = pyav.probe(path, thorough=True)
    superficial = VideoMetadata(
        **{
            **vars(thorough),
            "frame_times_s": np.arange(thorough.num_frames + 5) / 25,
            "start_s": thorough.start_s - 0.2,
            "timed_by": "packets",
        }
    )
    with pytest.raises(IndexMismatch, match=r"broke at frame 0 of .*the next frame comes at"):
        list(pyav.frames(path, superficial, np.arange(3)))
    assert deliver(pyav, path, metadata=thorough)[1] == ""


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


def test_a_name_that_is_not_utf8_can_be_opened(pyav, write, tmp_path):
    odd = tmp_path / "\udcff\udcfe.mp4"
    write("a.mp4", num_frames=3).rename(odd)
    metadata = pyav.probe(odd)
    assert [number_of(picture) for _, picture in pyav.frames(odd, metadata, np.arange(3))] == [0, 1, 2]


def test_unknown_and_missing_backends_are_named(monkeypatch):
    with pytest.raises(ValueError, match="'opencv' is not one of pyav, decord, nvdec"):
        check_backend("opencv")
    monkeypatch.setitem(sys.modules, "decord", None)
    check_backend("pyav")
    with pytest.raises(MissingPackageError, match="decord: the package decord is not installed"):
        check_backend("decord")
    with pytest.raises(ArabesqueError, match="does not load"):
        build_decoder("no_such_module:Decoder", lambda: None)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/videos")
@pytest.mark.parametrize("path", sorted(SHARED.glob("*")), ids=lambda path: path.stem)
def test_both_decoders_agree_pixel_for_pixel_on_real_clips(path):
    ours: Any = build("pyav")
    theirs: Any = build("decord")
    metadata = ours.probe(path)
    assert metadata.declared_end_s == pytest.approx(metadata.end_s, abs=1.5 / metadata.fps)
    every = np.arange(metadata.num_frames)
    both = zip(ours.frames(path, metadata, every), theirs.frames(path, metadata, every), strict=True)
    differences = (np.abs(seen.astype(np.int16) - other) for (_, seen), (_, other) in both)
    unequal = [difference for difference in differences if difference.any()]
    if path.stem.startswith("dancer"):  # MPEG-4 leaves the inverse transform's rounding open, and FFmpeg changed it
        assert len(unequal) < 0.06 * metadata.num_frames
        assert max(difference.max() for difference in unequal) <= 2
        assert max((difference > 0).mean() for difference in unequal) < 1e-4
    else:
        assert unequal == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/videos")
def test_the_dropped_frame_of_the_real_clip_is_a_gap(pyav):
    metadata = pyav.probe(SHARED / "dancer_518x496_25fps_63s.avi")
    gaps_s = np.diff(metadata.frame_times_s)
    assert metadata.num_frames == 1571
    assert gaps_s[0] == pytest.approx(0.08)
    assert gaps_s[1:] == pytest.approx(0.04)


def bwdif_of(path: Path) -> list[np.ndarray]:
    """Return every frame as RGB, after one filter graph of FFmpeg."""
    with av.open(path) as container:
        graph = av.filter.Graph()
        source = graph.add_buffer(template=container.streams.video[0])
        fields, sink = graph.add("bwdif", "send_frame:auto:interlaced"), graph.add("buffersink")
        source.link_to(fields)
        fields.link_to(sink)
        graph.configure()
        frames = list(container.decode(video=0))
        for frame in [*frames, None]:
            source.push(frame)
        return [sink.pull().to_ndarray(format="rgb24") for _ in frames]  # pyright: ignore


@pytest.mark.parametrize("wanted", [range(24), [0], [5, 6, 20], [23]])
def test_deinterlaced_pictures_are_bwdifs_one_for_each_frame(pyav, write, wanted):
    path = write("a.mp4", num_frames=24, options={"flags": "+ildct+ilme", "x264-params": "tff=1:log-level=none"})
    expected = bwdif_of(path)
    metadata = pyav.probe(path)
    seen = dict(pyav.frames(path, metadata, np.array(wanted, np.int64), "bwdif"))
    assert list(seen) == list(wanted)
    assert all(np.array_equal(picture, expected[index]) for index, picture in seen.items())
    woven = dict(pyav.frames(path, metadata, np.array(wanted, np.int64)))
    assert not np.array_equal(seen[wanted[0]], woven[wanted[0]])


def test_progressive_pictures_stay_as_they_are(decoder, write):
    path = write("a.mp4", num_frames=10)
    metadata = decoder.probe(path)
    pairs = zip(*(decoder.frames(path, metadata, np.arange(10), each) for each in ("none", "bwdif")), strict=True)
    for (index, plain), (same_index, filtered) in pairs:
        assert index == same_index
        assert np.array_equal(plain, filtered)


def test_deinterlacing_ends_and_begins_at_a_hole(pyav, tmp_path):
    """No picture is interpolated across a hole, and every frame keeps its index."""
    options = {"flags": "+ildct+ilme", "g": "12", "bf": "0", "x264-params": "tff=1:scenecut=0:log-level=none"}
    path = write_clip(tmp_path / "a.ts", Clip(num_frames=60, options=options))
    whole = bwdif_of(path)
    content = bytearray(path.read_bytes())
    half = len(content) // 2 // 188 * 188
    path.write_bytes(content[:half] + content[half + 188 :])
    metadata = pyav.probe(path)
    items = list(pyav.frames(path, metadata, np.arange(metadata.num_frames), "bwdif"))
    seen = dict(item for item in items if isinstance(item, tuple))
    assert len(items) == len(seen) + 1
    assert 40 <= len(seen) < 60
    lost = sorted({*range(60)} - {*seen})
    for index, picture in seen.items():
        if index not in (lost[0] - 1, lost[-1] + 1):  # made without a neighbor
            assert np.array_equal(picture, whole[index])


def test_decord_does_not_deinterlace(write):
    path = write("a.mp4", num_frames=10, options={"flags": "+ildct+ilme", "x264-params": "tff=1:log-level=none"})
    decord = build("decord")
    with pytest.raises(DecodeError, match="does not deinterlace"):
        list(decord.frames(path, decord.probe(path), np.arange(10), "bwdif"))
