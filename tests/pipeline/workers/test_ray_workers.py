"""Two Ray actors on one machine make the same store as one process, even if they are killed."""

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

import known_workers
import pytest
from clips import Clip, write_clip
from known_extractors import RECIPE
from store_contents import stored_rows

from arabesque.manifests.errors import ArabesqueError, InputError, MissingPackageError, StoreError
from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.items import Notice, VideoSettled
from arabesque.pipeline.planning.discovery import Inputs
from arabesque.pipeline.records import VideoFile, state_of
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.system.logs import LogSettings, set_up_logs
from arabesque.pipeline.workers import ray_workers
from arabesque.pipeline.workers.coordinator import WorkerFailure
from arabesque.pipeline.workers.ray_workers import CoordinatorState, RayWorkers, connected_cluster, run_events
from arabesque.pipeline.workers.remote_worker import worker_main


def workers(main=worker_main, **options) -> RayWorkers:
    return RayWorkers(workers=2, cpus_per_worker=1, main=main, **options)


def check_equal(out, whole):
    assert stored_rows(out) == stored_rows(whole)
    assert check_store(out).findings == []


@pytest.fixture
def log_file(tmp_path):
    set_up_logs(LogSettings(file=tmp_path / "run.log"))
    yield tmp_path / "run.log"
    set_up_logs(LogSettings())


def test_an_actor_that_is_killed_during_a_video_loses_nothing(cluster, run, videos, whole, tmp_path, log_file):
    events = run(videos, tmp_path / "out", workers(known_workers.is_killed_once))
    processes = {line.split()[3] for line in log_file.read_text().splitlines() if "started process" in line}
    assert len(processes - {str(os.getpid())}) >= 3, "two actors, and one that was restarted, start decoders"
    assert (tmp_path / "killed").exists()
    assert [event.text for event in events if isinstance(event, Notice) and "died and was restarted" in event.text]
    settled = Counter(event.video_id for event in events if isinstance(event, VideoSettled))
    assert settled == dict.fromkeys([path.stem for path in videos.iterdir()], 1)
    check_equal(tmp_path / "out", whole)


def test_clips_on_ray_equal_those_of_one_process(cluster, tmp_path):
    """Also with a path relative to the folder of the driver, which the actors do not share."""
    path = Path(os.path.relpath(write_clip(tmp_path / "long.mp4", Clip(num_frames=60, beeps_s=(0.4, 1.7)))))
    clips = [
        VideoFile(name, path, state_of(path), path.name, str(path.parent), start_s=start_s, end_s=start_s + 0.8)
        for name, start_s in (("jump", 0.2), ("spin", 1.4))
    ]
    for out, executor in (("ray", workers()), ("whole", None)):
        inputs = Inputs(tuple(clips), {}, 0)
        list(Extraction([], parse_recipe(RECIPE, "known.toml"), tmp_path / out, inputs=inputs, executor=executor))
    check_equal(tmp_path / "ray", tmp_path / "whole")
    assert FeatureStore(tmp_path / "ray")["jump"]["numbers"].values[0].tolist() == list(range(5, 13))


@pytest.mark.slow
def test_a_notice_reports_workers_without_resources(cluster, run, videos, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_workers, "NOTICE_EVERY_S", 1.0)
    events = run(videos, tmp_path / "out", RayWorkers(workers=3, cpus_per_worker=1))
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert any("of 3 workers have started; each needs 1 CPUs" in text for text in notices), notices
    check_equal(tmp_path / "out", whole)


@pytest.mark.slow
def test_an_error_in_an_actor_fails_the_run(cluster, run, videos, tmp_path):
    with pytest.raises(StoreError, match="the disk is full"):
        run(videos, tmp_path / "out", workers(known_workers.has_a_full_disk))


@pytest.mark.slow
def test_videos_of_a_lost_node_are_processed_again_and_a_new_node_is_used(videos, whole, tmp_path):
    script = [sys.executable, str(Path(known_workers.__file__).with_name("lost_node.py")), videos, tmp_path / "out"]
    done = subprocess.run(list(map(str, script)), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert any("worker 1 sent no heartbeat" in text for text in report["notices"]), report
    assert sorted(report["settled"]) == sorted(path.stem for path in videos.iterdir())
    check_equal(tmp_path / "out", whole)


@pytest.mark.slow
def test_closing_a_run_ends_its_actors_with_finished_rows_on_disk(cluster, videos, tmp_path):
    finished = ""
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
        assert time.monotonic() < deadline, "actors still run"
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
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "run the same command to resume" in stderr
    assert "Traceback" not in stderr
    assert check_store(tmp_path / "out").findings == []


class FakePool:
    """Workers that have all ended at the second check."""

    def __init__(self):
        self.num_checks = 0

    def has_ended(self):
        self.num_checks += 1
        return self.num_checks > 1

    def scale_up(self, num_videos):
        pass

    def restart(self, name):
        pass

    def missing(self, num_workers):
        return ""

    def join(self):
        pass


def fake_ray(*states):
    """Ray and a coordinator's handle, which returns these states one after the other."""
    answers = iter(states)
    coordinator = SimpleNamespace(state=SimpleNamespace(remote=lambda: next(answers)))
    ray = SimpleNamespace(get=lambda answer, timeout: answer, exceptions=SimpleNamespace(RayError=OSError))
    return ray, coordinator


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (CoordinatorState([], [], 0, 0), None),
        (CoordinatorState([WorkerFailure("StoreError", "the disk is full", "")], [], 1, 0), "the disk is full"),
        (CoordinatorState([], [], 1, 0), "no worker is left"),
    ],
    ids=["done", "failed", "lost"],
)
def test_the_last_report_of_the_last_worker_is_processed(monkeypatch, last, message):
    monkeypatch.setattr(ray_workers, "POLL_S", 0.0)
    ray, coordinator = fake_ray(CoordinatorState([], [], 1, 1), last)
    with nullcontext() if message is None else pytest.raises(ArabesqueError, match=message):
        assert list(run_events(ray, coordinator, FakePool())) == []


def test_a_missing_cluster_is_reported_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        ray = SimpleNamespace(is_initialized=lambda: False)  # is not asked
        with pytest.raises(InputError, match=f"no Ray cluster at {address}"), connected_cluster(ray, address):
            pass


def test_a_cluster_of_this_run_that_does_not_start_is_an_error_of_the_run():
    def init(**options):
        raise Exception("The current node timed out during startup")  # noqa: TRY002 - as Ray does

    ray = SimpleNamespace(init=init, is_initialized=lambda: False)
    with (
        pytest.raises(
            ArabesqueError, match="does not start on this machine: The current node timed out during startup"
        ),
        connected_cluster(ray, None),
    ):
        pass


def test_a_refused_connection_is_reported_with_a_hint(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)

    def refuse(**_):
        raise ConnectionError("connection refused")

    ray = SimpleNamespace(is_initialized=lambda: False, init=refuse)
    message = "no Ray cluster at auto: connection refused; if it requires a token, set RAY_AUTH_MODE=token"
    with pytest.raises(InputError, match=message), connected_cluster(ray, "auto"):
        pass


def test_missing_ray_is_reported_with_the_install_command(run, videos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r"pip install .*\[ray\]"):
        run(videos, tmp_path / "out", workers())
