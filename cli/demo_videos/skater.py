"""Drawing of a skater in costume from the positions of the joints."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .figure import JOINTS

Image = NDArray[np.uint8]
Vector = NDArray[np.float64]
Color = tuple[int, int, int]

_COSTUMES: tuple[tuple[Color, Color], ...] = (
    ((196, 30, 58), (255, 205, 90)),
    ((24, 96, 170), (190, 230, 255)),
    ((92, 38, 130), (240, 170, 235)),
    ((12, 120, 96), (215, 245, 160)),
    ((40, 40, 48), (240, 90, 70)),
)
"""Colors of dress and sash."""
_SKINS: tuple[Color, ...] = ((247, 214, 186), (224, 177, 138), (176, 122, 86), (118, 76, 52))
_HAIRS: tuple[Color, ...] = ((46, 32, 26), (110, 66, 34), (214, 170, 96), (24, 22, 28))
_BOOT, _BLADE, _EYE, _LIPS = (250, 250, 252), (112, 122, 136), (40, 30, 34), (176, 60, 66)


class Skater:
    """A skater in random colors. ``body_px`` is the body height in pixels."""

    def __init__(self, body_px: float, rng: np.random.Generator) -> None:
        self._unit = body_px / 196
        self._dress, self._sash = _COSTUMES[int(rng.integers(len(_COSTUMES)))]
        self._skin = _SKINS[int(rng.integers(len(_SKINS)))]
        self._hair = _HAIRS[int(rng.integers(len(_HAIRS)))]

    def draw(self, canvas: Image, points: Vector, depths: Vector, facing: float) -> None:
        """Draw the skater.

        Args:
            canvas: Image to draw on.
            points: ``[joint, xy]`` in pixels, in the order of `JOINTS`.
            depths: ``[joint]``: distance from the viewer.
            facing: Yaw in radians.
        """
        at: dict[str, Vector] = dict(zip(JOINTS, points, strict=True))
        depth = dict(zip(JOINTS, depths, strict=True))
        far, near = "left", "right"
        if depth["left_hand"] + depth["left_knee"] < depth["right_hand"] + depth["right_knee"]:
            far, near = near, far
        self._leg(canvas, at, far, dim=0.82)
        self._arm(canvas, at, far, dim=0.86)
        self._leg(canvas, at, near, dim=1.0)
        self._trunk(canvas, at)
        self._head(canvas, at, facing)
        self._arm(canvas, at, near, dim=1.0)

    def _leg(self, canvas: Image, at: dict[str, Vector], side: str, dim: float) -> None:
        hip, knee, foot = (at[f"{side}_{joint}"] for joint in ("hip", "knee", "foot"))
        shin = foot - knee
        self._limb(canvas, hip, knee, 12.5, 9.5, _dimmed(self._skin, 0.94 * dim))
        self._limb(canvas, knee, foot, 9.5, 6.0, _dimmed(self._skin, 0.94 * dim))
        self._limb(canvas, foot - 0.22 * shin, foot, 7.0, 7.5, _dimmed(_BOOT, dim))
        heel, tip = (foot + 0.09 * shin + self._unit * np.array([x, 4.0]) for x in (-9.0, 11.0))
        self._limb(canvas, heel, tip, 1.6, 1.6, _BLADE)

    def _arm(self, canvas: Image, at: dict[str, Vector], side: str, dim: float) -> None:
        shoulder, elbow, hand = (at[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "hand"))
        self._limb(canvas, shoulder, elbow, 7.5, 6.0, _dimmed(self._dress, dim))
        self._limb(canvas, elbow, hand, 6.0, 4.0, _dimmed(self._skin, dim))
        self._limb(canvas, hand, hand, 5.0, 5.0, _dimmed(self._skin, dim))

    def _trunk(self, canvas: Image, at: dict[str, Vector]) -> None:
        neck, pelvis = at["neck"], at["pelvis"]
        waist = 0.4 * neck + 0.6 * pelvis
        self._skirt(canvas, waist, pelvis, [at["left_knee"], at["right_knee"]])
        self._limb(canvas, at["left_shoulder"], at["right_shoulder"], 8.0, 8.0, self._dress)
        self._limb(canvas, neck, waist, 15.0, 11.5, self._dress)
        self._limb(canvas, waist, waist, 12.0, 12.0, self._sash)
        self._limb(canvas, waist + 0.25 * (pelvis - waist), pelvis, 11.5, 13.5, self._dress)

    def _skirt(self, canvas: Image, waist: Vector, pelvis: Vector, knees: list[Vector]) -> None:
        """Draw the skirt: it hangs from the waist, flares, and follows the thighs down to the middle."""
        import cv2

        down, across = _axes(waist, pelvis)
        hem = pelvis + 24 * self._unit * down
        flare = 21 * self._unit * across
        outline = [waist, hem - flare, hem + flare, *(pelvis + 0.5 * (knee - pelvis) for knee in knees)]
        hull = cv2.convexHull(np.array(outline, np.float32))
        cv2.fillConvexPoly(
            canvas, _fixed_point(np.asarray(hull, np.float64)), _dimmed(self._dress, 0.9), cv2.LINE_AA, 4
        )

    def _head(self, canvas: Image, at: dict[str, Vector], facing: float) -> None:
        """Draw hair with a bun, and the face if it is visible."""
        up, across = _axes(at["neck"], at["head"])
        up, across = self._unit * up, self._unit * across
        sideways, towards_viewer = float(np.cos(facing)), -float(np.sin(facing))
        center = at["head"] + 3 * up
        bun = center + 13 * up - 8 * sideways * across
        self._limb(canvas, at["neck"], at["head"], 5.5, 5.5, _dimmed(self._skin, 0.9))
        self._limb(canvas, bun, bun, 7.5, 7.5, self._hair)
        self._limb(canvas, center, center, 16.5, 16.5, self._hair)
        if towards_viewer < -0.2:
            return
        face = center - 3 * up + 5 * sideways * across
        self._limb(canvas, face, face, 13.0, 13.0, self._skin)
        for right in (-5, 5):
            eye = face + 2 * up + (right * towards_viewer + 5 * sideways) * across
            self._limb(canvas, eye, eye, 1.8, 1.8, _EYE)
        mouth = [
            face - drop * up + (right * towards_viewer + 5 * sideways) * across
            for right, drop in ((-4, 5), (0, 7), (4, 5))
        ]
        for start, end in pairwise(mouth):
            self._limb(canvas, start, end, 1.1, 1.1, _LIPS)

    def _limb(
        self, canvas: Image, start: Vector, end: Vector, start_radius: float, end_radius: float, color: Color
    ) -> None:
        """Draw a tapered capsule, or a disc if both ends coincide."""
        import cv2

        radii = (start_radius * self._unit, end_radius * self._unit)
        if np.hypot(*(end - start)) > 0.5:
            _, across = _axes(start, end)
            outline = [start - radii[0] * across, start + radii[0] * across]
            outline += [end + radii[1] * across, end - radii[1] * across]
            cv2.fillConvexPoly(canvas, _fixed_point(np.array(outline)), color, cv2.LINE_AA, 4)
            _disc(canvas, start, radii[0], color)
        _disc(canvas, end, radii[1], color)


def _disc(canvas: Image, center: Vector, radius: float, color: Color) -> None:
    import cv2

    x, y = (round(16 * float(value)) for value in center)
    cv2.circle(canvas, (x, y), round(16 * radius), color, -1, cv2.LINE_AA, 4)


def _axes(start: Vector, end: Vector) -> tuple[Vector, Vector]:
    """Return the unit vector from start to end, and the one perpendicular to it."""
    along = (end - start) / max(float(np.hypot(*(end - start))), 1e-6)
    return along, np.array([-along[1], along[0]])


def _fixed_point(points: Vector) -> NDArray[np.int32]:
    """Convert to sixteenths of a pixel, as OpenCV expects them with ``shift=4``."""
    return np.rint(16 * points).astype(np.int32)


def _dimmed(color: Color, share: float) -> Color:
    red, green, blue = (int(share * channel) for channel in color)
    return red, green, blue
