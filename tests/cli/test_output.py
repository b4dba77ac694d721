"""Failures to print do not change the exit status: ASCII encodings, closed or full outputs, closed pipes."""

from __future__ import annotations

import inspect
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from json_documentation import problems_of, schemas

from arabesque.cli.console import prepare_output
from arabesque.cli.demo_videos.routines import write_routines
from arabesque.cli.main import commands
from arabesque.manifests.recipes import load_recipe
from arabesque.models.training import train_and_evaluate
from arabesque.pipeline.benchmarking import estimate
from arabesque.pipeline.benchmarking.benchmark import Effort
from arabesque.pipeline.extraction import Extraction

SHORT = ("--seconds", 0.1, "--stage-seconds", 0.01, "--stream", "motion")
ON_FISV = ("--dataset", "fisv", "--labels", "FISV", "--target", "TES")
TES_BY_SVR = ("--stream", "vst", "--row", "svr", "--column", "TES", "--workers", 1, "--seeds", 1)
RECIPE = """
name = "tiny"
summary = "движение и ритм"
[sampling]
fps = 12
frames_per_segment = 12
frames_per_step = 12
remainder = "drop-tail"
[streams.motion]
extractor = "motion"
settings = { short_side_px = 64 }
[streams.rhythm]
extractor = "rhythm"
settings = { short_side_px = 64 }
"""
NETWORK = """
name = "network"
summary = "сеть"
[streams.x3d]
extractor = "pytorchvideo:x3d_xs"
sampling = { fps = 12, frames_per_segment = 4, frames_per_step = 12, remainder = "drop-tail" }
weights = { network = "x3d_xs_k400" }
settings = { geometry = { steps = [{ size_px = [64, 64] }] } }
"""
COMMANDS = [
    (0, "extract", "VIDEOS", "--recipe", "RECIPE", "--out", "STORE", "--threads", 1),
    (0, "extract", "VIDEOS", "--recipe", "RECIPE", "--out", "STORE", "--threads", 1, "--json"),
    (0, "extract", "VIDEO", "--recipe", "RECIPE", "--out", "NEW", "--stream", "motion", "--dry-run", "--json"),
    (0, "status", "STORE"),
    (0, "status", "STORE", "VIDEOS", "--labels", "LABELS", "--json"),
    (0, "verify", "STORE"),
    (0, "verify", "STORE", "--json"),
    (0, "repair", "STORE"),
    (0, "repair", "STORE", "--json"),
    (0, "recipes"),
    (0, "recipes", "RECIPE"),
    (0, "recipes", "--json"),
    (0, "recipes", "RECIPE", "--json"),
    (0, "recipes", "NETWORK", "--layers", "x3d"),
    (0, "recipes", "NETWORK", "--layers", "x3d", "--json"),
    (0, "train", "STORE", "--labels", "LABELS", "--out", "NEW_MODEL", "--epochs", 1),
    (0, "train", "STORE", "--labels", "LABELS", "--out", "NEW_MODEL", "--epochs", 1, "--json"),
    (0, "evaluate", "MODEL", "STORE", "--labels", "LABELS"),
    (0, "evaluate", "MODEL", "STORE", "--labels", "LABELS", "--json"),
    (0, "score", "VIDEO", "--model", "MODEL", "--store", "STORE"),
    (0, "score", "VIDEO", "--model", "MODEL", "--store", "STORE", "--json"),
    (0, "predict", "VIDEO", "--recipe", "NETWORK", "--weights", "random:0", "--json"),
    (0, "export", "STORE", "--format", "npy-folder", "--stream", "motion", "--out", "EXPORTED"),
    (0, "import", "EXPORTED", "--out", "IMPORTED", "--stream", "motion"),
    (0, "export", "STORE", "--format", "npy-folder", "--stream", "motion", "--out", "EXPORTED", "--json"),
    (0, "import", "EXPORTED", "--out", "IMPORTED", "--stream", "motion", "--json"),
    (3, "compare", "STORE", "IMPORTED"),
    (3, "compare", "STORE", "IMPORTED", "--json"),
    (0, "reproduce", "fisv", "--features", "VST", "--labels", "FISV", "--out", "TABLES", *TES_BY_SVR),
    (0, "reproduce", "fisv", "--features", "VST", "--labels", "FISV", "--out", "TABLES", *TES_BY_SVR, "--json"),
    (0, "reproduce", "fisv", "--list", "--json"),
    (0, "train", "VST", *ON_FISV, "--model", "pooled-svr", "--set", "cost=0.01", "--out", "OF_FISV", "--json"),
    (0, "figures", "MODEL", "STORE", "--out", "FIGURES", "--json"),
    (0, "look", "VIDEO", "--recipe", "RECIPE", "--segments", 1, "--out", "SHEET", "--json"),
    (0, "bench", "VIDEO", "--recipe", "RECIPE", *SHORT),
    (0, "bench", "VIDEO", "--recipe", "RECIPE", *SHORT, "--json", "-"),
    (0, "report", "STORE", "--out", "REPORT", "--json"),
    (0, "doctor"),
    (0, "doctor", "--json"),
    (0, "weights", "list"),
    (0, "weights", "list", "--json"),
    (0, "weights", "verify"),
    (0, "weights", "verify", "--json"),
    (1, "weights", "add", "x3d_m_k400", "LABELS"),
    (1, "weights", "add", "x3d_m_k400", "LABELS", "--json"),
    (2, "weights", "fetch"),
]
DEMO = (0, "demo", "DEMO", "--videos", 8, "--json")
INIT = (0, "init", "VIDEOS", "--recipe", "RECIPE", "--json")


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Path]:
    """Eight videos with Russian names, their store and a model."""
    root = tmp_path_factory.mktemp("root") / "прокат"
    write_routines(root / "videos", 8, duration_s=2.2)
    for path in (root / "videos").glob("*.mp4"):
        path.rename(path.with_name(path.name.replace("routine", "выступление")))
    labels = root / "videos" / "labels.csv"
    labels.write_text(labels.read_text(encoding="utf-8").replace("routine", "выступление"), encoding="utf-8")
    (root / "рецепт.toml").write_text(RECIPE, encoding="utf-8")
    (root / "сеть.toml").write_text(NETWORK, encoding="utf-8")
    torch.set_num_threads(1)
    for _ in Extraction(root / "videos", load_recipe(str(root / "рецепт.toml")), root / "features"):
        pass
    train_and_evaluate(root / "features", labels, root / "model", epochs=2)
    rng = np.random.default_rng(0)
    skill = rng.random(500)
    np.savez(root / "vst.npz", **{str(number): skill[number] + 0.1 * rng.random((4, 3)) for number in range(500)})  # pyright: ignore[reportArgumentType]
    lines = [f"{number} {10 + 30 * skill[number]:.2f} {15 + 20 * skill[number]:.2f} 0" for number in range(500)]
    (root / "train.txt").write_text("\n".join(lines[:400]))
    (root / "test.txt").write_text("\n".join(lines[400:]))
    return {
        "VIDEOS": root / "videos",
        "VIDEO": root / "videos" / "выступление_001.mp4",
        "RECIPE": root / "рецепт.toml",
        "NETWORK": root / "сеть.toml",
        "STORE": root / "features",
        "LABELS": labels,
        "MODEL": root / "model",
        "NEW_MODEL": root / "новая модель",
        "EXPORTED": root / "экспорт",
        "IMPORTED": root / "импорт",
        "VST": root / "vst.npz",
        "FISV": root,
        "TABLES": root / "таблицы",
        "NEW": root / "новый",
        "REPORT": root / "отчёт",
        "OF_FISV": root / "модель fisv",
        "FIGURES": root / "рисунки",
        "SHEET": root / "листы.png",
        "DEMO": root / "демо",
    }


