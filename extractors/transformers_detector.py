"""Detectors of transformers: D-FINE, RT-DETR and any other network of ``AutoModelForObjectDetection``.

We recommend ``transformers:ustc-community/dfine-small-coco`` (D-FINE-S, COCO, Apache-2.0, 40 MB). D-FINE-N is smaller;
``PekingU/rtdetr_v2_r18vd`` (Apache-2.0) is similar. The checkpoint's processor prepares frames and decodes boxes.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from ..manifests.errors import WeightsError
from .checkpoints import RandomWeights, Weights, load_network
from .device_copies import download
from .hub_snapshot import CheckpointFolder
from .onednn_layers import to_device, with_onednn
from .person import Detections
from .transformers_checkpoints import filled, one_line, read_config


class TransformersDetector:
    """A detector of transformers.

    Args:
        weights: A folder of transformers, or a seed for an untrained D-FINE-L.
        device: Device of the network.
    """

    overlap_iou = None
    """These networks need no non-maximum suppression."""

    def __init__(self, weights: Weights, device: torch.device) -> None:
        network, self._processor = _load(weights)
        self._people = [number for number, name in network.config.id2label.items() if name.lower() == "person"]
        if not self._people:
            raise WeightsError(f"checkpoint {_name(weights)} has no class 'person'; give another detector")
        self._network = to_device(network, device)

    def detect(self, frames: Tensor, threshold: float) -> list[Detections]:
        """See `DetectionNetwork.detect`."""
        inputs = self._processor(images=list(frames), return_tensors="pt", device=frames.device)
        output = self._network(**inputs)
        logits, boxes = download([output.logits, output.pred_boxes])
        sizes = [tuple(frames.shape[-2:])] * len(frames)
        on_cpu = SimpleNamespace(logits=logits, pred_boxes=boxes)
        found: list[Detections] = []
        for each in self._processor.post_process_object_detection(on_cpu, threshold, sizes):
            people = torch.isin(each["labels"], torch.tensor(self._people))
            found.append(Detections(each["boxes"][people], each["scores"][people]))
        return found


def _load(weights: Weights) -> tuple[Any, Any]:
    """Return the network and the processor."""
    from transformers import (
        AutoImageProcessor,
        AutoModelForObjectDetection,
        DFineConfig,
        DFineForObjectDetection,
        RTDetrImageProcessor,
    )

    if isinstance(weights, RandomWeights):
        config = DFineConfig(id2label={0: "person", **{number: str(number) for number in range(1, 80)}})
        return load_network(lambda: DFineForObjectDetection(config), weights, {}), RTDetrImageProcessor()
    if not isinstance(weights, CheckpointFolder):
        raise WeightsError(
            f'checkpoint {weights.name} is a file of layout {weights.layout}; detector = "transformers" reads '
            "checkpoints of transformers, e.g. transformers:ustc-community/dfine-small-coco"
        )
    config = read_config(weights, weights.name)
    network = filled(AutoModelForObjectDetection, weights, config)
    try:
        processor = cast(
            "Any",
            AutoImageProcessor.from_pretrained(weights.path, trust_remote_code=False, local_files_only=True),  # pyright: ignore[reportUnknownMemberType]
        )
    except Exception as error:  # processors raise errors of any type
        raise WeightsError(f"{weights.path}: checkpoint {weights.name} has no processor: {one_line(error)}") from error
    if not hasattr(processor, "post_process_object_detection"):
        raise WeightsError(f"{weights.path}: checkpoint {weights.name} is not a detector; give another one")
    return with_onednn(network.eval().requires_grad_(False)), processor


def _name(weights: Weights) -> str:
    return weights.digest if isinstance(weights, RandomWeights) else weights.name
