"""The user's cache folder, and a check whether other users can have written a file in it."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import platformdirs

from ...manifests.errors import InputError


def user_cache() -> Path:
    """Return the folder of this package in the platform's cache folder, e.g. ``~/.cache/arabesque`` on Linux.

    Raises:
        InputError: The process has no home folder.
    """
    try:
        folder = platformdirs.user_cache_path("arabesque", appauthor=False)
    except RuntimeError:
        folder = Path()
    if not folder.is_absolute():
        raise InputError("the user's cache folder is not known; set HOME or XDG_CACHE_HOME to an absolute path")
    return folder


def is_private(path: Path) -> bool:
    """Return whether only this user or root can have written or replaced a file.

    The user or root must own the file, its folder and all folders above, and other users must not have write
    permission. In folders above the file's folder, write permission is accepted for a group whose only member is this
    user, and for sticky folders such as ``/tmp``, in which only owners may rename files. Symbolic links are not
    private. On Windows every file is private, because user folders are.
    """
    if sys.platform == "win32":
        return True
    folder = Path(os.path.abspath(path)).parent
    above = {*folder.parents, *Path(os.path.realpath(folder)).parents}
    try:
        file = os.lstat(path)
        return (
            not stat.S_ISLNK(file.st_mode)
            and not any(_others_may_write(each) for each in (file, os.stat(folder)))
            and not any(_others_may_write(os.stat(each), is_above=True) for each in above)
        )
    except OSError:
        return False


def _others_may_write(status: os.stat_result, *, is_above: bool = False) -> bool:
    """Return whether others may write. ``is_above``: whether they may rename this user's files in a folder above."""
    if status.st_uid not in (os.geteuid(), 0):
        return True
    if is_above and status.st_mode & stat.S_ISVTX:
        return False
    if is_above and not status.st_mode & stat.S_IWOTH and _is_of_one_user(status.st_gid):
        return False
    return bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _is_of_one_user(gid: int) -> bool:
    """Return whether this user is the only member of a group, as in the per-user groups of many Linux distributions."""
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return group.gr_name == user and set(group.gr_mem) <= {user}
