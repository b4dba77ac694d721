from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from small_trainings import make_run

from arabesque.manifests.errors import ArabesqueError
from arabesque.models.parallel_training import PoolSize, plan_pool_size, run_all


def test_two_workers_give_the_same_results_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {name: [make_run(tmp_path / name / str(seed), seed=seed) for seed in range(3)] for name in ("one", "two")}
    children_before = set(psutil.Process().children())  # servers of other tests
    one_worker = run_all(runs["one"], PoolSize())
    progress: list[tuple[int, int, int]] = []
    two_workers = run_all(runs["two"], PoolSize(workers=2), lambda *event: progress.append(event))
    assert two_workers == one_worker
    assert len({tuple(result.test.values()) for result in one_worker}) == 3
    for seed in range(3):
        one, two = (torch.load(tmp_path / name / str(seed) / "model.pt") for name in ("one", "two"))
        assert all(torch.equal(value, two[key]) for key, value in one.items())
        assert [event[1:] for event in progress if event[0] == seed] == [(epoch, 6) for epoch in range(1, 7)]
    assert set(psutil.Process().children()) <= children_before

    monkeypatch.setattr(subprocess, "Popen", None)  # finished trainings start no worker
    assert run_all(runs["two"], PoolSize(workers=2), lambda *event: progress.append(event)) == one_worker
    assert len(progress) == 18


@pytest.mark.slow
def test_a_failing_training_stops_the_others(tmp_path: Path) -> None:
    children_before = set(psutil.Process().children())
    runs = [make_run(tmp_path / "good", epochs=100_000), make_run(tmp_path / "bad", learning_rate=1e30)]
    with pytest.raises(ArabesqueError, match="lower the learning rate") as caught:
        run_all(runs, PoolSize(workers=2))
    assert "run_epoch" in "".join(caught.value.__notes__)
    assert set(psutil.Process().children()) <= children_before


@pytest.mark.slow
def test_a_killed_worker_is_reported(tmp_path: Path) -> None:
    children_before = set(psutil.Process().children())

    def kill_one(*_: int) -> None:
        for child in [*{*psutil.Process().children()} - children_before][:1]:
            child.kill()

    with pytest.raises(ArabesqueError, match=r"process was killed \(SIGKILL\), perhaps because memory was exhausted"):
        run_all([make_run(tmp_path / str(seed), seed=seed, epochs=100_000) for seed in range(2)], PoolSize(2), kill_one)


PARENT = """
import sys; sys.path.insert(0, {tests!r})
import psutil
from pathlib import Path
from small_trainings import make_run
from arabesque.models.parallel_training import PoolSize, run_all
runs = [make_run(Path({out!r}) / str(seed), seed=seed, epochs=1_000_000) for seed in range(2)]
def print_children(*_):
    children = psutil.Process().children()
    if len(children) == 2:
        print(*[child.pid for child in children], flush=True)
run_all(runs, PoolSize(2), print_children)  # needs no guard: a worker does not run the main script
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_exit_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    code = PARENT.format(tests=str(Path(__file__).parents[1]), out=str(tmp_path))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes) as parent:
        children = [int(word) for word in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.send_signal(number)
        parent.stdout.close()
    assert parent.returncode != 0
    deadline = time.monotonic() + 60
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, children))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("trainings", "workers", "threads", "pool_size"),
    [
        (10, None, None, PoolSize(4, 1)),
        (2, None, None, PoolSize(2, 2)),
        (1, None, None, PoolSize(1, 4)),
        (10, 8, None, PoolSize(8, 1)),
        (3, 8, None, PoolSize(3, 1)),
        (10, 1, None, PoolSize(1, 4)),
        (10, 2, 3, PoolSize(2, 3)),
        (0, None, None, PoolSize(1, 4)),
    ],
)
def test_pool_size_for_four_cores(
    trainings: int, workers: int | None, threads: int | None, pool_size: PoolSize
) -> None:
    assert plan_pool_size(trainings, workers, threads, cores=4) == pool_size
