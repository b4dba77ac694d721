"""Who does the work of `arabesque extract`: this process, several of this machine, or a Ray cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

if TYPE_CHECKING:
    from ..pipeline.executors.dispatching import Executor
    from ..pipeline.extraction import RunOptions

EXECUTOR = Annotated[Literal["local", "ray"], typer.Option(help="Who works: this machine, or a Ray cluster.")]
WORKERS = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that work side by side. Default: one for each GPU; all that Ray has room for."),
]
RAY_ADDRESS = Annotated[
    str | None, typer.Option(help="A Ray cluster. Default: RAY_ADDRESS; without one, Ray is started on this machine.")
]
CPUS = Annotated[float | None, typer.Option(min=0.1, help="CPUs of a Ray worker. Default: 2; with a GPU, its share.")]
GPUS = Annotated[
    float | None, typer.Option(min=0.0, help="GPUs of a Ray worker. Default: 1 where the cluster has any, else 0.")
]


class Wish(NamedTuple):
    """What the options say of who is to work."""

    executor: Literal["local", "ray"]
    workers: int | None
    ray_address: str | None
    cpus_per_worker: float | None
    gpus_per_worker: float | None


def chosen_executor(
    wish: Wish, options: RunOptions, device: str, decode_workers: int | None, threads: int | None
) -> tuple[RunOptions, Executor | None]:
    """Options for each worker, and who starts them; None where this process is all that is needed."""
    if wish.executor == "local":
        _refuse_wishes_for_ray(wish)
        return _local_workers(options, device, wish.workers, decode_workers, threads)
    from ..pipeline.executors.ray_cluster import RayWorkers, refuse_unreachable

    if ":" in device:
        raise typer.BadParameter(f"{device!r}: Ray chooses among GPUs; give cuda, cpu or auto", param_hint="--device")
    gpus = {"cpu": 0.0, "cuda": wish.gpus_per_worker or 1.0}.get(device, wish.gpus_per_worker)
    refuse_unreachable(wish.ray_address)  # before the store is begun
    ray = RayWorkers(wish.ray_address, wish.workers, wish.cpus_per_worker, gpus, decode_workers, threads)
    return options, ray


def _refuse_wishes_for_ray(wish: Wish) -> None:
    """Whoever names a cluster must not get a run of one machine in silence."""
    for name in ("ray_address", "cpus_per_worker", "gpus_per_worker"):
        if getattr(wish, name) is not None:
            option = "--" + name.replace("_", "-")
            raise typer.BadParameter("is about a Ray cluster; add --executor ray", param_hint=option)


def _local_workers(
    options: RunOptions, device: str, workers: int | None, decode_workers: int | None, threads: int | None
) -> tuple[RunOptions, Executor | None]:
    """They share the machine's cores evenly where ``decode_workers`` and ``threads`` do not say what each may use."""
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
