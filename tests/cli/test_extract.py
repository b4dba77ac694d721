"""`arabesque extract` on the command line: arguments, output and exit status."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import tomli_w
import torch
from clips import Clip, write_clip
from store_contents import stored_rows

from arabesque.cli import main
from arabesque.cli.extract import warn_about_float16
from arabesque.extractors.table import resolved_recipe
from arabesque.manifests.errors import ConfigError
from arabesque.manifests.recipes import load_recipe
from arabesque.pipeline.store.manifest import read_manifest
from arabesque.pipeline.store.reader import FeatureStore

SHARED = Path(__file__).resolve().parents[3] / "shared"
NOT_THERE = "no such|does not exist|not found"
RAY_NOWHERE = ["--executor", "ray", "--ray-address", "127.0.0.1:9"]
ARABESQUE = [sys.executable, "-c", "from arabesque.cli.main import app; app()"]


@dataclass(frozen=True)
class Finished:
    """Status and output of a command."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def arabesque(monkeypatch, capsys):
    """``arabesque(*arguments)``: run the console script in this process; a new one would import torch again."""

    def run(*arguments, **environment):
        for name, value in {"COLUMNS": "200", **environment}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["arabesque", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main.app()
        return Finished(left.value.code, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def restore_process_state(monkeypatch):
    """Restore the signal handlers that `main.app` replaces, and let it exit by `SystemExit` even if threads run."""
    monkeypatch.setattr(main, "leave", sys.exit)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_clip(folder / "loud.mp4", Clip(num_frames=120, beeps_s=(0.5, 1.5, 2.5)))
    write_clip(folder / "silent.avi", Clip(num_frames=100, codec="mpeg4", options={}))
    return folder


def test_a_single_stream_of_the_recipe(arabesque, videos, tmp_path):
    run = arabesque("extract", videos, "--recipe", "starter", "--stream", "motion", "--out", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert "recipe starter: motion\n2 videos, 0 finished" in run.stderr
    assert list(FeatureStore(tmp_path / "out").streams) == ["motion"]


def test_an_unknown_stream_is_refused(arabesque, videos, tmp_path):
    run = arabesque("extract", videos, "--recipe", "starter", "--stream", "vst", "--out", tmp_path / "out")
    assert run.returncode == 2
    assert "starter has no stream 'vst'; choose from motion, rhythm" in run.stderr


def test_changed_settings_belong_to_a_recipe_of_another_name(arabesque, videos, tmp_path):
    command = ("extract", videos, "--recipe", "starter", "--stream", "motion", "--out", tmp_path / "out")
    smaller = ("--set", "streams.motion.settings.short_side_px=96")
    first = arabesque(*command, *smaller)
    assert first.returncode == 0, first.stderr
    name = read_manifest(tmp_path / "out")["recipe"]["name"]
    assert re.fullmatch(r"starter\+[0-9a-f]{4}", name)
    again = arabesque(*command, *smaller)
    assert again.returncode == 0
    assert "2 finished by earlier runs, 0 remaining" in again.stderr
    without = arabesque(*command)
    assert without.returncode == 2
    assert f"contains features of recipe {name!r}, not 'starter'; run the command with {' '.join(smaller)}" in (
        " ".join(without.stderr.split())
    )
    assert arabesque("verify", tmp_path / "out", "--videos", videos, "--sample", "1").returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "weights").exists(), reason="needs ../shared/weights")
def test_a_real_detector_with_a_random_network(arabesque, tmp_path):
    places = {"ARABESQUE_WEIGHTS": str(tmp_path / "weights")}
    assert arabesque("weights", "add", "yolov8n", SHARED / "weights" / "yolov8n.pt", **places).returncode == 0
    video = SHARED / "videos" / "gymnast_394x496_60fps_silent.mp4"
    command = ("extract", video, "--recipe", "action-net", "--stream", "resnet_crop", "--out", tmp_path / "out")
    found = arabesque(*command, "--weights", "random:0", "--weights", "resnet_crop.detector=yolov8n", **places)
    assert found.returncode == 0, found.stderr
    assert "RANDOM WEIGHTS in resnet_crop.network." in found.stderr
    digests = read_manifest(tmp_path / "out")["streams"]["resnet_crop"]["weights"]
    assert digests["network"] == "random:0"
    assert len(digests["detector"]) == 64


def test_extract_prints_a_summary_and_a_second_run_recomputes_nothing(arabesque, videos, tmp_path):
    first = arabesque("extract", videos, "--recipe", "starter", "--out", tmp_path / "out")
    assert first.returncode == 0, first.stderr
    assert "2 videos, 0 finished by earlier runs, 2 remaining" in first.stderr
    assert "empty: 'silent' [rhythm]: no audio track" in first.stdout
    rows = stored_rows(tmp_path / "out")
    second = arabesque("extract", videos, "--recipe", "starter", "--out", tmp_path / "out")
    assert second.returncode == 0
    assert "2 finished by earlier runs, 0 remaining" in second.stderr
    assert stored_rows(tmp_path / "out") == rows
    assert arabesque("status", tmp_path / "out").returncode == 0

    features = pandas.read_parquet(tmp_path / "out" / "stream=motion")
    assert sorted(features.video_id) == ["loud", "silent"]
    outcomes = pandas.read_parquet(tmp_path / "out" / "outcomes")
    assert sorted(zip(outcomes.video_id, outcomes.stream, outcomes.kind, strict=True)) == [
        ("loud", "motion", "done"),
        ("loud", "rhythm", "done"),
        ("silent", "motion", "done"),
        ("silent", "rhythm", "empty"),
    ]


def test_broken_videos_give_status_3_and_a_reason_each(arabesque, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "noise.mp4").write_bytes(np.random.default_rng(1).bytes(2000))
    run = arabesque("extract", tmp_path / "videos", "--recipe", "starter", "--out", tmp_path / "out")
    assert run.returncode == 3
    assert "failed: 'noise' [motion, rhythm]:" in run.stdout
    assert "Traceback" not in run.stderr + run.stdout
    assert arabesque("status", tmp_path / "out").returncode == 3


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["VIDEOS", "--recipe", "pamnf", "--out", "OUT"], 2, "did you mean pamfn\\?"),
        (["VIDEOS", "--recipe", "WRONG_KEY", "--out", "OUT"], 2, "streams.motion.fsp: this key is not known"),
        (["VIDEOS", "--recipe", "WRONG_SETTING", "--out", "OUT"], 2, "extractor motion: settings.depth"),
        (["NOWHERE", "--recipe", "starter", "--out", "OUT"], 2, NOT_THERE),
        (["NO_VIDEOS", "--recipe", "starter", "--out", "OUT"], 2, "contains no videos"),
        (["VIDEOS", "--recipe", "starter", "--out", "VIDEOS"], 2, "is not empty and not a feature store"),
        (["VIDEOS", "--recipe", "gdlt", "--out", "OUT"], 1, "arabesque weights fetch video_swin_b_k600"),
        (
            ["VIDEOS", "--recipe", "starter", "--out", "OUT", "--decoder", "magic"],
            2,
            "'magic' is not one of pyav, decord",
        ),
        (["VIDEOS", "--recipe", "starter", "--out", "OUT", "--device", "cuda:7"], 2, "'cuda:7' is not available"),
        (["VIDEOS", "--recipe", "starter", "--out", "OUT", "--weights", "rnd"], 2, "random:SEED"),
        (["VIDEOS", "--recipe", "starter", "--out", "OUT", "--max-failures", "a few"], 2, "as in 20 or 5%"),
        (["VIDEOS", "--recipe", "starter", "--out", "OUT", "--partition", "4/3"], 2, "not one of the parts 1/3 to 3/3"),
        (["VIDEOS", "--recipe", "starter", "--out", "OUT", "--memory", "lots"], 2, "not an amount of memory"),
        (["VIDEOS", "--recipe", "starter", "--out", "OUT", "--ray-address", "head:6379"], 2, "add --executor ray"),
        (["VIDEOS", "--recipe", "starter", "--out", "OUT", "--cpus-per-worker", "2"], 2, "add --executor ray"),
        (["VIDEOS", "--recipe", "starter", "--out", "OUT", *RAY_NOWHERE], 2, "no Ray cluster at 127.0.0.1:9"),
        (["VIDEOS", "--recipe", "starter"], 2, "Missing option"),
    ],
)
def test_an_invalid_argument_gives_one_line_and_a_status(arabesque, videos, tmp_path, arguments, status, complaint):
    (tmp_path / "no_videos").mkdir()
    starter = tomli_w.dumps(resolved_recipe(load_recipe("starter")).model_dump(mode="json", exclude_none=True))
    (tmp_path / "key.toml").write_text(starter.replace("[streams.motion]\n", "[streams.motion]\nfsp = 5\n"))
    (tmp_path / "setting.toml").write_text(
        starter.replace("[streams.motion.settings]\n", "[streams.motion.settings]\ndepth = 5\n")
    )
    names = {
        "VIDEOS": videos,
        "OUT": tmp_path / "out",
        "NOWHERE": tmp_path / "nowhere",
        "NO_VIDEOS": tmp_path / "no_videos",
        "WRONG_KEY": tmp_path / "key.toml",
        "WRONG_SETTING": tmp_path / "setting.toml",
    }
    words = [names.get(word, word) for word in arguments]
    run = arabesque("extract", *words, COLUMNS="300", ARABESQUE_WEIGHTS=str(tmp_path))
    assert run.returncode == status, run.stderr
    assert re.search(complaint, " ".join(run.stderr.split())), run.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("precision", "device", "num_warnings"), [("float16", "cpu", 1), ("bfloat16", "cpu", 0), ("float16", "cuda", 0)]
)
def test_float16_on_a_cpu_gives_a_warning(capsys, precision, device, num_warnings):
    run = SimpleNamespace(
        streams={"vst": SimpleNamespace(precision=precision)}, options=SimpleNamespace(device=torch.device(device))
    )
    warn_about_float16(run)
    assert capsys.readouterr().err.count("WARNING: vst: float16 is meant for GPUs") == num_warnings


