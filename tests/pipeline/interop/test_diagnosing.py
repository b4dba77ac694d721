"""Each cause is simulated and must be diagnosed, and must not be diagnosed for another cause."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from arabesque.pipeline.interop.diagnosing import diagnose, diagnose_together
from arabesque.pipeline.interop.row_distances import cosines, relative_error

DIM = 24
LENGTH = 32
NUM_FRAMES = 40 * LENGTH + 14


def frames(seed: int = 0) -> NDArray[np.float64]:
    """Return the appearance of a video, ``[frames, DIM]``: slow movements of many speeds around a constant scene."""
    rng = np.random.default_rng(seed)
    time = np.arange(NUM_FRAMES)[:, None] / LENGTH
    waves = [
        rng.normal(size=DIM) * np.sin(2 * np.pi * (time * rng.uniform(0.02, 0.2) + rng.uniform(size=DIM)))
        for _ in range(12)
    ]
    return rng.normal(size=DIM) * 3 + np.sum(waves, axis=0)


def network(video: NDArray[np.float64], length: int = LENGTH, first: int = 0, step: int | None = None) -> NDArray:
    """Return features ``float32 [segments, DIM]``: means over frames, with a nonlinearity like that of a network."""
    step = step or length
    starts = range(first, len(video) - length + 1, step)
    return np.stack([np.tanh(video[start : start + length].mean(axis=0) / 4) for start in starts]).astype(np.float32)


A = network(frames())
RNG = np.random.default_rng(1)
NOISE = RNG.normal(size=(40, DIM))
LEVELS = RNG.integers(0, 6, size=(40, DIM)).astype(np.float64)
GRID = 2 / 255


def quantized(values: NDArray, bound: float = 1.0) -> NDArray:
    return (np.clip(np.round((values + bound) / (2 * bound) * 255), 0, 255) / 255 * 2 * bound - bound).astype(
        np.float32
    )


DIFFERENCES: dict[str, tuple[str, NDArray, NDArray]] = {
    "late by 2": ("lag", A[2:], A[:-2]),
    "early by 1": ("lag", A[:-1], A[1:]),
    "middle crop": ("lag", A, A[5:30]),
    "late by 1, other decoder": ("lag", A[1:], (A[:-1] + RNG.normal(size=A[1:].shape) * 0.01).astype(np.float32)),
    "half of the remainder at the start": ("remainder", A, network(frames(), first=7)),
    "half of the remainder, the other way": ("remainder", network(frames(), first=7), A),
    "a padded last segment": ("remainder", A, np.concatenate([A, A[-1:] * 0.7])),
    "first 30 only": ("truncated", A, A[:30]),
    "first 25 only, other decoder": ("truncated", NOISE, NOISE[:25] + RNG.normal(size=(25, DIM)) * 0.3),
    "16 frames a segment": ("frame-rate", A, network(frames(), length=16)),
    "every 80 frames": ("frame-rate", A, network(frames(), length=80)),
    "overlapping segments": ("frame-rate", network(frames(), step=20), A),
    "unit length": ("normalization", A, A / np.linalg.norm(A, axis=1, keepdims=True)),
    "twice as large": ("normalization", A, A * 2),
    "other statistics": ("normalization", A, (A - RNG.normal(size=DIM)) / RNG.uniform(0.3, 3, size=DIM)),
    "other statistics, with noise": (
        "normalization",
        A,
        (A - 0.45) / 0.225 + RNG.normal(size=A.shape) * 0.02,
    ),
    "an offset": ("constant-offset", A, A + 0.01 * RNG.normal(size=DIM)),
    "an offset, with noise": ("constant-offset", A, A + 0.01 * RNG.normal(size=DIM) + RNG.normal(size=A.shape) * 1e-3),
    "8 bits": ("quantization", A, quantized(A)),
    "8 bits on our side": ("quantization", quantized(A), A),
    "8 bits with the zero at 128": ("quantization", A, quantized(A) + GRID / 2),
    "half precision": ("float16", A, A.astype(np.float16).astype(np.float32)),
    "half precision on our side": ("float16", A.astype(np.float16), A),
    "another library": ("arithmetic", A, (A * (1 + RNG.uniform(-4e-4, 4e-4, size=A.shape))).astype(np.float32)),
    "a network in half precision": ("arithmetic", A, A + NOISE * 0.005),
    "two halves": ("halves", np.stack([A - 0.1, A + 0.1], axis=1), A),
    "two halves, listed": ("halves", A.reshape(-1, 2, DIM), A),
    "another network": ("unexplained", A, network(frames(9))),
    "another video, longer": ("unexplained", A, network(frames(9), length=20)),
    "noise": ("unexplained", A, A + RNG.normal(size=A.shape) * 0.1),
    "noise on another grid": ("unexplained", RNG.normal(size=(40, DIM)), RNG.normal(size=(25, DIM))),
    "half precision, and noise": ("unexplained", A.astype(np.float16), A + RNG.normal(size=A.shape) * 0.1),
    "8 bits of another network": ("unexplained", quantized(A), network(frames(9))),
    "even levels of its own, and noise": ("unexplained", LEVELS, LEVELS + RNG.normal(size=LEVELS.shape) * 0.1),
    "uneven levels": ("unexplained", LEVELS**1.5, LEVELS**1.5 + RNG.normal(size=LEVELS.shape) * 0.3),
    "turned round, each row by a factor": ("normalization", NOISE, -NOISE * RNG.lognormal(sigma=1.2, size=(40, 1))),
    "another layer": ("other-dim", A, A[:, :10]),
    "not a number": ("not-finite", A, np.where(np.arange(DIM) == 3, np.nan, A)),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_cause_is_named(name: str):
    cause, a, b = DIFFERENCES[name]
    found = diagnose(a, b)
    assert found.cause == cause, found.sentence


def test_sentences_state_direction_and_amount():
    says = {name: diagnose(a, b).sentence for name, (_, a, b) in DIFFERENCES.items()}
    assert says["late by 2"].startswith("B is 2 segments late")
    assert says["early by 1"].startswith("A is 1 segment late")
    shift = re.match(
        r"B's segments begin about (\S+) of a segment after A's", says["half of the remainder at the start"]
    )
    assert float(shift[1]) == pytest.approx(7 / 32, rel=0.3)  # 7 frames of 32
    assert says["half of the remainder, the other way"].startswith("A's segments begin")
    assert "B has one segment more" in says["a padded last segment"]
    assert "B ends 10 segments before A" in says["first 30 only"]
    assert says["first 25 only, other decoder"].startswith("B ends 15 segments before A")
    assert "ratio 0.5" in says["16 frames a segment"]
    assert "each row of B" in says["unit length"]
    assert "multiplied by 2 to 2" in says["twice as large"]
    assert "step 0.00784" in says["8 bits"]
    assert says["half precision"].startswith("B has the values")
    assert says["half precision on our side"].startswith("A has the values")
    assert says["two halves"].startswith("A has 2 vectors for each segment")


def through_a_network(a: NDArray, others: NDArray, share: float, seed: int = 3) -> NDArray:
    """Return features as after another normalization of the input, which is not only a scale and a shift."""
    rng = np.random.default_rng(seed)
    shift = rng.normal(size=DIM) * 0.5
    return (0.8 * a + shift + share * (others - others.mean(axis=0))).astype(np.float32)


def test_a_normalization_that_explains_most_is_named_with_its_share():
    """I3D on real clips, ImageNet's statistics for ½: a scale and a shift explain .83 of the difference."""
    rows = RNG.normal(size=(40, DIM)) * 0.3
    found = diagnose(rows, through_a_network(rows, RNG.normal(size=(40, DIM)) * 0.3, 0.9))
    assert found.cause == "normalization"
    share = float(re.search(r"explain (\d+)%", found.sentence)[1])
    assert 70 < share < 90
    videos = [RNG.normal(size=(20, DIM)) * 0.3 for _ in range(6)]  # each with a scale and a shift of its own
    pairs = [(a, through_a_network(a, RNG.normal(size=a.shape) * 0.3, 0.8, seed)) for seed, a in enumerate(videos)]
    assert diagnose_together(pairs).cause == "normalization"
    moved = through_a_network(rows[RNG.permutation(40)], rows, 0.0)  # other moments: the shift alone explains as much
    assert diagnose(rows, moved).cause in ("constant-offset", "unexplained")


