"""Who does the work of `arabesque extract`: this process, several of this machine, or a Ray cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..pipeline.executors.dispatching import Executor
    from ..pipeline.extraction import RunOptions


def local_workers(
    options: RunOptions, device: str, workers: int | None, decode_workers: int | None, threads: int | None
) -> tuple[RunOptions, Executor | None]:
    """Options for each worker, and who starts them; None where this process is all that is needed.

    Workers share the machine's cores evenly where ``decode_workers`` and ``threads`` do not say what each may use.
    """
    import torch

    on_all = device in ("auto", "cuda") and options.device.type == "cuda"
    places = [torch.device("cuda", index) for index in range(torch.cuda.device_count())] if on_all else [options.device]
    devices = [places[number % len(places)] for number in range(workers or len(places))]
    if len(devices) == 1:
        return options, None
    from ..pipeline.executors.local import LocalWorkers

    cores = max(1, options.num_cpu_threads // len(devices))
    shared = replace(
        options,
        num_cpu_threads=threads or cores,
        num_decoders=decode_workers or max(1, min(8, cores // 2)),
        memory_bytes=options.memory_bytes and options.memory_bytes // (len(devices) + 1),  # one is for the leader
    )
    return shared, LocalWorkers(devices)
