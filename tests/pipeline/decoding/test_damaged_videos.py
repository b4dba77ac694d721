"""Truncated and damaged files, and files that are not videos: intact frames are delivered, and damage is reported."""

from __future__ import annotations

import os
import random

import av
import numpy as np
import pytest
from decoding_checks import MPEG4, VP9, build, deliver, deliver_with_holes, pictures_and_holes
from misbehaving_decoders import pictures

from arabesque.manifests.errors import DecodeError
from arabesque.pipeline.records import Hole


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
def test_a_truncated_file_gives_its_frames_and_is_not_complete(write, name, clip, muxer, kept):
    decoder = build("pyav")
    path = write(name, muxer=muxer, **clip)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    metadata = decoder.probe(path)
    assert metadata.declared_end_s == pytest.approx(2.0, abs=0.05)
    assert metadata.end_s < (metadata.declared_end_s or 0) - 1.5 / 25
    numbers, holes, _ = deliver_with_holes(decoder, path)
    assert all(round(25 * metadata.frame_times_s[index]) == number for index, number in numbers.items())
    assert len(numbers) >= metadata.num_frames - 5  # a broken packet, the one before it, and frames that refer to them
    assert bool(holes) is (len(numbers) < metadata.num_frames)


@pytest.mark.parametrize(("name", "clip"), [("a.mp4", {}), ("a.avi", MPEG4)])
def test_decord_refuses_a_truncated_file_or_gives_correct_frames(write, name, clip):
    decoder = build("decord")
    path = write(name, muxer={"movflags": "faststart"} if name == "a.mp4" else {}, **clip)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    numbers, error = deliver(decoder, path)
    assert numbers == list(range(len(numbers)))
    assert "decord" in error or "broke at frame" in error


OPEN_GOPS = {"bf": "2", "g": "12", "x264-params": "b-adapt=0:scenecut=0:open-gop=1:log-level=none"}
HEVC = {"codec": "libx265", "options": {"x265-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:log-level=none"}}
MJPEG = {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {}}
MPEG2 = {"codec": "mpeg2video", "options": {"bf": "2", "g": "12", "b": "3M"}}
KINDS = {
    "a.mp4": {},
    "a.ts": {},
    "a.mkv": {},
    "mpeg4.avi": MPEG4,
    "h264.avi": {},
    "mjpeg.avi": MJPEG,
    "a.webm": {**VP9, "options": {"cpu-used": "8", "g": "12"}},
    "open.ts": {"options": OPEN_GOPS},
    "open.mkv": {"options": OPEN_GOPS},
    "hevc.ts": HEVC,
    "hevc.mp4": HEVC,
    "mpeg2.ts": MPEG2,
}


@pytest.mark.parametrize("name", KINDS)
def test_decoding_continues_after_a_lost_stretch(write, name):
    """Each delivered frame has its number at its index, and some of them are after the hole."""
    path = write(name, num_frames=100, **KINDS[name])
    content = bytearray(path.read_bytes())
    hole = int(0.4 * len(content)) // 188 * 188
    content[hole : hole + 12 * 188] = random.Random(0).randbytes(12 * 188)
    path.write_bytes(content)
    numbers, holes, metadata = deliver_with_holes(build("pyav"), path)
    assert all(index == number for index, number in numbers.items())
    assert metadata.num_frames == 100
    assert metadata.end_s == pytest.approx(4.0, abs=0.05)
    assert 65 <= len(numbers) < 100
    assert max(numbers) == 99
    assert len(holes) <= 2
    assert all(0 < hole.end_s - hole.start_s < 1.3 for hole in holes)