def test_a_shift_is_found_in_features_that_jump_from_segment_to_segment():
    """Real features are nearly white in time: a shifted row shares only its part of the frames with its neighbor."""
    rng = np.random.default_rng(4)
    video = rng.normal(size=(81 * 8, 256))
    plain = network(video[:640], length=8)
    shifted = network(video[2:642], length=8)
    assert diagnose(plain, shifted).cause == "remainder"
    decoded = (plain + rng.normal(size=plain.shape) * 0.05).astype(np.float32)
    assert diagnose(plain, decoded).cause == "unexplained"  # the same moments with noise


@pytest.mark.parametrize("num_segments", [1, 2, 3, 5, 8])
def test_few_segments_of_noise_are_never_explained(num_segments: int):
    """As many parameters as numbers explain everything, which must not give a diagnosis."""
    rng = np.random.default_rng(num_segments)
    names = {
        diagnose(rng.normal(size=(num_segments, DIM)), rng.normal(size=(num_segments, DIM))).cause for _ in range(30)
    }
    assert names == {"unexplained"}


def test_different_lengths_are_not_diagnosed_as_another_frame_rate():
    rng = np.random.default_rng(0)
    names = {diagnose(rng.normal(size=(40, DIM)), rng.normal(size=(6, DIM))).cause for _ in range(60)}
    assert names == {"unexplained"}


def slow(rng: np.random.Generator, segments: int, dim: int, period: float) -> NDArray:
    time = np.arange(segments)[:, None]
    waves = [np.sin(2 * np.pi * (time / rng.uniform(period / 3, period) + rng.uniform(size=dim))) for _ in range(4)]
    return np.sum([rng.normal(size=dim) * wave for wave in waves], axis=0)


