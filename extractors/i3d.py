"""Inception I3D (Carreira & Zisserman, CVPR 2017), the network of both streams: 1024 features, 400 logits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional

from ..manifests.streams import CenterCrop, Geometry, Normalization, Record, ShortSide
from .checkpoints import Layouts, StateDict, Weights, load_network, renamed
from .engines import is_exported
from .network import ClipLengths, NetworkCard

FEATURE_DIM = 1024
NUM_CLASSES = 400
"""All published files are trained on Kinetics-400."""
MIN_FRAMES = 9
"""The final pool spans two time steps after three halvings, which round up: (9 + 7) // 8 = 2."""
MIN_SIDE_PX = 193
"""The final pool spans 7 × 7 positions after five halvings, which round up: (193 + 31) // 32 = 7."""
FEATURES_LAYER = "trunk"
POOLED_STEPS = 2
"""Size of the final pool in time. A row is the mean over its outputs."""

Extent = tuple[int, int, int]
"""``(time, height, width)``"""


class InceptionI3D(nn.Module):
    """Maps clips ``float [n, channels, time, height, width]``, values in −1 … 1, to features ``[n, 1024]``.

    The weights were trained with ``batch_norm_eps`` = 1e-3, TensorFlow's default. The copies in PAMFN, ACTION-NET and
    video_features use 1e-5, PyTorch's default.
    """

    def __init__(self, in_channels: int, batch_norm_eps: float, num_classes: int = NUM_CLASSES) -> None:
        super().__init__()

        def unit(given: int, made: int, kernel: int = 1, stride: int = 1) -> Unit3D:
            return Unit3D(given, made, kernel, stride, batch_norm_eps)

        def mixed(given: int, *branches: int) -> Mixed:
            return Mixed(given, branches, unit)

        self.trunk = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv3d_1a_7x7=unit(in_channels, 64, kernel=7, stride=2),
                pool_2a=StridedMaxPool((1, 3, 3), (1, 2, 2)),
                conv3d_2b_1x1=unit(64, 64),
                conv3d_2c_3x3=unit(64, 192, kernel=3),
                pool_3a=StridedMaxPool((1, 3, 3), (1, 2, 2)),
                mixed_3b=mixed(192, 64, 96, 128, 16, 32, 32),
                mixed_3c=mixed(256, 128, 128, 192, 32, 96, 64),
                pool_4a=StridedMaxPool((3, 3, 3), (2, 2, 2)),
                mixed_4b=mixed(480, 192, 96, 208, 16, 48, 64),
                mixed_4c=mixed(512, 160, 112, 224, 24, 64, 64),
                mixed_4d=mixed(512, 128, 128, 256, 24, 64, 64),
                mixed_4e=mixed(512, 112, 144, 288, 32, 64, 64),
                mixed_4f=mixed(528, 256, 160, 320, 32, 128, 128),
                pool_5a=StridedMaxPool((2, 2, 2), (2, 2, 2)),
                mixed_5b=mixed(832, 256, 160, 320, 32, 128, 128),
                mixed_5c=mixed(832, 384, 192, 384, 48, 128, 128),
            )
        )
        self.classifier = nn.Conv3d(FEATURE_DIM, num_classes, 1)

    def pooled(self, clips: Tensor) -> Tensor:
        """Return means over two time steps and 7 × 7 positions (the final pool), ``[n, 1024, time / 8 - 1, …]``."""
        time, height, width = clips.shape[-3:]
        if time < MIN_FRAMES or min(height, width) < MIN_SIDE_PX:
            raise ValueError(
                f"I3D needs at least {MIN_FRAMES} frames of {MIN_SIDE_PX} × {MIN_SIDE_PX} px, "
                f"not {time} of {height} × {width}; set longer segments or a larger geometry"
            )
        # always the same memory format, so that results do not depend on the input's; this one is the fastest
        clips = clips.contiguous(memory_format=torch.channels_last_3d)
        return functional.avg_pool3d(self.trunk(clips), (2, 7, 7), stride=1)

    def forward(self, clips: Tensor) -> Tensor:
        return self.pooled(clips).mean((2, 3, 4))

    def logits(self, clips: Tensor) -> Tensor:
        """Return the logits ``[n, classes]``, averaged over time as in all published ports."""
        return self.classifier(self.pooled(clips)).mean((2, 3, 4))


