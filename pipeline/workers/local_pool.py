"""``--executor local`` with several workers: one process for each device of this machine, connected by pipes."""

from __future__ import annotations

import logging
import os
import pickle
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import NoReturn

import torch

from ...manifests.errors import ArabesqueError
from ..records import Source
from ..system.child_process import ChildProcess
from .coordinator import Assignment, Coordinator, RunEvent, WorkerConfig, WorkerMain, WorkerReport, raise_failures
from .remote_worker import Stopped, worker_main

_LOG = logging.getLogger(__name__)

STOP_TIMEOUT_S = 10.0
"""Time that stopped workers have to write finished rows. After that they are killed."""
POLL_S = 1.0


class LocalWorkers:
    """Executor with one worker process for each of ``devices``. A process that dies is restarted.

    Args:
        devices: The device of each worker; a device may occur several times.
        main: Main function of the processes, which they must be able to import.
    """

    def __init__(self, devices: Sequence[torch.device], main: WorkerMain = worker_main) -> None:
        self._devices = list(devices)
        self._main = main

    def __str__(self) -> str:
        return f"{len(self._devices)} workers on {', '.join(dict.fromkeys(map(str, self._devices)))}"

    def run(
        self, config: WorkerConfig, videos: Sequence[Source], lengths: Mapping[str, float]
    ) -> Generator[RunEvent, None, None]:
        """See `Executor.run`."""
        coordinator = Coordinator(videos, lengths)
        workers: list[_WorkerProcess] = []
        try:
            workers.extend(self._start(number, config) for number in range(len(self._devices)))
            while workers:
                ready = wait([worker.pipe for worker in workers], POLL_S)
                for worker in [worker for worker in workers if worker.pipe in ready]:
                    worker.answer(coordinator)
                expired = coordinator.expired_workers()
                for worker in [worker for worker in workers if worker.has_ended or worker.name in expired]:
                    workers.remove(worker)
                    how = worker.how_it_ended() if worker.has_ended else "sent no heartbeat and was killed"
                    worker.end()
                    if worker.is_done:
                        continue
                    _LOG.info("%s %s", worker.name, how)
                    if coordinator.worker_died(worker.name, how):
                        workers.append(self._start(worker.number, config))
                    elif not workers:
                        raise ArabesqueError(
                            f"{worker.name}: {how}, as often as a worker is restarted, and no other worker is left; "
                            "the same command continues the run"
                        )
                yield from raise_failures(coordinator.take_events())
        finally:
            for worker in workers:
                worker.stop()
            deadline_s = time.monotonic() + STOP_TIMEOUT_S
            for worker in workers:
                worker.wait(deadline_s - time.monotonic())
                worker.end()

    def _start(self, number: int, config: WorkerConfig) -> _WorkerProcess:
        options = replace(config.options, device=self._devices[number])
        return _WorkerProcess(number, self._main, replace(config, options=options))


class _WorkerProcess(ChildProcess):
    """A worker process, from the side of the run's process."""

    def __init__(self, number: int, main: WorkerMain, config: WorkerConfig) -> None:
        super().__init__(__name__)
        self.number = number
        self.name = f"worker {number + 1}"
        self.has_ended = False
        self.is_done = False
        self.pipe = Connection(self.connection.detach())
        self.pipe.send((main, config))

    def answer(self, coordinator: Coordinator) -> None:
        """Process one message of the worker."""
        try:
            message, *details = self.pipe.recv()
            if message == "register":
                coordinator.register(self.name)
            elif message == "pull":
                self.pipe.send(coordinator.pull(self.name))
            elif message == "report":
                coordinator.report(self.name, *details)
            else:
                self.is_done = True
        except (EOFError, OSError, pickle.UnpicklingError):
            self.has_ended = True

    def stop(self) -> None:
        """Ask the worker to write its finished rows and exit."""
        self.terminate()
        self.pipe.close()

    def end(self) -> None:
        """See `ChildProcess.end`."""
        super().end()
        self.pipe.close()


class _PipeLink:
    """Connection to the coordinator, from the side of a worker process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._sending = threading.Lock()
        self._pulling = threading.Lock()

    def pull(self) -> Assignment:
        with self._pulling:
            try:
                self.send("pull")
                return self._pipe.recv()
            except (EOFError, OSError):
                return "over"  # the next report fails as well and stops the worker

    def report(self, report: WorkerReport) -> bool:
        try:
            self.send("report", report)
        except OSError:
            return False
        return True

    def send(self, *message: object) -> None:
        with self._sending:
            self._pipe.send(message)


def main(descriptor: int) -> NoReturn:
    """Run a worker process. It ends when the run's process ends, whatever the reason."""
    pipe = Connection(descriptor)
    status = 1
    with suppress(EOFError, OSError, Stopped):
        run_worker, config = pipe.recv()
        coordinator = _PipeLink(pipe)
        coordinator.send("register")
        run_worker(config, coordinator)
        coordinator.send("done")
        status = 0
    os._exit(status)  # do not wait for a network in the middle of a batch: finished rows are on disk
