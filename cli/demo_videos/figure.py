"""Movement of the synthetic athlete: computes joints over time from latents and beats. Lengths are in body heights.

Body axes: x forward, y to the left, z up. World axes: x to the right of the screen, y away from it, z up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_MOVE_SHARE = 0.42
"""Duration of a change of pose as a share of a beat; the movement is fastest on the beat."""

# Degrees. A limb hangs down at elevation 0, points ahead at (90, 0) and to the left at (90, 90). The third number
# bends its second half up (arms) or back (legs).
#       lean roll | left arm     | right arm     | left leg      | right leg
_NEUTRAL = (0, 0, 14, 90, 8, 14, -90, 8, 2, 90, 4, 2, -90, 4)
_POSES = (
    (78, 0, 92, 80, 0, 92, -80, 0, 108, 180, 0, 2, -90, 3),  # arabesque
    (4, 0, 172, 90, 4, 172, -90, 4, 6, 90, 6, 46, 178, -36),  # arms overhead, free leg back
    (16, 0, 100, 30, 6, 96, -120, 0, 62, 0, 74, 48, 180, 4),  # lunge
    (-8, 0, 92, 90, 0, 92, -90, 0, 98, 0, 4, 2, -90, 3),  # high kick
    (-34, 0, 165, 60, 0, 160, -60, 0, 8, 0, 12, 58, 180, -70),  # layback
    (2, 26, 160, 90, 6, 70, -90, 10, 4, 90, 4, 66, -90, 2),  # side tilt
    (34, 0, 78, 12, 0, 78, -12, 0, 84, 6, 2, 84, -6, 118),  # sit
    (6, -6, 70, 20, 74, 112, -90, 0, 40, 60, 80, 3, -90, 4),  # retire, one arm curved
)
_SPRAWL = (12, 0, 120, 60, 20, 70, -40, 10, 34, 40, 40, 26, -30, 10)

_THIGH, _SHIN, _TORSO, _HEAD, _ARM = 0.245, 0.245, 0.30, 0.105, 0.165
_SHOULDER, _HIP = 0.092, 0.05

JOINTS = (
    "pelvis", "neck", "head",
    "left_shoulder", "left_elbow", "left_hand", "right_shoulder", "right_elbow", "right_hand",
    "left_hip", "left_knee", "left_foot", "right_hip", "right_knee", "right_foot",
)  # fmt: skip
"""Order of the joints in `Performance.joints`."""


@dataclass(frozen=True)
class Latents:
    """Latent variables of a routine; its score is a function of them."""

    amplitude: float
    """0 … 1: size of the poses, the jumps and the travel."""
    steadiness: float
    """0 … 1: 1 means no tremor."""
    fall_beats: tuple[int, ...]
    """The beats on which the athlete falls."""
    timing_error_s: float
    """Delay of the movement relative to the music; negative is early."""


@dataclass(frozen=True, eq=False)
class Performance:
    """Position of the athlete over time."""

    joints: Array
    """``[frames, joint, xyz]`` in the world, z 0 on the ice, in the order of `JOINTS`."""
    travel: Array
    """``[frames]``: x coordinate of the athlete, without the pose."""
    facing: Array
    """``[frames]``: yaw in radians; 0 faces right, -π/2 the viewer."""


def perform(times_s: Array, beats_s: Array, latents: Latents, rng: np.random.Generator) -> Performance:
    """Return the performance of a choreography drawn from ``rng``, with these latents."""
    shifted_s = times_s - latents.timing_error_s
    fallen = _fall_weight(shifted_s, beats_s, latents.fall_beats)
    angles = _pose_angles(shifted_s, beats_s, latents.amplitude, rng)
    angles += fallen[:, None] * (np.array(_SPRAWL, float) - angles)
    tremor = (1 - latents.steadiness) * (1 - 0.8 * fallen)
    angles += 4.5 * tremor[:, None] * _tremble(times_s, angles.shape[1], rng)
    travel, facing = _path(shifted_s, beats_s, latents.amplitude, fallen, rng)
    height = _jump_height(shifted_s, beats_s, latents, rng)
    sway = 0.018 * tremor[:, None] * _tremble(times_s, 2, rng)

    joints = _turn(_skeleton(np.radians(angles)), 2, facing)
    joints = _turn(joints, 1, np.radians(80) * fallen * np.sign(np.gradient(travel)))
    joints[..., 2] -= joints[..., 2].min(axis=1, keepdims=True)
    joints[..., 0] += (travel + sway[:, 0])[:, None]
    joints[..., 2] += (height + np.abs(sway[:, 1]))[:, None]
    return Performance(joints, travel, facing)


def _pose_angles(times_s: Array, beats_s: Array, amplitude: float, rng: np.random.Generator) -> Array:
    """Return ``[frames, 14]`` degrees: one pose per beat; the movement to it is fastest on the beat."""
    neutral = np.array(_NEUTRAL, float)
    choices = rng.integers(len(_POSES), size=len(beats_s))
    for beat in range(1, len(choices)):  # the same pose twice would not mark the beat
        if choices[beat] == choices[beat - 1]:
            choices[beat] = (choices[beat] + 1) % len(_POSES)
    poses = np.array(_POSES, float)[choices]
    mirrored = rng.random(len(beats_s)) < 0.5
    poses[mirrored] = _mirror(poses[mirrored])
    poses = neutral + (0.22 + 0.78 * amplitude) * (poses - neutral)
    steps = np.diff(np.vstack([neutral, poses]), axis=0)
    move_s = _MOVE_SHARE * float(np.diff(beats_s).mean())
    return neutral + _ease((times_s[:, None] - beats_s) / move_s + 0.5) @ steps


def _mirror(poses: Array) -> Array:
    swapped = poses[:, [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10]]
    return swapped * np.array([1, -1, 1, -1, 1, 1, -1, 1, 1, -1, 1, 1, -1, 1])


def _path(
    times_s: Array, beats_s: Array, amplitude: float, fallen: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return the position along the rink and the yaw: the direction of travel, turned to the viewer, plus spins."""
    period_s, phase = rng.uniform(7.0, 10.0), rng.uniform(0, 2 * np.pi)
    swing = 0.35 + 0.75 * amplitude
    speed = swing * 2 * np.pi / period_s * np.cos(2 * np.pi * times_s / period_s + phase) * (1 - 0.9 * fallen)
    travel = np.cumsum(speed) * float(np.diff(times_s).mean())
    facing = -np.pi / 2 + 1.1 * np.tanh(2.5 * speed)
    for beat in range(4 + int(rng.integers(3)), len(beats_s) - 2, 7):
        turns = int(rng.integers(1, 3)) * (1 if rng.random() < 0.5 else -1)
        facing += 2 * np.pi * turns * _ease((times_s - beats_s[beat]) / float(beats_s[beat + 2] - beats_s[beat]))
    return travel, facing


