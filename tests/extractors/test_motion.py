"""Motion features of films with known movements: grainy squares before a grainy wall."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from arabesque.extractors.athlete_motion import AthleteMotion, follow_athlete
from arabesque.extractors.camera_motion import apply_similarity, fit_similarity
from arabesque.extractors.motion import BINS, BLOCKS, Motion, flow_histograms
from arabesque.extractors.protocol import SegmentInput

HEIGHT, WIDTH, FPS = 144, 192, 12
FIGURE = (48, 24)
"""Height and width in pixels."""
STILL_ZEROS = ("box", "travel", "sway")

Film = NDArray[np.uint8]
Path = Callable[[float], tuple[float, float]]


def grain(height: int, width: int, seed: int, light: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).normal(0, 1, (height, width)).astype(np.float32)
    return np.clip(light + 90 * cv2.GaussianBlur(noise, (0, 0), 2), 0, 255)


def still(_: float) -> tuple[float, float]:
    return 0.0, 0.0


def film(
    figure: Path | None, camera: Path = still, *, num_frames: int = 25, fps: float = FPS, zoom: float = 1.0
) -> Film:
    """``uint8 [time, height, width]``. Paths give x, y in frame heights from the middle, for a time in seconds.

    The figure's path is against the wall; the camera's moves both on the screen.
    """
    wall, body = grain(3 * HEIGHT, 4 * WIDTH, 0, 90), grain(*FIGURE, 1, 190)
    frames = np.empty((num_frames, HEIGHT, WIDTH), np.uint8)
    for number in range(num_frames):
        to_x, to_y = (zoom * HEIGHT * along for along in camera(number / fps))
        middle_x, middle_y = zoom * WIDTH / 2, zoom * HEIGHT / 2
        to_frame = np.array([[1, 0, middle_x - wall.shape[1] / 2 - to_x], [0, 1, middle_y - wall.shape[0] / 2 - to_y]])
        size = (round(zoom * WIDTH), round(zoom * HEIGHT))
        frame = cv2.warpAffine(wall, to_frame, size, borderMode=cv2.BORDER_REFLECT)
        if figure is not None:
            x, y = (zoom * HEIGHT * along for along in figure(number / fps))
            left, top = middle_x + x - to_x - FIGURE[1] / 2, middle_y + y - to_y - FIGURE[0] / 2
            place = np.array([[1, 0, left], [0, 1, top]])
            cover = cv2.warpAffine(np.ones_like(body), place, size)
            frame = frame * (1 - cover) + cv2.warpAffine(body, place, size) * cover
        if number == 0:
            frames = np.empty((num_frames, *frame.shape), np.uint8)
        frames[number] = np.rint(frame)
    return frames


def pan(speed: float) -> Path:
    return lambda time_s: (speed * (time_s - 1), 0.0)


def followed(frames: Film, fps: float = FPS) -> AthleteMotion:
    return follow_athlete(frames, tuple(np.arange(len(frames)) / fps))


def segment(frames: Film, times_s: tuple[float, ...] | None = None) -> SegmentInput:
    times_s = times_s or tuple(float(time_s) for time_s in np.arange(len(frames)) / FPS)
    return SegmentInput(0, times_s[0], times_s[-1] + 1 / FPS, torch.from_numpy(frames)[:, None], times_s)


def extractor() -> Motion:
    return Motion(
        weights={}, device=torch.device("cpu"), precision="float32", settings=Motion.Settings(short_side_px=HEIGHT)
    )


def features(frames: Film, times_s: tuple[float, ...] | None = None) -> dict[str, float]:
    motion = extractor()
    [row] = motion.forward([motion.prepare(segment(frames, times_s))])
    assert row is not None
    assert row.isfinite().all()
    return dict(zip(motion.feature_names(), row.tolist(), strict=True))


def test_a_row_is_as_long_as_its_names() -> None:
    names = extractor().feature_names()
    assert len(set(names)) == len(names) == extractor().dim == sum(len(block) for block in BLOCKS.values())


@pytest.mark.parametrize("num_frames", [1, 2, 25])
@pytest.mark.parametrize("light", [0, 140])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (256, HEIGHT)])
def test_a_still_picture_has_no_motion(num_frames: int, light: int, size: tuple[int, int]) -> None:
    wall = np.zeros(size, np.float32) if light == 0 else grain(*size, 0, light)
    row = features(np.repeat(wall[None].astype(np.uint8), num_frames, axis=0))
    assert row.pop("energy.still_share") == 1
    for name in [name for name in row if name.endswith("still")]:
        assert row.pop(name) == 1
    assert max(abs(value) for value in row.values()) < 1e-3


def test_noise_alone_gives_no_athlete() -> None:
    noise = np.random.default_rng(3).normal(0, 2, (25, HEIGHT, WIDTH))
    motion = followed(np.clip(film(None) + noise, 0, 255).astype(np.uint8))
    moving = followed(film(pan(0.3)))
    assert motion.energy.mean() < 0.03 * moving.energy.mean()
    assert motion.found.mean() < 0.3


def test_twice_as_fast_is_twice_the_energy() -> None:
    slow, fast = features(film(pan(0.15))), features(film(pan(0.3)))
    assert 1.6 < fast["energy.mean"] / slow["energy.mean"] < 2.4
    assert fast["travel.speed.mean"] == pytest.approx(0.3 / (FIGURE[0] / HEIGHT), rel=0.25)
    assert 1.6 < fast["travel.speed.mean"] / slow["travel.speed.mean"] < 2.4


def test_a_panning_camera_is_not_the_athletes_motion() -> None:
    panned, moved = features(film(still, pan(0.3))), features(film(pan(0.3)))
    assert panned["camera.shift_x.mean"] == pytest.approx(-0.3, rel=0.05)
    assert panned["camera.speed.mean"] == pytest.approx(0.3, rel=0.05)
    assert panned["energy.mean"] < 0.05 * moved["energy.mean"]
    assert moved["camera.speed.mean"] < 0.01


def test_the_box_follows_the_athlete_before_a_moving_camera() -> None:
    motion = followed(film(pan(0.3), pan(0.2)))
    seen_x = (0.3 - 0.2) * (motion.times_s - 1)
    assert motion.found.all()
    assert np.abs(motion.boxes[:, 0] - seen_x).max() < 0.05
    assert np.abs(motion.boxes[:, 1]).max() < 0.05
    assert motion.boxes[:, 3] == pytest.approx(FIGURE[0] / HEIGHT, rel=0.25)


def test_an_athlete_whom_the_camera_follows_moves() -> None:
    bobbing = film(lambda time_s: (0.3 * (time_s - 1), 0.03 * np.sin(12 * time_s)), pan(0.3))
    row = features(bobbing)
    assert abs(row["box.center_x.mean"]) < 0.05
    assert row["travel.across.mean"] == pytest.approx(0.3 / (FIGURE[0] / HEIGHT), rel=0.3)


def test_a_score_board_is_not_the_athlete() -> None:
    frames = film(pan(0.4), pan(0.3))
    frames[:, 6:26, 8:70] = grain(20, 62, 5, 200)
    boxes = followed(frames).boxes
    assert np.abs(boxes[:, 1]).max() < 0.06
    assert (boxes[:, 0] > -0.3).all()


def test_a_score_board_alone_gives_no_athlete() -> None:
    frames = film(None, pan(0.3))
    frames[:, 6:46, 8:90] = grain(40, 82, 5, 200)
    motion = followed(frames)
    inside = motion.evidence[:, 4:13, 6:27]
    assert np.hypot(*np.moveaxis(motion.own[:, 4:13, 6:27], -1, 0)).mean() > 0.2
    assert inside.mean() < 0.02


def test_a_blank_wall_does_not_move_when_the_camera_pans() -> None:
    """Areas without texture have zero flow for any motion of the camera."""
    frames = film(None, pan(0.3))
    frames[:, 60:] = 210
    motion = followed(frames)
    assert np.hypot(*np.moveaxis(motion.own[:, 30:], -1, 0)).mean() > 0.1
    assert motion.evidence[:, 30:].mean() < 0.02


def test_the_quarters_are_relative_to_the_body() -> None:
    row = features(film(lambda time_s: (0.35 + 0.05 * np.sin(6 * time_s), 0.2), num_frames=19))
    quarters = ("top_left", "top_right", "bottom_left", "bottom_right")
    assert all(0.05 < row[f"body_flow.{quarter}.still"] < 0.95 for quarter in quarters)


@pytest.mark.parametrize(("growth", "turn"), [(0.01, 0.0), (-0.01, 0.0), (0.0, 0.01)])
def test_zoom_and_rotation_are_distinguished(growth: float, turn: float) -> None:
    wall = grain(HEIGHT, WIDTH, 0, 120)
    matrices = [cv2.getRotationMatrix2D((95.5, 71.5), -np.degrees(turn * n), (1 + growth) ** n) for n in range(13)]
    frames = [cv2.warpAffine(wall, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT) for matrix in matrices]
    row = features(np.stack(frames).astype(np.uint8))
    assert row["camera.growth.mean"] == pytest.approx(growth * FPS, abs=0.01)
    assert row["camera.turn.mean"] == pytest.approx(turn * FPS, abs=0.01)


def test_the_camera_motion_is_that_of_most_of_the_background() -> None:
    x, y = (values.astype(np.float32) for values in np.meshgrid(np.arange(-40, 41, 4), np.arange(-30, 31, 4)))
    truth = np.array([[1.5, -0.5, 0.02, -0.01]], np.float32)
    flow = apply_similarity(truth, x, y)
    flow += np.random.default_rng(0).normal(0, 0.05, flow.shape)
    flow[:, 4:12, 6:14] = (-6, 3)  # an athlete over a fifth of the frame
    assert fit_similarity(flow, np.ones(flow.shape[:3], np.float32), x, y) == pytest.approx(truth, abs=0.02)


def test_a_mirror_swaps_left_and_right() -> None:
    frames = film(lambda time_s: (0.25 * (time_s - 0.5), 0.1 * (time_s - 1)), pan(0.1))
    row, mirrored = features(frames), features(np.ascontiguousarray(frames[:, :, ::-1]))
    assert mirrored["box.center_x.mean"] == pytest.approx(-row["box.center_x.mean"], abs=0.02)
    assert mirrored["camera.shift_x.mean"] == pytest.approx(-row["camera.shift_x.mean"], abs=0.005)
    swap = {"left": "right", "right": "left"}
    swapped = {
        name: "_".join(swap.get(part, part) for part in name.replace(".", "._").split("_")).replace("._", ".")
        for name in row
        if name.startswith(("body_flow", "scene_flow"))
    }
    assert sum(value != name for name, value in swapped.items()) > 80
    original = np.array([row[name] for name in swapped])
    reflected = np.array([mirrored[name] for name in swapped.values()])
    assert np.abs(original - reflected).max() < 0.15
    assert np.abs(original - reflected).mean() < 0.01
    assert np.abs(original - np.array([mirrored[name] for name in swapped])).max() > 0.3


def test_directions_and_speeds_fall_into_their_bins() -> None:
    velocity = np.array([[0.1, 0], [1, 0], [0, 3], [-9, 9], [1, 0], [0, -1]], np.float32)
    weight = np.array([1, 1, 1, 1, 0.25, 1], np.float32)
    region = np.array([0, 0, 0, 0, 1, 2])
    shares = flow_histograms(velocity, weight, region, 4, (0.5, 2.0, 5.0))
    assert shares.sum(axis=1) == pytest.approx(1)
    first = dict(zip(BINS, shares[0], strict=True))
    assert {name for name, share in first.items() if share} == {"still", "slow_right", "medium_down", "fast_down_left"}
    assert dict(zip(BINS, shares[1], strict=True)) | {"still": 0.75, "slow_right": 0.25} == dict(
        zip(BINS, shares[1], strict=True)
    )
    assert shares[2][BINS.index("slow_up")] == 1
    assert shares[3][0] == 1


def test_numbers_do_not_depend_on_frame_rate_or_size() -> None:
    plain, often = followed(film(pan(0.3))), followed(film(pan(0.3), num_frames=49, fps=24), fps=24)
    large = followed(film(pan(0.3), zoom=2.0))
    assert often.energy.mean() == pytest.approx(plain.energy.mean(), rel=0.2)
    # the larger frame shows the same figure at half the size
    assert large.boxes[:, 3].mean() == pytest.approx(plain.boxes[:, 3].mean() / 2, rel=0.25)
    assert large.body_velocity[:, 0].mean() == pytest.approx(plain.body_velocity[:, 0].mean(), rel=0.15)


def test_repeated_frames_at_the_end_are_ignored() -> None:
    frames = film(pan(0.3), num_frames=13)
    times_s = tuple(float(time_s) for time_s in np.arange(13) / FPS)
    padded = np.concatenate([frames, np.repeat(frames[-1:], 12, axis=0)])
    assert features(padded, times_s + times_s[-1:] * 12) == features(frames, times_s)


def test_a_fall_changes_the_box() -> None:
    def fall(time_s: float) -> tuple[float, float]:
        return 0.05 * np.sin(9 * time_s), -0.2 + 0.45 * np.clip((time_s - 1) / 0.4, 0, 1)

    fallen = features(film(fall))
    upright = features(film(lambda time_s: (0.05 * np.sin(9 * time_s), -0.2)))
    assert fallen["box.foot_y.high"] > upright["box.foot_y.high"] + 0.3
    assert fallen["travel.fastest_down"] > 3 * upright["travel.fastest_down"]


def test_a_tremor_is_faster_than_a_sway() -> None:
    swaying = features(film(lambda time_s: (0.12 * np.sin(2 * np.pi * 0.6 * time_s), 0.0), num_frames=36))
    trembling = features(film(lambda time_s: (0.02 * np.sin(2 * np.pi * 4.2 * time_s), 0.0), num_frames=36))
    assert swaying["sway.across.0.25_1_hz"] > 0.5 > 0.2 > trembling["sway.across.0.25_1_hz"]
    assert trembling["sway.across.3.5_6_hz"] > 0.5 > 0.2 > swaying["sway.across.3.5_6_hz"]
    assert trembling["sway.across.jerkiness"] > 3 * swaying["sway.across.jerkiness"]


def test_a_segment_without_frames_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="no frames"):
        extractor().prepare(SegmentInput(0, 0.0, 1.0))


def test_energy_rises_step_by_step_with_speed() -> None:
    energies = [features(film(pan(speed), num_frames=13))["energy.log_mean"] for speed in (0.05, 0.1, 0.2, 0.4)]
    assert all(slower < faster for slower, faster in pairwise(energies))
