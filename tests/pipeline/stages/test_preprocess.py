"""The preprocessing stage: its output depends on the pictures only, not on the form in which they arrive."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import Clip, write_clip
from fakes import stream, video

from arabesque.extractors.protocol import FrameNeed
from arabesque.manifests.streams import CenterCrop, Geometry, ShortSide, Size
from arabesque.pipeline.decoding.decoder_pool import DecoderProcess, DecoderSettings, FrameChunk
from arabesque.pipeline.items import ChunkFailure, DecodedChunk, PreprocessedChunk
from arabesque.pipeline.planning.plan import plan_video
from arabesque.pipeline.records import VideoRecord
from arabesque.pipeline.stages.preprocess import preprocess
from arabesque.pipeline.stages.transfer import Transfer

GEOMETRIES = [
    Geometry(steps=(ShortSide(short_side_px=64), CenterCrop(center_crop_px=(56, 75)), Size(size_px=(56, 56)))),
    Geometry(steps=(Size(size_px=(50, 70)),), antialias=False, interpolation="bicubic"),
    Geometry(steps=(CenterCrop(center_crop_px=(40, 40)),)),
    Geometry(steps=(Size(size_px=(48, 48)),), antialias=False, gray=True),
    Geometry(steps=()),
]


def preprocessed(path: Path, *, planar: bool, device: str = "cpu") -> list[dict[Geometry, tuple[list[int], Any]]]:
    """By window: geometry → its frames' indices and pixels; each geometry asks for every frame, the last for some."""
    streams = [
        stream(str(number), length=2, frames=FrameNeed(geometry), fps="native" if number < 4 else 5)
        for number, geometry in enumerate(GEOMETRIES)
    ]
    windows = []
    with DecoderProcess(settings=DecoderSettings(buffer_bytes=4 * 128 * 96 * 3, planar=planar)) as slot:
        probe = slot.probe(path)
        plan, _ = plan_video(VideoRecord("a", path, 1, 1, "digest", probe), streams, {})
        for window in slot.decode(path, probe, plan.wanted):
            assert (window.color is not None) == planar
            done = preprocess(Transfer(torch.device(device))(DecodedChunk(plan, window)))
            assert isinstance(done, PreprocessedChunk)
            windows.append({geometry: (where.tolist(), frames) for geometry, (where, frames) in done.frames.items()})
    return windows


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "a.mp4", Clip(num_frames=15))


def same(ours: list[Any], theirs: list[Any], within: int = 0) -> None:
    assert len(ours) == len(theirs) > 2
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys() == set(GEOMETRIES)
        for geometry, (where, frames) in one.items():
            assert where == other[geometry][0]
            torch.testing.assert_close(frames.cpu().int(), other[geometry][1].cpu().int(), rtol=0, atol=within)


def test_planes_and_rgb_give_the_same_to_the_last_bit(clip):
    same(preprocessed(clip, planar=True), preprocessed(clip, planar=False))


@pytest.mark.gpu
def test_a_gpu_gives_equal_pixels_for_both_and_those_of_the_cpu_within_a_level(clip):
    planes = preprocessed(clip, planar=True, device="cuda")
    same(planes, preprocessed(clip, planar=False, device="cuda"))
    same(planes, preprocessed(clip, planar=False), within=2)


def test_a_chunk_that_cannot_be_preprocessed_fails_and_releases_its_memory():
    plan, _ = plan_video(video(), [stream()], {})
    released: list[int] = []
    window = FrameChunk(np.arange(2), np.zeros((2, 6, 8, 5), np.uint8), None, None, 0.0, lambda: released.append(1))
    gray: Any = Geometry(steps=(), gray=True)
    plan = replace(plan, frames_by_geometry={gray: np.arange(2)})
    failure = preprocess(DecodedChunk(plan, window, torch.from_numpy(window.frames)))
    assert isinstance(failure, ChunkFailure)
    assert "must have 1 or 3 channels, not 5" in failure.reason
    assert released == [1]
