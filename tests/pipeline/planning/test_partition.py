"""Parts of a folder: each video is in exactly one part, and added videos do not change the parts of others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from clips import Clip, write_clip
from hypothesis import given
from hypothesis import strategies as st
from known_extractors import RECIPE
from store_contents import stored_rows

from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.planning.discovery import Inputs
from arabesque.pipeline.planning.partition import Partition, parse_partition
from arabesque.pipeline.records import VideoFile
from arabesque.pipeline.status import read_status
from arabesque.pipeline.store.maintenance.verify import check_store

SCRIPT = Path(__file__).resolve().parents[3] / "docker" / "slurm_array.sh"


def inputs(*names: str) -> Inputs:
    clash = (Path("x.avi"), Path("x.mp4"))
    return Inputs(tuple(VideoFile(name, Path(name)) for name in names), dict.fromkeys(["clash"], clash), 0)


@given(names=st.lists(st.text(min_size=1), unique=True, max_size=20), count=st.integers(1, 9))
def test_every_video_and_every_clash_is_in_one_part(names, count):
    whole = inputs(*names)
    parts = [Partition(number, count).of(whole) for number in range(1, count + 1)]
    assert sorted(file.video_id for part in parts for file in part.videos) == sorted(names)
    assert [name for part in parts for name in part.clashes] == ["clash"]


def test_parts_stay_as_they_are_when_videos_are_added():
    fewer, more = inputs(*map(str, range(50))), inputs(*map(str, range(100)))
    for number in range(1, 5):
        shard = Partition(number, 4)
        assert [file for file in shard.of(more).videos if file in fewer.videos] == list(shard.of(fewer).videos)


def test_parts_are_about_equally_large():
    whole = inputs(*(f"Ball_{number:04d}" for number in range(1600)))
    sizes = [len(Partition(number, 16).of(whole).videos) for number in range(1, 17)]
    assert 70 < min(sizes) <= max(sizes) < 130


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0/4", "0/4 is not one of the parts 1/4 to 4/4"),
        ("5/4", "5/4 is not one of the parts 1/4 to 4/4"),
        ("1/0", "such as 3/16"),
        ("-1/4", "such as 3/16"),
        ("half", "such as 3/16"),
    ],
)
def test_other_texts_are_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_partition(text)


def test_runs_of_all_parts_give_the_same_store_and_each_reports_its_part(tmp_path):
    (tmp_path / "videos").mkdir()
    for name in "abcdef":
        write_clip(tmp_path / "videos" / f"{name}.mp4", Clip(num_frames=16))
    (tmp_path / "videos" / "noise.mp4").write_bytes(b"no video")
    recipe = parse_recipe(RECIPE, "known.toml")
    spoken_of = 0
    list(Extraction(tmp_path / "videos", recipe, tmp_path / "whole"))
    for number in (1, 2, 3):
        run = Extraction(tmp_path / "videos", recipe, tmp_path / "out", partition=Partition(number, 3))
        list(run)
        found = read_status(tmp_path / "out", run.inputs)
        assert found.inputs is not None
        assert {end.video_id for end in found.inputs.troubles} <= {file.video_id for file in run.inputs.videos}
        assert not any(found.inputs.left.values())
        spoken_of += sum(found.inputs.streams["numbers"].counts.values())
        assert sum(found.streams["numbers"].counts.values()) == spoken_of, "the store's own counts come first"
    assert spoken_of == 7
    assert stored_rows(tmp_path / "out") == stored_rows(tmp_path / "whole")
    found = read_status(tmp_path / "out")
    assert found.inputs is not None
    assert found.inputs.left["numbers"] == 0


def test_merged_stores_of_parts_equal_the_store_of_one_run(tmp_path):
    """Merge stores by copying their files, as docs/scale.md describes: no two files have the same name."""
    (tmp_path / "videos").mkdir()
    for name in "abcdef":
        write_clip(tmp_path / "videos" / f"{name}.mp4", Clip(num_frames=16))
    recipe = parse_recipe(RECIPE, "known.toml")
    list(Extraction(tmp_path / "videos", recipe, tmp_path / "whole"))
    for number in (1, 2):
        list(Extraction(tmp_path / "videos", recipe, tmp_path / f"part-{number}", partition=Partition(number, 2)))
    for number in (2, 1):
        subprocess.run(["cp", "-r", f"{tmp_path}/part-{number}/.", tmp_path / "out"], check=True)
    assert stored_rows(tmp_path / "out") == stored_rows(tmp_path / "whole")
    assert check_store(tmp_path / "out").findings == []


SRUN = """#!/bin/sh
echo "$@"
"""


@pytest.mark.parametrize(
    ("array", "parts", "status", "expected"),
    [
        ({"ID": 3, "MIN": 1, "MAX": 16, "COUNT": 16}, None, 0, "extract v --out f --partition 3/16 --recipe pamfn"),
        ({"ID": 7, "MIN": 3, "MAX": 7, "COUNT": 2}, "16", 0, "extract v --out f --partition 7/16 --recipe pamfn"),
        ({"ID": 7, "MIN": 3, "MAX": 7, "COUNT": 2}, None, 1, "set PARTS to the total number of parts"),
        ({}, None, 2, "usage: sbatch --array=1-N"),
    ],
)
def test_the_array_script_gives_each_task_its_part(tmp_path, array, parts, status, expected):
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | ({"PARTS": parts} if parts else {})
    environment |= {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()}
    command = [SCRIPT, "v", "f", "--recipe", "pamfn"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == status, ran.stderr
    assert expected in ran.stdout + ran.stderr
