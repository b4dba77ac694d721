"""Detectors in ultralytics' file format: YOLOv8 and later. The package and its weights are under AGPL-3.0."""

from __future__ import annotations

import atexit
import io
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor

from ..manifests.errors import WeightsError
from ..manifests.optional_packages import require_package
from .checkpoints import CheckpointFile, RandomWeights, Weights, load_network
from .hub_snapshot import CheckpointFolder
from .onednn_layers import to_device, with_onednn
from .person import Detections, Letterbox

LAYOUT = "ultralytics-yolo"
LONG_SIDE_PX = 640
"""Long side of pictures in the training of the published detectors."""
GRAY_LEVEL = 114
"""Padding in ultralytics' training and prediction."""

RENAMED_CLASSES = {
    "ultralytics.nn.tasks.YOLOv10DetectionModel": "ultralytics.nn.tasks.DetectionModel",
    "ultralytics.utils.loss.v10DetectLoss": "ultralytics.utils.loss.E2EDetectLoss",
    "ultralytics.nn.modules.block.Silence": "torch.nn.Identity",
}
"""Class names in published files that ultralytics has removed → their current names."""


class UltralyticsDetector:
    """Any YOLO detector of ultralytics on letterboxed frames.

    Args:
        weights: A file of ultralytics, or a seed for an untrained YOLOv8n.
        device: Device of the network.
    """

    overlap_iou = 0.7
    """Ultralytics' default for non-maximum suppression in prediction."""

    def __init__(self, weights: Weights, device: torch.device) -> None:
        network, self._person = load_ultralytics(weights)
        self._stride = int(network.stride.max())
        self._network = to_device(network, device)

    def detect(self, frames: Tensor, threshold: float) -> list[Detections]:
        """See `DetectionNetwork.detect`."""
        letterbox = Letterbox.fit(frames.shape[-2], frames.shape[-1], LONG_SIDE_PX, self._stride)
        output: Any = self._network(letterbox.apply(frames, GRAY_LEVEL).float() / 255)
        raw = cast("Tensor", output[0] if isinstance(output, tuple) else output)
        candidates = candidates_in(raw).cpu()
        found: list[Detections] = []
        for each in candidates:
            people = each[(each[:, 5] == self._person) & (each[:, 4] > threshold)]
            found.append(Detections(letterbox.undo(people[:, :4]), people[:, 4]))
        return found


def candidates_in(raw: Tensor) -> Tensor:
    """Return ``[n, candidates, 6]``: edges on the letterboxed image, score and class.

    Args:
        raw: ``[n, 4 + classes, anchors]``, center and size first; or already the result, from networks without
            non-maximum suppression (YOLOv10, YOLO26).
    """
    if raw.shape[-1] == 6:
        return raw
    center, size = raw[:, :2].mT, raw[:, 2:4].mT
    scores, classes = raw[:, 4:].max(dim=1)
    return torch.cat([center - size / 2, center + size / 2, scores[..., None], classes[..., None]], dim=2)


def load_ultralytics(weights: Weights) -> tuple[Any, int]:
    """Return the network, in eval mode and without gradients, and the number of its class ``person``."""
    if isinstance(weights, RandomWeights):
        build = lambda: ultralytics_tasks().DetectionModel("yolov8n.yaml", verbose=False)  # noqa: E731
        return load_network(build, weights, {}), 0
    if isinstance(weights, CheckpointFolder):
        raise WeightsError(f"checkpoint {weights.name} is a folder of transformers; ultralytics reads files")
    network: Any = with_onednn(_unpickle(weights).float().fuse(verbose=False).eval().requires_grad_(False))
    people = [number for number, name in network.names.items() if name == "person"]
    if not people:
        raise WeightsError(f"{weights.path}: checkpoint {weights.name} has no class 'person'; give another detector")
    return network, people[0]


def _unpickle(checkpoint: CheckpointFile) -> Any:
    if not checkpoint.trusted_pickle:
        raise WeightsError(
            f"{checkpoint.path}: checkpoint {checkpoint.name} is a whole pickle, which can run any code when opened, "
            f"and its SHA-256 {checkpoint.digest} is not in weights.toml; give --trust if you know where it comes from"
        )
    file = io.BytesIO(checkpoint.read())  # the bytes whose digest was verified
    tasks = ultralytics_tasks()
    try:
        with tasks.temporary_modules(attributes=RENAMED_CLASSES):
            content = torch.load(file, map_location="cpu", weights_only=False)  # trusted above
        network = content.get("ema") or content["model"]
    except Exception as error:  # a pickle may raise errors of any type
        raise WeightsError(
            f"{checkpoint.path}: checkpoint {checkpoint.name} cannot be opened as a YOLO file "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}); fetch or add it again"
        ) from error
    if type(network) is not tasks.DetectionModel:
        raise WeightsError(
            f"{checkpoint.path}: checkpoint {checkpoint.name} contains a {type(network).__name__}, not a YOLO detector "
            "of this ultralytics version; give a file made for detection"
        )
    return network


@cache
def ultralytics_tasks() -> ModuleType:
    """Import ``ultralytics.nn.tasks`` without its side effects.

    By default the package writes settings to the home folder, connects to hosts, may install packages, replaces
    `torch.save` and sets ``OMP_NUM_THREADS`` for every child process.
    """
    require_package("ultralytics", 'detector = "ultralytics"')
    folder = tempfile.TemporaryDirectory(prefix="arabesque-ultralytics-")
    atexit.register(folder.cleanup)
    save = torch.save
    quiet = {"YOLO_CONFIG_DIR": folder.name, "YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_VERBOSE": "0"}
    with _environment(quiet):
        from ultralytics.nn import tasks
        from ultralytics.utils import SETTINGS
    torch.save = save
    SETTINGS.update(sync=False)  # pyright: ignore[reportUnknownMemberType]
    return tasks


@contextmanager
def _environment(values: dict[str, str]) -> Generator[None, None, None]:
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
