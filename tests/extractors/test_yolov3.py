"""YOLOv3 against OpenCV 4, which reads Darknet's own files (`yolov3_reference`)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yolov3_reference as darknet
from numpy.typing import NDArray
from seeded_networks import GOLDEN, sha256_of
from torch import Tensor, nn

from arabesque.extractors import yolov3
from arabesque.extractors.checkpoint_fit import require_fit
from arabesque.extractors.checkpoints import CheckpointFile, RandomWeights
from arabesque.extractors.detectors import load_detector
from arabesque.extractors.hub_snapshot import CheckpointFolder
from arabesque.extractors.yolov3 import LAYOUT, YoloV3, load_yolov3
from arabesque.manifests.errors import WeightsError
from arabesque.manifests.weights import load_weights_manifest

CPU = torch.device("cpu")
SaveFile = Callable[[bytes], CheckpointFile]


@pytest.fixture
def save_file(tmp_path: Path) -> SaveFile:
    def save(content: bytes) -> CheckpointFile:
        path = tmp_path / "yolov3.weights"
        path.write_bytes(content)
        return CheckpointFile("yolov3", path, sha256_of(path), LAYOUT)

    return save


def candidates(network: YoloV3, height_px: int, width_px: int) -> NDArray[np.float32]:
    """Return candidates in the form of `darknet.reference`: positions and sizes as shares of the picture."""
    with torch.inference_mode():
        [found] = network(torch.from_numpy(darknet.picture(height_px, width_px))).numpy()
    found[:, :4] /= [width_px, height_px, width_px, height_px]
    return found


def assert_equal_candidates(ours: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
    """OpenCV replaces class probabilities up to 0.2 by zeros."""
    np.testing.assert_allclose(ours[:, :5], reference[:, :5], rtol=1e-4, atol=1e-5)
    reported = reference[:, 5:] > 0
    assert reported.mean() > 0.05
    np.testing.assert_allclose(ours[:, 5:][reported], reference[:, 5:][reported], atol=1e-5)
    assert ours[:, 5:][~reported].max() <= 0.2 + 1e-5


def test_a_small_network_computes_what_opencv_does(save_file: SaveFile) -> None:
    network = load_yolov3(save_file(darknet.weights_file(darknet.GOLDEN_WIDTH)), darknet.GOLDEN_WIDTH)
    with np.load(GOLDEN / "yolov3.npz") as stored:
        assert_equal_candidates(candidates(network, *darknet.GOLDEN_SIZE), stored["candidates"])


@pytest.mark.slow
def test_the_published_network_computes_what_opencv_does(save_file: SaveFile, tmp_path: Path) -> None:
    """``OPENCV4_PYTHON`` names a Python with opencv-python 4, see `yolov3_reference`."""
    python = os.environ.get("OPENCV4_PYTHON")
    if python is None:
        pytest.skip("OPENCV4_PYTHON names no Python with opencv-python 4")
    command = [python, darknet.__file__, tmp_path / "out.npz", "--width", "32", "--size", "160", "224"]
    subprocess.run(command, check=True)
    content = darknet.weights_file(32)
    entry = load_weights_manifest().entry("yolov3")
    assert (len(content), entry.layout) == (entry.size_bytes, LAYOUT)
    checkpoint = save_file(content)
    require_fit(checkpoint)
    with np.load(tmp_path / "out.npz") as stored:
        assert_equal_candidates(candidates(load_yolov3(checkpoint), 160, 224), stored["candidates"])


def test_the_header_of_an_old_file_counts_pictures_in_four_bytes(save_file: SaveFile) -> None:
    content = darknet.weights_file(2)
    old = np.array([0, 1, 0, 7], "<i4").tobytes() + content[20:]
    new, same = load_yolov3(save_file(content), 2), load_yolov3(save_file(old), 2)
    for one, other in zip(new.parameters(), same.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("change", [lambda b: b[:-4], lambda b: b + bytes(8), lambda b: b[:10], lambda _: b""])
def test_a_file_of_another_length_is_refused(save_file: SaveFile, change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(WeightsError, match=r"yolov3\.weights: checkpoint yolov3 has [\d,]+ numbers; YOLOv3 has"):
        load_yolov3(save_file(change(darknet.weights_file(2))), 2)


def test_checkpoints_of_other_detectors_are_refused(tmp_path: Path) -> None:
    other = CheckpointFile("yolov8n", tmp_path / "yolov8n.pt", "0" * 64, "ultralytics-yolo", True)
    with pytest.raises(WeightsError, match="checkpoint yolov8n has the key layout 'ultralytics-yolo'; YoloV3 reads"):
        load_detector("yolov3", other, CPU, 0.25)
    with pytest.raises(WeightsError, match=r"checkpoint hf:a/b is a folder of transformers; YOLOv3 reads yolov3\.w"):
        load_detector("yolov3", CheckpointFolder("hf:a/b", tmp_path), CPU, 0.25)


def test_random_weights_are_decided_by_the_seed() -> None:
    first, again, other = (load_yolov3(RandomWeights(seed), 2).stem.convolution.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


class Answer(nn.Module):
    def __init__(self, *rows: tuple[float, float, float, float, float, float]) -> None:
        super().__init__()
        self.rows = rows
        self.shown: list[Tensor] = []

    def forward(self, pictures: Tensor) -> Tensor:
        self.shown.append(pictures)
        found = torch.zeros(len(pictures), len(self.rows), 85)
        for place, (x, y, width, height, person, dog) in enumerate(self.rows):
            found[:, place, :7] = torch.tensor([x, y, width, height, 1.0, person, dog])
        return found


def test_people_are_found_on_a_square_with_gray_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """304 × 152 is shown as 608 × 304, with 152 gray rows above and below. Only people count, each once."""
    answer = Answer(
        (304, 152 + 100, 80, 120, 0.8, 0.9),
        (308, 152 + 104, 84, 120, 0.6, 0.0),
        (100, 152 + 100, 80, 120, 0.1, 0.9),
        (600, 300, 40, 80, 0.5, 0.0),
    )
    monkeypatch.setattr(yolov3, "load_yolov3", lambda _: answer)
    [boxes] = load_detector("yolov3", RandomWeights(0), CPU, 0.25).people([torch.full((3, 152, 304), 255).byte()])
    edges = [(box.left, box.top, box.right, box.bottom, round(box.confidence, 2)) for box in boxes]
    assert edges == [(132, 20, 172, 80, 0.8), (290, 54, 304, 94, 0.5)]
    [shown] = answer.shown
    assert shown.shape == (1, 3, 608, 608)
    rows = shown[0, :, :, 0]
    assert torch.equal(rows[:, [0, 151, 152, 455, 456, 607]] == 1, torch.tensor([0, 0, 1, 1, 0, 0]).bool().expand(3, 6))
    assert abs(float(rows[0, 0]) - 0.5) < 0.01
