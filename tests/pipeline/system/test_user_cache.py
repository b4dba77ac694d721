"""`is_private` recognizes files that other users may have written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from arabesque.pipeline.system.user_cache import is_private

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows files have no POSIX owner")

needs_root = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can chown files")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "above" / "folder" / "file"
    path.parent.mkdir(parents=True, mode=0o700)
    path.parent.parent.chmod(0o700)
    path.write_text("text")
    path.chmod(0o600)
    return path


def test_a_file_that_only_the_user_may_write_is_private(file):
    assert is_private(file)
    assert not is_private(file.with_name("not there"))


@pytest.mark.parametrize("bit", [0o002, 0o020])
@pytest.mark.parametrize("level", [0, 1])
def test_a_file_that_others_may_write_is_not_private(file, level, bit):
    place = [file, *file.parents][level]
    place.chmod(place.stat().st_mode | bit)
    assert not is_private(file)
    place.chmod(0o755)
    assert is_private(file)


@pytest.mark.parametrize(("mode", "private"), [(0o777, False), (0o1777, True), (0o755, True)])
def test_renaming_by_others_in_a_folder_above(file, mode, private):
    file.parent.parent.chmod(mode)
    assert is_private(file) == private
    file.parent.chmod(0o1777)
    assert not is_private(file), "others could add files here"


@needs_root
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_file_of_another_user_is_not_private(file, level):
    os.chown([file, *file.parents][level], 12345, -1)
    assert not is_private(file)


@needs_root
def test_a_group_of_this_user_alone_may_write_above_the_folder(file):
    above = file.parent.parent
    above.chmod(0o770)
    assert is_private(file)
    os.chown(above, -1, 12345)
    assert not is_private(file)


def test_a_link_to_the_folder_is_private_if_both_places_are(file, tmp_path):
    (tmp_path / "links").mkdir(mode=0o700)
    link = tmp_path / "links" / "folder"
    link.symlink_to(file.parent)
    assert is_private(link / "file")
    (tmp_path / "links").chmod(0o777)
    assert not is_private(link / "file")
    (tmp_path / "links").chmod(0o700)
    file.parent.parent.chmod(0o777)
    assert not is_private(link / "file")


def test_a_link_itself_is_not_private(file, tmp_path):
    (file.parent / "link").symlink_to(file)
    assert not is_private(file.parent / "link")
