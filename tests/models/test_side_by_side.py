from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_trainings import make_run

from arabesque.manifests.errors import ArabesqueError
from arabesque.models import side_by_side
from arabesque.models.side_by_side import Crew, plan_crew, run_all


def test_two_workers_come_to_what_one_comes_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {name: [make_run(tmp_path / name / str(seed), seed=seed) for seed in range(3)] for name in ("one", "two")}
    alone = run_all(runs["one"], Crew())
    told: list[tuple[int, int, int]] = []
    together = run_all(runs["two"], Crew(workers=2), lambda *event: told.append(event))
    assert together == alone
    assert len({tuple(result.test.values()) for result in alone}) == 3
    for seed in range(3):
        one, two = (torch.load(tmp_path / name / str(seed) / "model.pt") for name in ("one", "two"))
        assert all(torch.equal(value, two[key]) for key, value in one.items())
        assert [event[1:] for event in told if event[0] == seed] == [(epoch, 6) for epoch in range(1, 7)]
    assert multiprocessing.active_children() == []

    monkeypatch.setattr(side_by_side, "_hired", None)  # finished trainings need nobody
    assert run_all(runs["two"], Crew(workers=2), lambda *event: told.append(event)) == alone
    assert len(told) == 18


@pytest.mark.slow
def test_a_training_that_fails_ends_the_others(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "good", epochs=100_000), make_run(tmp_path / "bad", learning_rate=1e30)]
    with pytest.raises(ArabesqueError, match="lower the learning rate") as caught:
        run_all(runs, Crew(workers=2))
    assert "run_epoch" in "".join(caught.value.__notes__)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_worker_that_is_killed_is_told(tmp_path: Path) -> None:
    def kill_one(*_: int) -> None:
        for child in multiprocessing.active_children()[:1]:
            child.kill()

    with pytest.raises(ArabesqueError, match=r"ended with status -9 \(-9: killed, perhaps for memory"):
        run_all([make_run(tmp_path / str(seed), seed=seed, epochs=100_000) for seed in range(2)], Crew(2), kill_one)


PARENT = """
import sys; sys.path.insert(0, {tests!r})
import multiprocessing
from pathlib import Path
from small_trainings import make_run
from arabesque.models.side_by_side import Crew, run_all
runs = [make_run(Path({out!r}) / str(seed), seed=seed, epochs=1_000_000) for seed in range(2)]
def tell(*_):
    children = multiprocessing.active_children()
    if len(children) == 2:
        print(*[child.pid for child in children], flush=True)
if __name__ == "__main__":
    run_all(runs, Crew(2), tell)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
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
    ("trainings", "workers", "threads", "crew"),
    [
        (10, None, None, Crew(4, 1)),
        (2, None, None, Crew(2, 2)),
        (1, None, None, Crew(1, 4)),
        (10, 8, None, Crew(8, 1)),
        (3, 8, None, Crew(3, 1)),
        (10, 1, None, Crew(1, 4)),
        (10, 2, 3, Crew(2, 3)),
        (0, None, None, Crew(1, 4)),
    ],
)
def test_a_crew_for_four_cores(trainings: int, workers: int | None, threads: int | None, crew: Crew) -> None:
    assert plan_crew(trainings, workers, threads, cores=4) == crew
