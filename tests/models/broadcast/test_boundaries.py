"""Cuts are found to the frame; flashes, pans and strobes are not cuts."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_frames import FPS, Frames, measured, scene

from arabesque.manifests.shot_rules import load_shot_rules
from arabesque.models.broadcast.boundaries import Boundary, content_boundaries, network_boundaries, runs

RULES = load_shot_rules().boundaries


def found_in(frames: Frames) -> list[Boundary]:
    return content_boundaries(measured(frames), RULES)


def test_cuts_are_found_to_the_frame() -> None:
    lengths = (60, 45, 100, 33)
    frames = np.concatenate([scene(seed, length) for seed, length in enumerate(lengths)])
    found = found_in(frames)
    assert [boundary.frame for boundary in found] == [60, 105, 205]
    assert {boundary.change for boundary in found} == {"cut"}


def test_a_cut_within_one_scene_is_found_to_the_frame() -> None:
    """Only the athlete jumps, before a camera that stands still."""
    frames = np.repeat(scene(21, 1), 140, axis=0)
    for index, frame in enumerate(frames):
        left = 12 if index < 70 else 30
        frame[8:19, left : left + 6] = (250, 20, 30)
    (found,) = found_in(frames)
    assert (found.frame, found.change) == (70, "cut")


def test_a_cut_between_two_dark_pictures_between_pillars_is_found() -> None:
    """Most of the picture is black, which does not make it a fade."""
    frames = np.concatenate([scene(1, 60), scene(2, 60)])
    frames = frames // np.array([2, 3, 1], np.uint8)
    frames[:, :, :11] = frames[:, :, 37:] = 0
    assert [boundary.frame for boundary in found_in(frames)] == [60]


def test_colors_that_change_at_a_key_frame_are_not_a_cut() -> None:
    frames = scene(6, 100, pan_px=0)
    frames[50:, :, :, 1] -= np.minimum(frames[50:, :, :, 1], 3)
    frames[50:, :, :, 2] += 3
    assert found_in(frames) == []


def test_a_clock_that_advances_is_not_a_cut() -> None:
    frames = np.repeat(scene(21, 1), 140, axis=0)
    for index, frame in enumerate(frames):
        frame[21:27, 2:14] = 250 * (index // 25 % 2)
    assert found_in(frames) == []


@pytest.mark.parametrize("pan_px", [0.0, 0.5, 1.5])
def test_one_shot_has_no_boundary(pan_px: float) -> None:
    assert found_in(scene(3, 150, pan_px=pan_px)) == []


def test_flashes_are_not_cuts() -> None:
    frames = scene(4, 150)
    for flash in (40, 41, 90, 120):
        frames[flash] = 255 - (255 - frames[flash]) // 5
    assert found_in(frames) == []


def test_a_change_in_every_frame_is_not_a_cut() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (120, 27, 48, 3), np.uint8)
    strobe = scene(5, 120)
    strobe[::2] = 255 - (255 - strobe[::2]) // 6
    assert found_in(noise) == []
    assert found_in(strobe) == []


@pytest.mark.parametrize("kind", ["fade", "dissolve"])
def test_gradual_boundaries_are_found_in_their_middle(kind: str) -> None:
    first, second, half = scene(6, 80, pan_px=0), scene(7, 80, pan_px=0), 8
    if kind == "fade":
        for step in range(half):
            first[-1 - step] = first[-1 - step] * (step / half)
            second[step] = second[step] * (step / half)
        frames = np.concatenate([first, second])
    else:
        share = np.linspace(0, 1, 2 * half)[:, None, None, None]
        mixed = (first[-2 * half :] * (1 - share) + second[: 2 * half] * share).astype(np.uint8)
        frames = np.concatenate([first[: -2 * half], mixed, second[2 * half :]])
    middle = 80 if kind == "fade" else 72
    (boundary,) = found_in(frames)
    assert abs(boundary.frame - middle) <= half
    assert boundary.change == "gradual"


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_short_videos_have_no_boundary(num_frames: int) -> None:
    assert found_in(scene(8, num_frames)) == []


def test_the_networks_probabilities_become_boundaries() -> None:
    frames = measured(scene(9, 120))
    probabilities = np.zeros(120, np.float32)
    probabilities[[30, 100]] = 0.9
    probabilities[60:70] = 0.7
    probabilities[31] = 0.6  # the same cut
    found = network_boundaries(probabilities, frames, RULES)
    assert [(boundary.frame, boundary.change) for boundary in found] == [(31, "cut"), (65, "gradual"), (101, "cut")]


def wiped(before: Frames, after: Frames, logo: Frames) -> Frames:
    """Join two shots: the logo moves in over eight frames before the boundary, and out over eight frames after it."""
    joined = np.concatenate([before, after])
    for step in range(8):
        width = 6 * (step + 1)
        joined[len(before) - 8 + step, :, :width] = logo[:, 48 - width :]
        joined[len(before) + 7 - step, :, 48 - width :] = logo[:, :width]
    return joined


def test_a_wipe_is_one_gradual_boundary_and_its_edge_is_no_cut() -> None:
    logo = np.full((27, 48, 3), (230, 210, 40), np.uint8)
    logo[8:20, 18:30] = (20, 30, 160)
    shots = [scene(seed, 80) for seed in (31, 32, 33)]
    frames = wiped(wiped(shots[0], shots[1], logo), shots[2], logo)
    found = found_in(frames)
    assert [boundary.change for boundary in found] == ["gradual", "gradual"]
    assert [boundary.frame for boundary in found] == pytest.approx([80, 160], abs=8)


def test_runs_of_an_empty_mask() -> None:
    assert runs(np.zeros(3, bool)) == []
    assert runs(np.ones(3, bool)) == [(0, 3)]


def test_a_still_picture_for_an_hour_has_no_boundary() -> None:
    num_frames = 3600 * FPS
    frames = measured(np.full((64, 27, 48, 3), 90, np.uint8))
    hour = type(frames)(
        times_s=np.arange(num_frames) / FPS,
        end_s=3600.0,
        cells=np.repeat(frames.cells[:1], num_frames, axis=0),
        values=np.repeat(frames.values[:1], num_frames, axis=0),
        pictures=frames.pictures,
        picture_times_s=frames.picture_times_s,
    )
    assert content_boundaries(hour, RULES) == []