class Unit3D(nn.Module):
    """Convolution without bias, batch normalization, ReLU; TensorFlow's SAME padding."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, eps: float) -> None:
        super().__init__()
        self.strided = stride > 1
        # with stride 1, SAME padding is equal on both sides for all sizes, so the convolution can do it without a copy
        padding = 0 if self.strided else kernel // 2
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm3d(out_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        if not self.strided:
            x = self.conv(x)
        elif x.device.type == "cpu" and (x.dtype == torch.bfloat16 or is_exported()):
            x = _convolve_pairs(x, self.conv)
        else:
            x = self.conv(pad_same(x, self.conv.kernel_size, self.conv.stride))
        return functional.relu(self.norm(x), inplace=True)


def _convolve_pairs(x: Tensor, conv: nn.Conv3d) -> Tensor:
    """Convolve with stride 2 and SAME padding. Two neighboring columns become one column with twice the channels.

    The sums are equal except for zeros and their order. Kernels with matrix instructions compute blocks of channels, of
    which 3 channels are a small part: pairs take .6 of the time in bfloat16 and .9 in float32 (OpenVINO, AMX).
    """
    padding = _padding(x, conv.kernel_size, conv.stride)
    padding[1] += 1  # the kernel has an odd width and gets one more column of zeros
    pixels = functional.pad(x.permute(0, 2, 3, 4, 1), [0, 0, *padding])
    kernel = functional.pad(conv.weight.permute(0, 2, 3, 4, 1), (0, 0, 0, 1))
    pairs, paired_kernel = (
        each.reshape(*map(int, (*each.shape[:3], each.shape[3] // 2, 2 * each.shape[4]))).permute(0, 4, 1, 2, 3)
        for each in (pixels, kernel)
    )
    return functional.conv3d(pairs, paired_kernel, conv.bias, (*conv.stride[:2], 1))


class StridedMaxPool(nn.Module):
    """Max pooling with SAME padding by zeros, which is exact after a ReLU."""

    def __init__(self, kernel: Extent, stride: Extent) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if _pools_by_axes(x):
            return max_pool_by_axes(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)
        # without a padded copy: half of the padding is before the input, and the last window may extend beyond its end
        before = [count // 2 for count in _missing(x, self.kernel, self.stride)]
        return functional.max_pool3d(x, self.kernel, self.stride, before, ceil_mode=True)


class Mixed(nn.Module):
    """Four parallel branches: 1³; 1³ then 3³; 1³ then 3³; pool then 1³."""

    def __init__(self, in_channels: int, branches: tuple[int, ...], unit: Callable[..., Unit3D]) -> None:
        super().__init__()
        direct, reduced_1, made_1, reduced_2, made_2, pooled = branches
        self.branch_0 = unit(in_channels, direct)
        self.branch_1 = nn.Sequential(unit(in_channels, reduced_1), unit(reduced_1, made_1, kernel=3))
        self.branch_2 = nn.Sequential(unit(in_channels, reduced_2), unit(reduced_2, made_2, kernel=3))
        self.branch_3 = nn.Sequential(StridedMaxPool((3, 3, 3), (1, 1, 1)), unit(in_channels, pooled))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch_0(x), self.branch_1(x), self.branch_2(x), self.branch_3(x)], dim=1)


def _pools_by_axes(x: Tensor) -> bool:
    """Return whether `max_pool_by_axes` is used: on CPUs, without gradients, and not while OpenVINO exports."""
    plain = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and not is_exported()
    return plain and not (torch.is_grad_enabled() and x.requires_grad)


def max_pool_by_axes(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Compute `functional.max_pool3d` without padding and gradients, with equal results.

    PyTorch's kernel on CPUs also finds the index of each maximum, compares one number at a time, and computes in
    float32 under autocast. The maximum along each axis in turn takes half to nine tenths of its time in float32.
    """
    axes = sorted(zip((-3, -2, -1), kernel, stride, strict=True), key=lambda axis: -axis[2])  # the largest stride first
    for axis, length, step in axes:
        last = (x.shape[axis] - length) // step * step + 1
        parts = [x.narrow(axis, first, last)[_every(step, axis)] for first in range(length)]
        x = parts[0] if length == 1 else torch.maximum(parts[0], parts[1])
        for part in parts[2:]:
            torch.maximum(x, part, out=x)
    return x


