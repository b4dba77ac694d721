"""One contract for every decoder: the right frames at the right times, or an error that says where and why."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import (
    Clip,
    beep_times,
    number_of,
    set_edit_list,
    write_clip,
    write_cut_transport_stream,
    write_size_change,
)

from arabesque.manifests.errors import ArabesqueError, DecodeError
from arabesque.pipeline.decoding import (
    BACKENDS,
    Decoder,
    IndexMismatch,
    SoundBroken,
    build_decoder,
    check_backend,
)
from arabesque.pipeline.records import Probe

MPEG4 = {"codec": "mpeg4", "options": {"bf": "2", "g": "12", "b": "3M"}}
VP9 = {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}}
SHARED = Path(__file__).resolve().parents[3] / "shared" / "videos"

Delivered = tuple[list[int], str]


def build(backend: str, threads: int = 2) -> Decoder:
    if backend == "decord":
        pytest.importorskip("decord", reason="decord has no wheel for this platform")
    return build_decoder(backend, threads, alive=lambda: None)


@pytest.fixture(params=sorted(BACKENDS))
def decoder(request) -> Decoder:
    return build(request.param)


@pytest.fixture(scope="module")
def pyav() -> Decoder:
    return build("pyav")


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """``write("a.mp4", num_frames=…)`` → the clip's path."""
    return lambda name, numbers=None, muxer=None, **clip: write_clip(
        tmp_path / name, Clip(**clip), numbers, **(muxer or {})
    )


def deliver(decoder: Decoder, path: Path, wanted=None, probe: Probe | None = None) -> Delivered:
    """The numbers that the delivered frames carry, each checked to be at its place, and the error, if any."""
    probe = probe or decoder.probe(path)
    wanted = np.arange(probe.num_frames) if wanted is None else np.asarray(wanted)
    numbers: list[int] = []
    try:
        for position, (index, picture) in enumerate(decoder.frames(path, probe, wanted)):
            assert index == wanted[position]
            assert picture.shape == (probe.height_px, probe.width_px, 3)
            numbers.append(number_of(picture))
    except DecodeError as error:
        assert str(path) in str(error)
        return numbers, str(error)
    return numbers, ""


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
    with pytest.raises(IndexMismatch, match="broke at frame 0 of .*the next frame comes at"):
        list(pyav.frames(path, superficial, np.arange(3)))
    assert deliver(pyav, path, probe=thorough)[1] == ""


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.webm"])
def test_thorough_and_quick_probes_agree_on_good_files(pyav, write, name):
    path = write(name, **{"a.mp4": {}, "a.avi": MPEG4, "a.webm": VP9}[name])
    quick, thorough = pyav.probe(path), pyav.probe(path, thorough=True)
    assert (quick.timed_by, thorough.timed_by) == ("packets", "frames")
    assert quick.frame_times_s.tolist() == thorough.frame_times_s.tolist()
    assert quick.end_s == thorough.end_s


# --- files that are cut off or damaged


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9])
@pytest.mark.parametrize(
    ("name", "clip", "muxer"),
    [
        ("a.mp4", {}, {"movflags": "faststart"}),
        ("a.avi", MPEG4, {}),
        ("a.webm", VP9, {"cluster_time_limit": "200"}),
    ],
)
def test_a_file_cut_off_gives_what_is_there_and_cannot_pass_for_whole(write, name, clip, muxer, kept, threads):
    decoder = build("pyav", threads)
    path = write(name, muxer=muxer, **clip)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    probe = decoder.probe(path)
    assert probe.declared_end_s == pytest.approx(2.0, abs=0.05)
    assert probe.end_s < probe.declared_end_s - 1.5 / 25
    numbers, error = deliver(decoder, path)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= probe.num_frames - 4  # a broken packet, and the frames that are built on it
    if len(numbers) < probe.num_frames:
        assert f"broke at frame {len(numbers)} of {probe.num_frames}" in error


