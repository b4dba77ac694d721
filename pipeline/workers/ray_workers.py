"""``--executor ray``: workers as actors of a Ray cluster. Ray transports names, outcomes and progress, but no frames.

Three kinds of processes: the run itself (`RayWorkers`), its coordinator on the same node (`_RayCoordinator`, a
`Coordinator`), and the workers (`_RayWorker`), which pull videos from the coordinator. Ray restarts an actor that died,
on another node if its node is lost. The videos that it was processing return to the queue when it registers again, or
when its lease expires.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from ...manifests.errors import ArabesqueError, InputError
from ...manifests.optional_packages import require_package
from ..items import Notice
from ..options import default_decoders
from ..records import RemotePath, Source
from .coordinator import (
    MAX_RESTARTS,
    Assignment,
    Coordinator,
    RunEvent,
    WorkerConfig,
    WorkerFailure,
    WorkerMain,
    WorkerReport,
    raise_failures,
)
from .ray_address import refuse_unreachable
from .remote_worker import Stopped, worker_main

POLL_S = 0.5
CALL_TIMEOUT_S = 60.0
START_TIMEOUT_S = 300.0
"""Time that the coordinator's process may take to start: it imports torch, possibly on a busy machine."""
STOP_TIMEOUT_S = 10.0
"""Time that stopped workers have to write finished rows. After that they are killed."""
SCALE_UP_EVERY_S = 5.0
"""Interval between checks for free resources for more workers."""
NOTICE_EVERY_S = 30.0
MAX_CPUS_PER_GPU_WORKER = 16
_OBJECT_STORE_BYTES = 128 << 20
_CLUSTERS_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With the value ``0`` Ray uses the loopback address on every platform."""


@dataclass(frozen=True)
class RayWorkers:
    """Executor with workers on a Ray cluster: at ``address`` or ``RAY_ADDRESS``, or a new cluster on this machine."""

    address: str | None = None
    workers: int | None = None
    """Number of workers to request, even if the cluster has no resources for them yet; an autoscaling cluster then adds
    nodes. None: as many as the cluster has resources for, and more when it grows."""
    cpus_per_worker: float | None = None
    """None: 2, or on a node with GPUs its CPUs divided by the number of workers, at most 16."""
    gpus_per_worker: float | None = None
    """None: 1 if the cluster has GPUs. 0: compute on CPUs."""
    num_decoders: int | None = None
    num_cpu_threads: int | None = None
    """None: derived from `cpus_per_worker`."""
    main: WorkerMain = worker_main
    """Main function of the workers, which they must be able to import."""

    def __str__(self) -> str:
        return f"Ray ({self.address or os.environ.get('RAY_ADDRESS') or 'a new cluster on this machine'})"

    def run(
        self, config: WorkerConfig, videos: Sequence[Source], lengths: Mapping[str, float]
    ) -> Generator[RunEvent, None, None]:
        """See `Executor.run`.

        Raises:
            InputError: The cluster cannot be reached, or this machine has fewer resources than a worker needs.
        """
        if not (self.address or os.environ.get("RAY_ADDRESS") or "ray" in sys.modules):
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it during the import
        ray = _ray()
        with connected_cluster(ray, self.address) as is_new:
            resources = self._resources(ray, can_grow=not is_new)
            here = ray.get_runtime_context().get_node_id()
            strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
            files = [file if isinstance(file.path, RemotePath) else file.at(file.path.absolute()) for file in videos]
            actor = ray.remote(_RayCoordinator).options(num_cpus=0, scheduling_strategy=strategy)
            coordinator = actor.remote(files, lengths)
            pool = _WorkerPool(
                ray, coordinator, self._worker_config(config, resources), resources, self.workers, self.main
            )
            try:
                yield from run_events(ray, coordinator, pool)
            finally:
                pool.shut_down()

    def _resources(self, ray: Any, *, can_grow: bool) -> _Resources:
        nodes = _nodes(ray)
        gpus = self.gpus_per_worker
        if gpus is None:
            gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
        cpus = self.cpus_per_worker or _fair_cpus(nodes, gpus)
        resources = _Resources(cpus, gpus)
        if not can_grow and not resources.num_fitting(nodes):
            raise InputError(
                f"a worker needs {resources}, more than this machine has; give --cpus-per-worker or --gpus-per-worker"
            )
        return resources

    def _worker_config(self, config: WorkerConfig, resources: _Resources) -> WorkerConfig:
        threads = self.num_cpu_threads or max(1, int(resources.cpus))
        limit_bytes = config.options.gpu_memory_bytes
        options = replace(
            config.options,
            device=torch.device("cuda", 0) if resources.gpus else torch.device("cpu"),  # the worker's own
            gpu_memory_bytes=limit_bytes and int(limit_bytes * min(resources.gpus, 1)),
            num_cpu_threads=threads,
            num_decoders=self.num_decoders or default_decoders(threads, "cuda" if resources.gpus else "cpu"),
        )
        return replace(config, out=_absolute(config.out), options=options)


class _Resources(NamedTuple):
    """Resources of a node that one worker occupies."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")

    def num_fitting(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """Return the number of workers that fit on the nodes if nothing else runs there."""
        return sum(
            int(min(node.get("CPU", 0) // self.cpus, node.get("GPU", 0) // self.gpus if self.gpus else 1e9))
            for node in nodes
        )


class CoordinatorState(NamedTuple):
    """State of the coordinator, with the events since the last request."""

    events: list[RunEvent | WorkerFailure]
    expired: list[str]
    """Workers that sent no heartbeat."""
    num_remaining: int
    num_workers: int


class _RayCoordinator:
    """The coordinator as an actor. Ray calls its methods one after the other."""

    def __init__(self, videos: Sequence[Source], lengths: Mapping[str, float]) -> None:
        self._coordinator = Coordinator(videos, lengths)

    def register(self, worker: str) -> bool:
        return self._coordinator.register(worker)

    def pull(self, worker: str) -> Assignment:
        return self._coordinator.pull(worker)

    def report(self, worker: str, report: WorkerReport) -> bool:
        return self._coordinator.report(worker, report)

    def state(self) -> CoordinatorState:
        coordinator = self._coordinator
        expired = coordinator.expired_workers()
        for worker in expired:
            coordinator.worker_died(worker, "sent no heartbeat")
        return CoordinatorState(coordinator.take_events(), expired, coordinator.num_remaining, coordinator.num_workers)

    def stop(self) -> None:
        self._coordinator.is_stopping = True


class _RayWorker:
    """A worker as an actor."""

    def run(self, worker: str, config: WorkerConfig, coordinator: Any, main: WorkerMain) -> None:
        ray = _ray()
        if ray.get(coordinator.register.remote(worker), timeout=CALL_TIMEOUT_S):
            with suppress(Stopped):
                main(config, _RayLink(ray, coordinator, worker))


class _RayLink:
    """Connection to the coordinator, from the side of a worker."""

    def __init__(self, ray: Any, coordinator: Any, worker: str) -> None:
        self._ray = ray
        self._coordinator = coordinator
        self._worker = worker

    def pull(self) -> Assignment:
        try:
            return self._ray.get(self._coordinator.pull.remote(self._worker), timeout=CALL_TIMEOUT_S)
        except self._ray.exceptions.RayError:
            return "over"  # the run has ended; the next report fails as well and stops the worker

    def report(self, report: WorkerReport) -> bool:
        try:
            return self._ray.get(self._coordinator.report.remote(self._worker, report), timeout=CALL_TIMEOUT_S)
        except self._ray.exceptions.RayError:
            return False


class _WorkerPool:
    """The workers of a run. The pool grows with the cluster."""

    def __init__(
        self,
        ray: Any,
        coordinator: Any,
        config: WorkerConfig,
        resources: _Resources,
        num_workers: int | None,
        main: WorkerMain,
    ) -> None:
        self._ray = ray
        self._coordinator = coordinator
        self._config = config
        self._resources = resources
        self._num_workers = num_workers
        self._main = main
        self._actors: dict[str, Any] = {}
        self._runs: dict[Any, str] = {}

    def scale_up(self, num_videos: int) -> None:
        """Start workers up to the requested number, or up to the cluster's resources; at least one.

        Args:
            num_videos: Number of remaining videos: more workers are not needed.
        """
        wanted = self._num_workers or max(1, self._resources.num_fitting(_nodes(self._ray)))
        worker = self._ray.remote(_RayWorker).options(
            num_cpus=self._resources.cpus, num_gpus=self._resources.gpus, max_restarts=-1, max_task_retries=-1
        )
        while len(self._actors) < min(wanted, num_videos):
            name = f"worker {len(self._actors) + 1}"
            actor = self._actors[name] = worker.remote()
            self._runs[actor.run.remote(name, self._config, self._coordinator, self._main)] = name

    def has_ended(self) -> bool:
        """Return whether all workers have ended. Raises `ArabesqueError` if one could not start."""
        if not self._runs:
            return bool(self._actors)
        ended, _ = self._ray.wait(list(self._runs), num_returns=len(self._runs), timeout=0)
        for run in ended:
            name = self._runs.pop(run)
            try:
                self._ray.get(run)
            except self._ray.exceptions.RayError as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                raise ArabesqueError(
                    f"{name}: cannot start: {reason}; install this version of arabesque on every node"
                ) from error
        return not self._runs

    def restart(self, name: str) -> None:
        self._ray.kill(self._actors[name], no_restart=False)

    def missing(self, num_workers: int) -> str:
        """Describe which resources the run waits for; empty if every worker runs."""
        if num_workers >= len(self._actors):
            return ""
        free = self._ray.available_resources()
        return (
            f"{num_workers} of {len(self._actors)} workers have started; each needs {self._resources}, and "
            f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs of the cluster are free"
        )

    def join(self) -> None:
        """Wait up to `STOP_TIMEOUT_S` for the workers to end."""
        if self._runs:
            self._ray.wait(list(self._runs), num_returns=len(self._runs), timeout=STOP_TIMEOUT_S)

    def shut_down(self) -> None:
        """Stop the remaining workers, which write finished rows, then kill all actors."""
        with suppress(self._ray.exceptions.RayError):
            self._ray.get(self._coordinator.stop.remote(), timeout=STOP_TIMEOUT_S)
            self.join()
        for actor in [*self._actors.values(), self._coordinator]:
            self._ray.kill(actor)


class WorkerPool(Protocol):
    """Methods of a pool of workers that `run_events` uses."""

    def has_ended(self) -> bool: ...

    def scale_up(self, num_videos: int) -> None: ...

    def restart(self, name: str) -> None: ...

    def missing(self, num_workers: int) -> str: ...

    def join(self) -> None: ...


def run_events(ray: Any, coordinator: Any, pool: WorkerPool) -> Iterator[RunEvent]:
    """Yield the events of a run until no video remains.

    Args:
        ray: The module.
        coordinator: Handle of the coordinator's actor.
        pool: The workers.

    Raises:
        ArabesqueError: The coordinator was lost, no worker is left, or an exception in a worker ended the run.
    """
    scale_up_at_s, notice_at_s = 0.0, time.monotonic() + NOTICE_EVERY_S
    timeout_s = START_TIMEOUT_S
    while True:
        has_ended = pool.has_ended()  # before the state is requested, which then includes the last worker's report
        try:
            state: CoordinatorState = ray.get(coordinator.state.remote(), timeout=timeout_s)
        except ray.exceptions.RayError as error:
            raise ArabesqueError(
                f"Ray: the run's coordinator is lost ({error}); the same command continues the run"
            ) from error
        timeout_s = CALL_TIMEOUT_S
        yield from raise_failures(state.events)
        if not state.num_remaining:
            pool.join()
            return
        if has_ended:
            raise ArabesqueError(
                f"no worker is left: each died {MAX_RESTARTS} times; the same command continues the run"
            )
        for name in state.expired:
            pool.restart(name)
        now_s = time.monotonic()
        if now_s >= scale_up_at_s:
            scale_up_at_s = now_s + SCALE_UP_EVERY_S
            pool.scale_up(state.num_remaining)
        if now_s >= notice_at_s:
            notice_at_s = now_s + NOTICE_EVERY_S
            if missing := pool.missing(state.num_workers):
                yield Notice(missing)
        time.sleep(POLL_S)


def _ray() -> Any:
    require_package("ray", "--executor ray")
    import ray
    import ray.util.scheduling_strategies  # pyright: ignore[reportUnusedImport]  # makes it an attribute of ray

    return ray


@contextmanager
def connected_cluster(ray: Any, address: str | None) -> Generator[bool]:
    """Connect to a cluster, or start one, for the duration of the block. An existing connection is used as it is.

    Anyone who can connect to a port of Ray can execute code. The ports of a cluster that is started here therefore
    listen on the loopback address and require a token.

    Args:
        ray: The module.
        address: Address of the cluster. None: ``RAY_ADDRESS``, or a new cluster on this machine.

    Yields:
        Whether the cluster was started here.

    Raises:
        ArabesqueError: Ray does not start on this machine.
        InputError: Nothing answers at the address, or the cluster refuses the connection.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        yield False
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    refuse_unreachable(address)
    with nullcontext() if address else _private_cluster():
        _connect(ray, address)
        try:
            if not address:
                _refuse_open_ports(ray)
            yield not address
        finally:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    own = {"address": "local", "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    with _signal_handlers_kept():  # Ray replaces the handler of SIGTERM
        try:
            ray.init(**({"address": address} if address else own), log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # Ray has no class for its own processes that do not start within 30 s
            if not address:
                raise ArabesqueError(
                    f"Ray does not start on this machine: {error}; run again when it is less busy, or use "
                    "--executor local"
                ) from error
            if not isinstance(error, ConnectionError | ValueError | RuntimeError):
                raise
            hint = "" if "RAY_AUTH_MODE" in os.environ else "; if it requires a token, set RAY_AUTH_MODE=token"
            raise InputError(f"no Ray cluster at {address}: {error}{hint}") from error


@contextmanager
def _private_cluster() -> Generator[None]:
    """Let Ray start clusters on the loopback address within the block, as it does by default on macOS and Windows.

    They require a token that only this user's processes have; Ray's default is a file that other users may read.
    """
    from ray._private import ray_constants

    constants: Any = ray_constants
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    before = constants.ENABLE_RAY_CLUSTER  # read from the environment when Ray was imported
    constants.ENABLE_RAY_CLUSTER = False
    os.environ[_CLUSTERS_VARIABLE] = "0"  # for the processes that Ray starts
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
        del os.environ[_CLUSTERS_VARIABLE]


def _refuse_open_ports(ray: Any) -> None:
    addresses = {node["NodeManagerAddress"] for node in ray.nodes()}
    if not addresses <= {"127.0.0.1", "::1"}:
        raise ArabesqueError(
            f"Ray {ray.__version__}: listens on {', '.join(sorted(addresses))}, not only on the loopback address; "
            "use --executor local, or start a cluster yourself and give --ray-address"
        )


@contextmanager
def _signal_handlers_kept() -> Generator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _absolute(place: Any) -> Any:
    """Return the absolute path, because workers have other working folders; a URL is returned as it is."""
    return place.absolute() if isinstance(place, Path) else place


def _nodes(ray: Any) -> list[dict[str, float]]:
    """Return the total resources of each live node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fair_cpus(nodes: Sequence[Mapping[str, float]], gpus: float) -> float:
    if not gpus:
        return min(2.0, max((node.get("CPU", 1.0) for node in nodes), default=1.0))
    shares = [node.get("CPU", 1.0) * gpus / node["GPU"] for node in nodes if node.get("GPU", 0) >= gpus]
    return float(max(1, min(MAX_CPUS_PER_GPU_WORKER, int(min(shares, default=1.0)))))
