"""The drawn broadcasts agree with their stated truth."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from arabesque.cli.demo_videos.broadcast import HEIGHT_PX, WIDTH_PX, Broadcast, Programme, write_broadcast
from arabesque.cli.demo_videos.routines import FPS


@pytest.fixture(scope="module")
def broadcast(tmp_path_factory: pytest.TempPathFactory) -> Broadcast:
    folder = tmp_path_factory.mktemp("broadcast")
    return write_broadcast(folder / "cup.mp4", 11, Programme(routine_s=6.0, cutaway=False))


@pytest.fixture(scope="module")
def frames(broadcast: Broadcast) -> NDArray[np.uint8]:
    with av.open(str(broadcast.path)) as container:
        shown = (np.asarray(frame.to_ndarray(format="gray"), np.uint8) for frame in container.decode(video=0))
        return np.stack([frame[::4, ::4] for frame in shown])


def test_shots_cover_every_frame_once(broadcast: Broadcast, frames: NDArray[np.uint8]) -> None:
    edges = [(shot.start_frame, shot.end_frame) for shot in broadcast.shots]
    assert len(frames) == broadcast.num_frames
    assert edges[0][0] == 0
    assert edges[-1][1] == broadcast.num_frames
    assert all(before[1] == after[0] for before, after in pairwise(edges))
    assert frames.shape[1:] == (HEIGHT_PX // 4, WIDTH_PX // 4)


def test_the_picture_changes_most_at_cuts(broadcast: Broadcast, frames: NDArray[np.uint8]) -> None:
    change = np.abs(np.diff(frames.astype(float), axis=0)).mean(axis=(1, 2))
    cuts = [shot.start_frame for shot in broadcast.shots[1:] if shot.enters_by == "cut"]
    assert len(cuts) >= 4
    for cut in cuts:
        assert change[cut - 1] > 3 * np.median(change[max(cut - 12, 0) : cut + 12])


def test_a_replay_shows_the_stretch_that_it_states(broadcast: Broadcast, frames: NDArray[np.uint8]) -> None:
    (replay,) = (shot for shot in broadcast.shots if shot.kind == "replay")
    assert replay.replays_s is not None
    start_s, end_s = replay.replays_s
    middle = (replay.start_frame + replay.end_frame) // 2
    original = round((start_s + (middle - replay.start_frame) / FPS * replay.speed) * FPS)
    errors = [np.abs(frames[middle].astype(float) - frames[at]).mean() for at in range(original - 20, original + 21)]
    assert abs(int(np.argmin(errors)) - 20) <= 2
    assert end_s - start_s == pytest.approx((replay.end_frame - replay.start_frame) / FPS * replay.speed, abs=0.15)


def test_the_music_lasts_as_long_as_the_routine(broadcast: Broadcast) -> None:
    with av.open(str(broadcast.path)) as container:
        rate_hz = container.streams.audio[0].rate
        audio = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    ((start_s, end_s),) = broadcast.routines_s
    loudness = [
        float(np.sqrt(np.mean(audio[round(at * rate_hz) :][: rate_hz // 2] ** 2)))
        for at in (start_s - 1, start_s, end_s - 1)
    ]
    assert loudness[1] > 5 * loudness[0]
    assert loudness[2] > 5 * loudness[0]


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    programme = Programme(routine_s=2.0, num_replays=0, cutaway=False, music=False, look="pillars")
    first, second = (write_broadcast(tmp_path / f"{number}.mp4", 3, programme) for number in range(2))
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.shots == second.shots
