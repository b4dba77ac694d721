"""Bytes of a file that do not belong to any packet."""

from __future__ import annotations

import random

import av
import pytest
from clips import Clip, write_clip
from decoding_checks import MPEG4, build, deliver_with_holes

from arabesque.pipeline.decoding.coverage import MAX_HEADER_BYTES, ends_midway, lost_stretches


def places(path):
    with av.open(path) as container:
        return [(packet.pos, packet.size) for packet in container.demux() if packet.size and packet.pos is not None]


@pytest.mark.parametrize(
    ("name", "clip"),
    [("a.mkv", {}), ("a.avi", {**MPEG4, "audio_codec": "libmp3lame"}), ("h264.avi", {"audio_codec": "pcm_s16le"})],
)
def test_damaged_bytes_with_lost_packets_are_found(tmp_path, name, clip):
    path = write_clip(tmp_path / name, Clip(beeps_s=[0.3], **clip))
    container = "avi" if name.endswith("avi") else "matroska,webm"
    assert lost_stretches(path, container, places(path)) == ()
    content = bytearray(path.read_bytes())
    hole = len(content) // 2
    content[hole : hole + 4000] = random.Random(0).randbytes(4000)
    path.write_bytes(content)
    (lost,) = lost_stretches(path, container, places(path))
    assert hole - 64 <= lost <= hole + 12_000  # a header before it, or the rest of the packet that it begins in
    numbers, holes, _ = deliver_with_holes(build("pyav"), path)
    assert all(index == number for index, number in numbers.items())
    assert "a damaged stretch here" in "".join(hole.reason for hole in holes)


def test_data_between_packets_is_not_a_loss(tmp_path):
    path = tmp_path / "a.avi"
    packets = [(100, 400), (9000, 300), (9000, 300), (9650, 10)]
    between = bytearray(b"?" * 10_000)
    path.write_bytes(between)
    assert lost_stretches(path, "avi", packets) == (500,)
    between[500:504] = b"JUNK"
    path.write_bytes(between)
    assert lost_stretches(path, "avi", packets) == ()
    between[500:505] = b"\0ix00"  # padded to an even position
    path.write_bytes(between)
    assert lost_stretches(path, "avi", packets) == ()
    assert lost_stretches(path, "matroska,webm", packets) == (500,)


def test_short_headers_interleaved_files_and_laced_blocks_are_not_a_loss(tmp_path):
    path = tmp_path / "a.mkv"
    path.write_bytes(b"?" * 20_000)
    apart = [(0, 100), (100 + MAX_HEADER_BYTES, 100)]
    assert lost_stretches(path, "matroska,webm", apart) == ()
    in_two_parts = [(0, 500), (5000, 500), (500, 4500), (5500, 100)]
    assert lost_stretches(path, "matroska,webm", in_two_parts) == ()
    laced = [(0, 700)] * 8 + [(5600, 10)]
    assert lost_stretches(path, "matroska,webm", laced) == ()


def test_containers_that_report_losses_are_not_searched(tmp_path):
    assert lost_stretches(tmp_path / "not-even-there.mp4", "mov,mp4,m4a,3gp,3g2,mj2", [(0, 1), (99_999, 1)]) == ()


@pytest.mark.parametrize(
    ("name", "muxer"),
    [("a.ts", {}), ("a.m2ts", {"mpegts_m2ts_mode": "1"}), ("a.mp4", {"movflags": "frag_keyframe+empty_moov"})],
)
def test_an_end_inside_an_element_is_detected_without_a_stated_length(tmp_path, name, muxer):
    path = write_clip(tmp_path / name, Clip(), **muxer)
    decoder = build("pyav")
    whole = decoder.probe(path)
    assert whole.declared_end_s is None or whole.declared_end_s == whole.end_s
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3 + 1])
    cut = decoder.probe(path)
    assert cut.declared_end_s is not None
    assert cut.declared_end_s - cut.end_s > 1.5 / cut.fps


def test_trailing_boxes_and_open_ends_are_complete(tmp_path):
    path = tmp_path / "a.mp4"
    for content, midway in {
        b"\0\0\0\x10free" + bytes(8): False,
        b"\0\0\0\x11free" + bytes(8): True,
        b"\0\0\0\0mdat" + bytes(8): False,
        b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x14" + bytes(4): False,
        b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x15" + bytes(4): True,
        b"\0\0\0\x10free" + bytes(8) + b"xyz": False,
    }.items():
        path.write_bytes(content)
        assert ends_midway(path, "mov,mp4,m4a,3gp,3g2,mj2", []) is midway
