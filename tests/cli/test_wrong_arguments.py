"""Every command reports wrong arguments with status 2 and one line, before it imports torch.

All commands run in one process, so an import by one of them is visible in all later ones.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from store_rows import new_store
from typer.testing import CliRunner

from arabesque.cli.main import commands
from arabesque.manifests.errors import ConfigError, WeightsError
from arabesque.pipeline.store.manifest import read_manifest

PROGRAM = """
import contextlib, io, json, os, sys
from arabesque.cli import main
for words in json.load(sys.stdin):
    sys.argv, said = ["arabesque", *words], io.StringIO()
    status = None
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main.app()
        except SystemExit as exit:
            status = exit.code
    heavy = [name for name in ("torch", "ray", "av", "cv2") if name in sys.modules]
    print(json.dumps([status, said.getvalue(), heavy]), flush=True)
"""

NOT_THERE = "no such|does not exist|not found"
EXTRACT = ("extract", "VIDEOS", "--recipe", "starter", "--out", "NEW")
PAMFN = ("extract", "VIDEOS", "--recipe", "pamfn", "--out", "NEW")
TRAIN, LABELED = ("train", "STORE", "--labels"), ("train", "STORE", "--labels", "LABELS")
FISV = ("--dataset", "fisv", "--target", "TES")
SCORE = ("score", "VIDEOS", "--model", "MODEL")
EVALUATE = ("evaluate", "MODEL", "STORE", "--labels", "LABELS")
REPRODUCE = ("reproduce", "fisv", "--features", "STORE", "--labels")
CASES = [
    (2, "No such command 'extrakt'", "extrakt"),
    (2, NOT_THERE, "extract", "NOWHERE", "--recipe", "starter", "--out", "NEW"),
    (2, "contains no videos", "extract", "EMPTY", "--recipe", "starter", "--out", "NEW"),
    (2, "is not empty and not a feature store", "extract", "VIDEOS", "--recipe", "starter", "--out", "VIDEOS"),
    (2, "is not empty and not a feature store", "extract", "VIDEOS", "--recipe", "starter", "--out", "FILE"),
    (2, "features of recipe 'test', not 'starter'", "extract", "VIDEOS", "--recipe", "starter", "--out", "STORE"),
    (2, "did you mean pamfn\\?", "extract", "VIDEOS", "--recipe", "pamnf", "--out", "NEW"),
    (2, NOT_THERE, "extract", "VIDEOS", "--recipe", "NOWHERE.toml", "--out", "NEW"),
    (
        2,
        "extractor 'motoin' is not known.*did you mean motion\\?",
        "extract",
        "VIDEOS",
        "--recipe",
        "RECIPE",
        "--out",
        "NEW",
    ),
    (
        1,
        "video_swin_b_k600, i3d_flow_k400, ast_audioset_10_10_hf",
        "extract",
        "VIDEOS",
        "--recipe",
        "pamfn",
        "--out",
        "NEW",
    ),
    (2, "starter has no stream 'vst'", *EXTRACT, "--stream", "vst"),
    (2, "'gpu' is not a device", *EXTRACT, "--device", "gpu"),
    (2, "'cuda:x' is not a device", *EXTRACT, "--device", "cuda:x"),
    (2, "'magic' is not one of pyav, decord, nvdec", *EXTRACT, "--decoder", "magic"),
    (2, "decoder nvdec: .*install the driver with its video libraries", *EXTRACT, "--decoder", "nvdec"),
    (2, "random:SEED", *EXTRACT, "--weights", "rnd"),
    (2, "give one seed", *EXTRACT, "--weights", "random:0", "--weights", "random:1"),
    (2, "stream 'moton' is not known.*did you mean motion", *EXTRACT, "--weights", "moton.network=random:0"),
    (2, "is not KEY=VALUE", *EXTRACT, "--set", "fps"),
    (2, "is 5 and 6; give one", *EXTRACT, "--set", "sampling.fps=5", "--set", "sampling.fps=6"),
    (2, "streams.motion.sampling.fpss: .*did you mean fps", *EXTRACT, "--set", "streams.motion.sampling.fpss=5"),
    (2, "add --labels FILE", *EXTRACT, "--dataset", "fisv"),
    (2, NOT_THERE, *EXTRACT, "--labels", "NOWHERE"),
    (2, "none of its 2 labels has a video", *EXTRACT, "--labels", "OTHER_LABELS"),
    (2, "no stream has a network", *EXTRACT, "--precision", "bfloat16"),
    (2, "did you mean x3d_m_k400 or", *PAMFN, "--weights", "vst.network=x3d_m_k40"),
    (2, "need a recipe; give its name", "recipes", "--set", "sampling.fps=5"),
    (2, "belongs to a run", "recipes", "pamfn", "--weights", "random:0"),
    (2, "as in 20 or 5%", *EXTRACT, "--max-failures", "few"),
    (2, "1/3 to 3/3", *EXTRACT, "--partition", "4/3"),
    (2, "not an amount of memory", *EXTRACT, "--memory", "lots"),
    (2, "add --executor ray", *EXTRACT, "--ray-address", "head:6379"),
    (2, "no Ray cluster at 127.0.0.1:9", *EXTRACT, "--executor", "ray", "--ray-address", "127.0.0.1:9"),
    (2, "Ray assigns the GPUs", *EXTRACT, "--executor", "ray", "--device", "cuda:1"),
    (2, "Missing option", "extract", "VIDEOS"),
    (2, NOT_THERE, "status", "NOWHERE"),
    (2, "is not a feature store", "status", "EMPTY"),
    (2, "is not a feature store", "status", "FILE"),
    (2, NOT_THERE, "verify", "NOWHERE"),
    (2, "is a file", "verify", "FILE"),
    (2, NOT_THERE, "verify", "STORE", "--videos", "NOWHERE"),
    (2, "'gpu' is not a device", "verify", "STORE", "--videos", "VIDEOS", "--device", "gpu"),
    (2, NOT_THERE, "repair", "NOWHERE"),
    (2, "is a file", "repair", "FILE"),
    (2, "did you mean pamfn\\?", "recipes", "pamnf"),
    (2, NOT_THERE, "predict", "NOWHERE", "--recipe", "video-features-i3d"),
    (2, "starter has no stream 'rgb'", "predict", "VIDEOS", "--recipe", "starter", "--stream", "rgb"),
    (2, NOT_THERE, "train", "NOWHERE", "--labels", "LABELS"),
    (2, "is not a feature store", "train", "EMPTY", "--labels", "LABELS"),
    (2, NOT_THERE, *TRAIN, "NOWHERE"),
    (2, "score", *LABELED, "--target", "beauty"),
    (2, "is a file", *LABELED, "--out", "FILE"),
    (2, "did you mean fisv\\?", *TRAIN, "EMPTY", "--dataset", "fisw", "--target", "TES"),
    (2, "--target", *TRAIN, "EMPTY", "--dataset", "fisv"),
    (2, "train.txt", *TRAIN, "EMPTY", *FISV),
    (2, "did you mean gdlt\\?", *TRAIN, "EMPTY", *FISV, "--model", "gdtl"),
    (2, "is not one of last, validation, best-test", *TRAIN, "EMPTY", *FISV, "--selection", "best"),
    (2, "is not name=value", *TRAIN, "EMPTY", *FISV, "--set", "dropout"),
    (2, NOT_THERE, "score", "VIDEOS", "--model", "NOWHERE"),
    (2, "has no model.json", "score", "VIDEOS", "--model", "EMPTY"),
    (2, "is a file", "score", "VIDEOS", "--model", "FILE"),
    (2, "has no model.json", "score", "VIDEOS", "--model", "EMPTY/model.pt"),
    (2, NOT_THERE, "score", "NOWHERE", "--model", "MODEL"),
    (2, "not a feature store", *SCORE, "--store", "VIDEOS"),
    (2, "'cuda9' is not a device", *SCORE, "--device", "cuda9"),
    (2, NOT_THERE, "evaluate", "NOWHERE", "STORE", "--labels", "LABELS"),
    (2, NOT_THERE, "evaluate", "MODEL", "NOWHERE", "--labels", "LABELS"),
    (2, NOT_THERE, "evaluate", "MODEL", "STORE", "--labels", "NOWHERE"),
    (2, "is neither train nor test", *EVALUATE, "--split", "all"),
    (2, "table 'fisw' is not known", "reproduce", "fisw", "--features", "STORE", "--labels", "EMPTY"),
    (2, "train.txt", *REPRODUCE, "EMPTY"),
    (2, "neither float32 nor bfloat16", *REPRODUCE, "EMPTY", "--precision", "half"),
    (2, NOT_THERE, "compare", "NOWHERE", "STORE"),
    (2, "no features in it", "compare", "STORE", "NOWHERE"),
    (2, NOT_THERE, "import", "NOWHERE", "--out", "NEW"),
    (2, "is not STREAM=LABEL", "import", "STORE", "--out", "NEW", "--name", "vst"),
    (2, NOT_THERE, "export", "NOWHERE", "--format", "npz", "--out", "NEW"),
    (2, "did you mean npz\\?", "export", "STORE", "--format", "npx", "--out", "NEW"),
    (
        2,
        "is not one of source, float32, float16",
        "export",
        "STORE",
        "--format",
        "npz",
        "--out",
        "NEW",
        "--dtype",
        "f2",
    ),
    (2, NOT_THERE, "bench", "NOWHERE"),
    (2, "'gpu' is not a device", "bench", "--device", "gpu"),
    (2, "is not one of pyav, decord", "bench", "--decoder", "magic"),
    (2, "bench would measure the CPU", "bench", "--decoder", "nvdec"),
    (2, "is neither random:SEED nor cache", "bench", "--weights", "rnd"),
    (2, "'h300' is not one of h200, h100, a100, l4", "bench", "--predict", "h300"),
    (2, "does not apply to --predict", "bench", "--predict", "h200", "--device", "cpu"),
    (2, "does not apply to --predict", "bench", "--predict", "h200", "--one-by-one"),
    (2, "networks run on the CPU", *EXTRACT, "--gpu-memory", "2GiB", "--device", "cpu"),
    (2, "--gpu-memory", *EXTRACT, "--gpu-memory", "much"),
    (2, "'fast' is not an engine", *EXTRACT, "--engine", "fast"),
    (2, NOT_THERE, "bench", "--json", "NOWHERE/bench.json"),
    (2, "is a file", "demo", "FILE"),
    (2, "greater than or equal to 8", "demo", "NEW", "--videos", "3"),
    (2, "did you mean x3d_m_k400 or", "weights", "fetch", "x3d_m_k40"),
    (2, "did you mean pamfn\\?", "weights", "fetch", "--recipe", "pamnf"),
    (2, "did you mean x3d_m_k400 or", "weights", "verify", "x3d_m_k40"),
    (2, NOT_THERE, "weights", "add", "x3d_m_k400", "NOWHERE"),
    (2, "unexpected extra argument", "doctor", "please"),
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    (root / "empty").mkdir()
    (root / "file").write_text("a text file")
    (root / "labels.csv").write_text("video_id,score\na,1\nb,2\n")
    (root / "other.csv").write_text("video_id,score\nx,1\ny,2\n")
    (root / "model").mkdir()
    (root / "model" / "model.json").write_text("{}")
    (root / "model" / "model.pt").write_bytes(b"")
    (root / "videos").mkdir()
    (root / "videos" / "a.mp4").write_bytes(b"never opened")
    new_store(root / "store")
    recipe = 'name = "own"\nsummary = "s"\n[sampling]\nfps = 5\nframes_per_segment = 4\nframes_per_step = 4\n'
    recipe += 'remainder = "drop-tail"\n[streams.motion]\nextractor = "motoin"\n'
    (root / "own.toml").write_text(recipe)
    names = {
        "VIDEOS": "videos",
        "NEW": "new",
        "EMPTY": "empty",
        "FILE": "file",
        "STORE": "store",
        "LABELS": "labels.csv",
        "OTHER_LABELS": "other.csv",
        "MODEL": "model",
        "NOWHERE": "nowhere",
        "RECIPE": "own.toml",
        "NOWHERE.toml": "nowhere.toml",
        "NOWHERE/bench.json": "nowhere/bench.json",
        "EMPTY/model.pt": "empty/model.pt",
    }
    commands = [[str(root / names[word]) if word in names else word for word in words] for _, _, *words in CASES]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"ARABESQUE_WEIGHTS": str(root / "weights"), "COLUMNS": "300"},
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(CASES), done.stderr
    assert not (root / "new").exists()
    assert read_manifest(root / "store")["recipe"]["name"] == "test"
    return found


@pytest.mark.parametrize("number", range(len(CASES)), ids=[" ".join(words) for _, _, *words in CASES])
def test_a_wrong_argument_is_refused_at_once(answers, number):
    expected, complaint, *_ = CASES[number]
    status, output, heavy = answers[number]
    assert re.search(complaint, " ".join(output.split())), output
    assert status == expected
    assert heavy == []
    assert "unexpected " not in output or expected == 2
    assert "Errno" not in output


def test_a_misspelled_role_is_reported_instead_of_missing_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setenv("ARABESQUE_WEIGHTS", str(tmp_path / "weights"))
    words = ["extract", str(tmp_path), "--recipe", "gdlt", "--out", str(tmp_path / "new")]
    done = CliRunner().invoke(commands, [*words, "--weights", "vst.netwrk=random:0"])
    assert isinstance(done.exception, ConfigError)
    assert "weights.netwrk (did you mean network" in str(done.exception)
    assert isinstance(CliRunner().invoke(commands, words).exception, WeightsError)
