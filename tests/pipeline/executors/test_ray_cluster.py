"""Ray's actors as workers: two of them, on one machine, end as one process does, whatever becomes of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace

import known_work
import pytest
from clips import Clip, write_clip
from known_extractors import RECIPE, known_extractors
from store_contents import stored_rows

from arabesque.manifests.errors import ArabesqueError, ManifestError, StoreError
from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.executors import ray_cluster
from arabesque.pipeline.executors.dispatching import Failure
from arabesque.pipeline.executors.ray_cluster import RayWorkers
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.store.verifying import check_store
from arabesque.pipeline.work import Notice, VideoSettled


def workers(work=known_work.known_work, **options) -> RayWorkers:
    return RayWorkers(workers=2, cpus_per_worker=1, work=work, **options)


def check_equal(out, whole):
    assert stored_rows(out) == stored_rows(whole)
    assert check_store(out).findings == []


def test_an_actor_that_is_killed_in_the_middle_of_a_video_loses_nothing(cluster, run, videos, whole, tmp_path):
    events = run(videos, tmp_path / "out", workers(known_work.killed_once))
    assert (tmp_path / "killed").exists()
    assert [event.text for event in events if isinstance(event, Notice) and "lost and started again" in event.text]
    settled = Counter(event.video_id for event in events if isinstance(event, VideoSettled))
    assert settled == dict.fromkeys([path.stem for path in videos.iterdir()], 1)
    check_equal(tmp_path / "out", whole)


@pytest.mark.slow
def test_workers_that_find_no_room_are_told_of(cluster, run, videos, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_cluster, "NOTICE_EVERY_S", 1.0)
    events = run(videos, tmp_path / "out", RayWorkers(workers=3, cpus_per_worker=1, work=known_work.known_work))
    said = [event.text for event in events if isinstance(event, Notice)]
    assert any("of 3 workers have begun; each asks for 1 CPUs" in text for text in said), said
    check_equal(tmp_path / "out", whole)


@pytest.mark.slow
def test_what_makes_the_run_fail_in_an_actor_makes_the_run_fail(cluster, run, videos, tmp_path):
    with pytest.raises(StoreError, match="the disk is full"):
        run(videos, tmp_path / "out", workers(known_work.finds_the_disk_full))


@pytest.mark.slow
def test_a_node_that_is_lost_costs_what_it_had_in_hand_and_one_that_joins_is_used(videos, whole, tmp_path):
    script = [sys.executable, str(Path(known_work.__file__).with_name("lost_node.py")), videos, tmp_path / "out"]
    done = subprocess.run(list(map(str, script)), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert any("worker 1 gave no sign of life" in text for text in told["notices"]), told
    assert sorted(told["settled"]) == sorted(path.stem for path in videos.iterdir())
    check_equal(tmp_path / "out", whole)


def test_a_run_that_is_left_ends_its_actors_with_all_that_is_finished_on_disk(cluster, videos, tmp_path):
    finished = ""
    with known_extractors():
        extraction = Extraction(videos, parse_recipe(RECIPE, "known.toml"), tmp_path / "out", executor=workers())
        with closing(iter(extraction)) as events:
            while finished in ("", "noise"):
                event = next(events)
                finished = event.video_id if isinstance(event, VideoSettled) else finished
    rows, _ = stored_rows(tmp_path / "out")
    assert (finished, "numbers") in rows
    assert not list((tmp_path / "out" / ".writers").glob("*.lock"))
    deadline = time.monotonic() + 60
    while cluster.available_resources().get("CPU") != 2:
        assert time.monotonic() < deadline, "actors are left"
        time.sleep(0.2)


@pytest.mark.slow
def test_ctrl_c_ends_a_run_on_a_cluster(cluster, tmp_path):
    (tmp_path / "videos").mkdir()
    for index in range(4):
        write_clip(tmp_path / "videos" / f"{index}.mp4", Clip(num_frames=2000))
    command = ["extract", tmp_path / "videos", "--recipe", "starter", "--out", tmp_path / "out"]
    command += ["--executor", "ray", "--workers", "2", "--cpus-per-worker", "1"]
    address = {"RAY_ADDRESS": cluster.get_runtime_context().gcs_address}
    arabesque = [sys.executable, "-c", "from arabesque.cli.main import app; app()", *map(str, command)]
    with subprocess.Popen(arabesque, stderr=subprocess.PIPE, text=True, env=os.environ | address) as process:
        while len(list((tmp_path / "out" / ".claims").glob("*.json"))) < 2:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    assert check_store(tmp_path / "out").findings == []


class Crew:
    """Workers that have all ended by the second look."""

    def __init__(self):
        self.looks = 0

    def has_ended(self):
        self.looks += 1
        return self.looks > 1

    def hire(self, num_left):
        pass

    def see_off(self):
        pass


def states(*found):
    """An office's answers, one after the other, as Ray brings them."""
    answers = iter(found)
    desk = SimpleNamespace(state=SimpleNamespace(remote=lambda: next(answers)))
    return SimpleNamespace(get=lambda answer, timeout: answer, exceptions=SimpleNamespace(RayError=OSError)), desk


@pytest.mark.parametrize(
    ("last", "complaint"),
    [
        (ray_cluster._State([], [], 0, 0), None),
        (ray_cluster._State([Failure("StoreError", "the disk is full", "")], [], 1, 0), "the disk is full"),
        (ray_cluster._State([], [], 1, 0), "no worker is left"),
    ],
    ids=["done", "failed", "lost"],
)
def test_what_the_last_worker_reported_before_it_ended_counts(monkeypatch, last, complaint):
    monkeypatch.setattr(ray_cluster, "POLL_S", 0.0)
    ray, desk = states(ray_cluster._State([], [], 1, 1), last)
    with nullcontext() if complaint is None else pytest.raises(ArabesqueError, match=complaint):
        assert list(ray_cluster._watch(ray, desk, Crew())) == []


def test_a_cluster_that_is_not_there_is_told_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        ray = SimpleNamespace(is_initialized=lambda: False)  # is not asked
        with pytest.raises(ManifestError, match=f"no Ray cluster at {address}"), ray_cluster._cluster(ray, address):
            pass


def test_a_cluster_that_does_not_let_us_in_is_told_with_what_may_be_missing(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)

    def refuse(**_):
        raise ConnectionError("nobody is there")

    ray = SimpleNamespace(is_initialized=lambda: False, init=refuse)
    complaint = "no Ray cluster at auto: nobody is there; where it asks for a token, set RAY_AUTH_MODE=token"
    with pytest.raises(ManifestError, match=complaint), ray_cluster._cluster(ray, "auto"):
        pass


def test_ray_that_is_not_installed_is_told_with_the_way_to_get_it(run, videos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ManifestError, match=r"pip install 'arabesque\[ray\]'"):
        run(videos, tmp_path / "out", workers())
