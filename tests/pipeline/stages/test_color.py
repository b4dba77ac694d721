"""Conversion of luma and chroma to RGB, bit-identical to PyAV's swscale."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from platform import machine
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter
from clips import Clip, write_clip

from arabesque.pipeline.decoding.planes import planes_of
from arabesque.pipeline.stages.color import to_rgb

pytestmark = pytest.mark.skipif(machine() not in ("x86_64", "AMD64"), reason="swscale rounds otherwise there")

VIDEOS = Path(__file__).resolve().parents[4] / "shared" / "videos"
MATRICES = {"bt709": 1, "unspecified": 2, "fcc": 4, "bt470bg": 5, "smpte170m": 6, "smpte240m": 7, "bt2020": 9}
LIMITED, FULL = 1, 2


def noise(pix_fmt: str, size: tuple[int, int], matrix: int = 2, color_range: int = 0) -> av.VideoFrame:
    """Return a frame with every value of luma and chroma, including those outside of the video range."""
    frame = av.VideoFrame(*size, pix_fmt)
    rng = np.random.default_rng(0)
    for plane in frame.planes:
        plane.update(rng.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
    frame.colorspace, frame.color_range = matrix, color_range
    return frame


def differences(frame: av.VideoFrame, rotation_deg: int = 0) -> np.ndarray[Any, Any]:
    """Return the difference between swscale's RGB and ours, ``[height, width, 3]``."""
    planes = planes_of(frame, rotation_deg)
    assert planes is not None
    height, width = planes.luma.shape
    target = np.zeros((1, height * 3 // 2, width), np.uint8)
    planes.write_to(target[0])
    ours = to_rgb(torch.from_numpy(target), planes.color)[0].permute(1, 2, 0).numpy()
    stored: Any = VideoReformatter().reformat(frame, format="rgb24", threads=1).to_ndarray()
    return np.abs(ours.astype(int) - np.rot90(stored, rotation_deg // 90))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p"])
@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
@pytest.mark.parametrize("color_range", [0, LIMITED, FULL])
def test_every_matrix_and_range_is_swscales(pix_fmt, matrix, color_range):
    assert differences(noise(pix_fmt, (512, 256), matrix, color_range)).max() == 0


@pytest.mark.parametrize("size", [(2, 2), (6, 4), (130, 98), (518, 496), (1280, 720)])
def test_every_even_size_is_swscales(size):
    assert differences(noise("yuv420p", size)).max() == 0


@pytest.mark.parametrize("rotation_deg", [90, 180, 270])
def test_rotated_pictures_are_swscales(rotation_deg):
    assert differences(noise("yuv420p", (130, 98)), rotation_deg).max() == 0


@pytest.mark.parametrize(("height", "has_planes"), [(96, True), (98, False)])
def test_interlaced_pictures_are_swscales(tmp_path, height, has_planes):
    """Each field has separate chroma."""
    options = {"flags": "+ildct+ilme", "b": "3M"}
    clip = Clip(num_frames=6, width_px=130, height_px=height, codec="mpeg2video", options=options)
    path = write_clip(tmp_path / "a.mpg", clip)
    with av.open(path) as container:
        for frame in container.decode(video=0):
            assert frame.interlaced_frame
            assert planes_of(frame, 90) is None
            if has_planes:
                assert differences(frame).max() == 0
            else:
                assert planes_of(frame, 0) is None


def test_matrices_and_ranges_make_a_difference():
    """The first test is meaningful only if they do."""
    ours = planes_of(noise("yuv420p", (64, 64), MATRICES["bt709"]), 0)
    theirs = planes_of(noise("yuvj420p", (64, 64), MATRICES["smpte170m"]), 0)
    assert ours is not None
    assert theirs is not None
    assert ours.color != theirs.color
    planes = torch.randint(0, 256, (2, 96, 64), dtype=torch.uint8)
    assert (to_rgb(planes, ours.color).int() - to_rgb(planes, theirs.color)).abs().max() > 20


@pytest.mark.parametrize(
    ("pix_fmt", "size", "matrix"),
    [
        ("yuv444p", (64, 48), 2),
        ("yuv422p", (64, 48), 2),
        ("yuv420p10le", (64, 48), 2),
        ("rgb24", (64, 48), 2),
        ("yuv420p", (64, 49), 2),
        ("yuv420p", (65, 48), 2),
        ("yuv420p", (64, 48), 8),
    ],
)
def test_other_pixel_formats_have_no_planes(pix_fmt, size, matrix):
    assert planes_of(noise(pix_fmt, size, matrix), 0) is None


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="needs the real clips of ../shared")
@pytest.mark.parametrize("path", sorted(VIDEOS.glob("*")), ids=lambda path: path.stem)
def test_real_clips_are_swscales(path):
    with av.open(path) as container:
        for frame in islice(container.decode(video=0), 0, 60, 20):
            assert differences(frame).max() == 0
