"""Key points of people, upright and upside down, and the features of their movement."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from real_clips import sampled_frames
from seeded_networks import sha256_of
from torch import Tensor

from arabesque.extractors import athlete_search, pose, pose_networks
from arabesque.extractors.checkpoints import CheckpointFile, RandomWeights, Weights
from arabesque.extractors.hub_snapshot import CheckpointFolder
from arabesque.extractors.person import Box
from arabesque.extractors.pose import KEY_POINT_NAMES, KeyPoints, Pose
from arabesque.extractors.pose_crops import PoseCrop, angle_between, body_direction, cut_crops
from arabesque.extractors.pose_features import NAMES, frame_features, segment_features
from arabesque.extractors.pose_networks import BLAZEPOSE_LAYOUT, COCO_POINTS, Poses, VitPose, load_pose_network
from arabesque.extractors.protocol import FinishedVideo, SegmentInput
from arabesque.extractors.table import resolve
from arabesque.manifests.errors import ConfigError, MissingPackageError, WeightsError
from arabesque.manifests.recipes import load_recipe
from arabesque.manifests.streams import Sampling, StreamSpec

CPU = torch.device("cpu")
Points = NDArray[np.float32]


# ---- features -------------------------------------------------------------------------------------------------------

STANDING: dict[str, tuple[float, float]] = {
    # x, y of the right side in body parts; the left side has −x
    "ear": (0.1, -1.3), "eye": (0.05, -1.35), "shoulder": (0.3, -1.0), "elbow": (0.3, -0.5), "wrist": (0.3, 0.0),
    "hip": (0.2, 0.0), "knee": (0.2, 1.0), "ankle": (0.2, 2.0),
}  # fmt: skip


def standing(**moved: tuple[float, float]) -> Points:
    """Return ``[17, 2]`` key points of a person of three units; ``left_wrist = (x, y)`` moves a point."""
    places: dict[str, tuple[float, float]] = {"nose": (0.0, -1.25)}
    for name, (x, y) in STANDING.items():
        places |= {f"right_{name}": (x, y), f"left_{name}": (-x, y)}
    return np.array([moved.get(name, places[name]) for name in COCO_POINTS], np.float32)


def row(
    frames: Sequence[Points | None],
    fps: float = 10,
    scale_px: float = 40,
    camera: Sequence[float] = (0, 0, 0, 0),
    at: Callable[[int], tuple[float, float]] = lambda _: (0.0, 0.0),
    height_px: int = 480,
) -> dict[str, float]:
    """Return name → feature of a person drawn with ``scale_px`` pixels per unit, ``at`` pixels from the middle."""
    values = [
        None
        if points is None
        else frame_features(
            points * scale_px + [320 + at(number)[0], height_px / 2 + at(number)[1]],
            np.full(17, 0.9, np.float32),
            height_px,
            640,
            np.array(camera, np.float32),
        )
        for number, points in enumerate(frames)
    ]
    found = segment_features([number / fps for number in range(len(frames))], values)
    assert found is not None
    return dict(zip(NAMES, found.tolist(), strict=True))


def rotated(points: Points, angle: float) -> Points:
    cos, sin = np.cos(angle), np.sin(angle)
    return (points @ np.array([[cos, sin], [-sin, cos]])).astype(np.float32)


def mirrored(points: Points) -> Points:
    sides = {"left": "right", "right": "left"}
    names = [name.replace(side := name.partition("_")[0], sides.get(side, side)) for name in COCO_POINTS]
    return points[[COCO_POINTS.index(name) for name in names]] * np.array([-1, 1], np.float32)


def test_a_person_who_stands_still() -> None:
    found = row([standing()] * 5)
    expected = {
        "knee.mean.mean": np.pi,
        "elbow.mean.mean": np.pi,
        "knee.difference.high": 0,
        "lean.mean": 0,
        "upside_down": 0,
        "found": 1,
        "center.speed.high": 0,
        "trunk.turn.high": 0,
        "wrists_above_shoulders.mean": -1 / 3.0,
        "confidence.knee": 0.9,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=0.02), name
    assert 0.55 < found["center_above_ankles.mean"] < 0.75  # of trunk and legs; the center of mass is near the hips


def test_a_bent_knee_and_a_raised_leg_have_the_angles_that_were_drawn() -> None:
    found = row([standing(right_ankle=(1.2, 1.0))] * 3)
    assert found["knee.mean.mean"] == pytest.approx(0.75 * np.pi, abs=1e-3)
    assert found["knee.difference.mean"] == pytest.approx(np.pi / 2, abs=1e-3)
    split = row([standing(right_knee=(1.2, 0.0), right_ankle=(2.2, 0.0))] * 3)
    assert split["split.mean"] == pytest.approx(np.pi / 2, abs=1e-3)


def test_speeds_are_per_second_at_any_frame_rate() -> None:
    for fps in (5, 10, 30):
        turning = [rotated(standing(), 0.8 * number / fps) for number in range(8)]
        assert row(turning, fps=fps)["trunk.turn.mean"] == pytest.approx(0.8, abs=1e-3)
        walking = row([standing()] * 8, fps=fps, at=lambda number, fps=fps: (60 * number / fps, 0))
        assert walking["center.across.mean"] == pytest.approx(60 / (3 * 40), abs=1e-3)  # body lengths per second
        assert walking["center.down.mean"] == pytest.approx(0, abs=1e-4)


def test_the_motion_of_the_camera_is_not_that_of_the_center_of_mass() -> None:
    panned = row([standing()] * 6, at=lambda number: (24 * number, 0), camera=(24 / 480, 0, 0, 0))
    assert panned["center.speed.high"] == pytest.approx(0, abs=1e-4)


def test_an_upside_down_body_has_a_lean_of_180_degrees() -> None:
    found = row([rotated(standing(), np.pi)] * 4)
    assert found["lean.mean"] == pytest.approx(np.pi, abs=1e-3)
    assert found["upside_down"] == 1
    assert found["trunk.turn.high"] == pytest.approx(0, abs=1e-3)  # ±π is one direction


def acting(number: int) -> Points:
    return rotated(
        standing(right_ankle=(0.5 + 0.1 * number, 1.2), left_wrist=(-1.0, -1.0 + 0.1 * number)), 0.1 * number
    )


def test_a_mirrored_video_has_the_same_row() -> None:
    def place(number: int) -> tuple[float, float]:
        return 7.0 * number, -3.0 * number

    one = row([acting(number) for number in range(8)], at=place, camera=(0.01, 0.002, 0.01, 0.02))
    other = row(
        [mirrored(acting(number)) for number in range(8)],
        at=lambda number: (-place(number)[0], place(number)[1]),
        camera=(-0.01, 0.002, 0.01, -0.02),
    )
    assert one == pytest.approx(other, abs=1e-4)
    assert one["knee.difference.mean"] > 0.1


def test_the_size_of_the_person_and_of_the_frame_does_not_matter() -> None:
    near = row([acting(number) for number in range(8)], at=lambda number: (8.0 * number, 0))
    far = row([acting(number) for number in range(8)], at=lambda number: (4.0 * number, 0), scale_px=20)
    large = row([acting(number) for number in range(8)], at=lambda number: (8.0 * number, 0), height_px=960)
    assert near == pytest.approx(far, abs=1e-3)
    assert near == pytest.approx(large, abs=1e-3)


def test_frames_without_a_person_are_holes_and_not_zeros() -> None:
    """The person jumps over while hidden: no speed is measured across the hole."""
    hidden = [standing(), standing(), None, None, standing(), standing()]
    found = row(hidden, at=lambda number: (100.0 * (number > 2), 0))
    whole = row([standing()] * 6)
    assert found["found"] == pytest.approx(4 / 6)
    assert {**found, "found": 1.0} == pytest.approx(whole, abs=1e-4)


def test_no_two_neighboring_frames_have_no_row() -> None:
    value = frame_features(standing() * 40, np.ones(17, np.float32), 480, 640, np.zeros(4, np.float32))
    nothing = frame_features(standing() * np.nan, np.zeros(17, np.float32), 480, 640, np.zeros(4, np.float32))
    for values in ([None] * 4, [value, None, None, value], [nothing, value, nothing], [value]):
        assert segment_features([0.1 * number for number in range(len(values))], values) is None
    assert segment_features([0.0, 0.0], [value, value]) is None  # a repeated frame shows no motion


# ---- crops ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", [0.0, 0.7, np.pi / 2, np.pi, 4.0])
def test_points_of_a_crop_come_back_to_the_frame(up: float) -> None:
    """A white dot of the frame is found in the crop, and its position there is mapped back to that in the frame."""
    frame = torch.zeros(3, 200, 300, dtype=torch.uint8)
    frame[:, 78:83, 148:153] = 255
    crop = PoseCrop.around(Box(120, 40, 190, 130), up, 0.75)
    [picture] = cut_crops([frame], [crop], 128, 96)
    rows, columns = np.nonzero(picture[0].numpy() > 0.5)
    place = np.array([[columns.mean(), rows.mean()]], np.float32)
    assert crop.to_frame(place, 128, 96) == pytest.approx(np.array([[150.5, 80.5]]), abs=0.4)


def test_a_turned_crop_contains_the_box_with_its_margin() -> None:
    wide = Box(100, 100, 200, 140)
    upright, lying = (PoseCrop.around(wide, up, 1.0) for up in (0.0, np.pi / 2))
    assert upright.height_px == lying.height_px == pytest.approx(125)
    assert PoseCrop.around(wide, 0.0, 0.5).height_px == pytest.approx(250)
    assert PoseCrop.around(wide, np.pi / 2, 0.5).height_px == pytest.approx(125)


def test_outside_of_the_frame_a_crop_is_black() -> None:
    [picture] = cut_crops([torch.full((3, 50, 50), 255).byte()], [PoseCrop(0, 25, 40, 40, 0.0)], 40, 40)
    assert picture[:, :, :18].max() == 0
    assert picture[:, 5:35, 22:].min() > 0.999


@pytest.mark.parametrize("angle", [0.0, 1.0, -2.5, np.pi])
def test_the_direction_of_a_body(angle: float) -> None:
    assert angle_between(body_direction(rotated(standing(), angle)), angle) < 1e-5


# ---- the stream -----------------------------------------------------------------------------------------------------


class UprightOnly:
    """Finds a red head above blue hips, like a network that was trained on upright people."""

    height_px, width_px = 64, 48

    def __init__(self) -> None:
        self.num_pictures = 0

    def find(self, pictures: Tensor) -> Poses:
        self.num_pictures += len(pictures)
        points = np.zeros((len(pictures), 17, 2), np.float32)
        presence = np.zeros(len(pictures), np.float32)
        for number, picture in enumerate(pictures.numpy()):
            red, blue = (np.argwhere((picture[a] > 0.6) & (picture[b] < 0.4)) for a, b in ((0, 2), (2, 0)))
            if len(red) and len(blue):
                head, hips = red.mean(axis=0)[::-1], blue.mean(axis=0)[::-1]
                points[number] = hips
                points[number, :11] = head
                up = (hips - head) / np.linalg.norm(hips - head)
                presence[number] = max(float(up[1]), 0.0) ** 4
        return Poses(points, np.ones((len(pictures), 17), np.float32), presence)


HEAD, HIPS = (150, 60), (150, 130)


def picture_of(head: tuple[int, int], hips: tuple[int, int]) -> Tensor:
    frame = torch.zeros(3, 240, 320, dtype=torch.uint8)
    for channel, (x, y) in ((0, head), (2, hips)):
        frame[channel, y - 6 : y + 6, x - 6 : x + 6] = 255
    return frame


@pytest.fixture
def extractor_for(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, UprightOnly]]:
    """``extractor_for(kind, boxes, **settings)``: the detector finds these boxes, frame by frame."""

    def build(kind: Any, boxes: Sequence[Box | None], **settings: Any) -> tuple[Any, UprightOnly]:
        answers = iter(boxes)

        class Detector:
            def people(self, frames: Sequence[Tensor]) -> list[list[Box]]:
                return [[] if (box := next(answers)) is None else [box] for _ in frames]

        network = UprightOnly()
        monkeypatch.setattr(athlete_search, "load_detector", lambda *_: Detector())
        monkeypatch.setattr(pose, "load_pose_network", lambda *_: network)
        weights: dict[str, Weights] = {"network": RandomWeights(0), "detector": RandomWeights(0)}
        resolved = kind.Settings(**settings)
        return kind(settings=resolved, weights=weights, device=CPU, precision="float32"), network

    return build


def finished(extractor: Any, segments: Sequence[Sequence[Tensor]], fps: float = 10) -> FinishedVideo:
    video, number = extractor.start_video(), 0
    for index, frames in enumerate(segments):
        times_s = [(number + place) / fps for place in range(len(frames))]
        number += len(frames)
        segment = SegmentInput(index, times_s[0], times_s[-1] + 1 / fps, torch.stack(list(frames)), tuple(times_s))
        [part] = extractor.forward([extractor.prepare(segment)])
        assert extractor.is_part(part.numpy())
        assert part.isfinite().all()  # the pipeline accepts no other parts
        video.add(index, part.numpy(), times_s)
    return video.finish()


BOX = Box(110, 40, 190, 150, 0.9)


@pytest.mark.parametrize("head_down", [False, True])
def test_key_points_lie_where_they_were_drawn(
    head_down: bool, extractor_for: Callable[..., tuple[Any, UprightOnly]]
) -> None:
    head, hips = (HIPS, HEAD) if head_down else (HEAD, HIPS)
    extractor, _ = extractor_for(KeyPoints, [BOX] * 3)
    found = finished(extractor, [[picture_of(head, hips)]] * 3)
    assert sorted(found.features) == [0, 1, 2]
    named = dict(zip(KEY_POINT_NAMES, found.features[1].tolist(), strict=True))
    places = [named["nose.x"], named["nose.y"], named["left_hip.x"], named["left_hip.y"]]
    expected = [(head[0] - 160) / 240, (head[1] - 120) / 240, (hips[0] - 160) / 240, (hips[1] - 120) / 240]
    assert places == pytest.approx(expected, abs=2 / 240)


def test_upside_down_takes_turned_crops_and_has_none_without_them(
    extractor_for: Callable[..., tuple[Any, UprightOnly]],
) -> None:
    upright = [[picture_of(HEAD, HIPS)]] * 2
    down = [[picture_of(HIPS, HEAD)]] * 2
    extractor, network = extractor_for(KeyPoints, [BOX] * 4)
    finished(extractor, upright)
    assert network.num_pictures == 2
    finished(extractor, down)
    assert network.num_pictures == 2 + 2 * 8
    extractor, _ = extractor_for(KeyPoints, [BOX] * 2, turned=False)
    found = finished(extractor, down)
    assert found.features == {}
    assert found.boxes is not None
    assert found.boxes.num_frames_with_person == 2  # the person was detected


def test_a_crop_is_turned_once_more_to_the_direction_of_the_body(
    extractor_for: Callable[..., tuple[Any, UprightOnly]],
) -> None:
    """Two heads to the right for one up: 63°, seen best in a crop that is turned by as much."""
    head, hips = (180, 80), (120, 110)
    extractor, network = extractor_for(KeyPoints, [Box(90, 60, 200, 130, 0.9)])
    found = finished(extractor, [[picture_of(head, hips)]])
    assert network.num_pictures > 8
    named = dict(zip(KEY_POINT_NAMES, found.features[0].tolist(), strict=True))
    assert [named["nose.x"], named["nose.y"]] == pytest.approx([20 / 240, -40 / 240], abs=2 / 240)


def test_frames_and_segments_without_the_athlete_are_holes(
    extractor_for: Callable[..., tuple[Any, UprightOnly]],
) -> None:
    shown, hidden = picture_of(HEAD, HIPS), torch.zeros(3, 240, 320, dtype=torch.uint8)
    boxes = [BOX, BOX, BOX, None, None, None, None, None, BOX, BOX, None, None]
    extractor, _ = extractor_for(Pose, boxes)
    frames = [shown if box else hidden for box in boxes]
    found = finished(extractor, [frames[:4], frames[4:8], frames[8:]])
    assert sorted(found.features) == [0, 2]
    named = {index: dict(zip(NAMES, values.tolist(), strict=True)) for index, values in found.features.items()}
    assert [named[0]["found"], named[2]["found"]] == [0.75, 0.5]
    assert found.boxes is not None
    assert (found.boxes.num_frames, found.boxes.num_frames_with_person) == (12, 5)


def test_streams_that_cannot_be_computed_are_refused() -> None:
    def spec(extractor: str, frames: int, **settings: Any) -> StreamSpec:
        sampling = Sampling(fps=5, frames_per_segment=frames, frames_per_step=frames, remainder="drop-tail")
        weights = {"network": "random:0", "detector": "random:0"}
        return StreamSpec(extractor=extractor, sampling=sampling, weights=weights, settings=settings)

    with pytest.raises(ConfigError, match="speeds need two frames"):
        resolve(spec("pose", 1))
    with pytest.raises(ConfigError, match="set it to 1"):
        resolve(spec("key_points", 2))
    with pytest.raises(ConfigError, match="set num_athletes = 1"):
        resolve(spec("pose", 8, num_athletes=2))
    for stream in load_recipe("pose").streams.values():
        assert resolve(stream).settings["athlete"] == "track"


# ---- networks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def vitpose_folder(tmp_path: Path) -> CheckpointFolder:
    transformers: Any = import_module("transformers")
    torch.manual_seed(0)
    backbone = transformers.VitPoseBackboneConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=[64, 48], out_features=["stage2"]
    )
    config = transformers.VitPoseConfig(backbone_config=backbone, num_labels=17, use_simple_decoder=False)
    transformers.VitPoseForPoseEstimation(config).save_pretrained(tmp_path)
    transformers.VitPoseImageProcessor(size={"height": 64, "width": 48}).save_pretrained(tmp_path)
    return CheckpointFolder("a/b", tmp_path).with_digest()


def test_vitpose_finds_what_transformers_own_code_finds(vitpose_folder: CheckpointFolder) -> None:
    transformers: Any = import_module("transformers")
    coarse = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    frame = (torch.nn.functional.interpolate(coarse, (240, 320), mode="bilinear")[0] * 255).byte()
    box = Box(60, 40, 150, 200)
    network: Any = load_pose_network("vitpose", vitpose_folder, CPU)
    crop = PoseCrop.around(box, 0.0, network.width_px / network.height_px)
    picture = cut_crops([frame], [crop], network.height_px, network.width_px)
    processor = transformers.VitPoseImageProcessor.from_pretrained(vitpose_folder.path)
    theirs = transformers.VitPoseForPoseEstimation.from_pretrained(vitpose_folder.path)
    boxes = [[[60.0, 40.0, 90.0, 160.0]]]
    inputs = processor(frame.permute(1, 2, 0).numpy(), boxes=boxes, return_tensors="pt")
    mean, std = (torch.tensor(value)[:, None, None] for value in (processor.image_mean, processor.image_std))
    shown = inputs["pixel_values"] * std + mean
    # half a pixel of the frame apart: a box is measured from the edge of the frame, not from the center of its pixel
    assert (picture - shown).abs().mean() < 0.02
    found = network.find(shown)
    with torch.inference_mode():
        [[expected]] = processor.post_process_pose_estimation(theirs(**inputs), boxes=boxes)
    np.testing.assert_allclose(found.confidence[0], expected["scores"].numpy().clip(0, 1), atol=1e-4)
    ours = crop.to_frame(found.points[0], network.height_px, network.width_px)
    np.testing.assert_allclose(ours, expected["keypoints"].numpy(), atol=0.1)


def test_random_weights_make_a_vitpose_whose_numbers_the_seed_decides() -> None:
    first, other = (VitPose(RandomWeights(seed), CPU).find(torch.zeros(1, 3, 256, 192)) for seed in (1, 2))
    assert first.points.shape == (1, 17, 2)
    assert not np.array_equal(first.confidence, other.confidence)


def test_checkpoints_of_other_networks_are_refused(tmp_path: Path, vitpose_folder: CheckpointFolder) -> None:
    file = CheckpointFile("blazepose_full", tmp_path / "x.tflite", "0" * 64, BLAZEPOSE_LAYOUT)
    with pytest.raises(WeightsError, match='blazepose_full is a file of layout blazepose-tflite; network = "vitpose"'):
        load_pose_network("vitpose", file, CPU)
    for weights, name in ((vitpose_folder, "checkpoint a/b"), (RandomWeights(0), "random:0")):
        with pytest.raises(WeightsError, match=f'{name}: network = "blazepose" reads MediaPipe'):
            load_pose_network("blazepose", weights, CPU)


class Interpreter:
    """Finds 39 points in a row, like BlazePose: x, y, z, visibility and presence of each."""

    def __init__(self, model_content: bytes, num_threads: int) -> None:
        if model_content != b"model":
            raise ValueError("Model provided has model identifier 'text', should be 'TFL3'")
        self.shown: list[NDArray[np.float32]] = []

    def allocate_tensors(self) -> None: ...

    def invoke(self) -> None: ...

    def get_input_details(self) -> list[dict[str, Any]]:
        return [{"index": 5}]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [{"name": "Identity", "index": 0}, {"name": "Identity_1", "index": 1}]

    def set_tensor(self, index: int, value: NDArray[np.float32]) -> None:
        assert index == 5
        assert value.shape == (1, 256, 256, 3)
        self.shown.append(value)

    def get_tensor(self, index: int) -> NDArray[np.float32]:
        if index == 1:
            return np.array([[self.shown[-1].mean()]], np.float32)
        numbers = np.arange(39, dtype=np.float32)
        return np.stack([numbers + 0.5, 2 * numbers + 0.5, 0 * numbers, numbers - 11, 0 * numbers], axis=1).reshape(
            1, -1
        )


def blazepose_file(tmp_path: Path, content: bytes) -> CheckpointFile:
    path = tmp_path / "pose_landmark_full.tflite"
    path.write_bytes(content)
    return CheckpointFile("blazepose_full", path, sha256_of(path), BLAZEPOSE_LAYOUT)


def test_blazepose_has_the_points_of_coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pose_networks, "require_package", lambda *_: None)
    module = ModuleType("ai_edge_litert.interpreter")
    module.Interpreter = Interpreter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", ModuleType("ai_edge_litert"))
    network = load_pose_network("blazepose", blazepose_file(tmp_path, b"model"), CPU)
    found = network.find(torch.stack([torch.full((3, 256, 256), level) for level in (0.25, 0.75)]))
    assert found.presence.tolist() == [0.25, 0.75]
    place = {name: found.points[1, number].tolist() for number, name in enumerate(COCO_POINTS)}
    assert place["nose"] == [0, 0]
    assert (place["left_shoulder"], place["right_ankle"]) == ([11, 22], [28, 56])
    assert found.confidence[0, COCO_POINTS.index("left_shoulder")] == 0.5
    with pytest.raises(WeightsError, match="checkpoint blazepose_full is not a file of TensorFlow Lite"):
        load_pose_network("blazepose", blazepose_file(tmp_path, b"text"), CPU)


def test_without_its_package_blazepose_names_both_ways_to_proceed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(MissingPackageError, match=r'set network = "vitpose" .*, or pip install .*\[pose\]'):
        load_pose_network("blazepose", blazepose_file(tmp_path, b"model"), CPU)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clip", "fps", "turned", "at_least", "at_most"),
    [
        # six boxes of the gymnast are found; upright, BlazePose finds no person in any of them
        ("gymnast_394x496_60fps_silent.mp4", 5, False, 0, 1),
        ("gymnast_394x496_60fps_silent.mp4", 5, True, 5, 7),
        ("skater_640x480_30fps.avi", 1, True, 9, 11),
        ("skating_720x1280_portrait.mp4", 1, True, 8, 9),
    ],
)
def test_blazepose_on_real_clips(
    clip: str, fps: float, turned: bool, at_least: int, at_most: int, shared: Path
) -> None:
    """``BLAZEPOSE_TFLITE`` names pose_landmark_full.tflite of the npm package @mediapipe/pose."""
    pytest.importorskip("ai_edge_litert")
    if "BLAZEPOSE_TFLITE" not in os.environ:
        pytest.skip("BLAZEPOSE_TFLITE names no pose_landmark_full.tflite")
    network, yolo = Path(os.environ["BLAZEPOSE_TFLITE"]), shared / "weights" / "yolov8n.pt"
    extractor = KeyPoints(
        settings=KeyPoints.Settings(network="blazepose", turned=turned),
        weights={
            "network": CheckpointFile("blazepose_full", network, sha256_of(network), BLAZEPOSE_LAYOUT),
            "detector": CheckpointFile("yolo", yolo, sha256_of(yolo), "ultralytics-yolo", True),
        },
        device=CPU,
        precision="float32",
    )
    times_s, images = sampled_frames(shared / "videos" / clip, fps)
    found = finished(extractor, [[image] for image in images], fps)
    assert len(times_s) >= at_most
    assert at_least <= len(found.features) <= at_most
    for values in found.features.values():
        points = values.reshape(17, 3)
        assert np.abs(points[:, 1]).max() < 0.75
