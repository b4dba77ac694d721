"""Short synthetic skating videos with scores, for `arabesque demo` and for tests that need known beats.

A synthetic skater moves to generated music. The score is `true_score` of four latent variables plus a small noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .figure import Latents, perform
from .music import RATE_HZ, beat_times, compose
from .scene import HEIGHT_PX, WIDTH_PX, draw

FPS = 25
MAX_SCORE = 25.0
MAX_TIMING_ERROR_S = 0.2
"""Less than half a beat, so that late and early are distinguishable."""
JUDGE_NOISE = 0.4
"""Standard deviation of the noise, in points."""

_BEATS_OF_FALL = 4
"""Falling, lying and rising take 1.6 s; at the fastest tempo that is nearly four beats."""


@dataclass(frozen=True)
class Routine:
    """A written clip and its ground truth."""

    video_id: str
    path: Path
    score: float
    latents: Latents
    tempo_bpm: float
    beats_s: tuple[float, ...]
    """Times of the drum beats."""
    duration_s: float


def true_score(latents: Latents) -> float:
    """Return the score without noise, 0 … 25."""
    lateness = min(abs(latents.timing_error_s) / MAX_TIMING_ERROR_S, 1.0)
    points = 6 + 7 * latents.amplitude + 5 * latents.steadiness + 7 * (1 - lateness)
    return float(np.clip(points - 3 * len(latents.fall_beats), 0, MAX_SCORE))


def draw_latents(num_beats: int, rng: np.random.Generator) -> Latents:
    """Draw independent latents of a routine with this number of beats."""
    num_falls = int(rng.choice(3, p=(0.6, 0.25, 0.15)))
    # falls are separated from each other and from both ends, so that each is fully visible
    possible_beats = np.arange(3, num_beats - _BEATS_OF_FALL + 1, _BEATS_OF_FALL)
    falls = rng.choice(possible_beats, size=min(num_falls, len(possible_beats)), replace=False)
    return Latents(
        amplitude=float(rng.random()),
        steadiness=float(rng.random()),
        fall_beats=tuple(sorted(int(beat) for beat in falls)),
        timing_error_s=float(rng.uniform(-MAX_TIMING_ERROR_S, MAX_TIMING_ERROR_S)),
    )


def write_routines(
    folder: Path,
    count: int = 36,
    seed: int = 0,
    *,
    duration_s: float = 9.0,
    num_threads: int = 2,
    on_written: Callable[[Routine], None] | None = None,
) -> list[Routine]:
    """Write ``routine_000.mp4`` … and ``labels.csv`` (``video_id,score``). Equal arguments give identical files.

    Args:
        folder: Output folder; created if it does not exist.
        count: Number of videos.
        seed: Seed of all videos.
        duration_s: Duration of each video, at least 2 s.
        num_threads: Number of videos that are written in parallel.
        on_written: Called with each video after it is written.

    Returns:
        The videos with their ground truth.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def write(index: int) -> Routine:
        return write_routine(folder / f"routine_{index:03d}.mp4", seed=(seed, index), duration_s=duration_s)

    routines: list[Routine] = []
    with ThreadPoolExecutor(num_threads) as pool:
        for routine in pool.map(write, range(count)):
            routines.append(routine)
            if on_written is not None:
                on_written(routine)
    lines = ["video_id,score", *(f"{routine.video_id},{routine.score:.2f}" for routine in routines)]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return routines


def write_routine(
    path: Path, seed: int | tuple[int, ...], *, duration_s: float = 9.0, latents: Latents | None = None
) -> Routine:
    """Write one clip. The seed determines music, choreography and appearance, and the latents if none are given."""
    if duration_s < 2:
        raise ValueError(f"duration_s ({duration_s}) is too short; give at least 2 s")
    music_rng, latent_rng, body_rng, scene_rng = np.random.default_rng(seed).spawn(4)
    tempo_bpm = float(music_rng.uniform(92, 132))
    beats_s = beat_times(duration_s, tempo_bpm, first_s=float(music_rng.uniform(0.25, 0.5)))
    drawn = draw_latents(len(beats_s), latent_rng)  # drawn in any case, so that later draws are the same
    latents = latents or drawn
    if any(not 0 <= beat < len(beats_s) for beat in latents.fall_beats):
        raise ValueError(f"fall_beats {latents.fall_beats} are out of range; give beats 0 … {len(beats_s) - 1}")
    noise = float(latent_rng.normal(0, JUDGE_NOISE))

    times_s = np.arange(round(duration_s * FPS)) / FPS
    performance = perform(times_s, beats_s, latents, body_rng)
    music = compose(duration_s, beats_s, music_rng)
    encode(path, draw(performance, FPS, scene_rng), music, (WIDTH_PX, HEIGHT_PX))
    return Routine(
        video_id=path.stem,
        path=path,
        score=round(float(np.clip(true_score(latents) + noise, 0, MAX_SCORE)), 2),
        latents=latents,
        tempo_bpm=tempo_bpm,
        beats_s=tuple(float(beat) for beat in beats_s),
        duration_s=duration_s,
    )


def encode(
    path: Path, frames: Iterable[NDArray[np.uint8]], music: NDArray[np.float32] | None, size_px: tuple[int, int]
) -> None:
    """Encode H.264 and AAC in MP4. One thread, because x264 with several threads is not deterministic.

    Args:
        path: The file to write.
        frames: RGB frames ``uint8 [height, width, 3]``, `FPS` of them per second.
        music: ``float32 [samples]`` at `RATE_HZ`; None for a file without audio.
        size_px: Width and height.
    """
    import av

    output: Any = av.open(str(path), "w", format="mp4")  # PyAV's types of streams are incomplete
    with output as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "22", "threads": "1"})
        video.width, video.height = size_px
        video.pix_fmt = "yuv420p"
        audio = None
        if music is not None:
            audio = container.add_stream("aac", rate=RATE_HZ, layout="mono", options={"b": "96k"})
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(frame))
        if audio is not None and music is not None:
            samples = av.AudioFrame.from_ndarray(music[None], format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
            container.mux(audio.encode(samples))
        container.mux(video.encode(None))
        if audio is not None:
            container.mux(audio.encode(None))
