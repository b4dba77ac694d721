"""A package outside arabesque adds an extractor, a checkpoint, a scoring model, a data set and a table without a change
of arabesque, and uses them from video to score."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import Clip, write_clip
from store_contents import stored_rows
from typer.testing import CliRunner

from arabesque import FeatureStore, extract, load_recipe
from arabesque.cli.main import commands
from arabesque.extractors.table import extractor_kind
from arabesque.manifests.errors import ArabesqueError, UsageError
from arabesque.testing import check_extractor, check_model

RECIPE = """
name = "newcomer"
summary = "mean colors"
[sampling]
fps = "native"
frames_per_segment = 8
frames_per_step = 8
remainder = "drop-tail"
[streams.colors]
extractor = "newcomer:Colors"
weights = { network = "newcomer_colors" }
settings = { gain = 2.0 }
"""
CHECKPOINTS = """
[weights.newcomer_colors]
file_name = "colors.pt"
license = "MIT"
layout = "newcomer-linear"
trained_on = "nothing"
source = "this test"
"""
DATASET = """
name = "newcomers-cup"
summary = "12 clips"
files = { train = ["train.txt"], test = ["test.txt"] }
[labels]
kind = "columns"
names = ["id", "points"]
[targets.points]
column = "points"
score_range = [0, 10]
plausible = [0, 10]
"""
TABLE = """
title = "A cup"
source = "this test"
columns = { points = { dataset = "dataset.toml", target = "points" } }
[protocols.short]
epochs = 2
[methods.mean]
model = "newcomer:MeanOfSegments"
streams = ["colors"]
protocol = "short"
[[rows]]
name = "Mean of segments"
method = "mean"
settings = { bounded = true }
printed = { points = 0.5 }
"""
NUM_CLIPS = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, its TOML files, a checkpoint, labels and videos."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "code").mkdir()
    shutil.copy(Path(__file__).with_name("newcomer.py"), folder / "code")
    for name, text in {"recipe": RECIPE, "weights": CHECKPOINTS, "dataset": DATASET, "table": TABLE}.items():
        (folder / f"{name}.toml").write_text(text)
    torch.manual_seed(0)
    state = {f"net.{name}": value for name, value in torch.nn.Linear(3, 4).state_dict().items()}
    torch.save(state, folder / "colors.pt")
    (folder / "labels").mkdir()
    lines = [f"clip_{index:02d} {index % 7 + 1.5}\n" for index in range(NUM_CLIPS)]
    (folder / "labels" / "train.txt").write_text("".join(lines[:8]))
    (folder / "labels" / "test.txt").write_text("".join(lines[8:]))
    (folder / "videos").mkdir()
    for index in range(NUM_CLIPS):
        write_clip(folder / "videos" / f"clip_{index:02d}.mp4", Clip(num_frames=16 + index))
    return folder


@pytest.fixture(autouse=True)
def environment(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(place / "code")
    monkeypatch.setenv("ARABESQUE_WEIGHTS", str(place / "cache"))
    monkeypatch.chdir(place)
    yield
    sys.modules.pop("newcomer", None)


def arabesque(*command: object, exit_code: int = 0) -> str:
    """Return the output of a command, or the message of its failure."""
    done = CliRunner().invoke(commands, [str(each) for each in command], env={"COLUMNS": "200"})
    if isinstance(done.exception, ArabesqueError):
        assert exit_code == (2 if isinstance(done.exception, UsageError) else 1)
        return str(done.exception)
    assert done.exit_code == exit_code, done.output + repr(done.exception)
    return done.output


EXTRACT = ("extract", "videos", "--recipe", "recipe.toml", "--weights-manifest", "weights.toml")


def test_the_contract_tests_accept_classes_by_import_path(place: Path) -> None:
    check_extractor("newcomer:Colors")
    check_model("newcomer:MeanOfSegments")
    check_model("newcomer:MeanOfSegments", settings={"bounded": True})


def test_from_videos_to_scores(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = arabesque(*EXTRACT, "--out", "store", exit_code=1)
    assert "`arabesque weights add newcomer_colors FILE --weights-manifest TOML` adds a file that you have" in missing
    arabesque("weights", "add", "newcomer_colors", "colors.pt", "--weights-manifest", "weights.toml")
    assert "ready" in arabesque("weights", "list", "--weights-manifest", "weights.toml")

    arabesque(*EXTRACT, "--out", "store")
    store = FeatureStore("store")
    assert len(store["clip_11"]["colors"]) == 3
    assert {one.kind for one in store.outcomes()} == {"done"}
    before = stored_rows(place / "store")
    arabesque(*EXTRACT, "--out", "store")
    assert stored_rows(place / "store") == before
    write_clip(place / "videos" / "late.mp4", Clip(num_frames=8))
    with monkeypatch.context() as patches:
        patches.setattr("arabesque.pipeline.streams.code_digest", lambda cls: "another")
        assert "newcomer:Colors has changed since the last run" in arabesque(*EXTRACT, "--out", "store")
    (place / "videos" / "late.mp4").unlink()

    trained = ("--model", "newcomer:MeanOfSegments", "--streams", "colors", "--epochs", 2, "--workers", 1)
    arabesque("train", "store", "--labels", "labels", "--dataset", "dataset.toml", *trained, "--out", "model")
    card = json.loads((place / "model" / "seed-0" / "model.json").read_text())
    assert card["model"] == "newcomer:MeanOfSegments"
    assert card["made_with"]["newcomer:MeanOfSegments"].startswith("sha256 ")
    evaluated = arabesque(
        "evaluate", "model/seed-0", "store", "--labels", "labels", "--dataset", "dataset.toml", "--target", "points"
    )
    assert "videos    4" in evaluated
    # the recipe of the training has the checkpoint: no --weights-manifest
    score = ("score", "videos/clip_03.mp4", "--model", "model/seed-0", "--json")
    scored = json.loads(CliRunner().invoke(commands, score).stdout)
    assert [each["video_id"] for each in scored["videos"]] == ["clip_03"]

    arabesque(
        *("reproduce", "table.toml", "--features", "store", "--labels", "labels", "--out", "tables"),
        *("--seeds", 1, "--workers", 1, "--best-test-only"),
    )
    assert "Mean of segments" in (place / "tables" / "table" / "table.md").read_text()


def test_the_key_of_a_row_has_the_import_path_and_the_version(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = extract("videos/clip_00.mp4", "recipe.toml", weights_manifest="weights.toml", weights="random:0")
    again = extract("videos/clip_00.mp4", load_recipe("recipe.toml"), weights="random:0")
    assert features["colors"].key == again["colors"].key
    assert features["colors"].provenance["newcomer:Colors"].startswith("sha256 ")
    monkeypatch.setattr(extractor_kind("newcomer:Colors"), "version", 2)
    raised = extract("videos/clip_00.mp4", "recipe.toml", weights="random:0")
    assert raised["colors"].key != features["colors"].key
    assert (raised["colors"].values == features["colors"].values).all()


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (("extract", "missing", "--recipe", "wrong.toml", "--out", "new"), "extractor 'newcomers:Colors': module newc"),
        (("bench", "--recipe", "wrong.toml"), "did you mean newcomer?); install its package in this environment, or"),
        (
            ("extract", "missing", "--recipe", "recipe.toml", "--weights-manifest", "gone.toml", "--out", "new"),
            "gone.toml: the file does not exist",
        ),
        (
            ("extract", "missing", "--recipe", "recipe.toml", "--out", "new"),
            "checkpoint 'newcomer_colors' is not known",
        ),
        (
            ("train", "missing", "--labels", "labels", "--dataset", "dataset.toml", "--model", "newcomer:Mean"),
            "scoring model 'newcomer:Mean': module newcomer has no class 'Mean'",
        ),
        (
            ("train", "missing", "--labels", "labels", "--dataset", "gone.toml", "--model", "gdlt"),
            "gone.toml: the file does not exist",
        ),
        (
            ("reproduce", "gone.toml", "--features", "missing", "--labels", "labels"),
            "gone.toml: the file does not exist",
        ),
        (
            ("reproduce", "pamfn-11", "--features", "missing", "--labels", "labels"),
            "table 'pamfn-11' is not known (did you mean pamfn-1?",
        ),
        (
            ("reproduce", "wrong_table.toml", "--features", "missing", "--labels", "labels"),
            "wrong_table.toml, mean: protocol 'shirt' is not known (did you mean short?",
        ),
        (
            ("reproduce", "other_model.toml", "--features", "missing", "--labels", "labels"),
            "other_model.toml: row Mean of segments: scoring model 'newcomer:Colors': is not a subclass of torch",
        ),
    ],
)
def test_a_mistake_is_an_error_of_one_line_before_any_video_is_opened(
    place: Path, command: tuple[str, ...], complaint: str
) -> None:
    (place / "wrong.toml").write_text(RECIPE.replace("newcomer:Colors", "newcomers:Colors"))
    (place / "wrong_table.toml").write_text(TABLE.replace('"short"', '"shirt"'))
    (place / "other_model.toml").write_text(TABLE.replace("newcomer:MeanOfSegments", "newcomer:Colors"))
    assert complaint in " ".join(arabesque(*command, exit_code=2).split())


@pytest.mark.slow
@pytest.mark.parametrize("executor", [("--workers", "2"), ("--executor", "ray", "--workers", "2")])
def test_workers_import_the_package_and_a_killed_run_resumes(place: Path, tmp_path: Path, executor: tuple[str]) -> None:
    command = [sys.executable, "-m", "arabesque", *EXTRACT, "--weights", "random:0"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(place / "code"), os.environ.get("PYTHONPATH", "")])}

    def run(out: str, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*command, "--out", str(tmp_path / out), *more], env=environment, text=True)

    assert run("whole").wait(timeout=600) == 0
    killed = run("parts", *executor)
    while not list((tmp_path / "parts").glob("stream=*/*")) and killed.poll() is None:
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    assert run("parts", *executor).wait(timeout=600) == 0
    (parts, outcomes), (whole, expected) = stored_rows(tmp_path / "parts"), stored_rows(tmp_path / "whole")
    assert outcomes == expected
    assert parts.keys() == whole.keys()
    for name, (*facts, values, start, end) in parts.items():
        *expected_facts, expected_values, expected_start, expected_end = whole[name]
        assert (facts, start, end) == (expected_facts, expected_start, expected_end)
        # rounding of matrix products depends on the batch
        np.testing.assert_allclose(*(np.frombuffer(each, np.float32) for each in (values, expected_values)), rtol=1e-5)
