"""Decoder processes that deliver luma and chroma give the same pictures as those that deliver RGB."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import Clip, write_clip
from decoding_checks import VP9
from numpy.typing import NDArray

from arabesque.pipeline.decoding.decoder_pool import DecoderProcess, DecoderSettings, FrameChunk
from arabesque.pipeline.stages.color import to_rgb

FRAME_BYTES = 128 * 96 * 3
SMALL = DecoderSettings(buffer_bytes=4 * FRAME_BYTES, planar=True)
"""Settings for chunks of four frames."""


def pictures(window: FrameChunk) -> NDArray[np.uint8]:
    """``[frames, height, width, 3]``"""
    if window.color is None:
        return window.frames.copy()
    return to_rgb(torch.from_numpy(window.frames), window.color).permute(0, 2, 3, 1).numpy()


def read(path: Path, settings: DecoderSettings, backend: str = "pyav") -> tuple[NDArray[np.uint8], list[FrameChunk]]:
    """Return all pictures and their chunks."""
    windows: list[FrameChunk] = []
    shown: list[NDArray[np.uint8]] = []
    with DecoderProcess(backend, settings) as slot:
        metadata = slot.probe(path)
        for window in slot.decode(path, metadata, np.arange(metadata.num_frames), audio_until_s=metadata.end_s):
            shown.append(pictures(window))
            windows.append(window)
            window.release()
    return np.concatenate([part for part in shown if len(part)]), windows


@pytest.mark.parametrize(
    ("name", "facts", "is_planar"),
    [
        ("a.mp4", {}, True),
        ("turned.mp4", {"rotation_deg": 90}, True),
        ("full-range.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {}}, True),
        ("a.webm", VP9, True),
        ("444.mp4", {"pix_fmt": "yuv444p"}, False),
        ("odd.webm", {**VP9, "height_px": 97}, False),
    ],
)
def test_the_pictures_are_the_same_to_the_last_bit(tmp_path, name, facts, is_planar):
    path = write_clip(tmp_path / name, Clip(num_frames=10, **facts))
    planar, windows = read(path, SMALL)
    rgb, _ = read(path, replace(SMALL, planar=False))
    assert {window.color is not None for window in windows if len(window.indices)} == {is_planar}
    assert np.array_equal(planar, rgb)


def test_decord_stays_with_rgb(tmp_path):
    pytest.importorskip("decord", reason="decord has no wheel for this platform")
    path = write_clip(tmp_path / "a.mp4", Clip(num_frames=10))
    assert {window.color for window in read(path, SMALL, "decord")[1]} == {None}


def test_each_chunk_has_one_pixel_format(tmp_path):
    path = write_clip(tmp_path / "a.mp4", Clip(num_frames=14, beeps_s=[0.2]))
    changing, windows = read(path, SMALL, "misbehaving_decoders:Changing")
    with_frames = [window for window in windows if len(window.indices)]
    assert [window.indices.tolist() for window in with_frames] == [
        [0, 1, 2, 3],
        [4, 5],
        [6, 7],
        [8],
        [9, 10, 11],
        [12, 13],
    ]
    assert [window.color is None for window in with_frames] == [False, False, True, True, False, False]
    assert np.array_equal(changing, read(path, replace(SMALL, planar=False))[0])
    heard = sum(window.audio.samples.shape[1] for window in windows if window.audio is not None)
    assert heard == round(14 / 25 * 44100)