def in_ascii(monkeypatch, words) -> tuple[int, str]:
    """Return exit status and standard output of a command whose outputs accept ASCII only."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii", write_through=True))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), "ascii", "strict", write_through=True))
    prepare_output()
    with pytest.raises(SystemExit) as left:
        commands(list(map(str, words)))
    return int(left.value.code or 0), written.getvalue().decode("ascii")


@pytest.mark.parametrize(
    "command",
    [*COMMANDS, pytest.param(DEMO, marks=pytest.mark.slow), pytest.param(INIT, marks=pytest.mark.slow)],
    ids=lambda command: " ".join(map(str, command[1:4])),
)
def test_every_command_has_the_same_status_with_ascii_outputs(places, monkeypatch, tmp_path, command):
    monkeypatch.setenv("ARABESQUE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(estimate, "EFFORT", Effort(stage_s=0.01, end_to_end_s=0.1))
    expected, *words = command
    status, told = in_ascii(monkeypatch, [places.get(word, word) for word in words])
    assert status == expected, told
    if "--json" in words:
        found = json.loads(told)
        assert found is None or problems_of(heading_of(words), found) == []


def heading_of(words: Sequence[str]) -> str:
    """Return the heading of docs/json.md for a command."""
    if words[0] == "weights":
        return f"weights {words[1]}"
    if "--layers" in words:
        return "recipes NAME --layers STREAM"
    if words[0] == "recipes":
        return "recipes NAME" if words[1] == "RECIPE" else "recipes"
    for name, option in (("extract", "--dry-run"), ("train", "--dataset"), ("reproduce", "--list")):
        if words[0] == name and option in words:
            return f"{name} {option}"
    return words[0]


def test_every_command_with_json_is_documented_and_tried():
    assert {heading_of(words) for _, *words in COMMANDS if "--json" in words} <= schemas().keys()
    with_json = {
        command.name or ""
        for command in commands.registered_commands
        if command.callback is not None and "as_json" in inspect.signature(command.callback).parameters
    }
    tried = {words[0] for _, *words in [*COMMANDS, DEMO, INIT] if "--json" in words}
    assert with_json - {"shots", "cut"} == tried - {"bench", "weights"}  # `test_shots` tries them
    assert {command.name for command in commands.registered_commands} == with_json | {"bench"}


def test_no_command_is_left_out():
    known = {command.name for command in commands.registered_commands} | {"weights"}
    known -= {"shots", "cut"}  # have tests of their own
    assert {name for _, name, *_ in [*COMMANDS, DEMO, INIT]} == known


PRINTING = """
import os, sys
from arabesque.cli.console import lost_output, prepare_output
prepare_output()
held = open(os.devnull)
for stream in (sys.stdout, sys.stderr):
    print("тест" * 100_000, file=stream, flush=True)
