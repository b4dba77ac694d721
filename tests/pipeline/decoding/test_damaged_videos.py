"""Files that are cut off, damaged or no videos: what is good comes, and nothing passes for more than it is."""

from __future__ import annotations

import os
import random

import av
import numpy as np
import pytest
from decoding_checks import MPEG4, VP9, build, deliver

from arabesque.manifests.errors import DecodeError
from arabesque.pipeline.decoding.decoders import BACKENDS


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9])
@pytest.mark.parametrize(
    ("name", "clip", "muxer"),
    [
        ("a.mp4", {}, {"movflags": "faststart"}),
        ("vp9.mp4", VP9, {"movflags": "faststart"}),
        ("a.avi", MPEG4, {}),
        ("a.webm", VP9, {"cluster_time_limit": "200"}),
    ],
)
def test_a_file_cut_off_gives_what_is_there_and_cannot_pass_for_whole(write, name, clip, muxer, kept):
    decoder = build("pyav")
    path = write(name, muxer=muxer, **clip)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    probe = decoder.probe(path)
    assert probe.declared_end_s == pytest.approx(2.0, abs=0.05)
    assert probe.end_s < (probe.declared_end_s or 0) - 1.5 / 25
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


@pytest.mark.parametrize(("name", "clip"), [("a.mp4", {}), ("a.ts", {}), ("a.avi", MPEG4), ("h264.avi", {})])
def test_a_hole_in_the_file_ends_it_there(write, name, clip):
    decoder = build("pyav")
    path = write(name, **clip)
    content = bytearray(path.read_bytes())
    hole = len(content) // 3 // 188 * 188
    content[hole : hole + 20 * 188] = random.Random(0).randbytes(20 * 188)
    path.write_bytes(content)
    numbers, error = deliver(decoder, path)
    assert numbers == list(range(len(numbers)))
    assert 0 < len(numbers) < 50
    assert "broke at frame" in error


@pytest.mark.parametrize("victim", range(13, 24))
def test_a_packet_that_is_no_picture_ends_an_avi_there(write, victim):
    """AVI files shuffle H.264's time stamps: nothing but the order tells which frame is missing."""
    path = write("a.avi")
    with av.open(path) as container:
        places = [packet.pos for packet in container.demux() if packet.size]
    content = bytearray(path.read_bytes())
    content[places[victim] : places[victim] + 6] = bytes(6)
    path.write_bytes(content)
    numbers, error = deliver(build("pyav"), path)
    assert numbers == list(range(len(numbers)))
    assert victim - 4 <= len(numbers) <= victim + 2
    assert "broke at frame" in error


def test_longer_sound_does_not_make_a_video_cut_short(decoder, write):
    for name in ("a.mkv", "a.mp4", "a.avi"):
        path = write(name, beeps_s=[0.3], audio_codec="libmp3lame", audio_until_s=3.0)
        assert decoder.probe(path).declared_end_s == pytest.approx(2.0, abs=0.01)


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
        ("playlist.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\ntarget.mp4\n#EXT-X-ENDLIST\n"),
        ("concat.mp4", b"ffconcat version 1.0\nfile target.mp4\n"),
        ("session.mp4", b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
    ],
)
def test_what_is_no_video_is_refused_even_where_it_names_one(decoder, write, tmp_path, name, content):
    write("target.mp4", num_frames=2)
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DecodeError, match="is no video file that can be opened"):
        decoder.probe(path)


def test_what_is_no_file_is_refused_at_once(decoder, tmp_path):
    """Opening a pipe would wait for somebody to write to it."""
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for name, complaint in {"pipe.mp4": "no plain file", "folder.mp4": "is a folder"}.items():
        with pytest.raises(DecodeError, match=complaint):
            decoder.probe(tmp_path / name)


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
