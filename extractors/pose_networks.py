"""Networks that find the 17 key points of COCO in a crop around one person.

============  =========================================================  ===========================
``network``   description                                                license
============  =========================================================  ===========================
``vitpose``   ViTPose, a checkpoint of transformers                      Apache-2.0
``blazepose`` BlazePose (MediaPipe); runs on CPUs, needs ai-edge-litert  Apache-2.0
============  =========================================================  ===========================
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..manifests.errors import WeightsError
from ..manifests.optional_packages import require_package
from .checkpoints import CheckpointFile, RandomWeights, Weights, load_network
from .device_copies import constant, upload
from .hub_snapshot import CheckpointFolder
from .onednn_layers import to_device, with_onednn
from .precision import inference
from .transformers_checkpoints import filled, one_line, read_config

PoseNetworkName = Literal["vitpose", "blazepose"]

COCO_POINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow"),
    *("right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle"),
    "right_ankle",
)
"""Left and right are the person's left and right."""
BLAZEPOSE_POINTS = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
"""Indices of these points among BlazePose's 33."""
BLAZEPOSE_LAYOUT = "blazepose-tflite"


class Poses(NamedTuple):
    """Key points in pictures of crops."""

    points: NDArray[np.float32]
    """``[crops, 17, 2]``: x, y in pixels of the picture."""
    confidence: NDArray[np.float32]
    """``[crops, 17]``: confidence of each point, 0 to 1"""
    presence: NDArray[np.float32]
    """``[crops]``: confidence that a person is in the crop, 0 to 1"""


class PoseNetwork(Protocol):
    """Finds key points."""

    height_px: int
    """Size of the pictures."""
    width_px: int

    def find(self, pictures: Tensor) -> Poses:
        """Find the key points of ``float32 [crops, 3, height, width]``, RGB, 0 to 1."""
        ...


class VitPose:
    """ViTPose of transformers, e.g. ``transformers:usyd-community/vitpose-base-simple``.

    Args:
        weights: A folder of transformers, or a seed for an untrained network of ViTPose-S' size.
        device: Device of the network.

    It always computes in float32: a key point is the maximum of a map, whose position may differ in half precision.
    """

    def __init__(self, weights: Weights, device: torch.device) -> None:
        network, self._processor = _load_vitpose(weights)
        self.height_px, self.width_px = network.config.backbone_config.image_size
        self._has_experts = network.config.backbone_config.num_experts > 1
        self._device = device
        self._network = to_device(network, device)

    def find(self, pictures: Tensor) -> Poses:
        """See `PoseNetwork.find`. The presence of a person is the mean confidence of the points."""
        mean, std = (
            constant(tuple(value), self._device)[:, None, None]
            for value in (self._processor.image_mean, self._processor.image_std)
        )
        # expert 0 of ViTPose+ was trained on COCO
        expert = torch.zeros(len(pictures), dtype=torch.long, device=self._device) if self._has_experts else None
        with inference(self._device, "float32"):
            output = self._network((upload(pictures, self._device) - mean) / std, dataset_index=expert)
        size = np.array([self.width_px, self.height_px], np.float32)
        centers = np.tile(size / 2, (len(pictures), 1))
        scales = np.tile(size / np.float32(self._processor.normalize_factor), (len(pictures), 1))
        points, confidence = self._processor.keypoints_from_heatmaps(
            output.heatmaps.float().cpu().numpy(), centers, scales
        )
        # in transformers, the outer pixels are on the edges of the crop: see `PoseCrop.matrix`
        in_pixels = points / size * (size - 1)
        confidence = np.clip(confidence[..., 0], 0, 1).astype(np.float32)
        return Poses(in_pixels.astype(np.float32), confidence, confidence.mean(axis=1))