os.write(int(sys.argv[1]), f"{held.fileno() > 2} {lost_output()}".encode())
sys.exit(3)
"""


@pytest.mark.parametrize("unbuffered", [(), ("-u",)], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    ("redirection", "lost"),
    [
        (">&- 2>&- <&-", ""),
        (">/dev/full 2>/dev/full", "No space left on device"),
        ("2>&1 | true", ""),
        (">/dev/null 2>&1", ""),
    ],
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_printing_cannot_fail(tmp_path, redirection, lost, unbuffered):
    (tmp_path / "print.py").write_text(PRINTING, encoding="utf-8")
    program, _, reader = redirection.partition("|")
    python = " ".join((sys.executable, *unbuffered, str(tmp_path / "print.py")))
    command = f"{python} 9 9>{tmp_path}/found {program}; echo $? >{tmp_path}/status"
    line = f"({command}) | {reader}" if reader else command
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    subprocess.run(["bash", "-c", line], check=True, env=environment, timeout=120)
    assert (tmp_path / "status").read_text() == "3\n"
    assert (tmp_path / "found").read_text() == f"True {lost}"


def test_full_or_closed_outputs_do_not_change_the_exit_status(places):
    program = f'{sys.executable} -c "from arabesque.cli.main import app; app()" status "{places["STORE"]}"'
    environment = os.environ | {"LC_ALL": "C"}
    full = subprocess.run(["bash", "-c", f"{program} >/dev/full"], env=environment, stderr=subprocess.PIPE, text=True)
    assert full.returncode == 0
    assert full.stderr.startswith("arabesque: standard output: cannot be written (No space left on device);")
    assert subprocess.run(["bash", "-c", f"{program} >&- 2>&-"], env=environment).returncode == 0
