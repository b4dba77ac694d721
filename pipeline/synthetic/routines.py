"""Short synthetic routines with scores: what `arabesque demo` learns from, and clips whose every beat is known.

A drawn skater moves to generated music. The score follows from four latents by `true_score`, but for a judge's small
noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .figure import Latents, perform
from .music import RATE_HZ, beat_times, compose
from .scene import HEIGHT_PX, WIDTH_PX, draw

FPS = 25
MAX_SCORE = 25.0
WORST_TIMING_S = 0.2
"""Less than half a beat, so that late never looks like early."""
JUDGE_NOISE = 0.4
"""Standard deviation."""

_BEATS_OF_FALL = 4
"""Falling, lying and rising take 1.6 s; at the fastest tempo that is nearly four beats."""


@dataclass(frozen=True)
class Routine:
    """One written clip and all that is known of it."""

    video_id: str
    path: Path
    score: float
    latents: Latents
    tempo_bpm: float
    beats_s: tuple[float, ...]
    """When the drum sounds."""
    duration_s: float


def true_score(latents: Latents) -> float:
    """What a judge without noise gives, 0 … 25."""
    lateness = min(abs(latents.timing_error_s) / WORST_TIMING_S, 1.0)
    earned = 6 + 7 * latents.amplitude + 5 * latents.steadiness + 7 * (1 - lateness)
    return float(np.clip(earned - 3 * len(latents.fall_beats), 0, MAX_SCORE))


def draw_latents(num_beats: int, rng: np.random.Generator) -> Latents:
    """Latents of a routine with this many beats, each independent of the others."""
    num_falls = int(rng.choice(3, p=(0.6, 0.25, 0.15)))
    # apart from one another and from both ends, so that each fall is seen whole
    slots = np.arange(3, num_beats - _BEATS_OF_FALL + 1, _BEATS_OF_FALL)
    falls = rng.choice(slots, size=min(num_falls, len(slots)), replace=False)
    return Latents(
        amplitude=float(rng.random()),
        steadiness=float(rng.random()),
        fall_beats=tuple(sorted(int(beat) for beat in falls)),
        timing_error_s=float(rng.uniform(-WORST_TIMING_S, WORST_TIMING_S)),
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
    """Write ``routine_000.mp4`` … and ``labels.csv`` (``video_id,score``); equal arguments write equal files."""
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
    """Write one clip; the seed chooses music, choreography and looks, and the latents unless they are given."""
    if duration_s < 2:
        raise ValueError(f"a routine of {duration_s} s has no rhythm; ask for at least 2 s")
    music_rng, latent_rng, body_rng, scene_rng = np.random.default_rng(seed).spawn(4)
    tempo_bpm = float(music_rng.uniform(92, 132))
    beats_s = beat_times(duration_s, tempo_bpm, first_s=float(music_rng.uniform(0.25, 0.5)))
    own = draw_latents(len(beats_s), latent_rng)
    latents = latents or own
    if any(not 0 <= beat < len(beats_s) for beat in latents.fall_beats):
        raise ValueError(f"falls on beats {latents.fall_beats}, but {duration_s} s have beats 0 … {len(beats_s) - 1}")
    noise = float(latent_rng.normal(0, JUDGE_NOISE))

    times_s = np.arange(round(duration_s * FPS)) / FPS
    performance = perform(times_s, beats_s, latents, body_rng)
    music = compose(duration_s, beats_s, music_rng)
    _encode(path, draw(performance, FPS, scene_rng), music)
    return Routine(
        video_id=path.stem,
        path=path,
        score=round(float(np.clip(true_score(latents) + noise, 0, MAX_SCORE)), 2),
        latents=latents,
        tempo_bpm=tempo_bpm,
        beats_s=tuple(float(beat) for beat in beats_s),
        duration_s=duration_s,
    )


def _encode(path: Path, frames: Iterator[NDArray[np.uint8]], music: NDArray[np.float32]) -> None:
    """H.264 and AAC in MP4; one thread, because with several x264 need not write the same bytes twice."""
    import av

    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "22", "threads": "1"})
        video.width, video.height, video.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        audio = container.add_stream("aac", rate=RATE_HZ, layout="mono", options={"b": "96k"})
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(frame))
        sound = av.AudioFrame.from_ndarray(music[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
        container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
