"""The generator of synthetic routines writes videos that agree with the stated truth."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from arabesque.cli.demo_videos.figure import JOINTS, Latents, Performance, perform
from arabesque.cli.demo_videos.music import RATE_HZ, beat_times, compose
from arabesque.cli.demo_videos.routines import FPS, Routine, draw_latents, true_score, write_routine, write_routines
from arabesque.cli.demo_videos.scene import HEIGHT_PX, WIDTH_PX

FLAWLESS = Latents(amplitude=1.0, steadiness=1.0, fall_beats=(), timing_error_s=0.0)
HOPELESS = Latents(amplitude=0.0, steadiness=0.0, fall_beats=(3, 7), timing_error_s=-0.2)
TIMES_S = np.arange(9 * FPS) / FPS
BEATS_S = beat_times(9.0, 100.0, 0.4)


def dance(latents: Latents, seed: int = 0) -> Performance:
    return perform(TIMES_S, BEATS_S, latents, np.random.default_rng(seed))


def joint(performance: Performance, name: str) -> NDArray[np.float64]:
    return performance.joints[:, JOINTS.index(name)]


def decoded(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float32], float]:
    """Gray frames, their times, mono sound, and when the sound starts."""
    with av.open(str(path)) as container:
        frames = [(frame.to_ndarray(format="gray"), frame.time) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = [(frame.time, frame.to_ndarray()[0]) for frame in container.decode(audio=0)]
    assert all(time_s is not None for _, time_s in frames)
    return (
        np.stack([image for image, _ in frames]).astype(np.uint8),
        np.array([time_s for _, time_s in frames], np.float64),
        np.concatenate([samples for _, samples in sound]),
        float(sound[0][0] or 0.0),
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Routine:
    return write_routine(tmp_path_factory.mktemp("clip") / "one.mp4", seed=4, duration_s=4.0)


def test_the_clip_has_the_stated_frames_and_size(clip: Routine) -> None:
    frames, times_s, _, _ = decoded(clip.path)
    assert frames.shape == (4 * FPS, HEIGHT_PX, WIDTH_PX)
    assert times_s == pytest.approx(np.arange(4 * FPS) / FPS)
    assert frames.std() > 20
    assert np.abs(np.diff(frames.astype(int), axis=0)).mean(axis=(1, 2)).min() > 0.1


def test_the_drum_sounds_on_the_beats(clip: Routine) -> None:
    _, _, sound, start_s = decoded(clip.path)
    assert len(sound) / RATE_HZ + start_s == pytest.approx(4.0, abs=0.1)
    assert np.diff(clip.beats_s) == pytest.approx(60 / clip.tempo_bpm)
    for beat_s in clip.beats_s:
        first = round((beat_s - start_s) * RATE_HZ)
        before, after = sound[first - 900 : first - 100], sound[first : first + 800]
        assert np.abs(after).mean() > 2 * np.abs(before).mean()


def test_equal_seeds_write_equal_bytes(tmp_path: Path) -> None:
    one, again = (write_routines(tmp_path / name, 2, seed=3, duration_s=2.0) for name in ("one", "again"))
    other = write_routines(tmp_path / "other", 2, seed=5, duration_s=2.0)
    files = ["labels.csv", "routine_000.mp4", "routine_001.mp4"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == files
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert (tmp_path / "one" / name).read_bytes() != (tmp_path / "other" / name).read_bytes()
    assert [replace(routine, path=Path()) for routine in one] == [replace(routine, path=Path()) for routine in again]
    assert one[0].latents != one[1].latents != other[1].latents


def test_labels_are_the_scores_of_the_files(tmp_path: Path) -> None:
    seen: list[str] = []
    routines = write_routines(
        tmp_path, 3, seed=1, duration_s=2.0, on_written=lambda routine: seen.append(routine.video_id)
    )
    with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as file:
        labels = {row["video_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert labels == {routine.video_id: routine.score for routine in routines}
    assert seen == list(labels) == sorted(path.stem for path in tmp_path.glob("*.mp4"))
    assert all(abs(routine.score - true_score(routine.latents)) < 2.5 for routine in routines)


def test_the_score_increases_with_each_latent_variable() -> None:
    assert true_score(FLAWLESS) == 25
    assert true_score(HOPELESS) == 0
    middle = Latents(amplitude=0.5, steadiness=0.5, fall_beats=(4,), timing_error_s=0.1)
    for better in (
        replace(middle, amplitude=0.6),
        replace(middle, steadiness=0.6),
        replace(middle, fall_beats=()),
        replace(middle, timing_error_s=0.05),
    ):
        assert true_score(better) > true_score(middle)
    assert true_score(replace(middle, timing_error_s=-0.1)) == true_score(middle)


def test_latents_are_independent_and_falls_are_seen_whole() -> None:
    drawn = [draw_latents(15, np.random.default_rng(seed)) for seed in range(400)]
    table = np.array([(d.amplitude, d.steadiness, len(d.fall_beats), d.timing_error_s) for d in drawn])
    correlations = np.corrcoef(table.T) - np.eye(4)
    assert np.abs(correlations).max() < 0.15
    assert {0, 1, 2} == set(table[:, 2])
    for latents in drawn:
        assert all(3 <= beat <= 11 for beat in latents.fall_beats)
        assert all(np.diff(latents.fall_beats) >= 4)


def test_a_fall_brings_the_head_to_the_ice_and_up_again() -> None:
    heads = joint(dance(replace(FLAWLESS, fall_beats=(6,))), "head")[:, 2]
    upright = joint(dance(FLAWLESS), "head")[:, 2]
    since_s = TIMES_S - BEATS_S[6]
    lying = (since_s > 0.35) & (since_s < 0.95)
    assert heads[lying].max() < 0.4 < upright[lying].min()
    assert np.median(heads[since_s > 1.7]) > 0.75


def test_feet_stay_on_the_ice_or_above() -> None:
    performance = dance(replace(HOPELESS, fall_beats=(3, 8)))
    lowest = performance.joints[..., 2].min(axis=1)
    assert lowest.min() >= -1e-9
    assert np.median(lowest) < 0.03


def test_bones_keep_their_lengths() -> None:
    performance = dance(HOPELESS)
    for start, end in (("left_shoulder", "left_elbow"), ("right_knee", "right_foot"), ("pelvis", "neck")):
        lengths = np.linalg.norm(joint(performance, end) - joint(performance, start), axis=1)
        assert lengths == pytest.approx(lengths[0])


def test_amplitude_widens_the_movement_and_steadiness_calms_it() -> None:
    def reach(latents: Latents) -> float:
        return float(np.linalg.norm(np.diff(joint(dance(latents), "left_hand"), axis=0), axis=1).sum())

    def tremor(latents: Latents) -> float:
        path = joint(dance(latents), "left_hand") - joint(dance(latents), "neck")
        return float(np.abs(np.diff(path, 3, axis=0)).mean())

    assert reach(FLAWLESS) > 1.5 * reach(replace(FLAWLESS, amplitude=0.2))
    small = replace(FLAWLESS, amplitude=0.2)
    assert tremor(replace(small, steadiness=0.0)) > 2 * tremor(small)
    assert tremor(replace(small, steadiness=0.0)) > tremor(replace(small, steadiness=0.5)) > tremor(small)


@pytest.mark.parametrize("late_s", [-0.16, 0.0, 0.12])
def test_the_body_moves_with_the_delay_of_the_timing_error(late_s: float) -> None:
    fine_s = np.arange(900) / 100
    latents = replace(FLAWLESS, amplitude=0.4, timing_error_s=late_s)
    performance = perform(fine_s, BEATS_S, latents, np.random.default_rng(0))
    limbs = performance.joints - performance.joints[:, :1]
    speed = np.linalg.norm(np.diff(limbs, axis=0), axis=2).sum(axis=1)
    beat_s = float(np.diff(BEATS_S)[0])
    swing = (speed * np.exp(2j * np.pi * (fine_s[1:] - 0.005 - BEATS_S[0]) / beat_s)).sum()
    assert float(np.angle(swing)) / (2 * np.pi) * beat_s == pytest.approx(late_s, abs=0.03)


def test_music_stays_below_full_scale() -> None:
    music = compose(4.0, BEATS_S[BEATS_S < 3.9], np.random.default_rng(0))
    assert music.dtype == np.float32
    assert 0.3 < np.abs(music).max() < 1.0


def test_a_clip_too_short_for_music_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2 s"):
        write_routine(tmp_path / "x.mp4", seed=0, duration_s=1.0)


def test_a_fall_after_the_end_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fall_beats"):
        write_routine(tmp_path / "x.mp4", seed=0, duration_s=3.0, latents=replace(FLAWLESS, fall_beats=(40,)))
    assert not (tmp_path / "x.mp4").exists()
