"""Detection rates of shots, replays and routines in broadcasts with known truth.

No threshold was chosen on these seeds.

``-s`` prints the measures. Drawn broadcasts of other seeds, and splices of real clips with replays made by re-timing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from arabesque.cli.demo_videos.broadcast import TRANSITION_FRAMES, Programme, Transition, write_broadcast
from arabesque.cli.demo_videos.routines import FPS, encode
from arabesque.manifests.recipes import load_recipe
from arabesque.manifests.shot_rules import load_shot_rules
from arabesque.models.broadcast.edits import STREAMS, Edit, read_edits
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.store.reader import FeatureStore

VIDEOS = Path(__file__).resolve().parents[4] / "shared" / "videos"
SIZE_PX = (320, 180)
PROGRAMMES = (
    Programme(num_replays=2, flashes=2),
    Programme(num_routines=2, routine_s=12.0),
    Programme(routine_s=20.0, num_replays=3, strip=False),
    Programme(look="pillars", cutaway=False),
    Programme(num_replays=2, look="inset", flashes=3),
)


@dataclass(frozen=True)
class Truth:
    """First frames of shots and their transitions; stretches of replays and routines in seconds."""

    boundaries: Sequence[tuple[int, Transition]]
    replays_s: Sequence[tuple[float, float]]
    routines_s: Sequence[tuple[float, float]] = ()


@dataclass
class Counts:
    found: int = 0
    missed: int = 0
    false: int = 0

    @property
    def precision(self) -> float:
        return self.found / max(self.found + self.false, 1)

    @property
    def recall(self) -> float:
        return self.found / max(self.found + self.missed, 1)

    @property
    def f1(self) -> float:
        return 2 * self.found / max(2 * self.found + self.missed + self.false, 1)


def edits_of(folder: Path) -> Iterator[Edit]:
    list(Extraction(folder, load_recipe("shots"), folder / "store", streams=STREAMS["content"]))
    paths = {path.stem: str(path) for path in sorted(folder.glob("*.mp4"))}
    return read_edits(FeatureStore(folder / "store"), paths, "content", load_shot_rules(), {})


def count_cuts(counts: Counts, edit: Edit, truth: Truth) -> None:
    remaining = [shot.first_frame for shot in edit.shots[1:]]
    for frame, transition in truth.boundaries:
        allowed = 1 if transition == "cut" else TRANSITION_FRAMES[transition] // 2 + 1
        near = [each for each in remaining if abs(each - frame) <= allowed]
        if near:
            remaining.remove(near[0])
            counts.found += 1
        else:
            counts.missed += 1
    counts.false += len(remaining)


def count_replays(counts: Counts, edit: Edit, truth: Truth) -> None:
    found = [(shot.start_s, shot.end_s) for shot in edit.shots if shot.kind == "replay"]
    for start_s, end_s in truth.replays_s:
        overlap = [min(end_s, end) - max(start_s, start) > 0.5 * (end_s - start_s) for start, end in found]
        counts.found += any(overlap)
        counts.missed += not any(overlap)
        found = [each for each, is_same in zip(found, overlap, strict=True) if not is_same]
    counts.false += len(found)


@pytest.mark.slow
def test_drawn_broadcasts(tmp_path: Path) -> None:
    truths: dict[str, Truth] = {}
    for number in range(10):
        drawn = write_broadcast(tmp_path / f"{number}.mp4", 3000 + number, PROGRAMMES[number % len(PROGRAMMES)])
        truths[drawn.path.stem] = Truth(
            [(shot.start_frame, shot.enters_by) for shot in drawn.shots[1:]],
            [(shot.start_frame / FPS, shot.end_frame / FPS) for shot in drawn.shots if shot.kind == "replay"],
            drawn.routines_s,
        )
    cuts, replays, near, num_edges = Counts(), Counts(), 0, 0
    for edit in edits_of(tmp_path):
        truth = truths[edit.video_id]
        count_cuts(cuts, edit, truth)
        count_replays(replays, edit, truth)
        assert len(edit.routines) == len(truth.routines_s)
        for routine, (start_s, end_s) in zip(edit.routines, truth.routines_s, strict=True):
            near += (abs(routine.start.time_s - start_s) <= 1) + (abs(routine.end.time_s - end_s) <= 1)
            num_edges += 2
    print(f"drawn: cuts {cuts} F1 {cuts.f1:.4f}; replays {replays}; {near} of {num_edges} starts and ends within 1 s")
    assert cuts.f1 >= 0.99
    assert min(replays.precision, replays.recall) >= 0.95
    assert near >= 0.95 * num_edges


def real_frames(path: Path) -> NDArray[np.uint8]:
    """Return all frames at `SIZE_PX` and about 25 per second, with bars if the aspect differs."""
    import cv2

    frames: list[NDArray[np.uint8]] = []
    next_s = 0.0
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            rate = float(container.streams.video[0].average_rate or FPS)
            if index / rate < next_s:
                continue
            next_s += 1 / FPS
            image = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
            scale = min(SIZE_PX[0] / image.shape[1], SIZE_PX[1] / image.shape[0])
            width, height = round(image.shape[1] * scale), round(image.shape[0] * scale)
            shown = np.zeros((SIZE_PX[1], SIZE_PX[0], 3), np.uint8)
            left, top = (SIZE_PX[0] - width) // 2, (SIZE_PX[1] - height) // 2
            small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            shown[top : top + height, left : left + width] = small
            frames.append(shown)
    return np.stack(frames[: 10 * FPS])  # one of the clips has a cut after 10.27 s


def splice(clips: Sequence[NDArray[np.uint8]], path: Path, seed: int) -> Truth:
    """Join stretches of the clips in random order, some followed by a replay of an earlier one at about half speed."""
    rng = np.random.default_rng(seed)
    parts: list[NDArray[np.uint8]] = []
    replays: list[int] = []
    for number in rng.permutation(len(clips)).tolist():
        clip = clips[number]
        length = min(int(rng.integers(60, 120)), len(clip))
        first = int(rng.integers(len(clip) - length + 1))
        parts.append(clip[first : first + length])
    originals = list(parts)
    # the motion of a picture that stands nearly still cannot be recognized
    moving = [at for at, part in enumerate(originals) if np.abs(part[::5].astype(np.int16) - part[0]).mean() > 4]
    for number in rng.choice(moving, 2, replace=False).tolist():
        source, speed = originals[number], float(rng.uniform(0.4, 0.65))
        length = min(int(rng.integers(36, 60)), len(source) - 1)
        first = int(rng.integers(len(source) - length))
        places = first + np.arange(int((length - 1) / speed)) * speed
        share = (places % 1)[:, None, None, None] if rng.random() < 0.5 else 0.0
        whole = places.astype(int)
        replays.append(len(parts))
        parts.append((source[whole] * (1 - share) + source[whole + 1] * share).astype(np.uint8))
        parts.append(originals[(number + 1) % len(originals)][-50:, :, ::-1])  # another picture between two replays
    starts = np.cumsum([0, *(len(part) for part in parts)])
    encode(path, (frame for part in parts for frame in part), None, SIZE_PX)
    return Truth(
        [(int(start), "cut") for start in starts[1:-1]],
        [(float(starts[at]) / FPS, float(starts[at + 1]) / FPS) for at in replays],
    )


@pytest.mark.slow
@pytest.mark.skipif(not VIDEOS.is_dir(), reason="needs ../shared/videos")
def test_splices_of_real_clips(tmp_path: Path) -> None:
    clips = [real_frames(path) for path in sorted(VIDEOS.iterdir()) if path.suffix in (".avi", ".mp4", ".webm")]
    truths = {str(seed): splice(clips, tmp_path / f"{seed}.mp4", seed) for seed in range(4000, 4008)}
    cuts, replays = Counts(), Counts()
    for edit in edits_of(tmp_path):
        count_cuts(cuts, edit, truths[edit.video_id])
        count_replays(replays, edit, truths[edit.video_id])
        print(edit.video_id, truths[edit.video_id], [(shot.first_frame, shot.kind, shot.reason) for shot in edit.shots])
    print(f"splices: cuts {cuts} F1 {cuts.f1:.4f}; replays {replays}")
    assert cuts.f1 >= 0.99
    assert min(replays.precision, replays.recall) >= 0.95
