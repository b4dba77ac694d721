"""Draws the athlete of `synthetic_figure` on a rink, seen by a camera that pans after her."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .synthetic_figure import JOINTS, Performance

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]
Point = tuple[float, float]

WIDTH_PX, HEIGHT_PX = 256, 192
_ZOOM = 2
"""Frames are drawn twice as large and shrunk, which smooths every edge."""
_BODY_PX = 98 * _ZOOM
_ICE_PX, _FEET_PX = 104 * _ZOOM, 168 * _ZOOM
"""Where the ice begins, and where the athlete stands on it."""

_COSTUMES: tuple[tuple[Colour, Colour], ...] = (
    ((196, 30, 58), (255, 205, 90)),
    ((24, 96, 170), (190, 230, 255)),
    ((92, 38, 130), (240, 170, 235)),
    ((12, 120, 96), (215, 245, 160)),
    ((40, 40, 48), (240, 90, 70)),
)
_SKINS: tuple[Colour, ...] = ((247, 214, 186), (224, 177, 138), (176, 122, 86), (118, 76, 52))
_HAIRS: tuple[Colour, ...] = ((46, 32, 26), (110, 66, 34), (214, 170, 96), (24, 22, 28))


def draw(performance: Performance, fps: float, rng: np.random.Generator) -> Iterator[Image]:
    """RGB frames ``uint8 [HEIGHT_PX, WIDTH_PX, 3]``, one for each of the performance's."""
    import cv2

    camera = _camera_path(performance.travel, fps, rng)
    left_edge = float(camera.min()) - WIDTH_PX * _ZOOM / 2
    rink = _rink(int(np.ptp(camera)) + WIDTH_PX * _ZOOM + 4, rng)
    size = (WIDTH_PX * _ZOOM, HEIGHT_PX * _ZOOM)
    artist = _Artist(rng)
    for joints, facing, centre in zip(performance.joints, performance.facing, camera, strict=True):
        middle = (float(centre) - left_edge, (HEIGHT_PX * _ZOOM - 1) / 2)
        canvas = cv2.getRectSubPix(rink, size, middle)
        artist.draw(canvas, _project(joints, float(centre)), joints, float(facing))
        yield np.asarray(cv2.resize(canvas, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA), np.uint8)


