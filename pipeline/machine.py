"""Options of a run that follow from the machine: its device, threads, decoders and workers."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..manifests.cores import available_cores
from ..manifests.errors import InputError
from .options import RunOptions
from .workers.coordinator import Executor

MAX_DECODERS = 8
"""More decoder processes do not make a run faster (docs/measurements.md)."""


def find_device(name: str) -> torch.device:
    """Return the device with this name.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:N``, or ``auto`` for the first GPU and the CPU where there is none.

    Raises:
        InputError: The machine does not have this device.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is not known; give auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {name!r} is not there: torch sees {torch.cuda.device_count()} GPUs; `arabesque doctor` may say why"
        )
    return device


def options_for_machine(
    device: str = "auto", *, decoder: str = "pyav", decode_workers: int | None = None, threads: int | None = None
) -> RunOptions:
    """Return the options of a run in this process, and set torch's number of threads.

    Args:
        device: A name for `find_device`.
        decoder: ``pyav`` or ``decord``.
        decode_workers: Videos that are decoded at once; by default half as many as threads, at most `MAX_DECODERS`.
        threads: CPU threads for networks; by default as many as usable cores.

    Raises:
        InputError: The machine does not have this device.
    """
    threads = threads or available_cores()
    torch.set_num_threads(threads)
    return RunOptions(
        device=find_device(device),
        decoder=decoder,
        num_decoders=decode_workers or default_decoders(threads),
        num_cpu_threads=threads,
    )


def default_decoders(threads: int) -> int:
    """Return how many videos a process with so many threads decodes at once."""
    return max(1, min(MAX_DECODERS, threads // 2))


def local_workers(
    options: RunOptions,
    device: str,
    *,
    workers: int | None = None,
    decode_workers: int | None = None,
    threads: int | None = None,
) -> tuple[RunOptions, Executor | None]:
    """Return the options of each local worker, and the executor that starts them; None for a single worker.

    Workers share cores and memory evenly where ``decode_workers`` and ``threads`` are not given.

    Args:
        options: From `options_for_machine`.
        device: The name that ``options`` were made for: ``auto`` and ``cuda`` use all GPUs.
        workers: Processes; by default one for each GPU.
        decode_workers: Videos that each worker decodes at once.
        threads: CPU threads of each worker.
    """
    on_all = device in ("auto", "cuda") and options.device.type == "cuda"
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())] if on_all else [options.device]
    devices = [gpus[number % len(gpus)] for number in range(workers or len(gpus))]
    if len(devices) == 1:
        return options, None
    from .workers.local_pool import LocalWorkers

    cores = max(1, options.num_cpu_threads // len(devices))
    shared = replace(
        options,
        num_cpu_threads=threads or cores,
        num_decoders=decode_workers or default_decoders(cores),
        memory_bytes=options.memory_bytes and options.memory_bytes // (len(devices) + 1),  # one is for the leader
    )
    return shared, LocalWorkers(devices)
