"""Labels are compared with videos before a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from arabesque.cli.label_check import check_labels, label_options
from arabesque.manifests.errors import InputError


def test_matched_and_unmatched_ids_are_counted(tmp_path: Path):
    labels = tmp_path / "scores.csv"
    labels.write_text("video_id,score\nball/a.mp4,1\nB,2\nlost,3\n")
    found = check_labels(labels, {"ball/a", "b", "new"}, None, None)
    assert (found.num_labels, found.num_matched) == (3, 2)
    assert (found.labels_without_video, found.videos_without_label) == (("lost",), ("new",))
    assert found.lines() == [
        f"{labels}: 2 of 3 labels have a video",
        "2 of 2 labels were matched to videos despite a different folder, suffix or case, for example 'ball/a.mp4' to "
        "'ball/a'",
        "1 label without a video: 'lost'",
        "1 video without a label: 'new'",
    ]


def test_long_lists_are_cut(tmp_path: Path):
    labels = tmp_path / "scores.csv"
    labels.write_text("video_id,score\n" + "".join(f"v{number},1\n" for number in range(2000)))
    (_, line) = check_labels(labels, {"v7"}, None, None).lines()
    assert line == "1,999 labels without a video: 'v0', 'v1', 'v2', 'v3', 'v4' and 1994 more"


def test_a_file_without_any_video_is_an_error(tmp_path: Path):
    labels = tmp_path / "scores.csv"
    labels.write_text("video_id,score\nx,1\n")
    with pytest.raises(InputError, match="none of its 1 labels has a video; a label is for example 'x', a video 'a'"):
        check_labels(labels, {"b", "a"}, None, None)


def test_the_next_command_has_the_same_labels():
    assert label_options(Path("my scores.csv"), "fisv", "TES") == "--labels 'my scores.csv' --dataset fisv --target TES"
    assert label_options(None, None, None) == ""