@pytest.mark.parametrize(("name", "clip"), [("a.mp4", {}), ("a.avi", MPEG4)])
def test_decord_refuses_a_file_cut_off_or_gives_right_frames(write, name, clip):
    decoder = build("decord")
    path = write(name, muxer={"movflags": "faststart"} if name == "a.mp4" else {}, **clip)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    numbers, error = deliver(decoder, path)
    assert numbers == list(range(len(numbers)))
    assert "decord" in error or "broke at frame" in error


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(("name", "clip"), [("a.mp4", {}), ("a.ts", {}), ("a.avi", MPEG4)])
def test_a_hole_in_the_file_ends_it_there(write, name, clip, threads):
    decoder = build("pyav", threads)
    path = write(name, **clip)
    content = bytearray(path.read_bytes())
    hole = len(content) // 3 // 188 * 188
    content[hole : hole + 20 * 188] = random.Random(0).randbytes(20 * 188)
    path.write_bytes(content)
    numbers, error = deliver(decoder, path)
    assert numbers == list(range(len(numbers)))
    assert 0 < len(numbers) < 50
    assert "broke at frame" in error


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_flipped_bits_do_not_pass_for_pictures(write, backend):
    """As far as H.264 lets anyone notice: it has no checksum, and some flips make another valid stream.

    So this asserts over many flips: none raises anything but `DecodeError`, and where the decoder notices anything,
    every frame that it delivered is as it was.
    """
    decoder = build(backend)
    path = write("a.mp4")
    content = path.read_bytes()
    clean = [picture.copy() for _, picture in decoder.frames(path, decoder.probe(path), np.arange(50))]
    chance = random.Random(1)
    broken = spoiled = 0
    first_of_media = content.index(b"mdat") + 4
    last_of_media = content.index(b"moov")
    for _ in range(60):
        flipped = bytearray(content)
        flipped[chance.randrange(first_of_media, last_of_media)] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        delivered: list[np.ndarray] = []
        try:
            probe = decoder.probe(path)
            delivered.extend(picture.copy() for _, picture in decoder.frames(path, probe, np.arange(probe.num_frames)))
        except DecodeError:
            broken += 1
            spoiled += any(not np.array_equal(seen, meant) for seen, meant in zip(delivered, clean, strict=False))
    assert broken > 30
    assert spoiled == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("noise.mp4", random.Random(0).randbytes(100_000)),
        ("text.avi", b"Difficulty Execution Total\n" * 50),
        ("playlist.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n%s\n#EXT-X-ENDLIST\n"),
        ("concat.mp4", b"ffconcat version 1.0\nfile '%s'\n"),
        ("session.mp4", b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
    ],
)
def test_what_is_no_video_is_refused_even_where_it_names_one(decoder, write, tmp_path, name, content):
    target = write("target.mp4", num_frames=2)
    path = tmp_path / name
    path.write_bytes(content.replace(b"%s", str(target).encode()))
    with pytest.raises(DecodeError, match="is no video file that can be opened"):
        decoder.probe(path)


def test_an_mp4_without_its_index_is_refused(decoder, write):
    path = write("a.mp4")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(DecodeError, match="is no video file that can be opened"):
        decoder.probe(path)


def test_sound_alone_is_no_video(decoder, write):
    path = write("a.mp4", num_frames=0, beeps_s=[0.5], audio_until_s=2.0)
    with pytest.raises(DecodeError, match="no video stream"):
        decoder.probe(path)


@pytest.mark.parametrize("name", ["Übung №1 – 技.mp4", "two\nlines.mp4", "concat:a.mp4", "100%d.mp4", "-i.mp4"])
def test_any_name_can_be_opened(decoder, write, name):
    assert deliver(decoder, write(name, num_frames=3)) == ([0, 1, 2], "")


def test_a_name_that_is_no_utf8_can_be_opened(pyav, write, tmp_path):
    odd = tmp_path / "\udcff\udcfe.mp4"
    write("a.mp4", num_frames=3).rename(odd)
    probe = pyav.probe(odd)
    assert [number_of(picture) for _, picture in pyav.frames(odd, probe, np.arange(3))] == [0, 1, 2]


# --- sound

BEEPS = [0.3, 1.1, 1.6]


def hear(decoder: Decoder, path: Path, until_s: float | None = None) -> tuple[np.ndarray, Probe]:
    probe = decoder.probe(path)
    blocks = list(decoder.sound(path, probe, probe.end_s if until_s is None else until_s))
    return np.concatenate(blocks, axis=1), probe


@pytest.mark.parametrize(
    ("name", "clip", "tolerance_s"),
    [
        ("aac.mp4", {}, 0.002),
        ("aac.mkv", {}, 0.002),
        ("opus.webm", {**VP9, "audio_codec": "libopus", "audio_rate_hz": 48000}, 0.002),
        ("pcm.mkv", {"audio_codec": "pcm_s16le"}, 0.001),
        ("u8.avi", {**MPEG4, "audio_codec": "pcm_u8", "options": {}}, 0.001),
        ("float.mkv", {"audio_codec": "pcm_f32le"}, 0.001),
        # AVI has no place for the encoder's delay, of 1105 samples
        ("mp3.avi", {**MPEG4, "audio_codec": "libmp3lame", "options": {}}, 0.027),
    ],
)
def test_beeps_sound_when_they_should(decoder, write, name, clip, tolerance_s):
    samples, probe = hear(decoder, write(name, beeps_s=BEEPS, **clip))
    assert probe.audio is not None
    assert samples.shape[0] == probe.audio.channels == 1
    assert samples.dtype == np.float32
    assert 0.4 < np.abs(samples).max() < 0.75
    heard = [time_s + probe.audio.start_s for time_s in beep_times(samples[0], probe.audio.rate_hz)]
    assert heard == pytest.approx(BEEPS, abs=tolerance_s)
    assert samples.shape[1] / probe.audio.rate_hz + probe.audio.start_s == pytest.approx(2.0, abs=0.04)


