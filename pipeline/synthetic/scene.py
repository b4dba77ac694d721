"""A skater on a rink, seen by a camera that pans after the performance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .figure import Performance
from .skater import Colour, Image, Skater, Vector

WIDTH_PX, HEIGHT_PX = 256, 192
_ZOOM = 2
"""Frames are drawn twice as large and shrunk, which smooths every edge; what follows is in drawn pixels."""
_VIEW_PX = WIDTH_PX * _ZOOM
_BODY_PX = 98 * _ZOOM
_FEET_PX = 168 * _ZOOM
_ICE_PX = 104 * _ZOOM
_BOARDS_PX = _ICE_PX - 44

_WORDS = ("ARABESQUE", "AXEL", "LUTZ", "SALCHOW", "EDGE", "TEMPO")


def draw(performance: Performance, fps: float, rng: np.random.Generator) -> Iterator[Image]:
    """RGB frames ``uint8 [HEIGHT_PX, WIDTH_PX, 3]``, one for each of the performance's."""
    import cv2

    camera = _camera_path(performance.travel, fps, rng)
    rink = _rink(int(np.ptp(camera)) + _VIEW_PX + 4, rng)
    skater = Skater(_BODY_PX, rng)
    for joints, facing, centre in zip(performance.joints, performance.facing, camera, strict=True):
        canvas = _view(rink, float(centre - camera.min()))
        points = _project(joints, float(centre))
        _draw_shadow(canvas, points, float(joints[:, 2].min()))
        skater.draw(canvas, points, joints[:, 1], float(facing))
        yield np.asarray(cv2.resize(canvas, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA), np.uint8)


def _camera_path(travel: Vector, fps: float, rng: np.random.Generator) -> Vector:
    """``[frames]``: it follows the athlete with a delay of .8 s and a hand that is not quite still."""
    follow = np.empty_like(travel)
    follow[0] = travel[0]
    for frame in range(1, len(travel)):
        follow[frame] = follow[frame - 1] + (travel[frame] - follow[frame - 1]) / (0.8 * fps)
    clock_s = np.arange(len(travel)) / fps
    slow, quick = (np.sin(2 * np.pi * (hertz * clock_s + rng.random())) for hertz in (0.31, 0.73))
    return follow * _BODY_PX + 2.0 * (slow + quick)


def _view(rink: Image, left: float) -> Image:
    """What the camera sees from ``left`` on, to a fraction of a pixel: a slow pan must not stutter."""
    import cv2

    whole, part = int(left), left % 1
    here, next_to_it = rink[:, whole : whole + _VIEW_PX], rink[:, whole + 1 : whole + 1 + _VIEW_PX]
    return np.asarray(cv2.addWeighted(here, 1 - part, next_to_it, part, 0), np.uint8)


def _project(joints: NDArray[np.float64], centre: float) -> Vector:
    """``[joint, xy]`` from ``[joint, xyz]``; what is further away stands a little higher."""
    x_px = joints[:, 0] * _BODY_PX - centre + _VIEW_PX / 2
    y_px = _FEET_PX - (joints[:, 2] + 0.12 * joints[:, 1]) * _BODY_PX
    return np.stack([x_px, y_px], axis=1)


def _draw_shadow(canvas: Image, points: Vector, above_ice: float) -> None:
    """As wide as the body above it, and smaller while that is in the air."""
    import cv2

    left, right = float(points[:, 0].min()), float(points[:, 0].max())
    reach = max(round((0.3 * (right - left) + 12) * (1 - 1.5 * above_ice)), 6)
    dark = _as_colour(0.78 * canvas[_FEET_PX + 22].mean(axis=0))
    centre = (round((left + right) / 2), _FEET_PX + 6)
    cv2.ellipse(canvas, centre, (reach, max(reach // 6, 2)), 0, 0, 360, dark, -1, cv2.LINE_AA)


def _rink(width_px: int, rng: np.random.Generator) -> Image:
    """All of the rink that the camera may pass: a dim crowd, advertising boards, ice with the marks of blades."""
    import cv2

    rink = np.full((HEIGHT_PX * _ZOOM, width_px, 3), 18, np.uint8)
    _draw_crowd(rink, rng)
    _draw_boards(rink, rng)
    _draw_ice(rink, rng)
    grain = rng.normal(0, 3, (len(rink) // 2, width_px // 2 + 1))
    return np.clip(rink + cv2.resize(grain, (width_px, len(rink)))[..., None], 0, 255).astype(np.uint8)


def _draw_crowd(rink: Image, rng: np.random.Generator) -> None:
    import cv2

    for row, y in enumerate(range(4, _BOARDS_PX + 8, 19)):
        light = 0.35 + 0.25 * y / _BOARDS_PX
        for x in range(8 * (row % 2) - 4, rink.shape[1] + 16, 16):
            seat = (x + int(rng.integers(-2, 3)), y + int(rng.integers(-2, 3)))
            coat, skin = _as_colour(light * rng.integers(40, 220, 3)), int(light * rng.integers(90, 240))
            cv2.ellipse(rink, (seat[0], seat[1] + 11), (8, 9), 0, 180, 360, coat, -1, cv2.LINE_AA)
            cv2.circle(rink, seat, 4, (skin, int(0.82 * skin), int(0.7 * skin)), -1, cv2.LINE_AA)


def _draw_boards(rink: Image, rng: np.random.Generator) -> None:
    import cv2

    rink[_BOARDS_PX:_ICE_PX] = (232, 236, 242)
    font, scale = cv2.FONT_HERSHEY_DUPLEX, 0.55
    left = -int(rng.integers(80))
    while left < rink.shape[1]:
        word = _WORDS[int(rng.integers(len(_WORDS)))]
        width = cv2.getTextSize(word, font, scale, 1)[0][0] + 28
        colour = _as_colour(rng.integers(30, 190, 3))
        cv2.rectangle(rink, (left, _BOARDS_PX + 8), (left + width, _ICE_PX - 8), colour, -1)
        cv2.putText(rink, word, (left + 14, _ICE_PX - 15), font, scale, (250, 250, 250), 1, cv2.LINE_AA)
        left += width + 12


def _draw_ice(rink: Image, rng: np.random.Generator) -> None:
    import cv2

    rink[_ICE_PX:] = np.linspace((206, 220, 232), (240, 246, 250), len(rink) - _ICE_PX)[:, None].astype(np.uint8)
    for _ in range(rink.shape[1] // 6):
        place = (int(rng.integers(rink.shape[1])), int(rng.integers(_ICE_PX + 4, len(rink))))
        reach = (int(rng.integers(10, 60)), int(rng.integers(2, 9)))
        start, sweep = int(rng.integers(180)), int(rng.integers(60, 200))
        shade = int(rng.integers(186, 250))
        cv2.ellipse(rink, place, reach, 0, start, start + sweep, (shade - 8, shade, shade), 1, cv2.LINE_AA)


def _as_colour(values: NDArray[np.floating] | NDArray[np.integer]) -> Colour:
    red, green, blue = (int(value) for value in values)
    return red, green, blue
