"""Generated music with known tempo and harmony: a chord progression with a drum on every beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 22_050
BEATS_PER_CHORD = 4

_TRIADS = ((0, 4, 7), (-3, 0, 4), (5, 9, 12), (7, 11, 14))
"""I, vi, IV, V in semitones above the tonic."""

Audio = NDArray[np.float64]


def beat_times(duration_s: float, tempo_bpm: float, first_s: float) -> NDArray[np.float64]:
    """Return the times of the beats in seconds, from ``first_s`` to 0.05 s before the end."""
    return np.arange(first_s, duration_s - 0.05, 60.0 / tempo_bpm)


def compose(duration_s: float, beats_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return ``float32 [samples]`` at `RATE_HZ`, in −1 … 1: a drum on each beat and a new chord every fourth beat."""
    music = np.zeros(round(duration_s * RATE_HZ))
    tonic = int(rng.integers(48, 60))
    beat_s = float(np.diff(beats_s).mean())
    for index, start_s in enumerate(beats_s):
        triad = _TRIADS[index // BEATS_PER_CHORD % len(_TRIADS)]
        if index % BEATS_PER_CHORD == 0:
            for step in triad:
                _add(music, start_s, 0.07 * _pad(tonic + step, BEATS_PER_CHORD * beat_s))
        _add(music, start_s, 0.11 * _pluck(tonic + 12 + triad[int(rng.integers(3))], beat_s))
        _add(music, start_s, 0.10 * _pluck(tonic - 12 + triad[0], beat_s))
        _add(music, start_s, 0.42 * _kick() + 0.06 * _hiss(rng))
    return np.clip(music, -1.0, 1.0).astype(np.float32)


def _add(music: Audio, start_s: float, audio: Audio) -> None:
    start = round(start_s * RATE_HZ)
    target = music[start : start + len(audio)]
    target += audio[: len(target)]


def _clock(duration_s: float) -> Audio:
    return np.arange(round(duration_s * RATE_HZ)) / RATE_HZ


def _tone(note: int, clock_s: Audio, overtones: dict[int, float]) -> Audio:
    """Synthesize a MIDI note; ``overtones`` maps frequency multiples to amplitudes."""
    hertz = 440.0 * 2 ** ((note - 69) / 12)
    multiples, strengths = np.array(list(overtones)), np.array(list(overtones.values()))
    return strengths @ np.sin(2 * np.pi * hertz * multiples[:, None] * clock_s)


def _pad(note: int, duration_s: float) -> Audio:
    """Synthesize a sustained tone that fades in and out, so that a change of chord does not create an onset."""
    clock_s = _clock(duration_s)
    return _tone(note, clock_s, {1: 1.0, 2: 0.25, 3: 0.11}) * np.sin(np.pi * clock_s / duration_s)


def _pluck(note: int, duration_s: float) -> Audio:
    clock_s = _clock(duration_s)
    return _tone(note, clock_s, {1: 1.0, 2: 0.5, 4: 0.25}) * np.exp(-6 * clock_s) * np.clip(clock_s / 0.004, 0, 1)


def _kick() -> Audio:
    """Synthesize a bass drum whose pitch falls from 180 to 48 Hz."""
    clock_s = _clock(0.18)
    return np.sin(2 * np.pi * (48 * clock_s + 4.5 * (1 - np.exp(-30 * clock_s)))) * np.exp(-18 * clock_s)


def _hiss(rng: np.random.Generator) -> Audio:
    """Synthesize the attack of the drum: noise that decays within about 0.05 s."""
    clock_s = _clock(0.18)
    return rng.standard_normal(len(clock_s)) * np.exp(-90 * clock_s)