def _load_vitpose(weights: Weights) -> tuple[Any, Any]:
    transformers: Any = import_module("transformers")  # its configurations take more arguments than they declare
    if isinstance(weights, RandomWeights):
        backbone = transformers.VitPoseBackboneConfig(hidden_size=384, out_features=["stage12"])
        config = transformers.VitPoseConfig(backbone_config=backbone, num_labels=len(COCO_POINTS))
        network = load_network(lambda: transformers.VitPoseForPoseEstimation(config), weights, {})
        return network, transformers.VitPoseImageProcessor()
    if not isinstance(weights, CheckpointFolder):
        raise WeightsError(
            f'checkpoint {weights.name} is a file of layout {weights.layout}; network = "vitpose" reads checkpoints of '
            "transformers, e.g. transformers:usyd-community/vitpose-base-simple"
        )
    config = read_config(weights, weights.name)
    if config.model_type != "vitpose" or config.num_labels != len(COCO_POINTS):
        raise WeightsError(
            f"checkpoint {weights.name} is not a ViTPose network with the 17 key points of COCO; give another one"
        )
    network = filled(transformers.VitPoseForPoseEstimation, weights, config)
    try:
        processor = transformers.VitPoseImageProcessor.from_pretrained(weights.path, local_files_only=True)
    except Exception as error:  # processors raise errors of any type
        raise WeightsError(f"{weights.path}: checkpoint {weights.name} has no processor: {one_line(error)}") from error
    return with_onednn(network.eval().requires_grad_(False)), processor


class BlazePose:
    """BlazePose's network. Of its 33 key points, those of COCO are used.

    Args:
        weights: ``pose_landmark_{lite,full,heavy}.tflite`` of MediaPipe.

    Raises:
        MissingPackageError: The package ai-edge-litert is not installed.
        WeightsError: The checkpoint is not such a file.
    """

    height_px = width_px = 256

    def __init__(self, weights: Weights) -> None:
        if not isinstance(weights, CheckpointFile) or weights.layout != BLAZEPOSE_LAYOUT:
            what = weights.digest if isinstance(weights, RandomWeights) else f"checkpoint {weights.name}"
            raise WeightsError(
                f'{what}: network = "blazepose" reads MediaPipe\'s pose_landmark files; set weights.network = '
                '"blazepose_full", or network = "vitpose" for random weights'
            )
        self._network = _interpreter(weights)
        self._input = self._network.get_input_details()[0]["index"]
        self._outputs = {each["name"]: each["index"] for each in self._network.get_output_details()}
        if not {"Identity", "Identity_1"} <= self._outputs.keys():
            raise WeightsError(f"{weights.path}: checkpoint {weights.name} has no key points; give another file")

    def find(self, pictures: Tensor) -> Poses:
        """See `PoseNetwork.find`. The presence of a person is an output of the network."""
        points: list[NDArray[np.float32]] = []
        confidence: list[NDArray[np.float32]] = []
        presence: list[float] = []
        for picture in pictures.permute(0, 2, 3, 1).cpu().numpy():
            self._network.set_tensor(self._input, np.ascontiguousarray(picture[None]))
            self._network.invoke()
            # x, y, z, visibility, presence of 39 points, the last two as logits
            found = self._network.get_tensor(self._outputs["Identity"]).reshape(-1, 5)[list(BLAZEPOSE_POINTS)]
            points.append(found[:, :2] - 0.5)
            confidence.append(1 / (1 + np.exp(-np.clip(found[:, 3], -30, 30))))
            presence.append(float(self._network.get_tensor(self._outputs["Identity_1"]).ravel()[0]))
        return Poses(
            np.array(points, np.float32).reshape(-1, len(COCO_POINTS), 2),
            np.array(confidence, np.float32).reshape(-1, len(COCO_POINTS)),
            np.array(presence, np.float32),
        )


def _interpreter(weights: CheckpointFile) -> Any:
    require_package("ai_edge_litert", 'network = "blazepose"')
    interpreter = import_module("ai_edge_litert.interpreter")
    try:
        network = interpreter.Interpreter(model_content=weights.read(), num_threads=1)
        network.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{weights.path}: checkpoint {weights.name} is not a file of TensorFlow Lite ({one_line(error)}); fetch or "
            "add it again"
        ) from error
    return network


def load_pose_network(name: PoseNetworkName, weights: Weights, device: torch.device) -> PoseNetwork:
    """Load a pose network, which computes in float32.

    Args:
        name: Kind of the network.
        weights: Checkpoint of that kind; for ViTPose also a seed.
        device: Device of the network. BlazePose always runs on the CPU.

    Raises:
        MissingPackageError: A package that the network needs is not installed.
        WeightsError: The checkpoint is not of that kind.
    """
    return VitPose(weights, device) if name == "vitpose" else BlazePose(weights)
