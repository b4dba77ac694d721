"""TV-L1 optical flow (Zach, Pock and Bischof, DAGM 2007) as OpenCV computes it, for all consecutive pairs of a clip."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .tvl1_settings import TVL1, Kernel


def tvl1(gray: Tensor, settings: TVL1) -> Tensor:
    """Optical flow from each frame to the next. The flow of a pair depends on that pair alone.

    Args:
        gray: Frames, ``uint8 [time, height, width]``.
        settings: Variant, mode and kernel.

    Returns:
        ``float32 [time - 1, 2, height, width]`` on the same device: displacement in pixels to the right and down.

    Raises:
        ValueError: Another type or shape, fewer than two frames, empty frames, or a device without a fused kernel.
        ImportError: On CUDA without Triton.

    Example:
        >>> flow = tvl1(torch.zeros(3, 32, 32, dtype=torch.uint8), TVL1())
        >>> tuple(flow.shape)
        (2, 2, 32, 32)
    """
    if gray.dtype != torch.uint8 or gray.ndim != 3 or len(gray) < 2 or not gray[0].numel():
        raise ValueError(f"optical flow needs uint8 [2 or more, h, w], not {gray.dtype} {list(gray.shape)}")
    return flow_function(settings.kernel, gray.device.type)(gray, settings)


def flow_function(kernel: Kernel, device_type: str) -> Callable[[Tensor, TVL1], Tensor]:
    """The computation behind ``tvl1``; what it needs is imported here."""
    if kernel == "torch":
        from .tvl1_torch import flow_of_pairs
    elif device_type == "cpu":
        from .tvl1_numba import flow_of_pairs
    elif device_type == "cuda":
        try:
            from .tvl1_triton import flow_of_pairs
        except ImportError as error:
            raise ImportError('TV-L1 on CUDA needs the package triton; install it, or set kernel = "torch"') from error
    else:
        raise ValueError(f'TV-L1 has no fused kernel for {device_type}; set kernel = "torch", or use a CPU')
    return flow_of_pairs
