"""GPUs and other accelerators as PyTorch sees them: their names, their memory, and those that it cannot use."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch

from ...manifests.errors import InputError

DRIVER_FILE = Path("/proc/driver/nvidia/version")
NEEDED_DRIVERS = {"12": "525", "13": "580"}
"""Major version of CUDA → the oldest NVIDIA driver that runs it (CUDA's release notes)."""


def device_name(device: torch.device) -> str:
    """Return the model of a GPU or CPU, as far as it is known."""
    if device.type in ("cuda", "xpu"):
        return str(torch.get_device_module(device).get_device_name(device))
    return platform.processor() or "cpu" if device.type == "cpu" else device.type


def reports_memory(device: torch.device) -> bool:
    """Return whether PyTorch counts and limits the memory of a device."""
    return device.type in ("cuda", "xpu")


def total_memory_bytes(device: torch.device) -> int:
    """Return the memory of a GPU."""
    return int(torch.get_device_module(device).get_device_properties(device).total_memory)


def limit_memory(device: torch.device, limit_bytes: int | None) -> None:
    """Limit the memory that PyTorch allocates on a device in this process; beyond it an allocation fails.

    Libraries and the driver's context, about 0.5 GB, are not counted.

    Args:
        device: The device.
        limit_bytes: None: no limit.

    Raises:
        InputError: PyTorch cannot limit the memory of this device.
    """
    if limit_bytes is None:
        return
    if not reports_memory(device):
        raise InputError(f"--gpu-memory: {device} has no memory that can be limited; leave out the option")
    share = min(limit_bytes / total_memory_bytes(device), 1.0)
    torch.get_device_module(device).set_per_process_memory_fraction(share, device)


def share_of_memory(device: torch.device, limit_bytes: int | None, num_workers: int) -> int | None:
    """Return the memory limit of each of several workers on one device.

    Args:
        device: The device.
        limit_bytes: Limit for all of them; None: the whole memory of the device.
        num_workers: Workers on this device.

    Returns:
        None for a single worker without a limit, or if the device does not report its memory.
    """
    if limit_bytes is None and (num_workers == 1 or not reports_memory(device)):
        return None
    return (total_memory_bytes(device) if limit_bytes is None else limit_bytes) // num_workers


def unusable_gpu() -> str | None:
    """Return why PyTorch cannot use the NVIDIA GPU of this machine; None if it can, or if there is none."""
    if torch.accelerator.is_available() or not DRIVER_FILE.exists():
        return None
    version = torch.version.cuda
    if version is None:
        return f"this torch ({torch.__version__}) was built without CUDA"
    found = re.search(r"\b(\d{3,}\.\d[\d.]*)", DRIVER_FILE.read_text(errors="replace"))
    installed = f"driver {found[1]}" if found else "its driver"
    needed = NEEDED_DRIVERS.get(version.partition(".")[0])
    least = f"; CUDA {version} of this torch needs driver {needed} or newer" if needed else ""
    return f"{installed} is installed, but torch {torch.__version__} finds no device{least}"
