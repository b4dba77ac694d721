"""Synthetic broadcasts with exact truth: routines by several cameras, replays, close-ups, crowd, score boards, music.

A broadcast is a list of parts. Each routine is preceded by a board, the crowd or a close-up, and followed by a bow, a
close-up and replays between wipes. The truth states every shot, every boundary and the time of every routine.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .figure import Latents, Performance, perform
from .music import RATE_HZ, beat_times, compose
from .routines import FPS, encode
from .scene import View, draw
from .skater import Image

Transition = Literal["cut", "fade", "dissolve", "wipe"]
ShotKind = Literal["action", "replay", "close-up", "no-athlete"]
Look = Literal["plain", "pillars", "inset"]

WIDTH_PX, HEIGHT_PX = 256, 144
TRANSITION_FRAMES: dict[Transition, int] = {"cut": 0, "fade": 20, "dissolve": 16, "wipe": 18}

_WIDE = View(WIDTH_PX, HEIGHT_PX, body_px=52, feet_px=118, ice_px=72)
_MEDIUM = View(WIDTH_PX, HEIGHT_PX, body_px=76, feet_px=132, ice_px=60)
_CLOSE = View(WIDTH_PX, HEIGHT_PX, body_px=300, feet_px=335, ice_px=128)
_HELD_S = 1.2
"""Time for which the athlete stands still in the first shot before the routine, and in the last shot after it."""


@dataclass(frozen=True)
class DrawnShot:
    """One shot of a synthetic broadcast."""

    start_frame: int
    end_frame: int
    kind: ShotKind
    content: str
    """Content: routine, warm-up, bow, replay, close-up, crowd or board."""
    enters_by: Transition
    """Transition at its start; the first frame of the shot is the middle of a fade, dissolve or wipe."""
    replays_s: tuple[float, float] | None = None
    """Start and end of the repeated stretch; None if this is not a replay."""
    speed: float = 1.0


@dataclass(frozen=True)
class Broadcast:
    """A written broadcast and its truth."""

    path: Path
    num_frames: int
    shots: tuple[DrawnShot, ...]
    routines_s: tuple[tuple[float, float], ...]
    """First and last motion of each routine, which are also the start and end of its music."""


@dataclass(frozen=True)
class Programme:
    """Contents of a broadcast.

    ``look``: ``plain``; ``pillars``, a 4:3 picture between black bars; ``inset``, with a small second picture.
    """

    num_routines: int = 1
    routine_s: float = 16.0
    num_replays: int = 1
    music: bool = True
    strip: bool = True
    """Whether a name and a clock are shown over the routine."""
    flashes: int = 0
    """Number of single bright frames during each routine."""
    cutaway: bool = True
    """Whether the crowd is shown for a second in the middle of each routine, while the music continues."""
    look: Look = "plain"


@dataclass(eq=False)
class _Part:
    """One shot before it is joined to its neighbors."""

    frames: list[Image]
    kind: ShotKind
    content: str
    enters_by: Transition = "cut"
    speed: float = 1.0
    replays: tuple[int, int, int] | None = None
    """Index of the replayed part, and the first and the last frame in it."""


def write_broadcast(path: Path, seed: int | tuple[int, ...], programme: Programme | None = None) -> Broadcast:
    """Write a broadcast of 256 × 144 pixels at 25 frames per second. Equal arguments give identical files.

    Args:
        path: The MP4 file to write.
        seed: Determines everything that the programme does not define.
        programme: Contents of the broadcast.

    Returns:
        The truth.

    Example:
        >>> from tempfile import mkdtemp
        >>> broadcast = write_broadcast(Path(mkdtemp()) / "cup.mp4", seed=1, programme=Programme(routine_s=6.0))
        >>> len(broadcast.routines_s), broadcast.shots[0].start_frame
        (1, 0)
    """
    programme = programme or Programme()
    rng = np.random.default_rng(seed)
    logo = _logo(rng)
    parts: list[_Part] = []
    routines = [_add_routine(parts, programme, rng) for _ in range(programme.num_routines)]
    parts.append(_Part(_board(round(2.5 * FPS), rng), "no-athlete", "board"))
    frames, starts = _joined(parts, logo)
    shots = tuple(
        DrawnShot(start, end, part.kind, part.content, part.enters_by, _replayed_s(part, starts), part.speed)
        for part, start, end in zip(parts, starts, [*starts[1:], len(frames)], strict=True)
    )
    routines_s = tuple(
        ((starts[first] + held) / FPS, (starts[last] + len(parts[last].frames) - held) / FPS)
        for first, last, held in routines
    )
    audio = _sound(len(frames) / FPS, routines_s, rng) if programme.music else None
    encode(path, (_with_look(frame, programme.look, frames) for frame in frames), audio, (WIDTH_PX, HEIGHT_PX))
    return Broadcast(path, len(frames), shots, routines_s)


def _replayed_s(part: _Part, starts: list[int]) -> tuple[float, float] | None:
    if part.replays is None:
        return None
    index, first, last = part.replays
    return (starts[index] + first) / FPS, (starts[index] + last) / FPS


def _add_routine(parts: list[_Part], programme: Programme, rng: np.random.Generator) -> tuple[int, int, int]:
    """Add the parts before, during and after one routine.

    Returns:
        The first and the last part of the routine, and for how many frames the athlete stands still at both ends.
    """
    colors = int(rng.integers(2**31))
    parts.append(_Part(_board(_num_frames(2.0, 3.0, rng), rng), "no-athlete", "board", "fade" if parts else "cut"))
    parts.append(_Part(_crowd(_num_frames(2.0, 3.0, rng), rng), "no-athlete", "crowd"))
    if rng.random() < 0.5:
        warm_up = _performance(_num_frames(2.5, 4.0, rng), 0.5, rng)
        parts.append(_Part(_shown(warm_up, _WIDE, colors, rng), "action", "warm-up"))
    parts.append(_Part(_close_up(_num_frames(2.0, 3.0, rng), colors, rng), "close-up", "close-up", "dissolve"))

    first, held = len(parts), round(_HELD_S * FPS)
    routine = _held(_performance(round(programme.routine_s * FPS), float(rng.uniform(0.55, 1.0)), rng), held)
    edges = _shot_edges(len(routine.joints), held, rng)
    flashes = rng.choice(np.arange(held, len(routine.joints) - held), programme.flashes, replace=False)
    takes: dict[int, list[Image]] = {}
    for index, (start, end) in enumerate(pairwise(edges)):
        if programme.cutaway and len(edges) > 3 and index == (len(edges) - 1) // 2:
            parts.append(_Part(_crowd(end - start, rng), "no-athlete", "crowd"))
            continue
        take = _shown(_slice(routine, start, end), (_WIDE, _MEDIUM)[int(rng.integers(2))], colors, rng)
        takes[len(parts)] = take
        frames = [_with_strip(image, (start + at) // FPS) for at, image in enumerate(take)] if programme.strip else take
        for flash in (int(at) - start for at in flashes if start + 2 <= at < end - 2):
            frames[flash] = 255 - (255 - frames[flash]) // np.uint8(4)
        parts.append(_Part(frames, "action", "routine"))
    last = len(parts) - 1

    bow = _performance(_num_frames(2.0, 3.0, rng), 0.1, rng)
    parts.append(_Part(_shown(bow, _MEDIUM, colors, rng), "action", "bow"))
    parts.append(_Part(_close_up(_num_frames(2.0, 3.0, rng), colors, rng), "close-up", "close-up"))
    replayed = rng.permutation(list(takes))[: programme.num_replays].tolist()
    parts += [_replay(index, takes[index], rng) for index in replayed]
    enters_by: Transition = "wipe" if programme.num_replays else "cut"
    parts.append(_Part(_crowd(_num_frames(2.0, 3.0, rng), rng), "no-athlete", "crowd", enters_by))
    return first, last, held


def _num_frames(shortest_s: float, longest_s: float, rng: np.random.Generator) -> int:
    return round(float(rng.uniform(shortest_s, longest_s)) * FPS)


def _shot_edges(num_frames: int, held: int, rng: np.random.Generator) -> list[int]:
    """Return the first frame of each shot of a routine, and its end. Shots but the last take 2.5 to 5 s."""
    edges = [0]
    while num_frames - edges[-1] > round(6.5 * FPS) + held:
        edges.append(edges[-1] + _num_frames(2.5, 5.0, rng))
    return [*edges, num_frames]


# --- contents of the parts


def _performance(num_frames: int, amplitude: float, rng: np.random.Generator) -> Performance:
    """Return a performance without falls, with a tempo from the range of `_sound`."""
    times_s = np.arange(num_frames) / FPS
    beats_s = beat_times(num_frames / FPS, float(rng.uniform(92, 132)), first_s=0.3)
    return perform(times_s, beats_s, Latents(amplitude, 0.9, (), 0.0), rng)


def _held(performance: Performance, held: int) -> Performance:
    """Return the performance with its first and its last position repeated for ``held`` frames."""
    joints, travel, facing = (
        np.concatenate([each[:1].repeat(held, 0), each, each[-1:].repeat(held, 0)])
        for each in (performance.joints, performance.travel, performance.facing)
    )
    return Performance(joints, travel, facing)


def _slice(performance: Performance, start: int, end: int) -> Performance:
    return Performance(performance.joints[start:end], performance.travel[start:end], performance.facing[start:end])


def _shown(performance: Performance, view: View, colors: int, rng: np.random.Generator) -> list[Image]:
    return list(draw(performance, FPS, rng, view, np.random.default_rng(colors)))


def _close_up(num_frames: int, colors: int, rng: np.random.Generator) -> list[Image]:
    """Draw head and shoulders of the athlete, who stands and turns a little."""
    body = _performance(num_frames, 0.05, rng)
    calm = Performance(
        body.joints - np.array([1.0, 0.0, 0.0]) * body.travel[:, None, None], 0 * body.travel, body.facing
    )
    return _shown(calm, _CLOSE, colors, rng)


def _crowd(num_frames: int, rng: np.random.Generator) -> list[Image]:
    """Draw rows of spectators who sway, while the camera pans."""
    import cv2

    seats = np.full((HEIGHT_PX, 2 * WIDTH_PX, 3), 24, np.uint8)
    for row, y in enumerate(range(8, HEIGHT_PX + 12, 15)):
        for x in range(6 * (row % 2), 2 * WIDTH_PX, 13):
            coat = tuple(int(value) for value in rng.integers(30, 200, 3))
            skin = int(rng.integers(90, 230))
            cv2.ellipse(seats, (x, y + 9), (6, 8), 0, 180, 360, coat, -1, cv2.LINE_AA)
            cv2.circle(seats, (x, y), 4, (skin, int(0.82 * skin), int(0.7 * skin)), -1, cv2.LINE_AA)
    rows = np.arange(HEIGHT_PX)
    phase, hertz = rng.uniform(0, 6.3, HEIGHT_PX // 15 + 1), rng.uniform(0.6, 1.6, HEIGHT_PX // 15 + 1)
    pan_px, frames = float(rng.uniform(-1.0, 1.0)), list[Image]()
    for index in range(num_frames):
        sway = np.rint(2.5 * np.sin(2 * np.pi * hertz * index / FPS + phase))[rows // 15].astype(int)
        left = round(WIDTH_PX / 2 + pan_px * (index - num_frames / 2)) + sway
        frames.append(seats[rows[:, None], (left[:, None] + np.arange(WIDTH_PX)) % (2 * WIDTH_PX)])
    return frames


def _board(num_frames: int, rng: np.random.Generator) -> list[Image]:
    """Draw a score board that does not move."""
    import cv2

    image = np.full((HEIGHT_PX, WIDTH_PX, 3), rng.integers(10, 80, 3), np.uint8)
    light = tuple(int(value) for value in rng.integers(120, 250, 3))
    cv2.rectangle(image, (14, 12), (WIDTH_PX - 14, 34), light, -1)
    for row in range(4):
        text = f"{row + 1}  {''.join(chr(65 + int(k)) for k in rng.integers(26, size=7))}  {rng.uniform(50, 99):.2f}"
        cv2.putText(image, text, (20, 58 + 22 * row), cv2.FONT_HERSHEY_DUPLEX, 0.55, (240, 240, 240), 1, cv2.LINE_AA)
    return [image] * num_frames


def _replay(replayed: int, take: list[Image], rng: np.random.Generator) -> _Part:
    """Return 1.4 to 2.2 s of an earlier part at about half speed, with repeated or blended frames."""
    speed = float(rng.uniform(0.4, 0.6))
    length = min(_num_frames(1.4, 2.2, rng), len(take) - 2)
    first = int(rng.integers(len(take) - length))
    places, blends = first + np.arange(int((length - 1) / speed)) * speed, rng.random() < 0.5
    frames = list[Image]()
    for place in places:
        whole, share = int(place), (place % 1 if blends else 0.0)
        mixed = take[whole] * (1 - share) + take[whole + 1] * share
        frames.append(_with_tag(mixed.astype(np.uint8)))
    return _Part(frames, "replay", "replay", "wipe", speed, (replayed, first, int(places[-1]) + 1))


def _with_strip(image: Image, second: int) -> Image:
    import cv2

    shown = image.copy()
    shown[118:136, 10:120] = shown[118:136, 10:120] // 4 + np.array([10, 20, 70], np.uint8)
    cv2.putText(
        shown, f"ATHLETE {second:02d}", (15, 131), cv2.FONT_HERSHEY_DUPLEX, 0.4, (250, 250, 250), 1, cv2.LINE_AA
    )
    return shown


def _with_tag(image: Image) -> Image:
    import cv2

    shown = image.copy()
    cv2.rectangle(shown, (206, 8), (248, 20), (200, 30, 30), -1)
    cv2.putText(shown, "REPLAY", (209, 18), cv2.FONT_HERSHEY_DUPLEX, 0.32, (255, 255, 255), 1, cv2.LINE_AA)
    return shown


def _with_look(image: Image, look: Look, frames: list[Image]) -> Image:
    import cv2

    if look == "plain":
        return image
    if look == "pillars":
        shown = np.zeros_like(image)
        shown[:, 32:224] = cv2.resize(image, (192, HEIGHT_PX), interpolation=cv2.INTER_AREA)
        return shown
    shown = image.copy()
    shown[8:53, 168:248] = cv2.resize(frames[0], (80, 45), interpolation=cv2.INTER_AREA)
    return shown


# --- transitions between the parts


def _joined(parts: list[_Part], logo: Image) -> tuple[list[Image], list[int]]:
    """Return all frames, and the first frame of each part. A dissolve overlaps two parts, others keep the length."""
    frames, starts = list[Image](), list[int]()
    for part in parts:
        length = TRANSITION_FRAMES[part.enters_by]
        half, shown = length // 2, list(part.frames)
        if part.enters_by == "dissolve":
            tail = frames[-length:]
            del frames[-length:]
            for at, before in enumerate(tail):
                share = (at + 1) / (length + 1)
                shown[at] = (before * (1 - share) + shown[at] * share).astype(np.uint8)
            starts.append(len(frames) + half)
            frames += shown
            continue
        starts.append(len(frames))
        for at in range(half):
            if part.enters_by == "fade":
                light = at / half
                frames[-1 - at] = (frames[-1 - at] * light).astype(np.uint8)
                shown[at] = (shown[at] * light).astype(np.uint8)
            elif part.enters_by == "wipe":
                frames[-1 - at] = _wiped(frames[-1 - at], half - 1 - at, length, logo)
                shown[at] = _wiped(shown[at], half + at, length, logo)
        frames += shown
    return frames, starts


def _logo(rng: np.random.Generator) -> Image:
    """Draw the logo, ``uint8 [height, 2 · width, 3]``: a slanted band with a star, wider than a frame."""
    import cv2

    band = np.zeros((HEIGHT_PX, 2 * WIDTH_PX, 3), np.uint8)
    color, star = (tuple(int(value) for value in rng.integers(low, low + 120, 3)) for low in (30, 135))
    outline = np.array([[60, 0], [2 * WIDTH_PX - 1, 0], [2 * WIDTH_PX - 60, HEIGHT_PX], [0, HEIGHT_PX]])
    cv2.fillPoly(band, [outline], color)
    angles = np.arange(10) * np.pi / 5
    reach = np.where(np.arange(10) % 2, 22, 56)[:, None]
    points = np.array([WIDTH_PX, HEIGHT_PX // 2]) + reach * np.stack([np.sin(angles), -np.cos(angles)], 1)
    cv2.fillPoly(band, [np.rint(points).astype(np.int32)], star)
    return band


def _wiped(image: Image, step: int, length: int, logo: Image) -> Image:
    """Draw the logo over the image. It moves from left to right and covers the image in the middle steps."""
    left = round(-2 * WIDTH_PX + 3 * WIDTH_PX * (step + 0.5) / length)
    shown, first, last = image.copy(), max(left, 0), min(left + 2 * WIDTH_PX, WIDTH_PX)
    part = logo[:, first - left : last - left]
    shown[:, first:last] = np.where(part.any(axis=2, keepdims=True), part, shown[:, first:last])
    return shown


def _sound(
    duration_s: float, routines_s: tuple[tuple[float, float], ...], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return ``float32 [samples]``: the noise of a hall, music during the routines and applause after them."""
    audio = rng.normal(0, 0.002, round(duration_s * RATE_HZ)).astype(np.float32)
    for start_s, end_s in routines_s:
        beats_s = beat_times(end_s - start_s, float(rng.uniform(92, 132)), first_s=0.05)
        music = compose(end_s - start_s, beats_s, rng)
        first = round(start_s * RATE_HZ)
        audio[first : first + len(music)] += music[: len(audio) - first]
        claps = rng.normal(0, 0.06, 3 * RATE_HZ) * np.linspace(1, 0, 3 * RATE_HZ) * (rng.random(3 * RATE_HZ) < 0.3)
        first = round((end_s + 0.4) * RATE_HZ)
        audio[first : first + len(claps)] += claps[: len(audio) - first].astype(np.float32)
    return audio
