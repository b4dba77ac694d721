"""Generated music: a chord progression with a drum on every beat, so that tempo and harmony are known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 22_050
BEATS_PER_CHORD = 4

_TRIADS = ((0, 4, 7), (-3, 0, 4), (5, 9, 12), (7, 11, 14))
"""I, vi, IV, V in semitones above the tonic."""

Sound = NDArray[np.float64]


def beat_times(duration_s: float, tempo_bpm: float, first_s: float) -> NDArray[np.float64]:
    """Beats from ``first_s`` until just before the end."""
    return np.arange(first_s, duration_s - 0.05, 60.0 / tempo_bpm)


def compose(duration_s: float, beats_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    """``float32 [samples]`` at `RATE_HZ`, in −1 … 1, with a drum on each beat and a new chord every fourth."""
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


def _add(music: Sound, start_s: float, sound: Sound) -> None:
    start = round(start_s * RATE_HZ)
    room = music[start : start + len(sound)]
    room += sound[: len(room)]


def _clock(duration_s: float) -> Sound:
    return np.arange(round(duration_s * RATE_HZ)) / RATE_HZ


def _tone(note: int, clock_s: Sound, overtones: dict[int, float]) -> Sound:
    """A MIDI note with these strengths of its multiples."""
    hertz = 440.0 * 2 ** ((note - 69) / 12)
    multiples, strengths = np.array(list(overtones)), np.array(list(overtones.values()))
    return strengths @ np.sin(2 * np.pi * hertz * multiples[:, None] * clock_s)


def _pad(note: int, duration_s: float) -> Sound:
    """A sustained tone that swells and fades, so that a change of chord makes no onset of its own."""
    clock_s = _clock(duration_s)
    return _tone(note, clock_s, {1: 1.0, 2: 0.25, 3: 0.11}) * np.sin(np.pi * clock_s / duration_s)


def _pluck(note: int, duration_s: float) -> Sound:
    clock_s = _clock(duration_s)
    return _tone(note, clock_s, {1: 1.0, 2: 0.5, 4: 0.25}) * np.exp(-6 * clock_s) * np.clip(clock_s / 0.004, 0, 1)


def _kick() -> Sound:
    """A bass drum, whose pitch falls from 180 to 48 Hz."""
    clock_s = _clock(0.18)
    return np.sin(2 * np.pi * (48 * clock_s + 4.5 * (1 - np.exp(-30 * clock_s)))) * np.exp(-18 * clock_s)


def _hiss(rng: np.random.Generator) -> Sound:
    """The drumstick: noise as long as the drum, gone after a twentieth of a second."""
    clock_s = _clock(0.18)
    return rng.standard_normal(len(clock_s)) * np.exp(-90 * clock_s)
