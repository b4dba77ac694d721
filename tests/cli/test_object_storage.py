"""Runs whose videos and store are on an S3 server give the same store as runs on a disk, even if they are killed."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys

import pandas
import pytest
import s3fs
from clips import Clip, write_clip
from known_extractors import SEGMENT
from object_server import new_bucket
from store_contents import stored_rows
from typer.testing import CliRunner
from workloads import workload_process

from arabesque.cli import main
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.reader import FeatureStore

VIDEOS = {"a": 40, "b": 24, "day 2/c": 33}
UNREACHABLE = "http://127.0.0.1:9"


def command(*arguments):
    return CliRunner(env={"COLUMNS": "200"}).invoke(main.commands, list(map(str, arguments)))


@pytest.fixture(scope="module")
def spooled(tmp_path_factory):
    """Folder to which only these runs copy videos."""
    return tmp_path_factory.mktemp("spooled")


@pytest.fixture(scope="module")
def orders(s3, spooled):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(spooled))
        with workload_process("extraction_workload.py") as give:
            yield lambda **wish: give(**wish)["runs"]


@pytest.fixture(scope="module")
def order(orders):
    return lambda **wish: orders(**wish)[0]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    (folder / "day 2").mkdir()
    for name, num_frames in VIDEOS.items():
        write_clip(folder / f"{name}.mp4", Clip(num_frames=num_frames, beeps_s=(0.2,)))
    cut = write_clip(folder / "cut.mp4", Clip(num_frames=50), movflags="faststart")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (folder / "noise.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def uploaded(s3, videos):
    url = f"{new_bucket()}/videos"
    s3fs.S3FileSystem().put(f"{videos}/", f"{url}/", recursive=True)
    return url


@pytest.fixture(scope="module")
def whole(order, videos, uploaded, tmp_path_factory):
    """Contents of the store of an uninterrupted run on a disk, with the URLs of the uploaded videos."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert order(videos=videos, out=out)["status"] == 3
    rows, ends = stored_rows(out)
    assert len(rows) == 2 * len(VIDEOS) + 1
    there = {name: (kind, reason.replace(str(videos), uploaded), *rest) for name, (kind, reason, *rest) in ends.items()}
    return rows, there


def test_a_run_equals_one_on_a_disk_and_a_second_run_recomputes_nothing(order, uploaded, whole, bucket, spooled):
    out = f"{bucket}/features"
    end = order(videos=uploaded, out=out)
    assert end["status"] == 3, end["said"]
    assert stored_rows(out) == whole
    assert not check_store(out).findings
    again = order(videos=uploaded, out=out)
    assert (again["status"], again["computed"]) == (3, 0), again["said"]
    assert "5 finished by earlier runs, 0 remaining" in again["said"]
    assert stored_rows(out) == whole
    assert FeatureStore(out).manifest["inputs"] == {"folder": uploaded, "videos": 5}
    assert not list(spooled.glob("arabesque-spool-*"))


def test_a_run_on_a_disk_takes_its_videos_from_a_url(order, uploaded, whole, tmp_path):
    assert order(videos=uploaded, out=tmp_path / "out")["status"] == 3
    assert stored_rows(tmp_path / "out") == whole


@pytest.mark.slow  # the run after one that was killed while it started waits 20 s for its lease
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_any_request_a_rerun_finishes_the_work(order, uploaded, whole, bucket, seed):
    rng, killed = random.Random(seed), 0
    for number in range(4):
        end = order(videos=uploaded, out=f"{bucket}/features", kill_at_request=rng.choice([number, 2 + 3 * number]))
        killed += end["status"] == -signal.SIGKILL
    assert killed
    end = order(videos=uploaded, out=f"{bucket}/features")
    assert end["status"] == 3, end["said"]
    assert stored_rows(f"{bucket}/features") == whole
    assert not check_store(f"{bucket}/features").findings


def test_two_concurrent_runs_may_repeat_work_but_give_the_same_store(orders, uploaded, whole, bucket):
    out = f"{bucket}/features"
    assert [end["status"] for end in orders(videos=uploaded, out=out, runs=2)] == [3, 3]
    assert stored_rows(out) == whole
    assert not check_store(out).findings


def test_a_replaced_video_is_extracted_again(order, bucket, tmp_path):
    """The new file has the same size and the same second of modification; only its ETag differs."""
    shown = [range(24), range(100, 124)]
    clips = [write_clip(tmp_path / f"{numbers[0]}.mp4", Clip(num_frames=24), numbers).read_bytes() for numbers in shown]
    size = max(map(len, clips)) + 8
    for clip, numbers in zip(clips, shown, strict=True):
        padded = (clip + struct.pack(">I", size - len(clip)) + b"free").ljust(size, b"\0")
        s3fs.S3FileSystem().pipe_file(f"{bucket}/videos/a.mp4", padded)
        end = order(videos=f"{bucket}/videos", out=f"{bucket}/features")
        assert end["computed"] == len(numbers) // SEGMENT, end["said"]
        assert FeatureStore(f"{bucket}/features")["a"]["numbers"].values.ravel().tolist() == list(numbers)


def test_every_command_takes_a_url(uploaded, bucket, tmp_path):
    out, clip = f"{bucket}/features", f"{uploaded}/a.mp4"
    assert command("extract", clip, "--recipe", "starter", "--out", out).exit_code == 0
    assert list(pandas.read_parquet(f"{out}/stream=motion").video_id) == ["a"]
    assert f"1 video of {clip}" in command("status", out).stdout
    assert "recomputed: 'a' [motion]" in command("verify", out, "--videos", clip, "--sample", "1").stdout
    assert "nothing is damaged" in command("repair", out).stdout
    assert command("export", out, "--format", "npy-folder", "--out", tmp_path / "npy").exit_code == 0
    assert command("compare", out, out).stdout.endswith("SAME\n")


@pytest.mark.parametrize(
    ("url", "environment", "status", "message"),
    [
        pytest.param("s3://no-such-bucket/features", {}, 2, "is not a feature store", marks=pytest.mark.slow),
        pytest.param("s3://b/f", {"AWS_ENDPOINT_URL": UNREACHABLE}, 1, "cannot be reached", marks=pytest.mark.slow),
    ],
)
def test_an_unreachable_url_is_reported_in_one_line(s3, url, environment, status, message):
    run = subprocess.run(
        [sys.executable, "-c", "from arabesque.cli.main import app; app()", "status", url],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | environment,
    )
    assert run.returncode == status
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1
