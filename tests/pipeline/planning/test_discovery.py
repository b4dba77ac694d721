"""Discovery of videos, and their ids."""

from __future__ import annotations

import os

import pytest

from arabesque.manifests.errors import InputError
from arabesque.manifests.recipes import load_recipe
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.planning.discovery import find_videos


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_ids_are_posix_paths_without_suffix(tmp_path):
    touch(tmp_path, "Ball_001.mp4", "day 2/Ball_001.AVI", "day 2/späth.webm", "notes.txt", ".hidden.mp4", ".git/x.mp4")
    inputs = find_videos(tmp_path)
    assert [video.video_id for video in inputs.videos] == ["Ball_001", "day 2/Ball_001", "day 2/späth"]
    assert inputs.num_other_files == 1
    assert inputs.clashes == {}


def test_two_files_with_the_same_id_are_both_left_out(tmp_path):
    touch(tmp_path, "a.mp4", "a.avi", "b.mp4")
    inputs = find_videos(tmp_path)
    assert [video.video_id for video in inputs.videos] == ["b"]
    assert [path.name for path in inputs.clashes["a"]] == ["a.avi", "a.mp4"]


def test_one_file_is_its_own_folder(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    assert [video.video_id for video in find_videos(tmp_path / "a.mp4").videos] == ["a"]


def test_dots_in_names_stay(tmp_path):
    touch(tmp_path, "v1.2.mp4")
    assert find_videos(tmp_path).videos[0].video_id == "v1.2"


def test_a_missing_or_empty_input_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        find_videos(tmp_path / "gone")


def test_links_are_followed_and_loops_are_not(tmp_path):
    touch(tmp_path, "store/a.mp4")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "link").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "store")
    assert [video.video_id for video in find_videos(tmp_path / "videos").videos] == ["link/a"]


def test_a_folder_named_like_a_video_and_a_dangling_link_are_reported(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "gone.mp4")
    assert [video.video_id for video in find_videos(tmp_path).videos] == ["dangling", "folder"]


def test_a_link_to_itself_does_not_hide_other_files(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    for name in ("a.mp4", "z.mp4"):
        touch(tmp_path, name)
    assert [video.video_id for video in find_videos(tmp_path).videos] == ["a", "loop", "z"]


def test_names_that_are_not_utf8_are_escaped(tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.mp4"), "wb"):
        pass
    assert find_videos(tmp_path).videos[0].video_id == "caf\\xe9"


def test_a_newline_in_a_name_is_kept(tmp_path):
    touch(tmp_path, "two\nlines.mp4")
    assert find_videos(tmp_path).videos[0].video_id == "two\nlines"


def test_several_places_are_one_input(tmp_path):
    for name in ("a/x.mp4", "a/deep/y.mp4", "b/x.mp4", "z.mkv", "odd.name"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_videos(tmp_path / "a", tmp_path / "z.mkv", tmp_path / "odd.name", tmp_path / "a" / "x.mp4")
    assert [video.video_id for video in found.videos] == ["deep/y", "odd", "x", "z"]
    assert found.clashes == {}
    clash = find_videos(tmp_path / "a", tmp_path / "b").clashes
    assert clash == {"x": (tmp_path / "a" / "x.mp4", tmp_path / "b" / "x.mp4")}
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_videos(tmp_path / "a", tmp_path / "nowhere")


def test_folders_that_cannot_be_listed_are_named(tmp_path, monkeypatch):
    for name in ("a", "locked", "z"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "video.mp4").touch()
    real = os.scandir

    def refuse(folder):
        if folder.endswith("locked"):
            raise PermissionError(13, "Permission denied", folder)
        return real(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_videos(tmp_path)
    assert [video.video_id for video in found.videos] == ["a/video", "z/video"]
    assert found.unlisted == (str(tmp_path / "locked"),)
    with pytest.raises(InputError, match=r"contains no videos, and .*locked cannot be listed"):
        Extraction(tmp_path / "locked", load_recipe("starter"), tmp_path / "out")


def test_names_of_many_kinds_of_video_and_files_that_are_not_read(tmp_path):
    """Files in unsupported formats are inputs, too: they fail with a reason instead of being ignored."""
    names = ["a.MTS", "b.m2ts", "c.MPG", "d.vob", "e.WMV", "f.flv", "g.ogv", "h.mxf", "i.rmvb", "j.h264", "k.dv"]
    touch(tmp_path, *names, "notes.txt", "x.npy", "music.ogg")
    inputs = find_videos(tmp_path)
    assert [video.path.name for video in inputs.videos] == names
    assert inputs.num_other_files == 3


def test_a_file_of_another_format_leaves_its_id_to_the_usual_one(tmp_path):
    touch(tmp_path, "a.mp4", "a.rm", "a.WMV", "b.rm", "b.wtv", "c.rm", "d.wmv")
    inputs = find_videos(tmp_path)
    assert [video.video_id for video in inputs.videos] == ["a", "a.WMV", "a.rm", "c", "d"]
    assert [path.name for path in inputs.clashes["b"]] == ["b.rm", "b.wtv"]


def test_videos_under_other_names_are_found_by_their_first_bytes(tmp_path):
    for name in ("clip", "clip.bak", "old.video", "download.mp4.part", "notes.txt", "picture.jpg"):
        (tmp_path / name).write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    (tmp_path / "plain").write_bytes(b"nothing to see")
    (tmp_path / "moves.gif").write_bytes(b"GIF89a" + bytes(20) + b"NETSCAPE2.0")
    (tmp_path / "still.gif").write_bytes(b"GIF89a" + bytes(20))
    (tmp_path / "moves.webp").write_bytes(b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\x02" + bytes(100))
    (tmp_path / "still.webp").write_bytes(b"RIFF\x40\0\0\0WEBPVP8 " + bytes(100))
    (tmp_path / "video.ogg").write_bytes(b"OggS" + bytes(24) + b"\x80theora" + bytes(100))
    (tmp_path / "music.ogg").write_bytes(b"OggS" + bytes(24) + b"\x01vorbis" + bytes(100))
    inputs = find_videos(tmp_path)
    found = {video.path.name: video.video_id for video in inputs.videos}
    assert found == {"clip.bak": "clip.bak", "old.video": "old", "video.ogg": "video"}
    assert {path.name for files in inputs.clashes.values() for path in files} == {
        *("clip", "clip.mp4", "moves.gif", "moves.webp")
    }


def test_only_few_of_many_other_files_are_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("arabesque.pipeline.planning.discovery.MAX_LOOKS", 3)
    for number in range(6):
        (tmp_path / f"clip{number}").write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    assert [video.video_id for video in find_videos(tmp_path).videos] == ["clip0", "clip1", "clip2"]