def _every(step: int, axis: int) -> tuple[Any, ...]:
    """Return the index of every ``step``-th position along an axis, which is negative."""
    return (..., slice(None, None, step), *[slice(None)] * (-axis - 1))


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Pad ``[…, time, height, width]`` with zeros for ``ceil(size / stride)`` outputs; an odd zero is at the end."""
    padding = _padding(x, kernel, stride)
    return functional.pad(x, padding) if any(padding) else x


def _padding(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Return the padding in the order of `functional.pad`: before and after the last axis first."""
    missing = reversed(_missing(x, kernel, stride))
    return [part for count in missing for part in (count // 2, count - count // 2)]


def _missing(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Return the padding of each of the last three axes that ``ceil(size / stride)`` outputs need."""
    axes = zip(x.shape[-3:], kernel, stride, strict=True)
    # int(), because sizes are tensors while a network is traced, and the padding must be constant
    return [max((-(-int(size) // step) - 1) * step + length - int(size), 0) for size, length, step in axes]


def load_i3d(weights: Weights, *, in_channels: int, batch_norm_eps: float) -> InceptionI3D:
    """Load the network including its classifier, so that every tensor of a published file is verified."""
    network = load_network(lambda: InceptionI3D(in_channels, batch_norm_eps), weights, LAYOUTS)
    return network.to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]


_OUTSIDE = (
    (r"^(conv3d_0c_1x1|logits)\.conv3d\.", "classifier."),
    (r"^(?=(conv3d|mixed)_)", "trunk."),
    (r"\.conv3d\.(?=weight$)", ".conv."),
)
_RENAMINGS = {
    "i3d-hassony2": (*_OUTSIDE, (r"\.batch3d\.", ".norm.")),
    "i3d-piergiaj": (
        (r"^Conv3d_", "conv3d_"),
        (r"^Mixed_", "mixed_"),
        *_OUTSIDE,
        (r"\.bn\.", ".norm."),
        (r"\.b0\.", ".branch_0."),
        (r"\.b([12])a\.", r".branch_\1.0."),
        (r"\.b([123])b\.", r".branch_\1.1."),
    ),
}


def _renaming(layout: str) -> Callable[[StateDict], StateDict]:
    """Return the function that renames the keys of a layout; unknown keys are kept for the strict loader to report."""
    return partial(renamed, patterns=_RENAMINGS[layout])


LAYOUTS: Layouts = {layout: _renaming(layout) for layout in _RENAMINGS}


class I3DClassifier(nn.Module):
    """Maps clips ``[n, channels, time, height, width]`` to logits ``[n, classes]``."""

    def __init__(self, network: InceptionI3D) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: Tensor) -> Tensor:
        return self.network.logits(clips)


class I3DOptions(Record):
    batch_norm_eps: PositiveFloat = 1e-3
    """Epsilon of batch norms. The default is TensorFlow's, with which the weights were trained; see `InceptionI3D`."""


I3D_RGB = NetworkCard(
    input="clip",
    load=lambda settings, weights: load_i3d(weights, in_channels=3, batch_norm_eps=settings.batch_norm_eps),
    dim=FEATURE_DIM,
    layouts=tuple(LAYOUTS),
    batch_size=(4, 16),
    # as in the training of the weights and in ACTION-NET's paper
    geometry=Geometry(steps=(ShortSide(short_side_px=256), CenterCrop(center_crop_px=(224, 224)))),
    normalization=Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    options=I3DOptions,
    clip_lengths=ClipLengths(at_least=MIN_FRAMES),
    classify=lambda settings, weights: I3DClassifier(
        load_i3d(weights, in_channels=3, batch_norm_eps=settings.batch_norm_eps)
    ),
    num_classes=NUM_CLASSES,
    features_layer=FEATURES_LAYER,
    pooled_steps=POOLED_STEPS,
    license="Apache-2.0",
    source="Carreira & Zisserman, CVPR 2017; deepmind/kinetics-i3d",
)
"""I3D on color frames: 1024-d, one row for each clip."""