def test_version(arabesque):
    run = arabesque("--version")
    assert run.returncode == 0
    assert run.stdout.startswith("arabesque 0.")


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["arabesque", "recipes", "nothing", "--debug"])
    with pytest.raises(ConfigError):
        main.app()


def test_recipes_lists_and_resolves(arabesque):
    for arguments, expected in (([], "vst, i3d_flow, ast: PAMFN"), (["pamfn"], "batch_norm_eps = 0.001")):
        run = arabesque("recipes", *arguments)
        assert run.returncode == 0
        assert expected in run.stdout


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_an_interrupted_run_exits_in_seconds_and_keeps_finished_work(arabesque, tmp_path, number, status):
    (tmp_path / "videos").mkdir()
    for index in range(6):
        write_clip(tmp_path / "videos" / f"{index:02d}.mp4", Clip(num_frames=100, beeps_s=(1.0,)))
    process = start(tmp_path / "videos", tmp_path / "out")
    wait_for_rows(process, tmp_path / "out")
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == status, stderr
    assert "run the same command to resume" in stderr
    assert "Traceback" not in stderr
    assert arabesque("extract", tmp_path / "videos", "--recipe", "starter", "--out", tmp_path / "out").returncode == 0
    assert len(FeatureStore(tmp_path / "out")) == 6


