"""``--executor ray``: workers as actors of a Ray cluster. Ray carries names, outcomes and progress, never frames.

Three kinds of processes: the run itself (`RayWorkers`), its office on the same node (`_Desk`, a `Dispatcher`), and the
workers (`_Hand`), which pull from the office. Ray starts an actor that is lost again, elsewhere where its node is gone,
and calls it again; what it had in hand goes back when it enters anew, or when its lease has ended.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...manifests.errors import ArabesqueError, ManifestError
from ..records import VideoFile
from ..work import Notice
from ..worker import Job
from .dispatching import Dispatcher, Failure, Pulled, Report, RunEvent, Work, unless_failed
from .working import Stopped, work

POLL_S = 0.5
CONNECT_TIMEOUT_S = 10.0
CALL_TIMEOUT_S = 60.0
START_TIMEOUT_S = 300.0
"""How long the office's process may take to start: it imports torch, on a machine that may be busy."""
STOP_TIMEOUT_S = 10.0
"""How long workers that are told to stop may take to write what is finished; then they are killed."""
HIRE_EVERY_S = 5.0
"""How often the cluster is looked at for room for more workers."""
NOTICE_EVERY_S = 30.0
MAX_CPUS_PER_GPU_WORKER = 16
_OBJECT_STORE_BYTES = 128 << 20


