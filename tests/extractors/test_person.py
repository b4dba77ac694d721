from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from arabesque.extractors import ultralytics_yolo
from arabesque.extractors.checkpoints import CheckpointFile, RandomWeights, Weights
from arabesque.extractors.detectors import load_detector
from arabesque.extractors.hub_snapshot import CheckpointFolder
from arabesque.extractors.person import Box, Letterbox, PersonDetector
from arabesque.extractors.ultralytics_yolo import UltralyticsDetector, load_ultralytics, ultralytics_tasks
from arabesque.manifests.errors import MissingPackageError, WeightsError

CPU = torch.device("cpu")


def checkpoint(path: Path, trusted_pickle: bool = True) -> CheckpointFile:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return CheckpointFile("yolo", path, digest, "ultralytics-yolo", trusted_pickle)


def ultralytics(weights: Weights, threshold: float = 0.25) -> PersonDetector:
    return load_detector("ultralytics", weights, CPU, threshold)


def yolo(architecture: str) -> Any:
    """An untrained network with the class names of COCO that are used here."""
    torch.manual_seed(0)
    network = ultralytics_tasks().DetectionModel(architecture, verbose=False)
    network.names = {0: "bicycle", 1: "person", **{number: str(number) for number in range(2, 80)}}
    return network


class Answer(nn.Module):
    """A detector that returns prepared raw output, image by image, and keeps its inputs."""

    stride = torch.tensor([8.0, 16.0, 32.0])

    def __init__(self, *images: Tensor) -> None:
        super().__init__()
        self.images = images
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        self.shown.append(x)
        return torch.stack(self.images[: len(x)]), None


def detector(monkeypatch: pytest.MonkeyPatch, network: nn.Module, threshold: float = 0.25) -> PersonDetector:
    """Class 1 of 3 is the person."""
    monkeypatch.setattr(ultralytics_yolo, "load_ultralytics", lambda _: (network, 1))
    return ultralytics(RandomWeights(0), threshold)


def anchors(*rows: tuple[float, ...]) -> Tensor:
    """Return ``[4 + classes, anchors]`` from rows of center x, center y, width, height, score of each class."""
    return torch.tensor(rows).T


def largest(people: list[list[Box]]) -> list[Box | None]:
    """Return the largest person of each frame."""
    return [max(boxes, key=lambda box: box.area_px, default=None) for boxes in people]


def nearly(box: Box | None, *edges: float) -> bool:
    assert box is not None
    return np.allclose((box.left, box.top, box.right, box.bottom), edges, atol=1e-3)


