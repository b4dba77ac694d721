"""Copies between the host and an accelerator that do not make the host wait for the work that is queued there.

A blocking copy waits until all earlier work of the device's stream is done, such as a batch of a network, so that
nothing is queued behind it. Therefore constants are copied once, inputs are copied from page-locked memory, and the
results of a batch are copied together. The host waits only for this last copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

Numbers = tuple[Any, ...]
"""Numbers, or nested tuples of numbers with equal lengths."""


@lru_cache(maxsize=512)
def constant(values: Numbers, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor of these numbers that stays on the device. It must not be changed.

    Example:
        >>> constant((1.0, 2.0), torch.device("cpu"))
        tensor([1., 2.])
    """
    return torch.tensor(values, dtype=dtype, device=device)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device, without waiting for it.

    Args:
        tensor: Any tensor. It is returned itself if it is already on the device.
        device: The device. Operations that are queued on its current stream later see the copy.
    """
    if tensor.device == device or device.type in ("cpu", "meta") or tensor.device.type != "cpu":
        return tensor.to(device)
    pinned = tensor if device.type == "mps" else tensor.pin_memory()  # MPS shares the memory of the host
    return pinned.to(device, non_blocking=True)


def download(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors on the CPU. Tensors of the same type and device are copied together.

    Args:
        tensors: Tensors of any shapes. Tensors on the CPU are returned themselves.

    Example:
        >>> [each.tolist() for each in download([torch.zeros(2), torch.ones(1)])]
        [[0.0, 0.0], [1.0]]
    """
    together: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for place, tensor in enumerate(tensors):
        if tensor.device.type != "cpu":
            together.setdefault((tensor.device, tensor.dtype), []).append(place)
    found = list(tensors)
    for places in together.values():
        flat = torch.cat([tensors[place].reshape(-1) for place in places]).cpu()
        parts = torch.split(flat, [tensors[place].numel() for place in places])
        for place, part in zip(places, parts, strict=True):
            found[place] = part.view(tensors[place].shape)
    return found
