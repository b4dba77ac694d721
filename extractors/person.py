"""The people in a frame, by any YOLO detector in ultralytics' file format."""

from __future__ import annotations

import atexit
import io
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from ..manifests.errors import WeightsError
from ..manifests.streams import Geometry, Size
from .checkpoints import CheckpointFile, RandomWeights, Weights, load_network
from .geometry import apply_geometry
from .hub_snapshot import CheckpointFolder
from .onednn_layers import to_device, with_onednn
from .precision import inference

LONG_SIDE_PX = 640
"""What the published detectors were trained at."""
PADDING_LEVEL = 114
"""The gray that ultralytics letterboxes with, in training too."""
OVERLAP_IOU = 0.7
"""Ultralytics' default for non-maximum suppression in prediction."""

RENAMED_CLASSES = {
    "ultralytics.nn.tasks.YOLOv10DetectionModel": "ultralytics.nn.tasks.DetectionModel",
    "ultralytics.utils.loss.v10DetectLoss": "ultralytics.utils.loss.E2EDetectLoss",
    "ultralytics.nn.modules.block.Silence": "torch.nn.Identity",
}
"""Names in published files that ultralytics has given up since, and what stands for them now."""


@dataclass(frozen=True)
class Box:
    """Edges in pixels of the frame it was found in, inside that frame; ``right`` and ``bottom`` are exclusive."""

    left: float
    top: float
    right: float
    bottom: float
    confidence: float = 1.0
    """Of the detector, 0 to 1."""

    @property
    def area_px(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)


