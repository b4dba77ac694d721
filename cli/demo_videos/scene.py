"""Rendering of a skater on a rink, with a camera that follows the performance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .figure import Performance
from .skater import Color, Image, Skater, Vector

WIDTH_PX, HEIGHT_PX = 256, 192
_ZOOM = 2
"""Frames are drawn at twice the size and reduced (antialiasing); the lengths below are in drawn pixels."""
_BOARDS_HEIGHT_PX = 44

_WORDS = ("ARABESQUE", "AXEL", "LUTZ", "SALCHOW", "EDGE", "TEMPO")


@dataclass(frozen=True)
class View:
    """Size of the frames, and where a camera shows the athlete and the ice. Lengths are in pixels of a frame."""

    width_px: int = WIDTH_PX
    height_px: int = HEIGHT_PX
    body_px: int = 98
    """Height of the athlete."""
    feet_px: int = 168
    """Row of the feet; below the frame in a close-up."""
    ice_px: int = 104
    """Row at which the ice begins, below the boards."""


def draw(
    performance: Performance,
    fps: float,
    rng: np.random.Generator,
    view: View | None = None,
    colors: np.random.Generator | None = None,
) -> Iterator[Image]:
    """Yield one RGB frame ``uint8 [height, width, 3]`` for each frame of the performance.

    Args:
        performance: The movement.
        fps: Frames per second.
        rng: Draws the camera's shake and the rink, and the athlete's colors.
        view: The camera.
        colors: Draws the athlete's colors instead of ``rng``: equal ones for several cameras.
    """
    import cv2

    view = view or View()
    body_px, view_px = view.body_px * _ZOOM, view.width_px * _ZOOM
    camera = _camera_path(performance.travel, fps, body_px, rng)
    rink = _rink(int(np.ptp(camera)) + view_px + 4, view, rng)
    skater = Skater(body_px, colors or rng)
    for joints, facing, center in zip(performance.joints, performance.facing, camera, strict=True):
        canvas = _canvas(rink, float(center - camera.min()), view_px)
        points = _project(joints, float(center), view)
        _draw_shadow(canvas, points, float(joints[:, 2].min()), view.feet_px * _ZOOM)
        skater.draw(canvas, points, joints[:, 1], float(facing))
        yield np.asarray(cv2.resize(canvas, (view.width_px, view.height_px), interpolation=cv2.INTER_AREA), np.uint8)


def _camera_path(travel: Vector, fps: float, body_px: int, rng: np.random.Generator) -> Vector:
    """Return the camera position ``[frames]``, which follows the athlete with a delay of 0.8 s and a slight shake."""
    follow = np.empty_like(travel)
    follow[0] = travel[0]
    for frame in range(1, len(travel)):
        follow[frame] = follow[frame - 1] + (travel[frame] - follow[frame - 1]) / (0.8 * fps)
    clock_s = np.arange(len(travel)) / fps
    slow, quick = (np.sin(2 * np.pi * (hertz * clock_s + rng.random())) for hertz in (0.31, 0.73))
    return follow * body_px + 2.0 * (slow + quick)


def _canvas(rink: Image, left: float, view_px: int) -> Image:
    """Return the view from ``left`` with subpixel precision, so that a slow pan is smooth."""
    import cv2

    whole, part = int(left), left % 1
    view, shifted = rink[:, whole : whole + view_px], rink[:, whole + 1 : whole + 1 + view_px]
    return np.asarray(cv2.addWeighted(view, 1 - part, shifted, part, 0), np.uint8)


def _project(joints: NDArray[np.float64], center: float, view: View) -> Vector:
    """Project ``[joint, xyz]`` to ``[joint, xy]``; points that are further away appear slightly higher."""
    body_px = view.body_px * _ZOOM
    x_px = joints[:, 0] * body_px - center + view.width_px * _ZOOM / 2
    y_px = view.feet_px * _ZOOM - (joints[:, 2] + 0.12 * joints[:, 1]) * body_px
    return np.stack([x_px, y_px], axis=1)


def _draw_shadow(canvas: Image, points: Vector, above_ice: float, feet_px: int) -> None:
    """Draw a shadow as wide as the body, and smaller while the body is in the air."""
    import cv2

    if feet_px + 22 >= len(canvas):
        return
    left, right = float(points[:, 0].min()), float(points[:, 0].max())
    reach = max(round((0.3 * (right - left) + 12) * (1 - 1.5 * above_ice)), 6)
    dark = _as_color(0.78 * canvas[feet_px + 22].mean(axis=0))
    center = (round((left + right) / 2), feet_px + 6)
    cv2.ellipse(canvas, center, (reach, max(reach // 6, 2)), 0, 0, 360, dark, -1, cv2.LINE_AA)


def _rink(width_px: int, view: View, rng: np.random.Generator) -> Image:
    """Draw the part of the rink that the camera can show: spectators, advertising boards and ice with blade marks."""
    import cv2

    rink, ice_px = np.full((view.height_px * _ZOOM, width_px, 3), 18, np.uint8), view.ice_px * _ZOOM
    _draw_crowd(rink, ice_px - _BOARDS_HEIGHT_PX, rng)
    _draw_boards(rink, ice_px, rng)
    _draw_ice(rink, ice_px, rng)
    grain = rng.normal(0, 3, (len(rink) // 2, width_px // 2 + 1))
    return np.clip(rink + cv2.resize(grain, (width_px, len(rink)))[..., None], 0, 255).astype(np.uint8)


def _draw_crowd(rink: Image, boards_px: int, rng: np.random.Generator) -> None:
    import cv2

    for row, y in enumerate(range(4, boards_px + 8, 19)):
        light = 0.35 + 0.25 * y / boards_px
        for x in range(8 * (row % 2) - 4, rink.shape[1] + 16, 16):
            seat = (x + int(rng.integers(-2, 3)), y + int(rng.integers(-2, 3)))
            coat, skin = _as_color(light * rng.integers(40, 220, 3)), int(light * rng.integers(90, 240))
            cv2.ellipse(rink, (seat[0], seat[1] + 11), (8, 9), 0, 180, 360, coat, -1, cv2.LINE_AA)
            cv2.circle(rink, seat, 4, (skin, int(0.82 * skin), int(0.7 * skin)), -1, cv2.LINE_AA)


def _draw_boards(rink: Image, ice_px: int, rng: np.random.Generator) -> None:
    import cv2

    boards_px = ice_px - _BOARDS_HEIGHT_PX
    rink[boards_px:ice_px] = (232, 236, 242)
    font, scale = cv2.FONT_HERSHEY_DUPLEX, 0.55
    left = -int(rng.integers(80))
    while left < rink.shape[1]:
        word = _WORDS[int(rng.integers(len(_WORDS)))]
        width = cv2.getTextSize(word, font, scale, 1)[0][0] + 28
        color = _as_color(rng.integers(30, 190, 3))
        cv2.rectangle(rink, (left, boards_px + 8), (left + width, ice_px - 8), color, -1)
        cv2.putText(rink, word, (left + 14, ice_px - 15), font, scale, (250, 250, 250), 1, cv2.LINE_AA)
        left += width + 12


def _draw_ice(rink: Image, ice_px: int, rng: np.random.Generator) -> None:
    import cv2

    far, near = np.array((206.0, 220.0, 232.0)), np.array((240.0, 246.0, 250.0))
    rink[ice_px:] = np.linspace(far, near, len(rink) - ice_px)[:, None].astype(np.uint8)
    width: int = rink.shape[1]
    for _ in range(width // 6):
        place = (int(rng.integers(width)), int(rng.integers(ice_px + 4, len(rink))))
        reach = (int(rng.integers(10, 60)), int(rng.integers(2, 9)))
        start, sweep = int(rng.integers(180)), int(rng.integers(60, 200))
        shade = int(rng.integers(186, 250))
        cv2.ellipse(rink, place, reach, 0, start, start + sweep, (shade - 8, shade, shade), 1, cv2.LINE_AA)


def _as_color(values: NDArray[np.floating] | NDArray[np.integer]) -> Color:
    red, green, blue = (int(value) for value in values)
    return red, green, blue
