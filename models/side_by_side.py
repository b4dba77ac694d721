"""Several trainings at once, each in a process of its own; their data stands in memory once."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import multiprocessing

from ..manifests.errors import ArabesqueError
from .fitting import cpu_threads
from .seed_run import SeedResult, SeedRun

EpochsDone = Callable[[int, int, int], None]
"""Called with a training's place in the list, its epochs done and to do."""


@dataclass(frozen=True)
class Crew:
    """How many trainings go on at once, and with how many CPU threads each."""

    workers: int = 1
    threads: int = 1


def plan_crew(trainings: int, workers: int | None, threads: int | None, cores: int) -> Crew:
    """What was asked for; otherwise as many workers as cores, no more than trainings, and the cores' share of each."""
    hands = min(workers or cores, max(1, trainings))
    return Crew(hands, threads or max(1, cores // hands))


def run_all(runs: Sequence[SeedRun], crew: Crew, on_epoch: EpochsDone | None = None) -> list[SeedResult]:
    """Every training's result, in their order; those that are finished are read back.

    Results do not depend on ``crew.workers``. The first training that fails ends the others; what they saved is kept.
    """
    tell = on_epoch or (lambda number, done, total: None)
    results = {number: result for number, run in enumerate(runs) if (result := run.finished()) is not None}
    left = [number for number in range(len(runs)) if number not in results]
    if crew.workers == 1 or len(left) < 2:
        with cpu_threads(crew.threads):
            for number in left:
                results[number] = runs[number].result(_of(tell, number))
    else:
        _share(runs)
        with _hired(runs, min(crew.workers, len(left)), crew.threads) as workers:
            results |= _handed_out(left, workers, tell)
    return [results[number] for number in range(len(runs))]


def _of(tell: EpochsDone, number: int) -> Callable[[int, int], None]:
    return lambda done, total: tell(number, done, total)


def _share(runs: Sequence[SeedRun]) -> None:
    """Move the features to where other processes see them; they stay usable here."""
    try:
        for routines in {id(run.data.routines): run.data.routines for run in runs}.values():
            for tensors in (routines.features, routines.present, routines.lengths):
                for tensor in tensors.values():
                    tensor.share_memory_()
    except RuntimeError as error:
        raise ArabesqueError(
            f"the features do not fit into shared memory ({str(error).splitlines()[0]}); make /dev/shm larger "
            "(docker run --shm-size), or train with --workers 1"
        ) from error


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    ours: Connection
    training: int | None = None


@contextmanager
def _hired(runs: Sequence[SeedRun], count: int, threads: int) -> Iterator[list[_Worker]]:
    """Processes that wait for a training's number; none of them outlives the block."""
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, runs, threads), daemon=True)
            with _deaf_to_interrupts():
                process.start()
            theirs.close()  # so that ours ends with the process
            workers.append(_Worker(process, ours))
        yield workers
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            worker.ours.close()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """What is started here never hears of Ctrl-C, which reaches the parent as well: that one ends its workers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _handed_out(left: Sequence[int], workers: Sequence[_Worker], tell: EpochsDone) -> Mapping[int, SeedResult]:
    waiting = list(reversed(left))
    results: dict[int, SeedResult] = {}
    for worker in workers:
        _next(worker, waiting)
    while busy := {worker.ours: worker for worker in workers if worker.training is not None}:
        for ready in connection.wait(list(busy)):
            assert isinstance(ready, Connection)
            worker = busy[ready]
            assert worker.training is not None
            message = _heard(worker)
            if isinstance(message, SeedResult):
                results[worker.training] = message
                _next(worker, waiting)
            else:
                tell(worker.training, *message)
    return results


def _next(worker: _Worker, waiting: list[int]) -> None:
    worker.training = waiting.pop() if waiting else None
    if worker.training is not None:
        worker.ours.send(worker.training)


def _heard(worker: _Worker) -> SeedResult | tuple[int, int]:
    try:
        message = worker.ours.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        raise ArabesqueError(
            f"a training's process ended with status {worker.process.exitcode} (-9: killed, perhaps for memory; fewer "
            "--workers need less); the same command goes on from its last saved epoch"
        ) from None
    if isinstance(message, Exception):
        raise message
    return message


def _work(theirs: Connection, runs: Sequence[SeedRun], threads: int) -> None:
    """The life of a worker: trainings by number, until it is killed or its parent is gone."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    torch.set_num_threads(threads)
    while True:
        run = runs[theirs.recv()]
        try:
            theirs.send(run.result(lambda done, total: theirs.send((done, total))))
        except Exception as error:
            theirs.send(_portable(error))


def _end_with_the_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error with the place where it happened as a note; of ours, or told by one of Python's own."""
    told: Any = error if isinstance(error, ArabesqueError) else RuntimeError(f"{type(error).__name__}: {error}")
    told.add_note("".join(traceback.format_exception(error)))
    return told
