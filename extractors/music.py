"""Music features of a segment's audio: curves by librosa, tempo and beats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .compiled_code import alone_on_first_use

RATE_HZ = 22_050
_HOP = 512
_WINDOW = 2048
_ONSET_DELAY_S = 0.025
"""Delay of librosa's onset strength after a drum beat, measured; it does not depend on the tempo."""

Curve = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Music:
    """Curves of a segment's audio, with one value every 23 ms."""

    times_s: Curve
    """``[hops]``, from the start of the audio"""
    onset: Curve
    """``[hops]``: onset strength (spectral flux)"""
    onset_times_s: Curve
    """Times of the detected onsets"""
    loudness_db: Curve
    """``[hops]``, relative to full scale; silence is −100"""
    mfcc: Curve
    """``[13, hops]``"""
    chroma: Curve
    """``[12, hops]`` from C to B; the maximum of each hop is 1, or 0 in silence"""
    tempo_bpm: float
    """Tempo; 0 without onsets"""
    regularity: float
    """Autocorrelation of the onset strength at one beat, −1 … 1"""
    beats_s: Curve
    """Times of the beats"""


@alone_on_first_use("librosa")
def listen(waveform: NDArray[np.float32]) -> Music:
    """Compute the curves of ``waveform [samples]`` at `RATE_HZ`. A very short waveform is padded with silence."""
    import librosa

    sound = np.pad(waveform, (0, max(0, _WINDOW - len(waveform))))
    power = np.abs(librosa.stft(sound, n_fft=_WINDOW, hop_length=_HOP)) ** 2
    mel_db: NDArray[np.float32] = librosa.power_to_db(  # pyright: ignore[reportUnknownMemberType]
        librosa.feature.melspectrogram(S=power, sr=RATE_HZ)
    )
    onset = librosa.onset.onset_strength(S=mel_db, sr=RATE_HZ, hop_length=_HOP)  # pyright: ignore[reportUnknownMemberType]
    rms = librosa.feature.rms(S=np.sqrt(power), frame_length=_WINDOW)[0]
    tempo_bpm, regularity, beats = _beat(onset)
    return Music(
        times_s=np.arange(len(onset)) * (_HOP / RATE_HZ) - _ONSET_DELAY_S,
        onset=onset.astype(np.float64),
        onset_times_s=librosa.onset.onset_detect(onset_envelope=onset, sr=RATE_HZ, hop_length=_HOP, units="time")
        - _ONSET_DELAY_S,
        loudness_db=20 * np.log10(np.maximum(rms.astype(np.float64), 1e-5)),
        mfcc=librosa.feature.mfcc(S=mel_db, sr=RATE_HZ, n_mfcc=13).astype(np.float64),
        # estimating the tuning for each segment takes ten times as long as the chroma itself
        chroma=librosa.feature.chroma_stft(S=power, sr=RATE_HZ, tuning=0.0).astype(np.float64),
        tempo_bpm=tempo_bpm,
        regularity=regularity,
        beats_s=beats * (_HOP / RATE_HZ) - _ONSET_DELAY_S,
    )


def _beat(onset: NDArray[np.float32]) -> tuple[float, float, Curve]:
    """Return tempo, regularity, and beats in hops; zeros for less than two seconds."""
    import librosa

    if len(onset) * _HOP < 2 * RATE_HZ or float(onset.max()) < 1e-3:
        return 0.0, 0.0, np.zeros(0)
    tempo = float(librosa.feature.tempo(onset_envelope=onset, sr=RATE_HZ, hop_length=_HOP, ac_size=4.0)[0])
    centered = onset - onset.mean()
    alike = librosa.autocorrelate(centered)
    hops = 60.0 * RATE_HZ / (tempo * _HOP)
    regularity = float(np.interp(hops, np.arange(len(alike)), alike) / alike[0])
    with alone_on_first_use("librosa.beat"):
        _, beats = librosa.beat.beat_track(onset_envelope=onset, sr=RATE_HZ, hop_length=_HOP, bpm=tempo, trim=False)
    return tempo, regularity, beats.astype(np.float64)
