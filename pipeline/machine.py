"""Options of a run that depend on the machine: device, threads, decoders and workers."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from ..manifests.errors import InputError
from .options import RunOptions, default_decoders
from .system.accelerators import share_of_memory, unusable_gpu
from .system.process_resources import available_cores
from .workers.coordinator import Executor

_LOG = logging.getLogger(__name__)


def find_device(name: str) -> torch.device:
    """Return the device with this name.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:N``, ``xpu``, ``xpu:N``, ``mps``, or ``auto`` for the first GPU (CUDA or XPU),
            or the CPU if there is none. A warning is logged if there is a GPU that PyTorch cannot use.

    Raises:
        InputError: The machine does not have this device.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        if accelerator is not None and accelerator.type in ("cuda", "xpu"):
            return torch.device(accelerator.type, 0)
        if problem := unusable_gpu():
            _LOG.warning("networks run on the CPU although there is an NVIDIA GPU: %s", problem)
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is not known; give auto, cpu, cuda or cuda:1") from None
    if device.type == "cpu":
        return device
    seen = torch.accelerator.device_count() if accelerator is not None and accelerator.type == device.type else 0
    if (device.index or 0) >= seen:
        raise InputError(f"device {name!r} is not there: torch sees {seen} GPUs; `arabesque doctor` may say why")
    return device


def options_for_machine(
    device: str = "auto", *, decoder: str = "pyav", decode_workers: int | None = None, threads: int | None = None
) -> RunOptions:
    """Return the options of a run in this process, and set torch's number of threads.

    Args:
        device: A name for `find_device`.
        decoder: ``pyav``, ``decord`` or ``nvdec``.
        decode_workers: Number of videos that are decoded at once; `default_decoders` by default.
        threads: CPU threads for networks; the number of usable cores by default.

    Raises:
        InputError: The machine does not have this device.
    """
    threads = threads or available_cores()
    torch.set_num_threads(threads)
    found = find_device(device)
    return RunOptions(
        device=found,
        decoder=decoder,
        num_decoders=decode_workers or default_decoders(threads, found.type),
        num_cpu_threads=threads,
    )


def local_workers(
    options: RunOptions,
    device: str,
    *,
    workers: int | None = None,
    decode_workers: int | None = None,
    threads: int | None = None,
) -> tuple[RunOptions, Executor | None]:
    """Return the options of each local worker, and the executor that starts them; None for a single worker.

    Workers share memory and the memory of their GPU evenly. They share the cores evenly, unless ``decode_workers`` and
    ``threads`` are given.

    Args:
        options: From `options_for_machine`.
        device: The name from which ``options`` were made: ``auto`` and ``cuda`` use all GPUs.
        workers: Number of processes; by default one for each GPU.
        decode_workers: Number of videos that each worker decodes at once.
        threads: CPU threads of each worker.
    """
    kind = options.device.type
    on_all = device in ("auto", kind) and kind != "cpu"
    gpus = [torch.device(kind, index) for index in range(torch.accelerator.device_count())] if on_all else []
    gpus = gpus or [options.device]
    devices = [gpus[number % len(gpus)] for number in range(workers or len(gpus))]
    if len(devices) == 1:
        return options, None
    from .workers.local_pool import LocalWorkers

    cores = max(1, options.num_cpu_threads // len(devices))
    shared = replace(
        options,
        num_cpu_threads=threads or cores,
        num_decoders=decode_workers or default_decoders(cores, kind),
        memory_bytes=options.memory_bytes
        and options.memory_bytes // (len(devices) + 1),  # one share is for this process
        gpu_memory_bytes=share_of_memory(devices[0], options.gpu_memory_bytes, devices.count(devices[0])),
    )
    return shared, LocalWorkers(devices)
