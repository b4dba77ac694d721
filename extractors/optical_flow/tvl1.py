"""TV-L1 optical flow (Zach, Pock and Bischof, DAGM 2007) as OpenCV computes it, for all consecutive pairs of a clip."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor

from ..device_copies import download, upload
from .tvl1_settings import TVL1, Kernel

_LOG = logging.getLogger(__name__)

FlowOfClips = Callable[[Sequence[Tensor], TVL1], list[Tensor]]
"""Function from clips ``uint8 [time, h, w]`` to flows ``float32 [time - 1, 2, h, w]``."""


def tvl1(gray: Tensor, settings: TVL1) -> Tensor:
    """Compute optical flow from each frame to the next. The flow of a pair of frames depends only on these frames.

    Args:
        gray: Frames, ``uint8 [time, height, width]``.
        settings: Variant, mode and kernel.

    Returns:
        ``float32 [time - 1, 2, height, width]`` on the same device: displacement in pixels to the right and down.

    Raises:
        ValueError: The frames have another type or shape, are empty, or are fewer than two.
        ImportError: On CUDA without Triton.

    Example:
        >>> flow = tvl1(torch.zeros(3, 32, 32, dtype=torch.uint8), TVL1())
        >>> tuple(flow.shape)
        (2, 2, 32, 32)
    """
    return tvl1_of_clips([gray], settings)[0]


def tvl1_of_clips(clips: Sequence[Tensor], settings: TVL1, *, replays: bool = False) -> list[Tensor]:
    """Compute `tvl1` of several clips on one device. A GPU computes the pairs of all clips together.

    Args:
        clips: ``uint8 [time, height, width]``, of any sizes.
        settings: Variant, mode and kernel.
        replays: On CUDA, capture the launches of a round as a graph (`cuda_graphs`).

    Returns:
        For each clip ``float32 [time - 1, 2, height, width]`` on the same device.

    Raises:
        ValueError: As `tvl1`.
        ImportError: As `tvl1`.
    """
    for gray in clips:
        if gray.dtype != torch.uint8 or gray.ndim != 3 or len(gray) < 2 or not gray[0].numel():
            raise ValueError(f"optical flow needs uint8 [2 or more, h, w], not {gray.dtype} {list(gray.shape)}")
    return flow_function(settings.kernel, clips[0].device.type, replays=replays)(clips, settings) if clips else []


def flow_function(kernel: Kernel, device_type: str, *, replays: bool = False) -> FlowOfClips:
    """Import and return the implementation of ``tvl1`` for a kernel and a device."""
    if device_type == "meta":
        return _shapes
    if kernel == "torch":
        return _clip_by_clip
    if device_type == "cuda":
        try:
            from .tvl1_triton import flows_of_clips
        except ImportError as error:
            raise ImportError('TV-L1 on CUDA needs the package triton; install it, or set kernel = "torch"') from error
        return partial(flows_of_clips, replays=replays)
    return _on_cpu


def _shapes(clips: Sequence[Tensor], settings: TVL1) -> list[Tensor]:
    """Return empty flows on the meta device."""
    return [gray.new_empty((len(gray) - 1, 2, *gray.shape[1:]), dtype=torch.float32) for gray in clips]


def _clip_by_clip(clips: Sequence[Tensor], settings: TVL1) -> list[Tensor]:
    from .tvl1_torch import flow_of_pairs

    return [flow_of_pairs(gray, settings) for gray in clips]


def _on_cpu(clips: Sequence[Tensor], settings: TVL1) -> list[Tensor]:
    """Compute on the CPU, also for frames on a device without a fused kernel: plain operations there are far slower."""
    from .tvl1_numba import flow_of_pairs

    device = clips[0].device
    if device.type != "cpu":
        _warn_of_cpu(device.type)
    return [upload(flow_of_pairs(gray, settings), device) for gray in download(clips)]


@cache
def _warn_of_cpu(device_type: str) -> None:
    _LOG.warning('TV-L1 has no kernel for %s and runs on the CPU; kernel = "torch" runs on the device', device_type)
