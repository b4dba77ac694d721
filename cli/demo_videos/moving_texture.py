"""Benchmark video with a realistic load for decoders and networks: a moving textured plane with audio.

It does not show an athlete; `routines` generates skating videos.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 44100
NOISE = 2.0
"""Standard deviation of the noise of each frame in levels, similar to a camera."""


def write_moving_texture(
    path: Path, *, duration_s: float, fps: int = 25, width_px: int = 1280, height_px: int = 720, seed: int = 0
) -> None:
    """Write a video with H.264 and AAC in MP4; width and height must be even."""
    import av

    rng = np.random.default_rng(seed)
    canvas = _texture(2 * height_px, 2 * width_px, rng)
    noise = rng.normal(0, NOISE, (8, height_px, width_px, 1)).astype(np.int16)
    output: Any = av.open(str(path), "w", format="mp4")  # PyAV's types of streams are incomplete
    with output as container:
        video = container.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": "23"})
        video.width, video.height, video.pix_fmt = width_px, height_px, "yuv420p"
        audio = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        for index in range(round(duration_s * fps)):
            top, left = (int(size / 2 * (1 + np.sin(index / slow))) for size, slow in ((height_px, 31), (width_px, 23)))
            view = canvas[top : top + height_px, left : left + width_px] + noise[index % len(noise)]
            frame = av.VideoFrame.from_ndarray(view.clip(0, 255).astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        samples = av.AudioFrame.from_ndarray(_beats(duration_s, rng)[None], format="fltp", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
        container.mux(audio.encode(samples))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def _texture(height_px: int, width_px: int, rng: np.random.Generator) -> NDArray[np.int16]:
    """Return ``int16 [height, width, 3]``: random detail of 4 to 64 px."""
    total = np.full((height_px, width_px, 3), 128.0, np.float32)
    for size_px in (4, 16, 64):
        coarse = rng.normal(0, 25, (height_px // size_px + 1, width_px // size_px + 1, 3)).astype(np.float32)
        total += coarse.repeat(size_px, axis=0).repeat(size_px, axis=1)[:height_px, :width_px]
    return total.astype(np.int16)


def _beats(duration_s: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return ``float32 [samples]``: a tone and two beats per second."""
    times_s = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    beat = np.exp(-30 * (times_s % 0.5)) * rng.normal(0, 0.3, len(times_s))
    return (0.1 * np.sin(2 * np.pi * 220 * times_s) + beat).clip(-1, 1).astype(np.float32)
