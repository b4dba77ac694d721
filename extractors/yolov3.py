"""YOLOv3, the detector of ACTION-NET's paper: Darknet-53 with heads at three scales (Redmon and Farhadi, 2018).

This is our implementation. It reads the authors' file ``yolov3.weights``. Darknet and its weights are in the public
domain.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..manifests.errors import WeightsError
from .checkpoints import load_network
from .device_copies import constant
from .onednn_layers import to_device, with_onednn
from .person import Detections, Letterbox
from .weight_sources import CheckpointFile, CheckpointFolder, Weights

LAYOUT = "darknet-yolov3"
SIDE_PX = 608
"""Width and height of the input in the authors' yolov3.cfg."""
GRAY_LEVEL = 128
"""Padding of the letterbox; the authors use 0.5."""
NUM_CLASSES = 80
PERSON = 0
"""Number of the class ``person`` among the classes of COCO."""
STRIDES_PX = (32, 16, 8)
ANCHORS_PX = (
    ((116, 90), (156, 198), (373, 326)),
    ((30, 61), (62, 45), (59, 119)),
    ((10, 13), (16, 30), (33, 23)),
)
"""Width and height of the anchors at each stride."""
STAGES = (1, 2, 8, 8, 4)
"""Residual blocks at strides 2 to 32."""


class Convolution(nn.Module):
    """Convolution, batch normalization and leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(self.norm(self.convolution(x)), 0.1, inplace=True)

    def fuse(self) -> None:
        """Multiply the normalization into the convolution."""
        self.convolution = fuse_conv_bn_eval(self.convolution, cast("nn.BatchNorm2d", self.norm))
        self.norm = nn.Identity()


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(Convolution(channels, channels // 2, 1), Convolution(channels // 2, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Scale(nn.Module):
    """One scale. It joins features of the backbone with those of the next coarser scale, if there is one."""

    def __init__(self, channels: int, coarser_channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.route = Convolution(coarser_channels, half, 1) if coarser_channels else None
        first = channels + half if coarser_channels else channels
        self.neck = nn.Sequential(
            Convolution(first, half, 1),
            Convolution(half, channels, 3),
            Convolution(channels, half, 1),
            Convolution(half, channels, 3),
            Convolution(channels, half, 1),
        )
        self.head = nn.Sequential(Convolution(half, channels, 3), nn.Conv2d(channels, 3 * (5 + NUM_CLASSES), 1))

    def forward(self, feature: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the features for the finer scale and the raw output."""
        if self.route is not None and coarser is not None:
            feature = torch.cat([nn.functional.interpolate(self.route(coarser), scale_factor=2), feature], dim=1)
        found = self.neck(feature)
        return found, self.head(found)


class YoloV3(nn.Module):
    """Maps pictures to candidates.

    Args:
        width: Channels of the first convolution; 32 in the published network.

    Example:
        >>> import torch
        >>> YoloV3(width=4).eval()(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 252, 85])
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = Convolution(3, width, 3)
        channels = [width << stage for stage in range(len(STAGES) + 1)]
        self.stages = nn.ModuleList(
            nn.Sequential(Convolution(before, after, 3, stride=2), *(Residual(after) for _ in range(blocks)))
            for before, after, blocks in zip(channels, channels[1:], STAGES, strict=False)
        )
        self.scales = nn.ModuleList(
            Scale(each, coarser) for each, coarser in zip(channels[:2:-1], (0, *channels[-2:2:-1]), strict=True)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Detect objects.

        Args:
            pictures: ``float32 [n, 3, height, width]``, RGB, 0 to 1; the sides are multiples of 32.

        Returns:
            ``[n, candidates, 5 + classes]``: center x, center y, width and height in pixels, objectness, and the
            probability of each class; the candidates of the coarsest scale are first.
        """
        x = self.stem(pictures)
        features: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        found: Tensor | None = None
        candidates: list[Tensor] = []
        for scale, feature, stride_px, anchors_px in zip(
            self.scales, features[:1:-1], STRIDES_PX, ANCHORS_PX, strict=True
        ):
            found, raw = scale(feature, found)
            candidates.append(_decoded(raw, stride_px, constant(anchors_px, raw.device)))
        return torch.cat(candidates, dim=1)


