"""Classification of shots by measured rules, and bad inputs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from drawn_frames import FPS, Frames, measured, scene
from numpy.typing import NDArray

from arabesque.manifests.shot_rules import load_shot_rules
from arabesque.models.broadcast.boundaries import content_boundaries
from arabesque.models.broadcast.measures import Curve, PeopleMeasures
from arabesque.models.broadcast.replays import Match, between_logos, is_replay, logo_boundaries
from arabesque.models.broadcast.shots import Shot, shots_of

RULES = load_shot_rules()


def shots_in(frames: Frames, people: PeopleMeasures | None = None) -> list[Shot]:
    measures = measured(frames)
    return shots_of(measures, content_boundaries(measures, RULES.boundaries), RULES, people)


def board(num_frames: int) -> Frames:
    picture = np.full((27, 48, 3), (20, 30, 90), np.uint8)
    picture[4:8, 4:44] = 220
    picture[12:24:3, 6:30] = 240
    return np.repeat(picture[None], num_frames, axis=0)


def crowd(num_frames: int) -> Frames:
    """Draw a crowd: rows of coats that sway by up to one pixel."""
    import cv2

    coats = np.random.default_rng(5).integers(20, 230, (12, 28, 3), np.uint8).repeat(10, axis=0).repeat(8, axis=1)
    shifts = np.rint(8 + 4 * np.sin(np.arange(num_frames) / 6)).astype(int)
    views = (np.ascontiguousarray(coats[:108, shift : shift + 192]) for shift in shifts)
    return np.stack([np.asarray(cv2.resize(view, (48, 27), interpolation=cv2.INTER_AREA), np.uint8) for view in views])


def face(num_frames: int) -> Frames:
    import cv2

    frames = scene(11, num_frames, pan_px=0)[:, :, ::-1].copy()
    for index, frame in enumerate(frames):
        cv2.ellipse(frame, (24 + round(2 * np.sin(index / 9)), 12), (6, 9), 0, 0, 360, (210, 160, 130), -1)
    return frames


def test_each_kind_of_shot_is_recognized() -> None:
    action, replay = scene(1, 100), scene(1, 100, speed=0.5)
    black = np.zeros((40, 27, 48, 3), np.uint8)
    shots = shots_in(np.concatenate([board(50), crowd(60), action, face(60), replay, black]))
    assert [shot.kind for shot in shots] == ["no-athlete", "no-athlete", "action", "close-up", "replay", "no-athlete"]
    assert [shot.first_frame for shot in shots] == [0, 50, 110, 210, 270, 370]
    match = shots[4].match
    assert match is not None
    assert match.start_s == pytest.approx(4.4, abs=0.2)
    assert match.speed == pytest.approx(0.5, abs=0.05)
    for shot, word in zip(shots, ("still", "crowd", "motion", "face", "repeats", "black"), strict=True):
        assert word in shot.reason


def test_people_decide_about_close_ups_before_the_color_of_skin() -> None:
    """Two shots have a face of skin color; the detector sees that the first and the last person are close."""
    frames = np.concatenate([face(50), scene(1, 50), face(50)[:, :, ::-1], scene(2, 50)])
    assert [shot.kind for shot in shots_in(frames)] == ["close-up", "action", "close-up", "action"]
    times_s = np.arange(0, 8, 0.5)
    is_close = (times_s < 2) | (times_s >= 6)
    people = PeopleMeasures(
        times_s=times_s,
        height=np.where(is_close, 0.85, 0.75),
        bottom=np.where(is_close, 0.99, 0.97),
        width_to_height=np.where(is_close, 0.9, 0.4),
    )
    shots = shots_in(frames, people)
    assert [shot.kind for shot in shots] == ["close-up", "action", "action", "close-up"]
    assert [shot.close_share for shot in shots] == [1, 0, 0, 1]
    assert [shot.person_height for shot in shots] == pytest.approx([0.85, 0.75, 0.75, 0.85])
    assert "85% of the height" in shots[3].reason


def test_a_shot_without_people_is_judged_by_the_color_of_skin() -> None:
    no_people = PeopleMeasures(np.arange(0, 4, 0.5), *np.zeros((3, 8)))
    shots = shots_in(np.concatenate([face(50), scene(1, 50)]), no_people)
    assert [(shot.kind, shot.person_height, shot.close_share) for shot in shots] == [
        ("close-up", None, 0),
        ("action", None, 0),
    ]


@pytest.mark.parametrize(
    ("correlation", "margin", "seconds", "expected"),
    [
        (0.87, 0.4, 0.5, False),
        (0.87, 0.4, 2.0, True),
        (0.98, 0.4, 0.5, True),
        (0.8, 0.4, 9.0, False),
        (0.98, 0.05, 2.0, False),
    ],
)
def test_a_short_stretch_must_agree_better_to_be_a_replay(
    correlation: float, margin: float, seconds: float, expected: bool
) -> None:
    match = Match(start_s=1.0, end_s=1.0 + seconds, speed=0.5, correlation=correlation, margin=margin)
    assert is_replay(match, RULES.replays) == expected


def test_a_repeated_dissolve_is_not_a_logo() -> None:
    """Two pictures dissolve into each other twice: the blends look alike, as two appearances of a logo would."""
    share = np.linspace(0, 1, 16)[:, None, None, None]
    crossing = (board(16) * (1 - share) + face(16) * share).astype(np.uint8)
    part = np.concatenate([board(60), crossing, face(60)])
    frames = np.concatenate([part, scene(1, 80), part])
    measures = measured(frames)
    boundaries = content_boundaries(measures, RULES.boundaries)
    assert sum(boundary.change == "gradual" for boundary in boundaries) == 2
    assert logo_boundaries(measures, boundaries, RULES.replays, RULES.boundaries) == set()


def test_a_different_picture_in_every_frame_is_not_action() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 9, 16, 3), np.uint8).repeat(3, axis=1).repeat(3, axis=2)
    strobe = scene(5, 60)
    strobe[::2] = 255 - (255 - strobe[::2]) // 6
    for frames in (noise, strobe):
        (shot,) = shots_in(frames)
        assert shot.kind == "no-athlete"
        assert "flashes or noise" in shot.reason


def test_a_skin_region_wider_than_high_is_not_a_face() -> None:
    frames = scene(11, 60, pan_px=0)[:, :, ::-1].copy()
    for index, frame in enumerate(frames):
        left = 8 + round(2 * np.sin(index / 9))
        frame[6:16, left : left + 26] = (210, 160, 130)
    (shot,) = shots_in(frames)
    assert (shot.kind, shot.face_share) == ("action", 0)


def test_shots_cover_the_video() -> None:
    shots = shots_in(np.concatenate([scene(1, 50), scene(2, 70), board(30)]))
    assert shots[0].start_s == 0
    assert shots[-1].end_s == pytest.approx(6.0)
    assert all(before.end_s == after.start_s for before, after in pairwise(shots))


def pillars(frames: Frames) -> Frames:
    shown = np.zeros_like(frames)
    shown[:, :, 6:42] = frames[:, :, 6:42]
    return shown


def inset(frames: Frames) -> Frames:
    shown = frames.copy()
    shown[:, 2:10, 34:46] = board(1)[0][2:10, 4:16]
    return shown


def strip(frames: Frames) -> Frames:
    shown = frames.copy()
    shown[:, 22:26, 2:22] = (10, 20, 70)
    for index, frame in enumerate(shown):
        frame[23:25, 3 + index // 25 : 6 + index // 25] = 250  # the clock
    return shown


@pytest.mark.parametrize("change", [pillars, inset, strip])
def test_pillars_insets_and_strips_do_not_change_the_kind(change: object) -> None:
    assert callable(change)
    frames = change(np.concatenate([crowd(60), scene(1, 100), scene(2, 100), scene(1, 100, speed=0.5)]))
    shots = shots_in(frames)
    assert [shot.first_frame for shot in shots] == [0, 60, 160, 260]
    assert [shot.kind for shot in shots] == ["no-athlete", "action", "action", "replay"]


def test_the_same_board_twice_is_not_a_replay() -> None:
    shots = shots_in(np.concatenate([board(50), scene(1, 60), board(50)]))
    assert [shot.kind for shot in shots] == ["no-athlete", "action", "no-athlete"]


def test_a_small_athlete_before_a_camera_that_stands_still_is_action() -> None:
    frames = np.repeat(board(1), 100, axis=0)
    for index, frame in enumerate(frames):
        x = round(24 + 12 * np.sin(index / 8))
        frame[14:20, x - 2 : x + 3] = (250, 20, 30)
    (shot,) = shots_in(frames)
    assert (shot.kind, shot.still_share < 0.5) == ("action", True)


def test_a_video_without_frames_has_no_shots() -> None:
    frames = measured(scene(1, 3))
    empty = type(frames)(np.zeros(0), 0.0, frames.cells[:0], frames.values[:0], frames.pictures, frames.picture_times_s)
    assert shots_of(empty, [], RULES) == []


def static_scene(seed: int, num_frames: int, *, speed: float = 1.0, start_s: float = 0.0) -> Frames:
    """Draw, for a still camera, an athlete who moves the arms and steps aside, and never repeats a position."""
    rng = np.random.default_rng(seed)
    phase, hertz = rng.uniform(0, 6, 3), rng.uniform(0.3, 0.9, 3)
    times_s = start_s + np.arange(num_frames) * speed / FPS
    x, y, arm = np.array([[20], [8], [16]]) * np.sin(2 * np.pi * hertz[:, None] * times_s + phase[:, None])
    boxes = [((88 + x, 108 + x), (32 + y, 80 + y), (250, 20, 30))]
    boxes += [((88 + x + np.minimum(arm, 0), 108 + x + np.maximum(arm, 0)), (40 + y, 48 + y), (250, 220, 30))]
    return with_boxes(seed, boxes)


def with_boxes(seed: int, boxes: list[tuple[tuple[Curve, Curve], tuple[Curve, Curve], tuple[int, int, int]]]) -> Frames:
    """A still picture, and in front of it boxes with their left and right, upper and lower edges, in quarter pixels."""
    import cv2

    still = np.asarray(cv2.resize(scene(seed, 1)[0], (192, 108), interpolation=cv2.INTER_CUBIC), np.uint8)
    frames = list[NDArray[np.uint8]]()
    for index in range(len(boxes[0][0][0])):
        large = still.copy()
        for (left, right), (top, bottom), color in boxes:
            large[round(top[index]) : round(bottom[index]), round(left[index]) : round(right[index])] = color
        frames.append(np.asarray(cv2.resize(large, (48, 27), interpolation=cv2.INTER_AREA), np.uint8))
    return np.stack(frames)


@pytest.mark.parametrize("speed", [0.3, 0.5, 0.75, 0.95])
def test_a_replay_directly_after_its_shot_is_found(speed: float) -> None:
    """Only the end of the action is repeated, and the camera stands still: the cut changes a few cells."""
    num_frames = round(50 / speed)
    shot, replay = static_scene(1, 120), static_scene(1, num_frames, speed=speed, start_s=2.4)
    shots = shots_in(np.concatenate([scene(4, 60), shot, replay, scene(2, 60)]))
    assert [shot.kind for shot in shots] == ["action", "action", "replay", "action"]
    assert [shot.first_frame for shot in shots[1:]] == pytest.approx([60, 180, 180 + num_frames], abs=1)
    assert shots[2].match is not None
    assert shots[2].match.speed == pytest.approx(speed, rel=0.06)


def test_a_replay_that_no_cut_shows_is_found_by_its_motion() -> None:
    """The replay begins with almost the picture that the shot ends with."""
    shot = scene(3, 100, pan_px=0)
    change = np.abs(shot[20:80].astype(int) - shot[99]).sum(axis=(1, 2, 3))
    start = 20 + int(change.argmin())
    replay = scene(3, 2 * 100, pan_px=0, speed=0.5)[2 * start :]
    measures = measured(np.concatenate([shot, replay]))
    assert content_boundaries(measures, RULES.boundaries) == []
    assert [each.kind for each in shots_of(measures, [], RULES)] == ["action", "replay"]


def test_replays_of_one_action_are_found_each_time() -> None:
    """Two replays of one stretch, and a replay of a replay: what is repeated was shown several times."""
    action = scene(1, 100)
    replays = [scene(1, 100, speed=0.5), scene(1, 100, speed=0.7), scene(1, 200, speed=0.25)]
    shots = shots_in(np.concatenate([action, board(30), replays[0], board(30), replays[1], board(30), replays[2]]))
    assert [shot.kind for shot in shots] == ["action", *("no-athlete", "replay") * 3]


def test_a_replay_may_be_enlarged_or_darker() -> None:
    import cv2

    zoom = np.array([[1.08, 0, -0.08 * 24], [0, 1.08, -0.08 * 13.5]], np.float32)
    replay = scene(1, 120, speed=0.5)
    enlarged = np.stack([np.asarray(cv2.warpAffine(frame, zoom, (48, 27)), np.uint8) for frame in replay])
    for changed in (enlarged, (replay * 0.8).astype(np.uint8)):
        shots = shots_in(np.concatenate([scene(1, 100), scene(2, 60), changed]))
        assert [shot.kind for shot in shots] == ["action", "action", "replay"]


def spin(num_frames: int, *, hertz: float, drift: float, slower: float = 1.0) -> Frames:
    """Draw an athlete who turns almost on the spot; in the end the turns take ``slower`` times as long."""
    turns = np.cumsum(hertz * np.linspace(1, 1 / slower, num_frames)) / FPS
    middle, half = 96 + drift * np.arange(num_frames) / FPS, 6 + 20 * np.abs(np.cos(np.pi * turns))
    return with_boxes(12, [((middle - half, middle + half), (0 * half + 24, 0 * half + 80), (250, 20, 30))])


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([spin(200, hertz=1.5, drift=6, slower=2.5)], id="a spin that slows down"),
        pytest.param(
            [spin(60, hertz=2, drift=8), scene(2, 40), spin(90, hertz=1, drift=-4)], id="the same spin, slower"
        ),
        pytest.param([static_scene(1, 60), crowd(40), static_scene(1, 60, start_s=3.5)], id="one camera goes on"),
        pytest.param([scene(1, 80), scene(2, 60), scene(1, 120, speed=0.5)[:, :, ::-1]], id="mirrored"),
        pytest.param([board(1).repeat(50, 0), scene(1, 60), board(1).repeat(80, 0)], id="a held pose"),
        pytest.param([crowd(60), scene(1, 60), crowd(90)], id="the crowd twice"),
    ],
)
def test_similar_motion_is_not_a_replay(frames: list[Frames]) -> None:
    shots = shots_in(np.concatenate(frames))
    assert len(shots) == len(frames)
    assert "replay" not in {shot.kind for shot in shots}


def test_logos_open_and_close_in_turn() -> None:
    starts_s = [0.0, 10.0, 14.0, 20.0, 24.0, 90.0]
    four, unknown = [False, True, True, True, True, False], [False] * 6
    assert between_logos(starts_s, four, unknown, RULES.replays) == [False, True, False, True, False, False]
    two = [False, True, False, False, False, True]
    assert not any(between_logos(starts_s, two, unknown, RULES.replays))


def test_known_replays_determine_which_logos_belong_together() -> None:
    """Two replays, live, one replay: of the five logos the second, or the first, may have been overlooked."""
    starts_s = [0.0, 10.0, 13.0, 16.0, 21.0, 24.0]
    repeats = [False, True, True, False, True, False]
    truth = [False, True, True, False, True, False]
    assert between_logos(starts_s, [False, *[True] * 5], repeats, RULES.replays) == truth
    without_first = between_logos(starts_s, [False, False, *[True] * 4], repeats, RULES.replays)
    assert without_first == [False, False, True, False, True, False]