def test_sound_that_begins_late_and_ends_early_says_so(decoder, write):
    path = write("a.mkv", beeps_s=[1.0], audio_from_s=0.6, audio_until_s=1.5, audio_codec="pcm_s16le")
    samples, probe = hear(decoder, path)
    assert probe.audio is not None
    assert probe.audio.start_s == pytest.approx(0.6, abs=0.001)
    assert samples.shape[1] / probe.audio.rate_hz == pytest.approx(0.9, abs=0.001)
    assert beep_times(samples[0], probe.audio.rate_hz) == pytest.approx([0.4], abs=0.001)


def test_sound_comes_no_further_than_asked_for(decoder, write):
    samples, probe = hear(decoder, write("a.mp4", beeps_s=BEEPS), until_s=0.75)
    assert probe.audio is not None
    assert samples.shape[1] == round(0.75 * probe.audio.rate_hz)


def test_sound_is_relative_to_the_first_frame(decoder, write):
    times = range(10, 60)  # the video begins 0.4 s into the file
    samples, probe = hear(decoder, write("a.mkv", times=times, beeps_s=[1.0], audio_codec="pcm_s16le"))
    assert probe.audio is not None
    assert (probe.frame_times_s[0], probe.audio.start_s) == (0, pytest.approx(-0.4))
    heard = [time_s + probe.audio.start_s for time_s in beep_times(samples[0], probe.audio.rate_hz)]
    assert heard == pytest.approx([0.6], abs=0.001)


def test_gaps_in_the_track_are_silence_and_overlaps_are_cut(pyav, write):
    """Beeps at .3 and 1.6 keep their times though the packets between are gone, and others come twice."""
    path = write("a.mkv", beeps_s=[0.3, 1.6], audio_codec="pcm_s16le", holes_s=[(0.5, 1.2)], repeats_s=[(1.3, 1.4)])
    samples, probe = hear(pyav, path)
    assert probe.audio is not None
    assert beep_times(samples[0], probe.audio.rate_hz) == pytest.approx([0.3, 1.6], abs=0.002)
    assert samples.shape[1] / probe.audio.rate_hz == pytest.approx(2.0, abs=0.001)


def test_a_video_without_sound_has_none(decoder, write):
    path = write("a.mp4")
    probe = decoder.probe(path)
    assert probe.audio is None
    assert list(decoder.sound(path, probe, probe.end_s)) == []


def test_damaged_sound_ends_at_the_damage(pyav, write):
    path = write("a.mp4", beeps_s=[0.1, 0.2, 0.3, 1.1, 1.6], muxer={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: int(0.7 * len(content))])
    probe = pyav.probe(path)
    assert probe.audio is not None
    samples: list[np.ndarray] = []
    with pytest.raises(SoundBroken, match=r"the sound breaks off at \d\.\d\d s"):
        samples.extend(pyav.sound(path, probe, 2.0))
    heard = beep_times(np.concatenate(samples, axis=1)[0], probe.audio.rate_hz)
    assert heard[:3] == pytest.approx([0.1, 0.2, 0.3], abs=0.002)


# --- the table


def test_unknown_and_missing_backends_are_named(monkeypatch):
    with pytest.raises(ValueError, match="'opencv' is none of pyav, decord"):
        check_backend("opencv")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "decord" else find(name))
    check_backend("pyav")
    with pytest.raises(ArabesqueError, match="decord: the package decord is not installed"):
        check_backend("decord")
    with pytest.raises(ArabesqueError, match="does not load"):
        build_decoder("no_such_module:Decoder", 1, lambda: None)


# --- real clips


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/videos")
@pytest.mark.parametrize("path", sorted(SHARED.glob("*")), ids=lambda path: path.stem)
def test_both_decoders_agree_pixel_for_pixel_on_real_clips(path):
    ours, theirs = build("pyav"), build("decord")
    probe = ours.probe(path)
    assert probe.declared_end_s == pytest.approx(probe.end_s, abs=1.5 / probe.fps)
    every = np.arange(probe.num_frames)
    both = zip(ours.frames(path, probe, every), theirs.frames(path, probe, every), strict=True)
    unequal = [
        np.abs(seen.astype(np.int16) - other) for (_, seen), (_, other) in both if not np.array_equal(seen, other)
    ]
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
