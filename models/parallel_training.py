"""Run several trainings in parallel worker processes that share the features in memory."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

import torch
import torch.multiprocessing  # pyright: ignore[reportUnusedImport]  # lets tensors in shared memory be sent

from ..manifests.errors import ArabesqueError, InputError
from ..pipeline.system.child_process import ChildProcess
from ..pipeline.system.isolation import exit_with_parent
from ..pipeline.system.logs import current_logs, set_up_logs
from .fitting import cpu_threads
from .trainer import SeedResult, Trainer

EpochsDone = Callable[[int, int, int], None]
"""Called with the index of a training, the epochs done and the total number of epochs."""


@dataclass(frozen=True)
class PoolSize:
    """Number of trainings that run in parallel, and CPU threads of each."""

    workers: int = 1
    threads: int = 1


def plan_pool_size(
    trainings: int, workers: int | None, threads: int | None, cores: int, device: torch.device | str = "cpu"
) -> PoolSize:
    """Return the requested size, with defaults from the number of cores.

    On an accelerator trainings run one after another, because each process would need a copy of the features.

    Args:
        trainings: Number of trainings; an upper limit for the number of workers.
        workers: Requested number of workers; None for one per core.
        threads: Requested CPU threads of each worker; None for an equal share of the cores.
        cores: Number of CPU cores that this process may use.
        device: Device of the trainings.

    Raises:
        InputError: Several workers are requested on an accelerator.
    """
    if torch.device(device).type != "cpu":
        if (workers or 1) > 1:
            raise InputError(f"--workers {workers}: trainings on {device} run one after the other; give --workers 1")
        workers = 1
    num_workers = min(workers or cores, max(1, trainings))
    return PoolSize(num_workers, threads or max(1, cores // num_workers))


def _no_report(index: int, done: int, total: int) -> None:
    """Ignore the progress."""


def run_all(runs: Sequence[Trainer], pool_size: PoolSize, on_epoch: EpochsDone | None = None) -> list[SeedResult]:
    """Run all trainings and return their results in the same order.

    Results of finished trainings are read from disk. Results do not depend on ``pool_size.workers``. If a training
    fails, the others are stopped; their saved states are kept.

    Args:
        runs: The trainings.
        pool_size: Number of worker processes and threads. One worker runs in this process.
        on_epoch: Progress callback.

    Raises:
        ArabesqueError: A training failed, its process died, or shared memory is too small for the features.
    """
    report = on_epoch or _no_report
    results = {index: result for index, run in enumerate(runs) if (result := run.finished()) is not None}
    remaining = [index for index in range(len(runs)) if index not in results]
    if pool_size.workers == 1 or len(remaining) < 2:
        with cpu_threads(pool_size.threads):
            for index in remaining:
                results[index] = runs[index].result(lambda done, total, index=index: report(index, done, total))
    else:
        _share_features(runs)
        with _worker_pool(runs, min(pool_size.workers, len(remaining)), pool_size.threads) as workers:
            results |= _run_remaining(remaining, workers, report)
    return [results[index] for index in range(len(runs))]


def _share_features(runs: Sequence[Trainer]) -> None:
    """Move the features to shared memory. The tensors stay usable in this process."""
    try:
        for samples in {id(run.data.samples): run.data.samples for run in runs}.values():
            for tensors in (samples.features, samples.present, samples.lengths):
                for tensor in tensors.values():
                    tensor.share_memory_()
    except RuntimeError as error:
        raise ArabesqueError(
            f"the features do not fit into shared memory ({str(error).splitlines()[0]}); make /dev/shm larger "
            "(docker run --shm-size), or train with --workers 1"
        ) from error


class _Worker(ChildProcess):
    """A process that waits for the index of a training. It runs only our code, so messages may be pickled."""

    def __init__(self, runs: Sequence[Trainer], threads: int) -> None:
        super().__init__(__name__)
        self.training: int | None = None
        self.pipe = Connection(self.connection.detach())
        self.pipe.send_bytes(multiprocessing.current_process().authkey)  # torch needs it to share memory
        self.pipe.send((runs, threads, current_logs()))

    def receive(self) -> SeedResult | tuple[int, int]:
        """Return the result of the training, or its epochs done and their total."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            how = self.how_it_ended()
            if "SIGKILL" in how:
                how += ", perhaps because memory was exhausted (fewer --workers need less)"
            raise ArabesqueError(
                f"a training's process {how}; run the same command again to continue from the last saved epoch"
            ) from None
        if isinstance(message, Exception):
            raise message
        return message

    def end(self) -> None:
        """See `ChildProcess.end`."""
        super().end()
        self.pipe.close()


@contextmanager
def _worker_pool(runs: Sequence[Trainer], count: int, threads: int) -> Generator[list[_Worker], None, None]:
    """Start worker processes; kill them at the end of the block."""
    workers: list[_Worker] = []
    try:
        for _ in range(count):
            workers.append(_Worker(runs, threads))  # noqa: PERF401 - those that started are ended if another fails
        yield workers
    finally:
        for worker in workers:
            worker.end()


def _run_remaining(remaining: Sequence[int], workers: Sequence[_Worker], report: EpochsDone) -> dict[int, SeedResult]:
    waiting = list(reversed(remaining))
    results: dict[int, SeedResult] = {}
    for worker in workers:
        _assign_next(worker, waiting)
    while busy := [worker for worker in workers if worker.training is not None]:
        ready = wait([worker.pipe for worker in busy])
        for worker in busy:
            if worker.pipe not in ready:
                continue
            assert worker.training is not None
            message = worker.receive()
            if isinstance(message, SeedResult):
                results[worker.training] = message
                _assign_next(worker, waiting)
            else:
                report(worker.training, *message)
    return results


def _assign_next(worker: _Worker, waiting: list[int]) -> None:
    worker.training = waiting.pop() if waiting else None
    if worker.training is not None:
        worker.pipe.send(worker.training)


def main(descriptor: int) -> None:
    """Entry point of a worker process: run trainings by index until the process is killed or its parent ends."""
    pipe = Connection(descriptor)
    exit_with_parent(descriptor)
    multiprocessing.current_process().authkey = pipe.recv_bytes()
    runs, threads, log_settings = pipe.recv()
    if log_settings is not None:
        set_up_logs(log_settings)
    torch.set_num_threads(threads)
    while True:
        run: Trainer = runs[pipe.recv()]
        try:
            pipe.send(run.result(lambda done, total: pipe.send((done, total))))
        except Exception as error:
            pipe.send(_picklable(error))


def _picklable(error: Exception) -> Exception:
    """Return an `ArabesqueError` unchanged, and any other error as a RuntimeError; add the traceback as a note."""
    result = error if isinstance(error, ArabesqueError) else RuntimeError(f"{type(error).__name__}: {error}")
    result.add_note("".join(traceback.format_exception(error)))
    return result
