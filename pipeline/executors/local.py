"""``--executor local`` with several workers: a process for each device of this machine, served over pipes."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import NoReturn

import torch

from ...manifests.errors import ArabesqueError
from ..records import VideoFile
from ..worker import Job
from .dispatching import Dispatcher, Pulled, Report, RunEvent, Work, unless_failed
from .working import Stopped, work

STOP_TIMEOUT_S = 10.0
"""How long workers that are told to stop may take to write what is finished; then they are killed."""
SERVE_S = 1.0
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from arabesque.pipeline.executors.local import main; main(int(sys.argv[2]))"
)


class LocalWorkers:
    """One worker process for each of ``devices``. A process that is lost is started again."""

    def __init__(self, devices: Sequence[torch.device], work: Work = work) -> None:
        """``work``: what the processes do, a function that they can import."""
        self._devices = list(devices)
        self._work = work

    def __str__(self) -> str:
        return f"{len(self._devices)} workers on {', '.join(dict.fromkeys(map(str, self._devices)))}"

    def run(
        self, job: Job, videos: Sequence[VideoFile], lengths: Mapping[str, float]
    ) -> Generator[RunEvent, None, None]:
        """What the workers tell, until every video has come to its end. Raises what a worker raised."""
        dispatcher = Dispatcher(videos, lengths)
        workers: list[_WorkerProcess] = []
        try:
            workers.extend(self._start(number, job) for number in range(len(self._devices)))
            while workers:
                for worker in _speaking(workers, SERVE_S):
                    worker.serve(dispatcher)
                for worker in [worker for worker in workers if worker.has_ended]:
                    workers.remove(worker)
                    how = worker.how_it_ended()
                    if worker.is_done:
                        continue
                    if dispatcher.lose(worker.name, how):
                        workers.append(self._start(worker.number, job))
                    elif not workers:
                        raise ArabesqueError(f"no worker is left: {worker.name} {how}, again and again")
                overdue = dispatcher.overdue()
                for worker in workers:
                    if worker.name in overdue:
                        worker.end("gave no sign of life")
                yield from unless_failed(dispatcher.news())
        finally:
            _stop(workers)

    def _start(self, number: int, job: Job) -> _WorkerProcess:
        options = replace(job.options, device=self._devices[number])
        return _WorkerProcess(number, self._work, replace(job, options=options))


class _WorkerProcess:
    """The run's end of a worker."""

    def __init__(self, number: int, work: Work, job: Job) -> None:
        self.number = number
        self.name = f"worker {number + 1}"
        self.has_ended = False
        self.is_done = False
        self._why_ended = ""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,
                process_group=0,  # Ctrl-C is for the run, which tells its workers
            )
        self.pipe = Connection(ours.detach())
        self.pipe.send((work, job))

    @property
    def pid(self) -> int:
        return self._process.pid

    def serve(self, dispatcher: Dispatcher) -> None:
        """Answers one message."""
        try:
            message, *details = self.pipe.recv()
            if message == "enter":
                dispatcher.enter(self.name)
            elif message == "pull":
                self.pipe.send(dispatcher.pull(self.name))
            elif message == "report":
                dispatcher.report(self.name, *details)
            else:
                self.is_done = True
        except (EOFError, OSError, pickle.UnpicklingError):
            self.has_ended = True

    def how_it_ended(self) -> str:
        """Continues “worker 2 …”."""
        self.pipe.close()
        try:
            status = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.end("closed its pipe")
            status = self._process.wait()
        if self._why_ended:
            return f"{self._why_ended} and was ended"
        if status < 0:
            return f"was killed ({signal.Signals(-status).name})"
        return f"exited with status {status}"

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self.pipe.close()

    def wait_until(self, deadline_s: float) -> None:
        try:
            self._process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def end(self, why: str) -> None:
        self._why_ended = why
        self._process.kill()


def _speaking(workers: Sequence[_WorkerProcess], timeout_s: float) -> list[_WorkerProcess]:
    """Workers that have said something or ended; none where none does in time."""
    ready = wait([worker.pipe for worker in workers], timeout_s)
    return [worker for worker in workers if worker.pipe in ready]


def _stop(workers: Sequence[_WorkerProcess]) -> None:
    for worker in workers:
        worker.stop()
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    for worker in workers:
        worker.wait_until(deadline_s)


class _PipeOffice:
    """The office as a worker process sees it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._sending = threading.Lock()
        self._pulling = threading.Lock()

    def pull(self) -> Pulled:
        with self._pulling:
            try:
                self.send("pull")
                return self._pipe.recv()
            except (EOFError, OSError):
                return "over"  # the report after it finds out and stops the worker

    def report(self, report: Report) -> bool:
        try:
            self.send("report", report)
        except OSError:
            return False
        return True

    def send(self, *message: object) -> None:
        with self._sending:
            self._pipe.send(message)


def main(descriptor: int) -> NoReturn:
    """The worker process; it ends with the run's, however that ends."""
    pipe = Connection(descriptor)
    status = 1
    with suppress(EOFError, OSError, Stopped):
        work, job = pipe.recv()
        office = _PipeOffice(pipe)
        office.send("enter")
        work(job, office)
        office.send("done")
        status = 0
    os._exit(status)  # without waiting for a network in the middle of a batch: all that is finished is on disk
