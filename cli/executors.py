"""Executor options of `arabesque extract`: this process, several local processes, or a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

if TYPE_CHECKING:
    from ..pipeline.options import RunOptions
    from ..pipeline.workers.coordinator import Executor

EXECUTOR = Annotated[
    Literal["local", "ray"], typer.Option(help="Where the workers run: this machine (local) or a Ray cluster.")
]
WORKERS = Annotated[
    int | None,
    typer.Option(min=1, help="Number of worker processes. Default: one per GPU; with Ray, as many as fit."),
]
RAY_ADDRESS = Annotated[
    str | None, typer.Option(help="Address of a Ray cluster. Default: RAY_ADDRESS, else a local Ray is started.")
]
CPUS = Annotated[
    float | None, typer.Option(min=0.1, help="CPUs per Ray worker. Default: 2; with a GPU, its share of the cores.")
]
GPUS = Annotated[
    float | None, typer.Option(min=0.0, help="GPUs per Ray worker. Default: 1 if the cluster has GPUs, else 0.")
]


class ExecutorOptions(NamedTuple):
    """Values of the executor options."""

    executor: Literal["local", "ray"]
    workers: int | None
    ray_address: str | None
    cpus_per_worker: float | None
    gpus_per_worker: float | None


def check_executor_options(given: ExecutorOptions, device: str) -> None:
    """Raise if the options contradict each other or Ray is not available. Imports nothing heavy."""
    if given.executor == "local":
        _check_no_ray_options(given)
        return
    from ..manifests.optional_packages import require_package
    from ..pipeline.workers.ray_address import refuse_unreachable

    if ":" in device:
        raise typer.BadParameter(f"{device!r}: Ray assigns the GPUs; give cuda, cpu or auto", param_hint="--device")
    require_package("ray", "--executor ray")
    refuse_unreachable(given.ray_address)


def chosen_executor(
    given: ExecutorOptions, options: RunOptions, device: str, decode_workers: int | None, threads: int | None
) -> tuple[RunOptions, Executor | None]:
    """Return the options of each worker and the executor; None if this process is the only worker."""
    if given.executor == "local":
        from ..pipeline.machine import local_workers

        return local_workers(options, device, workers=given.workers, decode_workers=decode_workers, threads=threads)
    from ..pipeline.workers.ray_workers import RayWorkers

    gpus = {"cpu": 0.0, "cuda": given.gpus_per_worker or 1.0}.get(device, given.gpus_per_worker)
    ray = RayWorkers(given.ray_address, given.workers, given.cpus_per_worker, gpus, decode_workers, threads)
    return options, ray


def _check_no_ray_options(given: ExecutorOptions) -> None:
    """Raise if an option for Ray is given without --executor ray; it would be ignored otherwise."""
    for name in ("ray_address", "cpus_per_worker", "gpus_per_worker"):
        if getattr(given, name) is not None:
            option = "--" + name.replace("_", "-")
            raise typer.BadParameter("applies to a Ray cluster only; add --executor ray", param_hint=option)
