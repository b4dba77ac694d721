"""Inputs of a run: several places, patterns, lists, filters and a maximum number."""

from __future__ import annotations

import io
import os
import sys
from types import SimpleNamespace

import pytest

from arabesque.manifests.errors import InputError
from arabesque.pipeline.planning.selection import InputSelection, find_inputs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with five videos in ``videos`` and a note."""
    for name in ("ball/1.mp4", "ball/2.mp4", "hoop/1.mp4", "hoop/warm up.avi", "top.webm", "notes.txt"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ids(*places, **options):
    return [video.video_id for video in find_inputs(InputSelection(places, **options)).videos]


def sources(*places, **options):
    return [f"{one.input_root}/{one.source}" for one in find_inputs(InputSelection(places, **options)).videos]


def test_several_places(folder):
    assert ids("videos/ball", "videos/top.webm") == ["1", "2", "top"]
    assert sources("videos/top.webm") == [str(folder / "videos" / "top.webm")]


def test_one_file_name_in_two_places_is_a_clash_that_names_both(folder):
    inputs = find_inputs(InputSelection(("videos/ball", "videos/hoop/1.mp4")))
    assert [video.video_id for video in inputs.videos] == ["2"]
    assert sorted(map(str, inputs.clashes["1"])) == ["videos/ball/1.mp4", "videos/hoop/1.mp4"]


def test_ids_of_a_pattern_begin_behind_the_folder_before_its_first_wildcard(folder):
    assert ids("videos/*/1.mp4") == ["ball/1", "hoop/1"]
    assert ids("videos/**/*.mp4") == ["ball/1", "ball/2", "hoop/1"]
    assert ids(str(folder / "videos" / "ba*")) == ["ball/1", "ball/2"]  # matches a folder
    assert ids("videos/*") == ["ball/1", "ball/2", "hoop/1", "hoop/warm up", "top"]  # not the note
    assert sources("videos/*/2.mp4") == sources("videos", include=("*/2.mp4",))


def test_a_file_whose_name_has_wildcards_is_that_file(folder):
    (folder / "a[1].mp4").write_bytes(b"x")
    assert ids("a[1].mp4") == ["a[1]"]


def test_a_list_of_paths(folder):
    lines = ["# a comment", "", "videos/ball/1.mp4", "  ./videos/hoop/warm up.avi  ", str(folder / "videos/top.webm")]
    (folder / "list.txt").write_text("\r\n".join(lines))
    assert ids(list_file="list.txt") == ["top", "videos/ball/1", "videos/hoop/warm up"]
    assert sources(list_file="list.txt") == [
        str(folder / "videos" / name) for name in ("top.webm", "ball/1.mp4", "hoop/warm up.avi")
    ]
    assert find_inputs(InputSelection(list_file="list.txt")).is_selection


def test_paths_of_a_list_are_relative_to_its_folder_or_else_to_the_current_one(folder):
    (folder / "videos" / "list.txt").write_text("ball/1.mp4\nvideos/ball/2.mp4\n../videos/top.webm\nhoop\n")
    assert ids(list_file="videos/list.txt") == ["ball/1", "hoop/1", "hoop/warm up", "top", "videos/ball/2"]


def test_a_list_from_standard_input(folder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"videos/top.webm\n")))
    assert ids(list_file="-") == ["videos/top"]


def test_a_name_in_a_list_may_hold_any_byte(folder):
    (folder / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")
    (folder / "list.txt").write_bytes(b"\xef\xbb\xbfcaf\xe9.mp4\n")
    assert ids(list_file="list.txt") == ["caf\\xe9"]


def test_missing_files_of_a_list_are_videos_that_fail(folder):
    (folder / "list.txt").write_text("videos/top.webm\nvideos/gone.mp4\n")
    inputs = find_inputs(InputSelection(list_file="list.txt"))
    assert [(video.video_id, video.state is None) for video in inputs.videos] == [
        ("videos/gone", True),
        ("videos/top", False),
    ]
    assert inputs.missing == ("videos/gone.mp4",)
    assert find_inputs(InputSelection(list_file="list.txt", exclude=("*gone*",))).missing == ()


def test_include_exclude_and_limit(folder):
    assert ids("videos", include=("*.mp4",)) == ["ball/1", "ball/2", "hoop/1"]
    assert ids("videos", include=("1.mp4", "top")) == ["ball/1", "hoop/1", "top"]
    assert ids("videos", exclude=("ball", "warm*")) == ["hoop/1", "top"]
    assert ids("videos", include=("ball/*",), exclude=("*2*",)) == ["ball/1"]
    assert ids("videos", limit=2) == ["ball/1", "ball/2"]
    assert ids("videos", limit=99) == ids("videos")
    assert ids("videos", include=("p/ball/*",), id_prefix="p") == ["p/ball/1", "p/ball/2"]
    assert find_inputs(InputSelection(("videos",), limit=2)).is_selection
    assert not find_inputs(InputSelection(("videos",))).is_selection


@pytest.mark.parametrize(
    ("selection", "problem"),
    [
        (InputSelection(), "no videos are given"),
        (InputSelection(("nowhere",)), "nowhere: no such folder or file"),
        (InputSelection(("videos/*.mov",)), r"videos/\*.mov: nothing matches this pattern"),
        (InputSelection(("videos",), include=("*.MP4",)), r"--include \*.MP4: leaves none of 5 videos"),
        (InputSelection(list_file="nowhere.txt"), "nowhere.txt: the file does not exist"),
        (InputSelection(list_file="videos"), "videos: is a folder"),
        (InputSelection(list_file="empty.txt"), "empty.txt: the list is empty"),
        (InputSelection(list_file="binary.txt"), "binary.txt: is not a text file"),
        (InputSelection(list_file="gone.txt"), "gone.txt: does not name an existing file: gone.mp4"),
        (InputSelection(("https://www.youtube.com/watch?v=dQw4w9WgXcQ",)), "is a web page.*such as yt-dlp"),
        (InputSelection(("https://youtu.be/dQw4w9WgXcQ",)), "is a web page.*such as yt-dlp"),
        (InputSelection(list_file="page.txt"), "is a web page.*such as yt-dlp"),
    ],
)
def test_wrong_inputs(folder, selection, problem):
    (folder / "empty.txt").write_text("\n# nothing\n")
    (folder / "binary.txt").write_bytes(b"\0\1")
    (folder / "gone.txt").write_text("gone.mp4\n")
    (folder / "page.txt").write_text("https://m.bilibili.com/video/BV1\n")
    with pytest.raises(InputError, match=problem) as raised:
        find_inputs(selection)
    assert "\n" not in str(raised.value)


def test_a_long_list_is_read_with_one_stat_per_file(folder, monkeypatch):
    """The time of 100,000 lines is measured in benchmarks; a test counts the calls of the system."""
    (folder / "list.txt").write_text(
        "".join(f"videos/many/{number}.mp4\n" for number in range(2000)) + "videos/top.webm"
    )
    calls = 0
    real = os.stat

    def counted(*arguments, **options):
        nonlocal calls
        calls += 1
        return real(*arguments, **options)

    monkeypatch.setattr(os, "stat", counted)
    assert len(find_inputs(InputSelection(list_file="list.txt")).missing) == 2000
    assert calls < 100