def test_finds_people_above_the_threshold_most_certain_first(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = anchors(
        (100, 100, 40, 80, 0.0, 0.9, 0.0),  # a person
        (300, 200, 60, 100, 0.0, 0.3, 0.0),  # a larger one
        (300, 300, 200, 300, 0.0, 0.2, 0.0),  # larger still, too unsure
        (300, 300, 300, 300, 0.6, 0.5, 0.0),  # more likely something else
    )
    [box] = largest(detector(monkeypatch, Answer(raw)).people([torch.zeros(3, 640, 640, dtype=torch.uint8)]))
    assert nearly(box, 270, 150, 330, 250)
    [boxes] = detector(monkeypatch, Answer(raw)).people([torch.zeros(3, 640, 640).byte()])
    assert [round(box.confidence, 2) for box in boxes] == [0.9, 0.3]
    [box] = largest(detector(monkeypatch, Answer(raw), threshold=0.5).people([torch.zeros(3, 640, 640).byte()]))
    assert nearly(box, 80, 60, 120, 140)


def test_overlapping_boxes_are_one_person_at_the_best_score(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = anchors((200, 200, 100, 200, 0.0, 0.9, 0.0), (202, 200, 110, 210, 0.0, 0.6, 0.0))
    [box] = largest(detector(monkeypatch, Answer(raw)).people([torch.zeros(3, 640, 640).byte()]))
    assert nearly(box, 150, 100, 250, 300)


def test_networks_without_suppression_give_edges_scores_and_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """YOLOv10 and YOLO26: the larger box of the other class, and the unsure one, do not count."""
    raw = torch.tensor([[10, 20, 30, 60, 0.9, 1], [0, 0, 400, 400, 0.9, 0], [0, 0, 300, 300, 0.1, 1]])
    [box] = largest(detector(monkeypatch, Answer(raw)).people([torch.zeros(3, 640, 640).byte()]))
    assert nearly(box, 10, 20, 30, 60)


def test_boxes_are_in_pixels_of_the_frame_and_clipped_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """1280 × 660 is shown as 640 × 330 with 22 rows of padding, 11 above."""
    network = Answer(anchors((320, 11 + 100, 100, 60, 0.0, 0.9, 0.0)), anchors((600, 340, 200, 200, 0.0, 0.9, 0.0)))
    frames = [torch.zeros(3, 660, 1280).byte()] * 2
    inside, beyond = largest(detector(monkeypatch, network).people(frames))
    assert nearly(inside, 540, 140, 740, 260)
    assert nearly(beyond, 1000, 458, 1280, 660)
    assert network.shown[0].shape == (2, 3, 352, 640)


def test_no_person_and_a_box_in_the_padding_give_no_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    no_person = anchors((100, 100, 10, 10, 0.0, 0.1, 0.0))
    padding = anchors((320, 5, 100, 10, 0.0, 0.9, 0.0))
    frames = [torch.zeros(3, 660, 1280).byte()] * 2
    assert largest(detector(monkeypatch, Answer(no_person, padding)).people(frames)) == [None, None]
    assert largest(detector(monkeypatch, Answer()).people([])) == []


def test_frames_of_one_size_share_a_batch_and_keep_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Answer(*(anchors((100 + 50 * n, 100, 40, 40, 0.0, 0.9, 0.0)) for n in range(2)))
    small, large = torch.zeros(3, 320, 640).byte(), torch.zeros(3, 640, 640).byte()
    boxes = largest(detector(monkeypatch, network).people([small, large, small]))
    assert [box and box.left for box in boxes] == [80, 80, 130]
    assert [len(batch) for batch in network.shown] == [2, 1]


@pytest.mark.parametrize(("height", "width"), [(480, 640), (720, 1280), (1280, 720), (496, 394), (333, 517), (3, 2000)])
def test_the_letterbox_is_ultralytics_own(height: int, width: int) -> None:
    """Against the package's class, on OpenCV's resize: at most one level apart, and the boxes come back."""
    ultralytics_tasks()
    from ultralytics.data.augment import LetterBox

    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    expected = LetterBox(640, auto=True, stride=32)(image=image)
    letterbox = Letterbox.fit(height, width, long_side_px=640, stride=32)
    ours = letterbox.apply(torch.from_numpy(image).permute(2, 0, 1)[None], 114)[0].permute(1, 2, 0).numpy()
    assert isinstance(expected, np.ndarray)
    assert ours.shape == expected.shape
    assert np.abs(ours.astype(int) - expected.astype(int)).max() <= 1
    assert_edges_come_back(letterbox)


def assert_edges_come_back(letterbox: Letterbox) -> None:
    height, width = letterbox.frame_px
    top, left = letterbox.padding_px[0] // 2, letterbox.padding_px[1] // 2
    shown = torch.tensor([[left, top, left + letterbox.resized_px[1], top + letterbox.resized_px[0]]]).float()
    assert torch.allclose(letterbox.undo(shown), torch.tensor([[0.0, 0.0, width, height]]), atol=1e-3)


def test_random_weights_are_decided_by_the_seed() -> None:
    first, again, other = (
        torch.cat([value.flatten() for value in load_ultralytics(RandomWeights(seed))[0].parameters()])
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_folder_of_transformers_is_not_a_detector(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="checkpoint hf:a/b is a folder of transformers; ultralytics reads files"):
        ultralytics(CheckpointFolder("hf:a/b", tmp_path))


def test_an_unknown_pickle_is_not_opened(tmp_path: Path) -> None:
    file, harm = tmp_path / "yolo.pt", tmp_path / "harm"
    torch.save({"model": Bomb(harm)}, file)
    with pytest.raises(WeightsError, match=r"yolo\.pt: .* can run any code .* --trust") as error:
        ultralytics(checkpoint(file, trusted_pickle=False))
    assert checkpoint(file).digest in str(error.value)
    assert not harm.exists()
    with pytest.raises(WeightsError, match="contains a NoneType, not a YOLO detector"):
        ultralytics(checkpoint(file))
    assert harm.exists()  # the pickle does execute code if it is trusted, so that the check above is meaningful


@pytest.mark.parametrize("architecture", ["yolov8n.yaml", "yolov10n.yaml", "yolo26n.yaml"])
def test_any_detector_of_the_package_loads(architecture: str, tmp_path: Path) -> None:
    torch.save({"model": yolo(architecture).half(), "ema": None}, tmp_path / "yolo.pt")
    loaded = ultralytics(checkpoint(tmp_path / "yolo.pt"), threshold=0.0)
    frame = torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(0)).byte()
    [box] = largest(loaded.people([frame]))
    assert box is None or (0 <= box.left < box.right <= 96 and 0 <= box.top < box.bottom <= 64)


def test_a_class_that_was_renamed_since_still_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = ultralytics_tasks()
    network = yolo("yolov10n.yaml")
    old = type("YOLOv10DetectionModel", (tasks.DetectionModel,), {"__module__": tasks.__name__})
    with monkeypatch.context() as while_saving:
        while_saving.setattr(tasks, "YOLOv10DetectionModel", old, raising=False)
        network.__class__ = old
        torch.save({"model": network}, tmp_path / "yolo.pt")
    with pytest.raises(AttributeError):
        torch.load(tmp_path / "yolo.pt", weights_only=False)
    ultralytics(checkpoint(tmp_path / "yolo.pt"))


def test_other_content_is_named(tmp_path: Path) -> None:
    file = tmp_path / "yolo.pt"
    file.write_bytes(pickle.dumps("no checkpoint"))
    with pytest.raises(WeightsError, match=r"yolo\.pt: .* cannot be opened as a YOLO file"):
        ultralytics(checkpoint(file))
    torch.save({"model": ultralytics_tasks().SegmentationModel("yolov8n-seg.yaml", verbose=False)}, file)
    with pytest.raises(WeightsError, match="contains a SegmentationModel, not a YOLO detector"):
        ultralytics(checkpoint(file))
    network = yolo("yolov8n.yaml")
    network.names[1] = "horse"
    torch.save({"model": network}, file)
    with pytest.raises(WeightsError, match="has no class 'person'"):
        ultralytics(checkpoint(file))


def test_without_the_package_both_ways_to_proceed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "ultralytics"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    ultralytics_tasks.cache_clear()
    with pytest.raises(MissingPackageError) as caught:
        UltralyticsDetector(RandomWeights(0), CPU)
    for way in ("[yolo]", 'detector = "transformers"', 'both to "yolov3"'):
        assert way in str(caught.value)


@pytest.mark.slow
def test_the_package_does_not_change_home_network_or_process(tmp_path: Path) -> None:
    """Run in a separate process, with an empty home folder and a network that raises an error when it is used."""
    script = """
import os, socket
import cv2, torch  # cv2 changes the environment by itself
def refuse(*_, **__): raise SystemExit("the network was asked")
socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
before, save = dict(os.environ), torch.save
from arabesque.extractors.checkpoints import RandomWeights
from arabesque.extractors.detectors import load_detector
load_detector("ultralytics", RandomWeights(0), torch.device("cpu"), 0.25).people([torch.zeros(3, 64, 64).byte()])
from ultralytics.utils import SETTINGS, SETTINGS_FILE
assert SETTINGS["sync"] is False and SETTINGS_FILE.exists()
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
assert torch.save is save
print(SETTINGS_FILE)
"""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "YOLO_", "OMP_"))}
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env=kept | {"HOME": str(home)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    ours = home / ".cache" / "arabesque"  # `kernel_choice`
    assert [path for path in home.rglob("*") if path.is_file() and not path.is_relative_to(ours)] == []
    assert list(tmp_path.iterdir()) == [home]
    assert not Path(ended.stdout.strip()).exists()  # the folder of the settings is removed with the process


@pytest.mark.slow
def test_finds_the_athletes_of_real_clips_where_ultralytics_does(shared: Path, tmp_path: Path) -> None:
    """Both skaters in at least 90 % of two frames a second, and every box as the package's own prediction has it."""
    weights = checkpoint(shared / "weights" / "yolov8n.pt")
    ours, theirs = ultralytics(weights), their_prediction(weights.path, tmp_path)
    for name in ("skater_640x480_30fps.avi", "skating_720x1280_portrait.mp4", "gymnast_394x496_60fps_silent.mp4"):
        frames = sampled(shared / "videos" / name, every=15)
        found = largest(ours.people([torch.from_numpy(frame).permute(2, 0, 1) for frame in frames]))
        for frame, box in zip(frames, found, strict=True):
            expected = theirs(frame)
            assert (box is None) == (expected is None), name
            assert box is None or expected is None or overlap(box, expected) >= 0.95, name
        if "skat" in name:
            assert sum(box is not None for box in found) >= 0.9 * len(frames), name


def sampled(path: Path, every: int) -> list[NDArray[np.uint8]]:
    import av

    with av.open(path) as container:
        frames = islice(container.decode(video=0), 0, 300, every)
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames]


def their_prediction(path: Path, folder: Path) -> Callable[[NDArray[np.uint8]], Box | None]:
    ultralytics_tasks()
    from ultralytics.models import YOLO

    model: Any = YOLO(path)

    def predict(frame: NDArray[np.uint8]) -> Box | None:
        [result] = model.predict(frame[..., ::-1], classes=[0], verbose=False, project=str(folder), device="cpu")
        boxes = [Box(*row) for row in result.boxes.xyxy.tolist()]
        return max(boxes, key=lambda box: box.area_px, default=None)

    return predict


def overlap(one: Box, other: Box) -> float:
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared_px = max(width, 0) * max(height, 0)
    return shared_px / (one.area_px + other.area_px - shared_px)