def _camera_path(travel: NDArray[np.float64], fps: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """``[frames]`` canvas pixels: it follows the athlete with a second's delay and a hand that is not quite still."""
    follow = np.empty_like(travel)
    follow[0] = travel[0]
    for frame in range(1, len(travel)):
        follow[frame] = follow[frame - 1] + (travel[frame] - follow[frame - 1]) / (0.8 * fps)
    clock_s = np.arange(len(travel)) / fps
    hand = sum(np.sin(2 * np.pi * (rate * clock_s + rng.random())) for rate in (0.31, 0.73))
    return follow * _BODY_PX + 2.0 * hand


def _project(joints: NDArray[np.float64], centre: float) -> NDArray[np.float64]:
    """``[joint, xy]`` canvas pixels; what is further away stands a little higher."""
    x_px = joints[:, 0] * _BODY_PX - centre + WIDTH_PX * _ZOOM / 2
    y_px = _FEET_PX - (joints[:, 2] + 0.12 * joints[:, 1]) * _BODY_PX
    return np.stack([x_px, y_px], axis=1)


def _rink(width_px: int, rng: np.random.Generator) -> Image:
    """The whole rink as the camera may pass it: a dim crowd, advertising boards, ice with the marks of blades."""
    import cv2

    rink = np.zeros((HEIGHT_PX * _ZOOM, width_px, 3), np.uint8)
    boards_px = _ICE_PX - 44
    seats = rng.integers(14, 90, (boards_px // 8 + 1, width_px // 8 + 1, 3)).astype(np.uint8)
    rink[:boards_px] = cv2.resize(seats, (width_px, boards_px), interpolation=cv2.INTER_CUBIC)
    rink[boards_px:_ICE_PX] = (232, 236, 242)
    left = 0
    while left < width_px:
        panel = int(rng.integers(90, 190))
        colour = tuple(int(c) for c in rng.integers(30, 190, 3))
        cv2.rectangle(rink, (left + 6, boards_px + 8), (left + panel - 6, _ICE_PX - 8), colour, -1)
        word = ("ARABESQUE", "EDGE", "AXEL", "LUTZ", "SALCHOW", "TEMPO")[int(rng.integers(6))]
        cv2.putText(rink, word, (left + 14, _ICE_PX - 15), cv2.FONT_HERSHEY_DUPLEX, 0.55, (250, 250, 250), 1, cv2.LINE_AA)
        left += panel
    rink[_ICE_PX:] = np.linspace((206, 220, 232), (240, 246, 250), len(rink) - _ICE_PX)[:, None].astype(np.uint8)
    for _ in range(width_px // 6):
        x, y = int(rng.integers(width_px)), int(rng.integers(_ICE_PX + 4, len(rink)))
        reach = (int(rng.integers(10, 60)), int(rng.integers(2, 9)))
        shade = int(rng.integers(186, 250))
        cv2.ellipse(rink, (x, y), reach, 0, int(rng.integers(180)), int(rng.integers(180, 360)), (shade - 8, shade, shade), 1, cv2.LINE_AA)
    grain = rng.normal(0, 4, (len(rink) // 2, width_px // 2 + 1, 1))
    grain = cv2.resize(grain, (width_px, len(rink)))[..., None]
    return np.clip(rink + grain, 0, 255).astype(np.uint8)


class _Artist:
    """Draws one athlete, in the colours that ``rng`` dresses her in."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._dress, self._trim = _COSTUMES[int(rng.integers(len(_COSTUMES)))]
        self._skin = _SKINS[int(rng.integers(len(_SKINS)))]
        self._hair = _HAIRS[int(rng.integers(len(_HAIRS)))]

    def draw(self, canvas: Image, points: NDArray[np.float64], joints: NDArray[np.float64], facing: float) -> None:
        at = {name: (float(x), float(y)) for name, (x, y) in zip(JOINTS, points, strict=True)}
        depth = dict(zip(JOINTS, joints[:, 1], strict=True))
        self._shadow(canvas, at, float(joints[:, 2].min()))
        sides = sorted(("left", "right"), key=lambda side: -depth[f"{side}_hand"] - depth[f"{side}_knee"])
        self._leg(canvas, at, sides[0], dim=0.82)
        self._arm(canvas, at, sides[0], dim=0.86)
        self._leg(canvas, at, sides[1], dim=1.0)
        self._torso(canvas, at)
        self._face(canvas, at, facing)
        self._arm(canvas, at, sides[1], dim=1.0)

    def _shadow(self, canvas: Image, at: dict[str, Point], above_ice: float) -> None:
        import cv2

        feet = [at["left_foot"], at["right_foot"], at["pelvis"]]
        centre = (round(sum(x for x, _ in feet) / 3), _FEET_PX + 6)
        reach = round(_BODY_PX * (0.17 - 0.25 * above_ice) + 0.25 * (max(x for x, _ in feet) - min(x for x, _ in feet)))
        shade = tuple(int(c) for c in 0.78 * canvas[_FEET_PX + 22 : _FEET_PX + 24].mean(axis=(0, 1)))
        cv2.ellipse(canvas, centre, (max(reach, 6), max(reach // 6, 2)), 0, 0, 360, shade, -1, cv2.LINE_AA)

    def _leg(self, canvas: Image, at: dict[str, Point], side: str, dim: float) -> None:
        hip, knee, foot = at[f"{side}_hip"], at[f"{side}_knee"], at[f"{side}_foot"]
        tights = _dimmed(self._skin, 0.94 * dim)
        _limb(canvas, hip, knee, 12.5, 9.5, tights)
        _limb(canvas, knee, foot, 9.5, 6.0, tights)
        along = (foot[0] - knee[0], foot[1] - knee[1])
        ankle = (foot[0] - 0.22 * along[0], foot[1] - 0.22 * along[1])
        _limb(canvas, ankle, foot, 7.0, 7.5, _dimmed((250, 250, 252), dim))
        blade = (foot[0] + 0.09 * along[0], foot[1] + 0.09 * along[1])
        _limb(canvas, (blade[0] - 9, blade[1] + 4), (blade[0] + 11, blade[1] + 4), 1.6, 1.6, (112, 122, 136))

    def _arm(self, canvas: Image, at: dict[str, Point], side: str, dim: float) -> None:
        shoulder, elbow, hand = at[f"{side}_shoulder"], at[f"{side}_elbow"], at[f"{side}_hand"]
        _limb(canvas, shoulder, elbow, 7.5, 6.0, _dimmed(self._dress, dim))
        _limb(canvas, elbow, hand, 6.0, 4.0, _dimmed(self._skin, dim))
        _limb(canvas, hand, hand, 5.0, 5.0, _dimmed(self._skin, dim))

    def _torso(self, canvas: Image, at: dict[str, Point]) -> None:
        import cv2

        neck, pelvis = at["neck"], at["pelvis"]
        waist = (0.4 * neck[0] + 0.6 * pelvis[0], 0.4 * neck[1] + 0.6 * pelvis[1])
        knees = [at["left_knee"], at["right_knee"]]
        hem = [(0.45 * hx + 0.55 * pelvis[0], 0.45 * hy + 0.55 * pelvis[1]) for hx, hy in knees]
        down = (0.55 * (pelvis[0] - neck[0]), 0.55 * (pelvis[1] - neck[1]))
        skirt = [waist, *hem, (pelvis[0] + down[0] - 18, pelvis[1] + down[1]), (pelvis[0] + down[0] + 18, pelvis[1] + down[1])]
        hull = cv2.convexHull(np.array(skirt, np.float32))
        cv2.fillConvexPoly(canvas, (hull * 16).astype(np.int32), _dimmed(self._dress, 0.9), cv2.LINE_AA, 4)
        _limb(canvas, at["left_shoulder"], at["right_shoulder"], 8.0, 8.0, self._dress)
        _limb(canvas, neck, waist, 15.0, 11.5, self._dress)
        _limb(canvas, waist, pelvis, 11.5, 14.0, self._dress)
        _limb(canvas, waist, waist, 12.0, 12.0, self._trim)
        _limb(canvas, waist, pelvis, 10.5, 13.5, self._dress)

    def _face(self, canvas: Image, at: dict[str, Point], facing: float) -> None:
        neck, head = at["neck"], at["head"]
        up = np.array(head) - np.array(neck)
        up = up / max(float(np.hypot(*up)), 1e-6)
        across = np.array([-up[1], up[0]])
        forward, towards_viewer = np.cos(facing), -np.sin(facing)
        centre = np.array(head) + 3 * up
        _limb(canvas, neck, head, 5.5, 5.5, _dimmed(self._skin, 0.9))
        bun = centre + 13 * up - 8 * forward * across
        _limb(canvas, tuple(bun), tuple(bun), 7.5, 7.5, self._hair)
        _limb(canvas, tuple(centre), tuple(centre), 16.5, 16.5, self._hair)
        if towards_viewer < -0.2:
            return
        face = centre - 3 * up + 5 * forward * across
        _limb(canvas, tuple(face), tuple(face), 13.0, 13.0, self._skin)
        for side in (-5.0, 5.0):
            eye = face + 2 * up + (side * towards_viewer + 5 * forward) * across
            _limb(canvas, tuple(eye), tuple(eye), 1.8, 1.8, (40, 30, 34))
        smile = [face - 5 * up + (s * towards_viewer + 5 * forward) * across - (abs(s) < 2) * 2 * up for s in (-4, 0, 4)]
        for start, end in zip(smile, smile[1:], strict=False):
            _limb(canvas, tuple(start), tuple(end), 1.1, 1.1, (176, 60, 66))


def _limb(canvas: Image, start: Point, end: Point, start_px: float, end_px: float, colour: Colour) -> None:
    """A tapered capsule with these radii at its ends."""
    import cv2

    ends = [(start, start_px), (end, end_px)]
    length = float(np.hypot(end[0] - start[0], end[1] - start[1]))
    if length > 0.5:
        nx, ny = -(end[1] - start[1]) / length, (end[0] - start[0]) / length
        sides = [(x + s * r * nx, y + s * r * ny) for s, pair in ((1, ends), (-1, ends[::-1])) for (x, y), r in pair]
        cv2.fillConvexPoly(canvas, (np.array(sides) * 16).astype(np.int32), colour, cv2.LINE_AA, 4)
    for (x, y), radius in ends[: 2 if length > 0.5 else 1]:
        cv2.circle(canvas, (round(x * 16), round(y * 16)), round(radius * 16), colour, -1, cv2.LINE_AA, 4)


def _dimmed(colour: Colour, share: float) -> Colour:
    red, green, blue = (int(share * channel) for channel in colour)
    return red, green, blue