class PersonDetector:
    """Always computes in float32: a box decides by a threshold and by whole pixels, where half precision shows."""

    def __init__(self, weights: Weights, device: torch.device, threshold: float = 0.25) -> None:
        network, self._person = load_detector(weights)
        self._stride = int(network.stride.max())
        self._network = to_device(network, device)
        self._threshold = threshold

    def people(self, frames: Sequence[Tensor]) -> list[list[Box]]:
        """For each ``uint8 [3, h, w]`` frame, RGB, its people, most certain first; frames of one size share a batch."""
        positions: defaultdict[torch.Size, list[int]] = defaultdict(list)
        for position, frame in enumerate(frames):
            positions[frame.shape].append(position)
        boxes: dict[int, list[Box]] = {}
        for together in positions.values():
            batch = torch.stack([frames[position] for position in together])
            boxes.update(zip(together, self._detect(batch), strict=True))
        return [boxes[position] for position in range(len(frames))]

    def _detect(self, frames: Tensor) -> list[list[Box]]:
        letterbox = Letterbox.fit(frames.shape[-2], frames.shape[-1], self._stride)
        with inference(frames.device, "float32"):
            output = self._network(letterbox.apply(frames).float() / 255)
            raw = output[0] if isinstance(output, tuple) else output
            return [_boxes(letterbox, *self._people(image)) for image in raw]

    def _people(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Edges ``[n, 4]`` on the letterboxed image and scores ``[n]`` of one image's people above the threshold.

        ``raw`` is ``[4 + classes, anchors]``, center and size first, or from networks that need no
        suppression (YOLOv10, YOLO26) ``[detections, 6]``: edges, score, class.
        """
        if raw.shape[-1] == 6:
            edges, scores, classes = raw[:, :4], raw[:, 4], raw[:, 5]
        else:
            center, size = raw[:2].T, raw[2:4].T
            edges = torch.cat([center - size / 2, center + size / 2], dim=1)
            scores, classes = raw[4:].max(dim=0)
        wanted = (classes == self._person) & (scores > self._threshold)
        return edges[wanted], scores[wanted]


def _boxes(letterbox: Letterbox, edges: Tensor, scores: Tensor) -> list[Box]:
    kept = nms(edges, scores, OVERLAP_IOU)
    numbers = torch.cat([letterbox.undo(edges[kept]), scores[kept, None]], dim=1).tolist()
    found = [Box(left, top, right, bottom, confidence) for left, top, right, bottom, confidence in numbers]
    return [box for box in found if box.right > box.left and box.bottom > box.top]


@dataclass(frozen=True)
class Letterbox:
    """Resize to a long side of 640, then pad both sides with gray to a multiple of the network's stride."""

    frame_px: tuple[int, int]
    """(height, width), as everywhere here."""
    resized_px: tuple[int, int]
    padding_px: tuple[int, int]
    """In all; the smaller half goes to the top and to the left."""

    @classmethod
    def fit(cls, height: int, width: int, stride: int) -> Letterbox:
        scale = min(LONG_SIDE_PX / height, LONG_SIDE_PX / width)
        resized = max(round(height * scale), 1), max(round(width * scale), 1)
        return cls((height, width), resized, (-resized[0] % stride, -resized[1] % stride))

    def apply(self, frames: Tensor) -> Tensor:
        """``uint8 [n, 3, h, w]`` → uint8; bilinear without antialiasing, as the detector was trained with OpenCV."""
        resized = apply_geometry(frames, Geometry(steps=(Size(size_px=self.resized_px),), antialias=False))
        (top, left), (height, width) = self._offset, self.padding_px
        return nn.functional.pad(resized, (left, width - left, top, height - top), value=PADDING_LEVEL)

    def undo(self, edges: Tensor) -> Tensor:
        """Edges ``[n, 4]`` (left, top, right, bottom) on the padded image → on the frame, clipped to it."""
        (top, left), (height, width) = self._offset, self.frame_px
        scale_y, scale_x = height / self.resized_px[0], width / self.resized_px[1]
        offset = edges.new_tensor([left, top, left, top])
        on_frame = (edges - offset) * edges.new_tensor([scale_x, scale_y, scale_x, scale_y])
        return on_frame.clamp(min=0).minimum(edges.new_tensor([width, height, width, height]))

    @property
    def _offset(self) -> tuple[int, int]:
        return self.padding_px[0] // 2, self.padding_px[1] // 2


def load_detector(weights: Weights) -> tuple[Any, int]:
    """The network, in eval mode and without gradients, and the number of its class ``person``."""
    if isinstance(weights, RandomWeights):
        build = lambda: ultralytics_tasks().DetectionModel("yolov8n.yaml", verbose=False)  # noqa: E731
        return load_network(build, weights, {}), 0
    if isinstance(weights, CheckpointFolder):
        raise WeightsError(f"checkpoint {weights.name} is a folder of transformers; the detector reads files")
    network: Any = with_onednn(_unpickle(weights).float().fuse(verbose=False).eval().requires_grad_(False))
    people = [number for number, name in network.names.items() if name == "person"]
    if not people:
        raise WeightsError(f"{weights.path}: checkpoint {weights.name} knows no class 'person'; give another detector")
    return network, people[0]


def _unpickle(checkpoint: CheckpointFile) -> Any:
    if not checkpoint.trusted_pickle:
        raise WeightsError(
            f"{checkpoint.path}: checkpoint {checkpoint.name} is a whole pickle, which can run any code when opened, "
            f"and its SHA-256 {checkpoint.digest} is not in weights.toml; give --trust if you know where it comes from"
        )
    file = io.BytesIO(checkpoint.read())  # the bytes that are executed are those that were hashed
    tasks = ultralytics_tasks()
    try:
        with tasks.temporary_modules(attributes=RENAMED_CLASSES):
            content = torch.load(file, map_location="cpu", weights_only=False)  # trusted above
        network = content.get("ema") or content["model"]
    except Exception as error:  # a pickle may raise anything
        raise WeightsError(
            f"{checkpoint.path}: checkpoint {checkpoint.name} cannot be opened as a YOLO file "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}); fetch or add it again"
        ) from error
    if type(network) is not tasks.DetectionModel:
        raise WeightsError(
            f"{checkpoint.path}: checkpoint {checkpoint.name} holds a {type(network).__name__}, not a YOLO detector "
            "of this ultralytics version; give a file made for detection"
        )
    return network


@cache
def ultralytics_tasks() -> ModuleType:
    """``ultralytics.nn.tasks``, imported so that it touches nothing of the user's and asks nothing of the network.

    Left to itself the package writes settings into the home folder, looks up hosts, may install packages, replaces
    `torch.save` and sets ``OMP_NUM_THREADS`` for every child process.
    """
    folder = tempfile.TemporaryDirectory(prefix="arabesque-ultralytics-")
    atexit.register(folder.cleanup)
    save = torch.save
    quiet = {"YOLO_CONFIG_DIR": folder.name, "YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_VERBOSE": "0"}
    with _environment(quiet):
        from ultralytics.nn import tasks
        from ultralytics.utils import SETTINGS
    torch.save = save
    SETTINGS.update(sync=False)
    return tasks


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    names = (*values, "OMP_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
