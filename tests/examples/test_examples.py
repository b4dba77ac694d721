"""The scripts of examples/ run on drawn clips."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from clips import Clip, write_clip
from typer.testing import CliRunner

import arabesque
from arabesque.cli.main import commands
from arabesque.testing import check_extractor

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NUM_CLIPS = 9


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos, their scores and a store."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "videos").mkdir()
    lines = ["video_id,score"]
    for index in range(NUM_CLIPS):
        clip = Clip(num_frames=40 + 2 * index, width_px=64, height_px=48, beeps_s=(0.2 + 0.1 * index,))
        write_clip(folder / "videos" / f"clip_{index}.mp4", clip)
        lines.append(f"clip_{index},{index % 4 + 0.5}")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    run(folder, "minimal.py", "videos", "store")
    return folder


def run(folder: Path, script: str, *arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patches:
        patches.chdir(folder)
        patches.setattr(sys, "argv", [script, *arguments])
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")


def test_the_minimal_script_extracts_and_reads(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(place, "minimal.py", "videos", "store")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == NUM_CLIPS
    assert lines[0].startswith("clip_0: 1 segments × 222 features over ")


def test_a_network_trains_in_plain_pytorch(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(place, "train_pytorch.py", "store", "scores.csv")
    lines = capsys.readouterr().out.splitlines()
    errors = [float(line.rpartition(" ")[2]) for line in lines if line.startswith("epoch")]
    assert len(errors) == 5
    assert errors[-1] < errors[0]
    assert [line.partition(":")[0] for line in lines if "predicted" in line] == ["clip_0", "clip_5"]


def test_other_tools_read_the_store(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(place, "other_tools.py", "store")
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"pandas: {NUM_CLIPS} rows; the first has (1, 222)"
    assert shown[1] in (f"duckdb: [('done', {2 * NUM_CLIPS})]", "duckdb: not installed")
    assert shown[2] in ("datasets: clip_0 (1, 222)", "datasets: not installed")


def test_the_custom_extractor_passes_the_contract_and_extracts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(place)
    check_extractor("brightness:Brightness", num_frames=12)
    features = arabesque.extract("videos/clip_5.mp4", recipe=EXAMPLES / "brightness.toml")["brightness"]
    assert features.values.shape == (4, 2)
    assert (features.values[:, 0] > 10).all()
    assert (features.values[:, 0] < 90).all()
    done = CliRunner().invoke(commands, ["recipes", str(EXAMPLES / "brightness.toml")])
    assert 'extractor = "brightness:Brightness"' in done.stdout


@pytest.mark.slow
def test_the_slurm_jobs_extract_check_and_train(place: Path, tmp_path: Path) -> None:
    """A stand-in for Slurm runs each task of an array at once, and a wrapped command after them."""
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "srun").write_text('#!/bin/bash\nexec "$@"\n')
    (fake / "sbatch").write_text(
        "#!/bin/bash\nset -e\n"
        'if [[ "$*" == *--wrap* ]]; then [[ "$*" == *afterok:77* ]]; bash -c "${@: -1}"; exit; fi\n'
        "[[ $1 == --parsable && $2 == --array=1-4 ]]; shift 2\n"
        "export SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=4\n"
        'for task in 1 2 3 4; do SLURM_ARRAY_TASK_ID=$task bash "$@" >&2; done; echo 77\n'
    )
    for script in fake.iterdir():
        script.chmod(0o755)
    path = os.pathsep.join([str(fake), str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", str(EXAMPLES / "slurm_array.sh"), "videos", str(tmp_path / "store"), "scores.csv"]
    done = subprocess.run(command, cwd=place, env=os.environ | {"PATH": path}, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "pearman" in done.stdout
    assert len(arabesque.open_store(tmp_path / "store").video_ids) == NUM_CLIPS


@pytest.mark.slow
def test_the_ray_job_extracts(place: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "ray_job.py"), "videos", str(tmp_path / "store")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(command, cwd=place, env=environment, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert f"{{'done': {NUM_CLIPS}}}" in done.stdout