@pytest.mark.slow
def test_killed_five_times_and_resumed_equals_an_uninterrupted_run(arabesque, videos, tmp_path):
    check_kills(arabesque, videos, tmp_path, kills=5, latest_s=5.0)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "videos").exists(), reason="needs the real clips of ../shared")
def test_killed_on_real_videos_equals_an_uninterrupted_run(arabesque, tmp_path):
    check_kills(arabesque, SHARED / "videos", tmp_path, kills=5, latest_s=25.0)


def check_kills(arabesque, videos, tmp_path, kills, latest_s):
    moments = random.Random(7)
    for _ in range(kills):
        process = start(videos, tmp_path / "killed")
        time.sleep(moments.uniform(1.0, latest_s))
        process.kill()
        process.communicate()
    finished = arabesque("extract", videos, "--recipe", "starter", "--out", tmp_path / "killed")
    whole = arabesque("extract", videos, "--recipe", "starter", "--out", tmp_path / "whole")
    assert finished.returncode == whole.returncode == 0
    assert stored_rows(tmp_path / "killed") == stored_rows(tmp_path / "whole")
    for stream in ("motion", "rhythm"):
        plain = pandas.read_parquet(tmp_path / "killed" / f"stream={stream}")
        assert plain.video_id.is_unique


def start(videos, out):
    command = [*ARABESQUE, "extract", str(videos), "--recipe", "starter", "--out", str(out)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def wait_for_rows(process, out):
    """Wait until the run has decoded something, according to its write-ahead log or its rows."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (out / ".writers").exists():
            time.sleep(3)
            return
        time.sleep(0.2)
    raise AssertionError("the run has not begun to write")