def _jump_height(times_s: Array, beats_s: Array, latents: Latents, rng: np.random.Generator) -> Array:
    height = np.zeros_like(times_s)
    airborne_s = 0.42
    for beat in range(2 + int(rng.integers(3)), len(beats_s), 5):
        if any(abs(beat - fall) < 4 for fall in latents.fall_beats):
            continue
        along = (times_s - beats_s[beat]) / airborne_s + 0.5
        height += (0.03 + 0.27 * latents.amplitude) * np.clip(4 * along * (1 - along), 0, None)
    return height


def _fall_weight(times_s: Array, beats_s: Array, fall_beats: tuple[int, ...]) -> Array:
    """Return ``[frames]``: 0 on the feet, 1 on the ice; 0.3 s down, 0.7 s lying, 0.6 s up."""
    weight = np.zeros_like(times_s)
    for beat in fall_beats:
        since_s = times_s - beats_s[beat]
        weight = np.maximum(weight, _ease(since_s / 0.3) - _ease((since_s - 1.0) / 0.6))
    return weight


def _tremble(times_s: Array, columns: int, rng: np.random.Generator) -> Array:
    """Return ``[frames, columns]``: tremor of unit variance, a sum of three sines between 3.5 and 5.5 Hz."""
    hertz = rng.uniform(3.5, 5.5, (3, 1, columns))
    phase = rng.uniform(0, 2 * np.pi, (3, 1, columns))
    return np.sqrt(2 / 3) * np.sin(2 * np.pi * hertz * times_s[:, None] + phase).sum(axis=0)


def _skeleton(angles: Array) -> Array:
    """Return joints ``[frames, joint, xyz]`` relative to the pelvis for angles ``[frames, 14]`` in radians."""
    zero = np.zeros(len(angles))

    def bone(elevation: Array, azimuth: Array) -> Array:
        flat = np.sin(elevation)
        return np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), -np.cos(elevation)], axis=-1)

    def tilt(vectors: Array) -> Array:
        return _turn(_turn(vectors[:, None], 0, -angles[:, 1]), 1, angles[:, 0])[:, 0]

    neck = tilt(_TORSO * bone(zero + np.pi, zero))
    joints = [np.zeros_like(neck), neck, neck + tilt(_HEAD * bone(zero + np.pi, zero))]
    for first, side in ((2, 1.0), (5, -1.0)):
        elevation, azimuth, bend = angles[:, first], angles[:, first + 1], angles[:, first + 2]
        shoulder = neck + tilt(side * _SHOULDER * bone(zero + np.pi / 2, zero + np.pi / 2))
        elbow = shoulder + tilt(_ARM * bone(elevation, azimuth))
        joints += [shoulder, elbow, elbow + tilt(_ARM * bone(elevation + bend, azimuth))]
    for first, side in ((8, 1.0), (11, -1.0)):
        elevation, azimuth, bend = angles[:, first], angles[:, first + 1], angles[:, first + 2]
        hip = side * _HIP * bone(zero + np.pi / 2, zero + np.pi / 2)
        knee = hip + _THIGH * bone(elevation, azimuth)
        joints += [hip, knee, knee + _SHIN * bone(elevation - bend, azimuth)]
    return np.stack(joints, axis=1)


def _turn(joints: Array, axis: int, angle: Array) -> Array:
    """Rotate ``[frames, joint, xyz]`` about an axis by ``angle [frames]`` (radians, right-handed)."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    turned = joints.copy()
    turned[..., first] = cos * joints[..., first] - sin * joints[..., second]
    turned[..., second] = sin * joints[..., first] + cos * joints[..., second]
    return turned


def _ease(along: Array) -> Array:
    """Return a smooth step from 0 to 1 for ``along`` from 0 to 1."""
    clipped = np.clip(along, 0.0, 1.0)
    return clipped * clipped * (3 - 2 * clipped)
