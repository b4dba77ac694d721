"""A card decodes what the CPU has checked, bit for bit as the CPU does, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from clips import Clip, write_clip
from decoding_checks import MPEG4, VP9, build
from simulated_nvdec import EXTERNAL, INVALID_DATA, NO_MEMORY, Card, SimulatedNvdec, put_card

from arabesque.manifests.errors import ArabesqueError, MissingPackageError
from arabesque.pipeline.decoding import decoders
from arabesque.pipeline.decoding.chunks import Span
from arabesque.pipeline.decoding.decoder_pool import DecoderProcess
from arabesque.pipeline.decoding.decoders import build_decoder, check_backend
from arabesque.pipeline.decoding.nvdec_backend import NvdecDecoder
from arabesque.pipeline.decoding.planes import Planes

INTERLACED = {"options": {"flags": "+ildct+ilme", "x264-params": "tff=1:log-level=none"}}
FULL_RANGE = {"pix_fmt": "yuvj420p"}
HEVC = {"codec": "libx265", "options": {"x265-params": "log-level=none"}}
KINDS = {
    "h264.mp4": {},
    "turned.mp4": {"rotation_deg": 90},
    "full-range.mp4": FULL_RANGE,
    "interlaced.mp4": INTERLACED,
    "hevc.mp4": HEVC,
    "10-bit.mp4": {**HEVC, "pix_fmt": "yuv420p10le"},
    "vp9.webm": VP9,
    "odd.webm": {**VP9, "width_px": 257, "height_px": 193},  # cards decode no VP9 below 128 × 128
}
SIZE = {"width_px": 256, "height_px": 192}


@pytest.fixture
def nvdec(monkeypatch) -> SimulatedNvdec:
    put_card(monkeypatch)
    return SimulatedNvdec(alive=lambda: None)


def content(picture: Any) -> tuple[Any, ...]:
    if isinstance(picture, Planes):
        return picture.color, *(plane.tobytes() for plane in (picture.luma, picture.blue, picture.red))
    return (picture.tobytes(),)


def frames(decoder: Any, path: Any, wanted: Any = None, **options: Any) -> dict[int, tuple[Any, ...]]:
    metadata = options.pop("metadata", None) or decoder.probe(path)
    wanted = np.arange(metadata.num_frames) if wanted is None else np.asarray(wanted, np.int64)
    return {index: content(picture) for index, picture in decoder.frames(path, metadata, wanted, **options)}


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_pictures_equal_those_of_the_cpu_exactly(write, monkeypatch, name, planar):
    put_card(monkeypatch)
    path = write(name, num_frames=14, **KINDS[name])
    nvdec = SimulatedNvdec(lambda: None, planar)
    seen = frames(nvdec, path)
    assert nvdec.on_cpu == ""
    assert Card.num_packets >= 14
    assert seen == frames(build_decoder("pyav", lambda: None, planar=planar), path)


def test_a_card_decodes_only_files_that_the_cpu_has_decoded(write, nvdec):
    path = write("a.mp4", num_frames=20)
    metadata = nvdec.probe(path)
    everything = frames(build("pyav"), path)
    for num_checked in (0, 19):
        assert frames(nvdec, path, metadata=replace(metadata, checked_frames=num_checked)) == everything
        assert "has not yet decoded" in nvdec.on_cpu
    assert frames(nvdec, path, metadata=replace(metadata, lost_at=(7,))) == everything
    assert Card.num_packets == 0
    assert frames(nvdec, path, range(19), metadata=replace(metadata, checked_frames=19)).keys() == {*range(19)}
    assert nvdec.on_cpu == ""
    assert Card.num_packets > 0


@pytest.mark.parametrize(
    ("name", "clip", "options", "reason"),
    [
        ("a.avi", MPEG4, {}, "the pictures of mpeg4 differ from decoder to decoder"),
        ("a.mp4", INTERLACED, {"deinterlace": "bwdif"}, "the pictures are deinterlaced"),
        ("444.mp4", {"pix_fmt": "yuv444p"}, {}, "the card fails: .* frame 0 of 14 .*invalid data"),
    ],
)
def test_streams_that_a_card_cannot_decode_exactly_are_decoded_by_the_cpu(write, nvdec, name, clip, options, reason):
    path = write(name, num_frames=14, **clip)
    seen = frames(nvdec, path, **options)
    assert len(seen) == 14
    assert re.fullmatch(f"{reason}.*", nvdec.on_cpu)
    assert seen == frames(build("pyav"), path, **options)


@pytest.mark.parametrize(
    ("fails_at", "fails_with"), [(1, EXTERNAL), (2, INVALID_DATA), (9, NO_MEMORY), (20, INVALID_DATA)]
)
@pytest.mark.parametrize("wanted", [range(40), [5, 17, 39]])
def test_the_cpu_decodes_the_rest_where_the_card_fails(write, nvdec, monkeypatch, fails_at, fails_with, wanted):
    path = write("a.mp4", num_frames=40)
    monkeypatch.setattr(Card, "fails_at", fails_at)
    monkeypatch.setattr(Card, "fails_with", fails_with)
    assert frames(nvdec, path, wanted) == frames(build("pyav"), path, wanted)
    assert nvdec.on_cpu.startswith("the card fails: ")
    monkeypatch.setattr(Card, "fails_at", None)
    assert frames(nvdec, path, wanted) == frames(build("pyav"), path, wanted)
    assert nvdec.on_cpu == ""


def test_a_card_that_makes_another_picture_decodes_nothing(write, nvdec, monkeypatch):
    path = write("a.mp4", num_frames=14)
    monkeypatch.setattr(Card, "flips_bit", True)
    assert frames(nvdec, path, range(3, 14)) == frames(build("pyav"), path, range(3, 14))
    assert nvdec.on_cpu == "frame 3 of the card differs from that of the CPU"


@pytest.mark.parametrize("fails_at", [None, 60])
def test_spans_are_skipped_to(write, nvdec, monkeypatch, fails_at):
    path = write("a.mp4", num_frames=400, options={"g": "25", "bf": "2", "x264-params": "log-level=none"})
    spans, wanted = [Span(10, 20), Span(350, 370)], [*range(10, 20), *range(350, 370)]
    monkeypatch.setattr(Card, "fails_at", fails_at)
    assert frames(nvdec, path, wanted, spans=spans) == frames(build("pyav"), path, wanted, spans=spans)
    assert Card.num_packets < 200
    assert bool(nvdec.on_cpu) is (fails_at is not None)


def test_without_a_driver_or_a_card_the_error_names_the_remedy(monkeypatch):
    monkeypatch.setattr(decoders, "CARD_LIBRARIES", ("libno-such-driver.so.1",))
    with pytest.raises(MissingPackageError, match=r"libno-such-driver.*NVIDIA_DRIVER_CAPABILITIES=.*video"):
        check_backend("nvdec")
    monkeypatch.setattr(decoders, "CARD_LIBRARIES", ())
    check_backend("nvdec")
    put_card(monkeypatch)
    monkeypatch.setattr(Card, "is_there", False)
    with pytest.raises(ArabesqueError, match=r"FFmpeg cannot open the card .*nvidia-smi"):
        build_decoder("nvdec", lambda: None)


def test_a_process_states_who_has_decoded_and_cannot_state_what_was_checked(tmp_path):
    path = write_clip(tmp_path / "a.mp4", Clip(num_frames=14))
    with DecoderProcess("simulated_nvdec:NvdecInChild") as process:
        metadata = process.probe(path)
        assert metadata.checked_frames == 0
        for checked_frames, by_card in ((0, False), (14, True)):
            checked = replace(metadata, checked_frames=checked_frames)
            [chunk] = process.decode(path, checked, np.arange(14))
            assert (chunk.by_card, bool(chunk.on_cpu)) == (by_card, not by_card)
            chunk.release()


@pytest.mark.gpu
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_a_real_card_makes_the_same_pictures(write, name, planar):
    """H.264 of 10 bits is left out: the cards up to Hopper do not decode it."""
    path = write(name, **{"num_frames": 100, **SIZE, **KINDS[name]})
    nvdec = NvdecDecoder(lambda: None, planar)
    metadata = nvdec.probe(path)
    seen = frames(nvdec, path, metadata=replace(metadata, checked_frames=metadata.num_frames))
    assert nvdec.on_cpu == ""
    assert seen == frames(build_decoder("pyav", lambda: None, planar=planar), path)


@pytest.mark.gpu
def test_a_real_card_decodes_in_an_isolated_process(tmp_path):
    path = write_clip(tmp_path / "a.mp4", Clip(num_frames=100, **SIZE))
    with DecoderProcess("nvdec") as process:
        metadata = process.probe(path)
        for _ in range(3):
            for chunk in process.decode(path, replace(metadata, checked_frames=100), np.arange(100)):
                assert (chunk.by_card, chunk.on_cpu) == (True, "")
                chunk.release()