@pytest.mark.parametrize("lost_packets", [1, 3, 16])
@pytest.mark.parametrize("name", ["a.ts", "open.ts", "hevc.ts", "mpeg2.ts"])
def test_lost_packets_of_a_transport_stream_lose_the_frames_that_refer_to_them(write, name, lost_packets):
    path = write(name, num_frames=100, beeps_s=[0.5], **KINDS[name])
    content = path.read_bytes()
    whole, _, _ = pictures_and_holes(build("pyav"), path)
    chance = random.Random(name)
    for _ in range(8):
        place = chance.randrange(20, int(0.8 * len(content)) // 188) * 188
        path.write_bytes(content[:place] + content[place + lost_packets * 188 :])
        pictures, _, metadata = pictures_and_holes(build("pyav"), path)
        assert len(pictures) >= 50
        assert metadata.num_frames == 100
        assert all(np.array_equal(picture, whole[index]) for index, picture in pictures.items())


@pytest.mark.parametrize("victim", range(13, 24))
def test_an_invalid_packet_in_an_avi_file_loses_the_rest_of_its_group(write, victim):
    """AVI files shuffle H.264's time stamps: the index and the order alone say which frame is missing."""
    path = write("a.avi")
    with av.open(path) as container:
        places = [packet.pos for packet in container.demux() if packet.size]
    content = bytearray(path.read_bytes())
    content[places[victim] : places[victim] + 6] = bytes(6)
    path.write_bytes(content)
    numbers, holes, _ = deliver_with_holes(build("pyav"), path)
    assert all(index == number for index, number in numbers.items())
    assert len(holes) == 1
    lost = sorted(set(range(50)) - numbers.keys())
    assert victim - 4 <= lost[0] <= victim + 2
    assert lost[-1] == 23


@pytest.mark.parametrize("index", ["complete", "lacks an entry", "missing"])
def test_frames_behind_a_loss_in_an_avi_need_a_complete_index(write, index):
    path = write("a.avi", **MPEG4)
    with av.open(path) as container:
        places = [(packet.pos, packet.size) for packet in container.demux() if packet.size]
    content = bytearray(path.read_bytes())
    entries = content.rindex(b"idx1") + 8
    if index == "lacks an entry":
        content[entries + 16 * 30 : entries + 16 * 31] = bytes(16)
    elif index == "missing":
        del content[entries - 8 :]
    lost_at, size = places[15]
    assert lost_at is not None
    content[lost_at - 8 : lost_at + size] = bytes(size + 8)
    path.write_bytes(content)
    numbers, holes, _ = deliver_with_holes(build("pyav"), path)
    assert all(index == number for index, number in numbers.items())
    assert holes
    assert (max(numbers) == 49) is (index == "complete")
    assert {*range(12)} <= numbers.keys()


def test_longer_audio_does_not_make_a_video_truncated(decoder, write):
    for name in ("a.mkv", "a.mp4", "a.avi"):
        path = write(name, beeps_s=[0.3], audio_codec="libmp3lame", audio_until_s=3.0)
        assert decoder.probe(path).declared_end_s == pytest.approx(2.0, abs=0.01)


def test_flipped_bits_are_not_decoded_as_pictures(write, decoder):
    """Damage is detected as far as H.264 allows: it has no checksums, and some flips make another valid stream.

    Over many flips, no error but `DecodeError` is raised, and if the decoder reports damage, every delivered frame is
    unchanged.
    """
    path = write("a.mp4")
    content = path.read_bytes()
    clean = [np.array(picture) for _, picture in pictures(decoder.frames(path, decoder.probe(path), np.arange(50)))]
    chance = random.Random(1)
    broken = spoiled = 0
    first_of_media = content.index(b"mdat") + 4
    last_of_media = content.index(b"moov")
    for _ in range(60):
        flipped = bytearray(content)
        flipped[chance.randrange(first_of_media, last_of_media)] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        delivered: dict[int, np.ndarray] = {}
        is_broken = False
        try:
            metadata = decoder.probe(path)
            for item in decoder.frames(path, metadata, np.arange(metadata.num_frames)):
                if isinstance(item, Hole):
                    is_broken = True
                else:
                    delivered[item[0]] = np.array(item[1])
        except DecodeError:
            is_broken = True
        broken += is_broken
        if is_broken:
            spoiled += any(not np.array_equal(seen, clean[index]) for index, seen in delivered.items())
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
def test_files_that_refer_to_a_video_are_refused(decoder, write, tmp_path, name, content):
    write("target.mp4", num_frames=2)
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DecodeError, match="cannot be opened as a video"):
        decoder.probe(path)


def test_folders_and_pipes_are_refused_at_once(decoder, tmp_path):
    """Opening a pipe would wait for a writer."""
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for name, complaint in {"pipe.mp4": "not a regular file", "folder.mp4": "is a folder"}.items():
        with pytest.raises(DecodeError, match=complaint):
            decoder.probe(tmp_path / name)


def test_an_mp4_without_its_index_is_refused(decoder, write):
    path = write("a.mp4")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(DecodeError, match="cannot be opened as a video"):
        decoder.probe(path)


def test_an_audio_file_is_refused(decoder, write):
    path = write("a.mp4", num_frames=0, beeps_s=[0.5], audio_until_s=2.0)
    with pytest.raises(DecodeError, match="no video stream"):
        decoder.probe(path)