def test_few_segments_and_noise_are_not_a_shift():
    rng = np.random.default_rng(0)
    videos = [rng.normal(size=(5, DIM)) for _ in range(200)]
    names = {diagnose(video, video + rng.normal(size=video.shape) * 0.5).cause for video in videos}
    assert names == {"unexplained"}


def test_slow_features_at_another_rate_are_not_diagnosed_as_truncated():
    rng = np.random.default_rng(0)
    for _ in range(20):
        video = slow(rng, 640, DIM, 2000)
        assert diagnose(network(video, 16), network(video, 32)).cause == "frame-rate"


def test_slow_features_of_other_videos_are_not_a_shift():
    rng = np.random.default_rng(0)
    names = {diagnose(slow(rng, 14, 12, 40), slow(rng, 14, 12, 40)).cause for _ in range(600)}
    assert "remainder" not in names


def test_a_small_slow_disturbance_is_not_a_shift():
    rng = np.random.default_rng(0)
    videos = [slow(rng, 30, 16, 12) for _ in range(300)]
    assert "remainder" not in {diagnose(video, video + 0.003 * slow(rng, 30, 16, 12)).cause for video in videos}


def test_constant_features_have_no_lag():
    still = np.tile(RNG.normal(size=DIM), (10, 1)).astype(np.float32)
    assert diagnose(still, still.astype(np.float16)).cause == "float16"


def short_videos(count: int, length: int = 6) -> list[NDArray]:
    """Too short for most causes to be significant."""
    return [frames(seed)[: length * LENGTH + LENGTH] for seed in range(count)]


SCALE, SHIFT = RNG.uniform(0.3, 3, size=DIM), RNG.normal(size=DIM) * 0.02
TOGETHER: dict[str, tuple[str, list[tuple[NDArray, NDArray]]]] = {
    "half of the remainder at the start": (
        "remainder",
        [(network(video[:-LENGTH]), network(video[:-LENGTH], first=7)[:6]) for video in short_videos(12)],
    ),
    "other statistics": ("normalization", [(a, a * SCALE) for a in map(network, short_videos(12))]),
    "an offset, with noise": (
        "constant-offset",
        [(a[:3], (a + SHIFT + RNG.normal(size=a.shape) * 0.005)[:3]) for a in map(network, short_videos(12))],
    ),
    "late by 1, other decoder": (
        "lag",
        [(a[1:], a[:-1] + RNG.normal(size=a[1:].shape) * 0.01) for a in map(network, short_videos(12))],
    ),
    "half the frame rate": (
        "frame-rate",
        [(network(video, length=16), network(video)) for video in short_videos(12)],
    ),
    "noise": ("unexplained", [(a, a + RNG.normal(size=a.shape) * 0.1) for a in map(network, short_videos(32))]),
    "other videos": ("unexplained", [(network(frames(k)), network(frames(k + 50))) for k in range(32)]),
    "two causes": (
        "unexplained",
        [(a[1:], a[:-1]) if k % 2 else (a[1:], a[1:] * SCALE) for k, a in enumerate(map(network, short_videos(12)))],
    ),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_several_videos_together_show_a_cause_that_single_ones_do_not(name: str):
    cause, pairs = TOGETHER[name]
    found = diagnose_together(pairs)
    assert found.cause == cause, found.sentence


@pytest.mark.parametrize("name", ["half of the remainder at the start", "an offset, with noise"])
def test_single_short_videos_have_no_diagnosis(name: str):
    assert {diagnose(a, b).cause for a, b in TOGETHER[name][1]} <= {"unexplained", "arithmetic"}


def test_noise_in_many_videos_is_never_explained():
    rng = np.random.default_rng(0)
    for _ in range(60):
        lengths = rng.integers(4, 12, size=rng.integers(2, 33))
        videos = [(rng.normal(size=(n, DIM)), rng.normal(size=(n + rng.integers(0, 3), DIM))) for n in lengths]
        assert diagnose_together(videos).cause == "unexplained"


def test_slow_disturbances_of_many_videos_are_not_a_shift():
    rng = np.random.default_rng(0)
    for _ in range(60):
        videos = [slow(rng, 14, 12, 40) for _ in range(16)]
        names = {
            diagnose_together([(video, video + 0.1 * slow(rng, 14, 12, 40)) for video in videos]).cause,
            diagnose_together([(video, slow(rng, 14, 12, 40)) for video in videos]).cause,
        }
        assert not names & {"remainder", "lag", "frame-rate"}


def test_cosines_of_rows_of_zeros():
    a, b = np.array([[0.0, 0], [1, 0], [1, 0], [1, 1]]), np.array([[0.0, 0], [0, 0], [0, 2], [2, 2]])
    np.testing.assert_allclose(cosines(a, b), [1, 0, 0, 1])


def test_relative_error_is_over_the_largest_number_of_either_side():
    assert relative_error(np.array([[4.0, 1]]), np.array([[4.0, 3]])) == 0.5
    assert relative_error(np.zeros((2, 2)), np.zeros((2, 2))) == 0
    assert relative_error(np.zeros((1, 2)), np.array([[0.0, 2]])) == 1