def _decoded(raw: Tensor, stride_px: int, anchors_px: Tensor) -> Tensor:
    """Decode ``[n, 3 · (5 + classes), rows, columns]`` to ``[n, rows · columns · 3, 5 + classes]``."""
    count, _, rows, columns = raw.shape
    raw = raw.view(count, 3, 5 + NUM_CLASSES, rows, columns).permute(0, 3, 4, 1, 2)
    y, x = torch.meshgrid(
        torch.arange(rows, device=raw.device), torch.arange(columns, device=raw.device), indexing="ij"
    )
    cells = torch.stack([x, y], dim=-1)[None, :, :, None]
    center = (raw[..., :2].sigmoid() + cells) * stride_px
    size = raw[..., 2:4].exp() * anchors_px
    objectness = raw[..., 4:5].sigmoid()
    values = torch.cat([center, size, objectness, raw[..., 5:].sigmoid() * objectness], dim=-1)
    return values.reshape(count, -1, 5 + NUM_CLASSES)


def load_yolov3(weights: Weights, width: int = 32) -> YoloV3:
    """Return the network in eval mode, without gradients.

    Args:
        weights: The authors' file, or a seed.
        width: See `YoloV3`.

    Raises:
        WeightsError: The checkpoint is not such a file.
    """
    if isinstance(weights, CheckpointFile) and weights.layout == LAYOUT:
        network = YoloV3(width)
        _fill(network, _numbers(weights), weights)
        network = network.eval().requires_grad_(False)
    elif isinstance(weights, CheckpointFolder):
        raise WeightsError(f"checkpoint {weights.name} is a folder of transformers; YOLOv3 reads yolov3.weights")
    else:
        network = load_network(lambda: YoloV3(width), weights, {LAYOUT: dict})
    for module in network.modules():
        if isinstance(module, Convolution):
            module.fuse()
    return with_onednn(network)


def _numbers(weights: CheckpointFile) -> NDArray[np.float32]:
    """Return the numbers after the header: three int32 (version), and the count of training images."""
    content = weights.read()
    if len(content) < 20:
        return np.zeros(0, np.float32)
    major, minor, _ = np.frombuffer(content, "<i4", 3).tolist()
    header_bytes = 20 if 10 * major + minor >= 2 else 16
    return np.frombuffer(content, "<f4", (len(content) - header_bytes) // 4, header_bytes)


def _fill(network: YoloV3, numbers: NDArray[np.float32], weights: CheckpointFile) -> None:
    """Copy the numbers in the order of Darknet's layers: bias, scale, mean, variance, kernel."""
    tensors = list(_in_file_order(network))
    expected = sum(tensor.numel() for tensor in tensors)
    if len(numbers) != expected:
        raise WeightsError(
            f"{weights.path}: checkpoint {weights.name} has {len(numbers):,} numbers; YOLOv3 has {expected:,}; give "
            "the authors' yolov3.weights, not that of another network or size"
        )
    ends = np.cumsum([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, np.split(numbers, ends[:-1]), strict=True):
        tensor.data.copy_(torch.as_tensor(part.copy()).view_as(tensor))


def _in_file_order(network: YoloV3) -> Iterator[Tensor]:
    normalized: set[nn.Module] = set()
    for module in network.modules():
        if isinstance(module, Convolution):
            norm = cast("nn.BatchNorm2d", module.norm)
            normalized.add(module.convolution)
            yield from (norm.bias, norm.weight, cast("Tensor", norm.running_mean), cast("Tensor", norm.running_var))
            yield module.convolution.weight
        elif isinstance(module, nn.Conv2d) and module not in normalized:
            yield cast("Tensor", module.bias)
            yield module.weight


class YoloV3Detector:
    """YOLOv3 on letterboxed frames, as in the authors' program.

    Args:
        weights: The authors' file, or a seed.
        device: Device of the network.
    """

    overlap_iou = 0.45
    """The authors' threshold of non-maximum suppression."""

    def __init__(self, weights: Weights, device: torch.device) -> None:
        self._network = to_device(load_yolov3(weights), device)

    def detect(self, frames: Tensor, threshold: float) -> list[Detections]:
        """See `DetectionNetwork.detect`."""
        letterbox = Letterbox.fit(frames.shape[-2], frames.shape[-1], SIDE_PX, SIDE_PX)
        found: list[Detections] = []
        output = self._network(letterbox.apply(frames, GRAY_LEVEL).float() / 255)
        for candidates in torch.cat([output[..., :4], output[..., 5 + PERSON, None]], dim=2).cpu():
            people = candidates[candidates[:, 4] > threshold]
            center, size = people[:, :2], people[:, 2:4]
            edges = torch.cat([center - size / 2, center + size / 2], dim=1)
            found.append(Detections(letterbox.undo(edges), people[:, 4]))
        return found
