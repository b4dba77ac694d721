"""`arabesque bench` on the command line, and the packages that it requires."""

from __future__ import annotations

import json
import subprocess
import sys

import fsspec
import pytest
from clips import Clip, write_clip
from typer.testing import CliRunner

from arabesque.cli.main import commands
from arabesque.manifests.errors import MissingPackageError

LARGE = ("cv2", "librosa", "soxr", "numba", "scipy", "sklearn", "ultralytics", "pytorchvideo", "h5py", "decord")
BARE_MACHINE = f"""
import sys
for name in {(*LARGE, "matplotlib", "ray", "s3fs")}:
    sys.modules[name] = None
from arabesque.cli.main import app
app()
"""
"""The command in an environment without these packages: importing them raises ImportError."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_clip(folder / "a.mp4", Clip(num_frames=70, beeps_s=(0.5, 1.5, 2.5)))
    return folder


def test_starter_on_a_given_video(videos, tmp_path):
    short = ["--seconds", "0.2", "--stage-seconds", "0.02", "--decode-workers", "1"]
    files = ["--json", str(tmp_path / "bench.json"), "--chart", str(tmp_path / "bench.png")]
    done = CliRunner().invoke(commands, ["bench", str(videos), *short, *files], env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert "speed-of-light ratio" in done.output
    facts = json.loads((tmp_path / "bench.json").read_text())
    assert facts["recipe"] == "starter"
    assert {cost["stream"] for cost in facts["stages"]} == {"", "motion", "rhythm"}
    assert facts["videos"] == ["a: 2.8 s, 128×96, 25 fps, h264, with audio"]
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_videos_at_a_url(videos, tmp_path):
    fsspec.filesystem("memory").put(f"{videos}/", f"/{tmp_path.name}/", recursive=True)
    short = ["--seconds", "0.2", "--stage-seconds", "0.02", "--stream", "motion"]
    done = CliRunner().invoke(commands, ["bench", f"memory://{tmp_path.name}", *short], env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert "fetching 1 of 1 videos" in done.output
    assert "speed-of-light ratio" in done.output


def test_one_stream_of_a_recipe(videos, tmp_path):
    short = ["--seconds", "0.2", "--stage-seconds", "0.02", "--stream", "motion", "--one-by-one"]
    report = ["--json", str(tmp_path / "bench.json")]
    done = CliRunner().invoke(commands, ["bench", str(videos), *short, *report], env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert "one pass ÷ one by one" in done.output
    assert "motion" in done.output
    assert "rhythm" not in done.output
    facts = json.loads((tmp_path / "bench.json").read_text())
    alone = facts["one_by_one"]
    assert alone["one_pass_s"] == facts["wall_s"]
    assert list(alone["streams_s"]) == ["motion"]
    assert alone["one_pass_over_sum"] == alone["one_pass_s"] / alone["sum_s"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--stream", "vst"], "no stream 'vst'"),
        (["--weights", "none"], "random:SEED"),
        (["--chart", "c.xyz"], ".png"),
        (["--chart", "nowhere/c.png"], "the folder nowhere does not exist"),
        (["--json", "nowhere/c.json"], "the folder nowhere does not exist"),
    ],
)
def test_an_invalid_argument_is_reported_before_measuring(videos, arguments, complaint):
    done = CliRunner().invoke(commands, ["bench", str(videos), *arguments], env={"COLUMNS": "300"})
    assert done.exit_code == 2
    assert complaint in done.output


@pytest.mark.slow
def test_it_runs_with_little_more_than_torch_and_a_decoder(videos):
    stream = ["--recipe", "everything", "--stream", "resnet_frame", "--seconds", "0.1", "--stage-seconds", "0.02"]
    bare = [sys.executable, "-c", BARE_MACHINE, "bench", str(videos), *stream]
    done = subprocess.run(bare, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "speed-of-light ratio" in done.stdout


def test_a_missing_matplotlib_is_reported_before_measuring(videos, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = CliRunner().invoke(commands, ["bench", str(videos), "--chart", "chart.png"], env={"COLUMNS": "300"})
    assert isinstance(done.exception, MissingPackageError)
    assert "matplotlib is not installed" in str(done.exception)


def test_selected_videos_are_measured(videos, tmp_path):
    for name in ("b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes((videos / "a.mp4").read_bytes())
    (tmp_path / "list.txt").write_text(f"{videos / 'a.mp4'}\nb.mp4\nc.mp4\n")
    words = ["--list", str(tmp_path / "list.txt"), "--exclude", "a*", "--limit", "1", "--seconds", "0.1"]
    short = ["--stage-seconds", "0.01", "--stream", "motion", "--json", "-"]
    done = CliRunner().invoke(commands, ["bench", *words, *short])
    assert done.exit_code == 0, done.output
    assert [name.partition(":")[0] for name in json.loads(done.stdout)["videos"]] == ["b"]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(commands, ["bench", "--limit", "1"])
    assert done.exit_code == 2
    assert "give their folder" in done.output


def test_clips_of_a_table_are_measured(videos, tmp_path):
    (tmp_path / "clips.csv").write_text(
        "path,id,start_s,end_s\na.mp4,jump,0.2,1.4\na.mp4,spin,1.0,2.6\na.mp4,fall,8,9\n"
    )
    words = [
        "bench",
        str(videos),
        "--clips",
        str(tmp_path / "clips.csv"),
        "--seconds",
        "0.1",
        "--stage-seconds",
        "0.01",
    ]
    done = CliRunner().invoke(commands, [*words, "--exclude", "fall", "--stream", "motion", "--json", "-"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert [name[:12] for name in facts["videos"]] == ["jump: 1.2 s,", "spin: 1.6 s,"]
    assert facts["video_s"] == pytest.approx(2.8, abs=0.1)
    done = CliRunner(env={"COLUMNS": "300"}).invoke(commands, words)
    assert "the clip from 8 s to 9 s is outside of the file" in str(done.exception)
