"""The detectors of people, which the setting ``detector`` of a stream selects.

=================  ================================================================  =====================
``detector``       network                                                           license
=================  ================================================================  =====================
``ultralytics``    YOLOv8 or later, a file of ultralytics                            AGPL-3.0
``yolov3``         YOLOv3 by its authors (ACTION-NET's paper); ours, no package      public domain
``transformers``   D-FINE, RT-DETR and others: a checkpoint of transformers          D-FINE: Apache-2.0
=================  ================================================================  =====================

A missing package or a checkpoint of another kind is an error, never replaced by another detector.
"""

from __future__ import annotations

from typing import Literal

import torch

from .person import DetectionNetwork, PersonDetector
from .weight_sources import Weights

Detector = Literal["ultralytics", "yolov3", "transformers"]


def load_detector(detector: Detector, weights: Weights, device: torch.device, threshold: float) -> PersonDetector:
    """Load a detector.

    Args:
        detector: Kind of the network.
        weights: Checkpoint of that kind, or a seed.
        device: Device of the network.
        threshold: Least confidence of a person, 0 to 1.

    Raises:
        MissingPackageError: A package that the detector needs is not installed.
        WeightsError: The checkpoint is not of that kind.
    """
    return PersonDetector(_network(detector, weights, device), device, threshold)


def _network(detector: Detector, weights: Weights, device: torch.device) -> DetectionNetwork:
    if detector == "yolov3":
        from .yolov3 import YoloV3Detector

        return YoloV3Detector(weights, device)
    if detector == "transformers":
        from .transformers_detector import TransformersDetector

        return TransformersDetector(weights, device)
    from .ultralytics_yolo import UltralyticsDetector

    return UltralyticsDetector(weights, device)
