"""Rhythm features of audio and movements with known beats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from arabesque.extractors import athlete_motion
from arabesque.extractors.motion import Motion
from arabesque.extractors.music import RATE_HZ, listen
from arabesque.extractors.protocol import SegmentInput, Shared
from arabesque.extractors.rhythm import BLOCKS, Rhythm, lagged_correlation, rhythm_features

SECONDS, FPS = 4, 12
Sound = NDArray[np.float32]


def beats(tempo_bpm: float, first_s: float = 0.2) -> NDArray[np.float64]:
    return np.arange(first_s, SECONDS - 0.1, 60 / tempo_bpm)


def drum(beats_s: NDArray[np.float64]) -> Sound:
    sound = np.zeros(SECONDS * RATE_HZ, np.float32)
    clock_s = np.arange(round(0.2 * RATE_HZ)) / RATE_HZ
    stroke = np.exp(-25 * clock_s) * np.sin(2 * np.pi * 110 * clock_s)
    stroke += 0.3 * np.exp(-90 * clock_s) * np.random.default_rng(0).normal(size=len(clock_s))
    for beat_s in beats_s:
        room = sound[round(beat_s * RATE_HZ) :][: len(stroke)]
        room += 0.5 * stroke[: len(room)].astype(np.float32)
    return sound


def tone(hertz: float) -> Sound:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(SECONDS * RATE_HZ) / RATE_HZ)).astype(np.float32)


SILENCE = np.zeros(SECONDS * RATE_HZ, np.float32)
PAIR_TIMES_S = (np.arange(SECONDS * FPS) + 0.5) / FPS


def accents(beats_s: NDArray[np.float64], late_s: float) -> NDArray[np.float64]:
    """Motion energy ``[pairs]`` that swells for a fifth of a second around each beat."""
    return 0.01 + 0.05 * np.exp(-0.5 * ((PAIR_TIMES_S[:, None] - beats_s - late_s) / 0.08) ** 2).sum(axis=1)


def moves_on(beats_s: NDArray[np.float64]) -> NDArray[np.uint8]:
    """``[time, 144, 192]``: a grainy square that grows or shrinks in a sixth of a second around each beat."""
    random = np.random.default_rng(0)
    wall = random.integers(40, 110, (36, 48)).repeat(4, axis=0).repeat(4, axis=1).astype(np.uint8)
    body = random.integers(130, 255, (20, 20)).repeat(4, axis=0).repeat(4, axis=1).astype(np.uint8)
    frames = np.repeat(wall[None], SECONDS * FPS + 1, axis=0)
    for number, frame in enumerate(frames):
        done = np.clip((number / FPS - beats_s + 1 / 12) * 6, 0, 1).sum()
        up = round(6 * abs((done + 1) % 2 - 1))
        frame[30 - up : 60 - up, 50:90] = body[:30, :40]
        frame[70 + up : 100 + up, 50:90] = body[30:60, 40:]
    return frames


def test_the_athlete_is_followed_once_for_motion_and_rhythm(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    follow = athlete_motion.follow_athlete
    monkeypatch.setattr(athlete_motion, "follow_athlete", lambda *given: (calls.append(1), follow(*given))[1])
    frames = torch.from_numpy(moves_on(beats(120)))[:, None]
    times_s = tuple(number / FPS for number in range(len(frames)))
    segment = SegmentInput(0, 0.0, SECONDS, frames, times_s, torch.from_numpy(drum(beats(120))))
    motion = Motion(
        settings=Motion.Settings(short_side_px=144), weights={}, device=torch.device("cpu"), precision="float32"
    )

    together = [each.prepare(segment) for each in (motion, extractor())]
    assert len(calls) == 1
    alone = [each.prepare(replace(segment, shared=Shared())) for each in (motion, extractor())]
    assert len(calls) == 3
    assert all(map(torch.equal, together, alone))


def extractor() -> Rhythm:
    return Rhythm(
        settings=Rhythm.Settings(short_side_px=144), weights={}, device=torch.device("cpu"), precision="float32"
    )


def features(frames: NDArray[np.uint8], sound: Sound, start_s: float = 0.0) -> dict[str, float]:
    times_s = tuple(float(start_s + number / FPS) for number in range(len(frames)))
    segment = SegmentInput(
        0, start_s, start_s + SECONDS, torch.from_numpy(frames)[:, None], times_s, torch.from_numpy(sound)
    )
    rhythm = extractor()
    [row] = rhythm.forward([rhythm.prepare(segment)])
    assert row is not None
    assert row.isfinite().all()
    return dict(zip(rhythm.feature_names(), row.tolist(), strict=True))


def heard(sound: Sound, energy: NDArray[np.float64] | None = None) -> dict[str, float]:
    energy = np.zeros(len(PAIR_TIMES_S)) if energy is None else energy
    row = rhythm_features(listen(sound), energy, PAIR_TIMES_S)
    assert np.isfinite(row).all()
    return dict(zip(Rhythm.feature_names(), row.tolist(), strict=True))


def test_a_row_is_as_long_as_its_names() -> None:
    names = extractor().feature_names()
    assert len(set(names)) == len(names) == extractor().dim == sum(len(block) for block in BLOCKS.values())


@pytest.mark.parametrize("num_samples", [0, 1, 700, RATE_HZ // 2, SECONDS * RATE_HZ])
def test_silence_has_no_rhythm(num_samples: int) -> None:
    row = features(moves_on(beats(120)), SILENCE[:num_samples])
    assert row["loudness.silent_share"] == 1
    assert row["loudness.mean"] == pytest.approx(-100)
    assert row["tempo.found"] == row["onsets.per_second"] == row["harmony.change"] == 0
    assert all(value == 0 for name, value in row.items() if name.startswith("synchrony"))


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_a_segment_of_few_frames_has_music_and_no_synchrony(num_frames: int) -> None:
    row = features(moves_on(beats(120))[:num_frames], drum(beats(120)))
    assert row["tempo.found"] == 1
    assert all(value == 0 for name, value in row.items() if name.startswith("synchrony"))


def test_a_still_picture_has_no_synchrony() -> None:
    still = np.repeat(moves_on(beats(120))[:1], SECONDS * FPS + 1, axis=0)
    assert all(value == 0 for name, value in features(still, drum(beats(120))).items() if name.startswith("synchrony"))


def test_truncated_audio_gives_finite_numbers() -> None:
    for seconds in (0.05, 1.0, 2.2):
        heard(drum(beats(120))[: round(seconds * RATE_HZ)], accents(beats(120), 0.0))
    music, after = listen(drum(beats(120))[: round(2.2 * RATE_HZ)]), PAIR_TIMES_S > 2.4
    assert np.isfinite(rhythm_features(music, accents(beats(120), 0.0)[after], PAIR_TIMES_S[after])).all()


@pytest.mark.parametrize("tempo_bpm", [84, 100, 120, 132])
def test_tempo_and_onsets_are_those_of_the_drums(tempo_bpm: float) -> None:
    strokes = beats(tempo_bpm)
    row = heard(drum(strokes))
    assert row["tempo.octaves_from_120"] == pytest.approx(np.log2(tempo_bpm / 120), abs=0.08)
    assert row["tempo.regularity"] > 0.4
    assert row["onsets.per_second"] == pytest.approx(len(strokes) / SECONDS, abs=0.3)
    music = listen(drum(strokes))
    late_s = music.onset_times_s - strokes[np.abs(music.onset_times_s[:, None] - strokes).argmin(axis=1)]
    assert np.abs(late_s).max() < 0.03
    assert abs(np.median(late_s)) < 0.012
    assert np.abs(music.beats_s[:, None] - strokes).min(axis=1).max() < 0.05


def test_noise_is_less_regular_than_a_drum() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, SECONDS * RATE_HZ).astype(np.float32)
    assert heard(noise)["tempo.regularity"] < heard(drum(beats(120)))["tempo.regularity"] - 0.3


@pytest.mark.parametrize(("hertz", "note"), [(440.0, "a"), (261.63, "c"), (369.99, "f_sharp")])
def test_harmony_names_the_note(hertz: float, note: str) -> None:
    row = heard(tone(hertz))
    notes = {name.removeprefix("harmony."): value for name, value in row.items() if name.startswith("harmony.")}
    assert notes.pop("change") < 0.02
    assert notes.pop(note) > 0.95 > 0.6 > max(notes.values())


def test_a_change_of_chord_is_detected() -> None:
    halves = np.concatenate([tone(440.0)[: 2 * RATE_HZ], tone(523.25)[: 2 * RATE_HZ]])
    change = heard(halves)["harmony.change"] - heard(tone(440.0))["harmony.change"]
    # at least two of twelve notes change, which shows for a quarter of a second in four
    assert 1 < change / (2 / 12 * 0.25 / 4) < 2


def test_half_the_amplitude_is_six_decibels_less() -> None:
    loud, soft = heard(tone(440.0)), heard(tone(440.0) / 2)
    assert loud["loudness.mean"] - soft["loudness.mean"] == pytest.approx(6.02, abs=0.05)
    assert loud["timbre.mfcc_03_mean"] == pytest.approx(soft["timbre.mfcc_03_mean"], abs=0.5)


@pytest.mark.parametrize("tempo_bpm", [96, 120])
@pytest.mark.parametrize("late_s", [-0.15, 0.0, 0.15])
def test_lateness_is_the_delay_of_the_motion(tempo_bpm: float, late_s: float) -> None:
    row = heard(drum(beats(tempo_bpm)), accents(beats(tempo_bpm), late_s))
    assert row["synchrony.best_lag"] == pytest.approx(late_s, abs=0.045)
    assert row["synchrony.lateness"] == pytest.approx(late_s, abs=0.045)
    assert row["synchrony.best_lag_size"] == abs(row["synchrony.best_lag"])
    assert row["synchrony.lateness_size"] == abs(row["synchrony.lateness"])
    assert row["synchrony.best_correlation"] > 0.7
    assert row["synchrony.share_at_beat_rate"] > 0.5


@pytest.mark.parametrize("late_s", [-0.1, -0.05, 0.05, 0.1])
def test_among_similar_correlations_the_smallest_lag_is_used(late_s: float) -> None:
    """At 180 beats a minute the same movement is also a third of a second earlier or later."""
    row = heard(drum(beats(180)), accents(beats(180), late_s))
    assert row["synchrony.best_lag"] == pytest.approx(late_s, abs=0.045)


def test_motion_on_and_between_the_beats_is_distinguished() -> None:
    strokes = beats(120)
    on_beat, off_beat = (heard(drum(strokes), accents(strokes, late_s)) for late_s in (0.0, 0.25))
    assert on_beat["synchrony.correlation_at_once"] > 0.7 > -0.2 > off_beat["synchrony.correlation_at_once"]
    assert on_beat["synchrony.log_on_beat"] > 0.7 > -0.7 > off_beat["synchrony.log_on_beat"]


def test_motion_at_another_tempo_is_not_in_time() -> None:
    strokes = beats(120)
    in_time, out_of_time = heard(drum(strokes), accents(strokes, 0.0)), heard(drum(strokes), accents(beats(87), 0.0))
    assert in_time["synchrony.share_at_beat_rate"] > 4 * out_of_time["synchrony.share_at_beat_rate"]
    assert in_time["synchrony.best_correlation"] > out_of_time["synchrony.best_correlation"] + 0.3


def test_the_lag_zero_is_the_middle_of_the_correlations() -> None:
    lags_s, correlations = lagged_correlation(listen(drum(beats(120))), accents(beats(120), 0.0), PAIR_TIMES_S)
    assert lags_s[len(lags_s) // 2] == 0
    assert len(lags_s) == len(correlations)
    assert np.abs(correlations).max() <= 1 + 1e-9


@pytest.mark.parametrize("start_s", [0.0, 31.5])
def test_video_and_audio_are_aligned_in_the_row(start_s: float) -> None:
    """The row is computed from frames and samples, for a segment at any time of the video."""
    strokes = beats(120)
    in_time = features(moves_on(strokes), drum(strokes), start_s)
    late = features(moves_on(strokes + 0.15), drum(strokes), start_s)
    assert in_time["synchrony.best_lag"] == pytest.approx(0.0, abs=0.05)
    assert late["synchrony.best_lag"] == pytest.approx(0.15, abs=0.05)
    assert in_time["synchrony.correlation_at_once"] > late["synchrony.correlation_at_once"] + 0.3


@pytest.mark.parametrize("missing", ["frames", "waveform"])
def test_a_segment_without_pictures_or_sound_is_a_value_error(missing: str) -> None:
    parts = {"frames": torch.zeros(2, 1, 144, 192, dtype=torch.uint8), "waveform": torch.zeros(RATE_HZ)}
    del parts[missing]
    with pytest.raises(ValueError, match="no frames or no waveform"):
        extractor().prepare(SegmentInput(0, 0.0, 1.0, frame_times_s=(0.0, 0.1), **parts))