@dataclass(frozen=True)
class RayWorkers:
    """Workers on a Ray cluster: that of ``address`` or of RAY_ADDRESS, or one that is started on this machine."""

    address: str | None = None
    workers: int | None = None
    """How many are asked for, whether there is room or not: a cluster that can grow then grows. None: as many as there
    is room for, more as it grows."""
    cpus_per_worker: float | None = None
    """None: 2; of a node with GPUs a worker's fair share, 16 at most."""
    gpus_per_worker: float | None = None
    """None: 1 where the cluster has any; 0 computes on CPUs."""
    num_decoders: int | None = None
    num_cpu_threads: int | None = None
    """None: by `cpus_per_worker`."""
    work: Work = work
    """What the workers do, a function that they can import."""

    def __str__(self) -> str:
        return f"Ray ({self.address or os.environ.get('RAY_ADDRESS') or 'a cluster of this machine alone'})"

    def run(
        self, job: Job, videos: Sequence[VideoFile], lengths: Mapping[str, float]
    ) -> Generator[RunEvent, None, None]:
        """See `Executor`. Raises `ManifestError` for what the cluster cannot give, where it cannot grow."""
        ray = _ray()
        with _cluster(ray, self.address) as is_ours:
            ask = self._ask(ray, can_grow=not is_ours)
            here = ray.get_runtime_context().get_node_id()
            strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
            files = [replace(file, path=_from_everywhere(file.path)) for file in videos]
            desk = ray.remote(_Desk).options(num_cpus=0, scheduling_strategy=strategy).remote(files, lengths)
            crew = _Crew(ray, desk, self._job(job, ask), ask, self.workers, self.work)
            try:
                yield from _watch(ray, desk, crew)
            finally:
                crew.dismiss()

    def _ask(self, ray: Any, *, can_grow: bool) -> _Ask:
        nodes = _nodes(ray)
        gpus = self.gpus_per_worker
        if gpus is None:
            gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
        cpus = self.cpus_per_worker or _fair_cpus(nodes, gpus)
        ask = _Ask(cpus, gpus)
        if not can_grow and not ask.fitting(nodes):
            raise ManifestError(
                f"a worker asks for {ask}, more than this machine has; give --cpus-per-worker or --gpus-per-worker"
            )
        return ask

    def _job(self, job: Job, ask: _Ask) -> Job:
        threads = self.num_cpu_threads or max(1, int(ask.cpus))
        options = replace(
            job.options,
            device=torch.device("cuda", 0) if ask.gpus else torch.device("cpu"),  # Ray shows it its own GPUs only
            num_cpu_threads=threads,
            num_decoders=self.num_decoders or max(1, min(8, threads // 2)),
        )
        return replace(job, out=_from_everywhere(job.out), options=options)


class _Ask(NamedTuple):
    """What a worker occupies of a node."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")

    def fitting(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """For how many workers there is room, were nobody else there."""
        return sum(
            int(min(node.get("CPU", 0) // self.cpus, node.get("GPU", 0) // self.gpus if self.gpus else 1e9))
            for node in nodes
        )


class _State(NamedTuple):
    """What the office tells when it is asked."""

    news: list[RunEvent | Failure]
    overdue: list[str]
    num_left: int
    num_workers: int


class _Desk:
    """The office, an actor. Its methods run one after the other."""

    def __init__(self, videos: Sequence[VideoFile], lengths: Mapping[str, float]) -> None:
        self._dispatcher = Dispatcher(videos, lengths)

    def enter(self, worker: str) -> bool:
        return self._dispatcher.enter(worker)

    def pull(self, worker: str) -> Pulled:
        return self._dispatcher.pull(worker)

    def report(self, worker: str, report: Report) -> bool:
        return self._dispatcher.report(worker, report)

    def state(self) -> _State:
        overdue = self._dispatcher.overdue()
        for worker in overdue:
            self._dispatcher.lose(worker, "gave no sign of life")
        dispatcher = self._dispatcher
        return _State(dispatcher.news(), overdue, dispatcher.num_left, dispatcher.num_workers)

    def stop(self) -> None:
        self._dispatcher.is_stopping = True


class _Hand:
    """A worker, an actor."""

    def run(self, worker: str, job: Job, desk: Any, work: Work) -> None:
        ray = _ray()
        office = _RayOffice(ray, desk, worker)
        if ray.get(desk.enter.remote(worker), timeout=CALL_TIMEOUT_S):
            with suppress(Stopped):
                work(job, office)


class _RayOffice:
    """The office as a worker sees it."""

    def __init__(self, ray: Any, desk: Any, worker: str) -> None:
        self._ray = ray
        self._desk = desk
        self._worker = worker

    def pull(self) -> Pulled:
        try:
            return self._ray.get(self._desk.pull.remote(self._worker), timeout=CALL_TIMEOUT_S)
        except self._ray.exceptions.RayError:
            return "over"  # the run is gone; the next report finds out and stops the worker

    def report(self, report: Report) -> bool:
        try:
            return self._ray.get(self._desk.report.remote(self._worker, report), timeout=CALL_TIMEOUT_S)
        except self._ray.exceptions.RayError:
            return False


class _Crew:
    """The workers of a run, and whether there is room for more."""

    def __init__(self, ray: Any, desk: Any, job: Job, ask: _Ask, workers: int | None, work: Work) -> None:
        self._ray = ray
        self._desk = desk
        self._job = job
        self._ask = ask
        self._workers = workers
        self._work = work
        self._actors: dict[str, Any] = {}
        self._runs: dict[Any, str] = {}

    def hire(self, num_left: int) -> None:
        """As many workers as are asked for, or as there is room for; one in any case."""
        wanted = self._workers or max(1, self._ask.fitting(_nodes(self._ray)))
        hand = self._ray.remote(_Hand).options(
            num_cpus=self._ask.cpus, num_gpus=self._ask.gpus, max_restarts=-1, max_task_retries=-1
        )
        while len(self._actors) < min(wanted, num_left):
            name = f"worker {len(self._actors) + 1}"
            actor = self._actors[name] = hand.remote()
            self._runs[actor.run.remote(name, self._job, self._desk, self._work)] = name

    def has_ended(self) -> bool:
        """Whether all workers that were hired have; raises where one could not even begin."""
        if not self._runs:
            return bool(self._actors)
        ended, _ = self._ray.wait(list(self._runs), num_returns=len(self._runs), timeout=0)
        for run in ended:
            name = self._runs.pop(run)
            try:
                self._ray.get(run)
            except self._ray.exceptions.RayError as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                raise ArabesqueError(f"{name} cannot work: {reason}; is this arabesque on every node?") from error
        return not self._runs

    def restart(self, name: str) -> None:
        self._ray.kill(self._actors[name], no_restart=False)

    def missing(self, num_workers: int) -> str:
        """What is being waited for, where not every worker runs; else nothing."""
        if num_workers >= len(self._actors):
            return ""
        free = self._ray.available_resources()
        return (
            f"{num_workers} of {len(self._actors)} workers have begun; each asks for {self._ask}, and "
            f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs of the cluster are free"
        )

    def see_off(self) -> None:
        """Gives the workers time to end by themselves."""
        if self._runs:
            self._ray.wait(list(self._runs), num_returns=len(self._runs), timeout=STOP_TIMEOUT_S)

    def dismiss(self) -> None:
        """Has the workers that are left write what is finished, then ends them."""
        with suppress(self._ray.exceptions.RayError):
            self._ray.get(self._desk.stop.remote(), timeout=STOP_TIMEOUT_S)
            self.see_off()
        for actor in [*self._actors.values(), self._desk]:
            self._ray.kill(actor)


def _watch(ray: Any, desk: Any, crew: _Crew) -> Iterator[RunEvent]:
    """The run, until no video is left."""
    hire_at_s, notice_at_s = 0.0, time.monotonic() + NOTICE_EVERY_S
    timeout_s = START_TIMEOUT_S
    while True:
        has_ended = crew.has_ended()  # before the office is asked, which then knows what the last one reported
        try:
            state = ray.get(desk.state.remote(), timeout=timeout_s)
        except ray.exceptions.RayError as error:
            raise ArabesqueError(f"Ray has lost the run's office ({error}); the same command goes on") from error
        timeout_s = CALL_TIMEOUT_S
        yield from unless_failed(state.news)
        if not state.num_left:
            crew.see_off()
            return
        if has_ended:
            raise ArabesqueError("no worker is left: each was lost again and again; the same command goes on")
        for name in state.overdue:
            crew.restart(name)
        now_s = time.monotonic()
        if now_s >= hire_at_s:
            hire_at_s = now_s + HIRE_EVERY_S
            crew.hire(state.num_left)
        if now_s >= notice_at_s:
            notice_at_s = now_s + NOTICE_EVERY_S
            if missing := crew.missing(state.num_workers):
                yield Notice(missing)
        time.sleep(POLL_S)


def _ray() -> Any:
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError:
        raise ManifestError("--executor ray needs Ray: pip install 'arabesque[ray]'") from None
    return ray


@contextmanager
def _cluster(ray: Any, address: str | None) -> Iterator[bool]:
    """Connected, or started; tells whether it is this run's own. One that the caller has connected to is used."""
    address = address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        yield False
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = {"address": "local", "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    refuse_unreachable(address)
    with _signals_as_they_are():  # Ray takes SIGTERM over
        try:
            ray.init(**({"address": address} if address else own), log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            way_out = "" if "RAY_AUTH_MODE" in os.environ else "; where it asks for a token, set RAY_AUTH_MODE=token"
            raise ManifestError(f"no Ray cluster at {address}: {error}{way_out}") from error
    try:
        yield not address
    finally:
        ray.shutdown()


def refuse_unreachable(address: str | None) -> None:
    """`ManifestError` at once, where Ray itself would try for minutes. None: RAY_ADDRESS, if there is one."""
    address = address or os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
        except OSError as error:
            raise ManifestError(f"no Ray cluster at {address}: {error}") from error


@contextmanager
def _signals_as_they_are() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _from_everywhere(place: Any) -> Any:
    """A path, or a URL as it is: workers have other working folders."""
    return place.absolute() if isinstance(place, Path) else place


def _nodes(ray: Any) -> list[dict[str, float]]:
    """What each node that lives has in all."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fair_cpus(nodes: Sequence[Mapping[str, float]], gpus: float) -> float:
    if not gpus:
        return min(2.0, max((node.get("CPU", 1.0) for node in nodes), default=1.0))
    shares = [node.get("CPU", 1.0) * gpus / node["GPU"] for node in nodes if node.get("GPU", 0) >= gpus]
    return float(max(1, min(MAX_CPUS_PER_GPU_WORKER, int(min(shares, default=1.0)))))
