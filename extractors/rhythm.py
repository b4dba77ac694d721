"""Stream ``rhythm``: statistics of the music and of its synchrony with the athlete's motion; see `BLOCKS`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from .athlete_motion import MotionStatistics, athlete_in
from .curve_statistics import spread
from .music import RATE_HZ, Music, listen
from .protocol import AudioNeed, SegmentInput

Curve = NDArray[np.floating]

MAX_LAG_S = 0.5
_LAG_STEP_S = 0.02
_NOTES = ("c", "c_sharp", "d", "d_sharp", "e", "f", "f_sharp", "g", "g_sharp", "a", "a_sharp", "b")
_SPREAD = ("mean", "std", "low", "high")
_MFCC = tuple(f"mfcc_{index:02d}" for index in range(1, 14))

BLOCKS: dict[str, tuple[str, ...]] = {
    # decibels relative to full scale
    "loudness": (*_SPREAD, "silent_share"),
    "onsets": (*_SPREAD, "max", "per_second"),
    # log2 of the tempo divided by 120 beats per minute: half and double tempo are at the same distance
    "tempo": ("octaves_from_120", "regularity", "found"),
    "timbre": tuple(f"{name}_{kind}" for kind in ("mean", "std") for name in _MFCC),
    "harmony": (*_NOTES, "change"),
    # motion and onsets; lags and lateness in seconds, positive if the motion is after the music
    "synchrony": (
        "best_correlation", "best_lag", "best_lag_size", "correlation_at_once", "contrast",
        "share_at_beat_rate", "lateness", "lateness_size", "log_on_beat",
    ),
}  # fmt: skip


class Rhythm(MotionStatistics):
    """Classical music features and their synchrony with motion; see `BLOCKS`."""

    blocks = BLOCKS
    version: ClassVar[int] = 1
    audio = AudioNeed(rate_hz=RATE_HZ, channel="mean")

    def prepare(self, segment: SegmentInput) -> torch.Tensor:
        """Return the row."""
        if segment.frames is None or segment.waveform is None:
            raise ValueError(
                "rhythm: the segment has no frames or no waveform; build it as `Rhythm.frames` and `.audio` require"
            )
        music = listen(segment.waveform.cpu().numpy())  # first: another thread may compute the athlete's motion
        motion = athlete_in(segment)
        return torch.as_tensor(rhythm_features(music, motion.articulation, motion.times_s - segment.start_s))


def rhythm_features(music: Music, energy: Curve, times_s: Curve) -> NDArray[np.float32]:
    """Return the row ``float32 [dim]`` in the order of `BLOCKS`.

    Args:
        music: Curves of the segment's audio.
        energy: ``[pairs]``: motion between neighboring frames.
        times_s: ``[pairs]``: their times from the start of the audio.
    """
    duration_s = float(music.times_s[-1]) + 512 / RATE_HZ
    octaves = float(np.log2(music.tempo_bpm / 120)) if music.tempo_bpm else 0.0
    hops = 11  # a quarter of a second
    harmonic_change = np.abs(music.chroma[:, hops:] - music.chroma[:, :-hops])
    blocks: dict[str, Sequence[float]] = {
        "loudness": (*spread(music.loudness_db), float((music.loudness_db < -60).mean())),
        "onsets": (*spread(music.onset), float(music.onset.max()), len(music.onset_times_s) / duration_s),
        "tempo": (octaves, music.regularity, 1.0) if music.tempo_bpm else (0.0, 0.0, 0.0),
        "timbre": (*music.mfcc.mean(axis=1), *music.mfcc.std(axis=1)),
        "harmony": (*music.chroma.mean(axis=1), float(harmonic_change.mean()) if harmonic_change.size else 0.0),
        "synchrony": _synchrony(music, energy, times_s),
    }
    return np.concatenate([np.asarray(blocks[name], np.float64) for name in BLOCKS]).astype(np.float32)


def _synchrony(music: Music, energy: Curve, times_s: Curve) -> tuple[float, ...]:
    """Return the statistics; zeros without motion, without onsets, or for less than a second of both."""
    if len(energy) < 8 or times_s[-1] - times_s[0] < 1.0 or energy.std() < 1e-5 or music.onset.std() < 1e-3:
        return (0.0,) * len(BLOCKS["synchrony"])
    lags_s, correlations = lagged_correlation(music, energy, times_s)
    # steady motion fits at every beat: among similar correlations, the smallest lag is preferred
    best = int(np.argmax(correlations - 0.15 * np.abs(lags_s) / MAX_LAG_S))
    lag_s = float(lags_s[best])
    share, lateness_s = _at_beat_rate(music, energy, times_s)
    return (
        float(correlations[best]),
        lag_s,
        abs(lag_s),
        float(correlations[len(lags_s) // 2]),
        float(correlations[best] - correlations.mean()),
        share,
        lateness_s,
        abs(lateness_s),
        _log_on_beat(music, energy, times_s),
    )


def lagged_correlation(music: Music, energy: Curve, times_s: Curve) -> tuple[Curve, Curve]:
    """Return lags within ±`MAX_LAG_S`, and the correlation of the energy with the onsets at each lag."""
    steps = round(MAX_LAG_S / _LAG_STEP_S)
    lags_s = np.arange(-steps, steps + 1) * _LAG_STEP_S
    # onsets are short and movements take a quarter of a second: onsets are smoothed to the same width
    kernel = np.exp(-0.5 * (np.arange(-8, 9) / 3.0) ** 2)
    onset = cast("Curve", np.convolve(np.pad(music.onset, 8, mode="edge"), kernel / kernel.sum(), mode="valid"))
    heard = cast(
        "Curve", np.interp(times_s - lags_s[:, None], music.times_s, onset - onset.mean(), left=0.0, right=0.0)
    )
    moved = energy - energy.mean()
    size = np.sqrt((heard**2).sum(axis=1) * (moved**2).sum())
    return lags_s, (heard @ moved) / np.maximum(size, 1e-12)


def _at_beat_rate(music: Music, energy: Curve, times_s: Curve) -> tuple[float, float]:
    """Return the share of the energy's variance at the frequency of the beat, and its delay in seconds."""
    if music.tempo_bpm == 0:
        return 0.0, 0.0
    hertz = music.tempo_bpm / 60
    during = (music.times_s >= times_s[0]) & (music.times_s <= times_s[-1])
    swings: list[complex] = []
    for curve, at_s in ((energy, times_s), (music.onset[during], music.times_s[during])):
        window = np.hanning(len(curve) + 2)[1:-1]
        weight = window / window.sum()
        swings.append(complex(np.sum(weight * (curve - weight @ curve) * np.exp(-2j * np.pi * hertz * at_s))))
    moved, heard = swings
    lateness_s = -float(np.angle(moved * np.conj(heard))) / (2 * np.pi * hertz)
    return min(2 * abs(moved) ** 2 / float(energy.var()), 1.0), lateness_s


def _log_on_beat(music: Music, energy: Curve, times_s: Curve) -> float:
    """Return the log ratio of the energy within a quarter beat of a beat and between beats; 0 without beats."""
    if len(music.beats_s) == 0:
        return 0.0
    distance_s = np.abs(times_s[:, None] - music.beats_s).min(axis=1)
    on_beat = distance_s < 60 / music.tempo_bpm / 4
    if on_beat.all() or not on_beat.any():
        return 0.0
    floor = 0.05 * float(energy.mean())
    return float(np.log((energy[on_beat].mean() + floor) / (energy[~on_beat].mean() + floor)))
