"""GPUs and other accelerators in PyTorch: names, memory, unusable GPUs, errors, and a stream for inputs.

If memory is short, a smaller batch may succeed; a lost GPU ends the run. Inputs of networks are computed on another
stream than the networks (`input_stream`).
"""

from __future__ import annotations

import platform
import re
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

from ...manifests.errors import ArabesqueError, InputError

R = TypeVar("R")

DRIVER_FILE = Path("/proc/driver/nvidia/version")
NEEDED_DRIVERS = {"12": "525", "13": "580"}
"""Major version of CUDA → the oldest NVIDIA driver that runs it (CUDA's release notes)."""
_OUT_OF_MEMORY = (
    "can't allocate memory",  # torch on a CPU
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "HIP error: out of memory",
    "backend out of memory",  # MPS, XPU
)


def device_name(device: torch.device) -> str:
    """Return the model of a GPU or CPU, if it is known."""
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
    """Limit the memory that PyTorch allocates on a device in this process. Allocations beyond the limit fail.

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


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed, on the CPU or on a device. Some libraries raise a plain RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def first_line(error: BaseException) -> str:
    """Return the first line of an error message. CUDA's messages have several lines."""
    return (str(error).splitlines() or [""])[0]


def require_device(device: torch.device, error: Exception, where: str) -> None:
    """Check after an error that the device still works. Raises `ArabesqueError` if it does not.

    An error of a GPU may appear in any later call, also for another video. A GPU that has failed cannot be used again
    by the process, so that the error is not caused by a video.

    Args:
        device: The device that the failed operation used.
        error: The exception of the operation.
        where: Stage or stream, for the error message.

    Raises:
        ArabesqueError: The device has failed; the run must end.
    """
    if device.type == "cpu" or not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return
    try:
        torch.accelerator.synchronize(device)
    except RuntimeError as lost:
        raise ArabesqueError(
            f"the GPU has failed ({first_line(error)}, in {where}); run the same command again to continue"
        ) from lost


def release_memory(device: torch.device, error: BaseException) -> None:
    """Free the memory of a failed operation: the local variables in its traceback, and unused cached blocks.

    Call it after the ``except`` block has ended, because the block itself keeps the variables alive.
    """
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__
    if device.type != "cpu":
        with suppress(RuntimeError):  # the next operation reports a lost device
            torch.accelerator.synchronize(device)  # a failed batch may be computing with inputs that are freed next
        torch.accelerator.empty_cache()


def on_device(device: torch.device, where: str, call: Callable[[], R]) -> R:
    """Call a function that computes the input of networks. If memory is short, some is released and the call repeated.

    On a GPU it runs on the stream of the inputs; see `input_stream`.

    Args:
        device: The device.
        where: Stage, for the error message if the device has failed.
        call: The function; it must be possible to call it twice.

    Raises:
        ArabesqueError: The device has failed; the run must end.
        Exception: Any other exception of the function.
    """
    with on_input_stream(device):
        try:
            return call()
        except Exception as error:
            require_device(device, error, where)
            if not is_out_of_memory(error):
                raise
            failure = error
        release_memory(device, failure)
        return call()


def input_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of the stages before the networks. It is the same for ``cuda`` and ``cuda:0``.

    On the stream of the networks, a copy to the host in `prepare` would wait for the current batch of a network. The
    operations of the stages up to ``prepare`` are executed in order. The batch of a network waits for them on the
    device, without the host.
    """
    return _stream(torch.cuda.current_device() if device.index is None else device.index)  # pyright: ignore[reportUnnecessaryComparison]


@cache
def _stream(index: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(index)


def on_input_stream(device: torch.device) -> AbstractContextManager[object]:
    """Queue the operations of a block, in this thread, on the stream of the stages before the networks."""
    return torch.cuda.stream(input_stream(device)) if device.type == "cuda" else nullcontext()


def await_inputs(device: torch.device) -> None:
    """Let later operations of this thread wait on the device for all inputs that are queued now.

    The inputs may be freed when the results of the networks that read them have been copied to the host.
    """
    if device.type == "cuda":
        torch.cuda.current_stream(device).wait_stream(input_stream(device))
