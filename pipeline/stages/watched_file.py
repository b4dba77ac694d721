"""Detection of files that are replaced or written to while they are read, so that a digest matches the frames."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..decoding.frame_folders import folder_state
from ..records import FileState

_TICK_S, _COARSE_TICK_S = 0.02, 2.0
"""Resolution of file times: of most file systems, and of those with times in whole seconds."""
_MAX_WAITS = 10
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags for opening a file; O_NONBLOCK does not wait for the writer of a FIFO."""


class FileChangedError(Exception):
    """The file has changed since it was opened."""


class _Version(NamedTuple):
    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int


class WatchedFile:
    """A regular file that stays open, so that its inode number is not reused.

    Opening waits a few milliseconds if the file was changed just before, because another change within the same tick
    of the file system's clock would not change its times.

    Args:
        path: The file.

    Raises:
        OSError: The path cannot be opened or is not a regular file.
        FileChangedError: A program is writing to the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.descriptor = os.open(path, _OPEN)
        try:
            self._version = _settled_version(self.descriptor)
            self.state = FileState(*self._version[2:])
            """Size and times when the file was opened."""
        except BaseException:
            os.close(self.descriptor)
            raise

    def check(self) -> None:
        """Raise `FileChangedError` if the path refers to another file or the file has changed."""
        with suppress(OSError):  # opening makes network file systems refresh the times
            os.close(os.open(self._path, _OPEN))
        try:
            found = os.stat(self._path)
        except OSError:
            raise FileChangedError from None
        if _version(found) != self._version:
            raise FileChangedError

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)


class WatchedFolder:
    """A folder of frames, whose images must not change while they are read.

    Args:
        path: The folder.

    Raises:
        OSError: The folder or an image cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.state = folder_state(path)

    def check(self) -> None:
        """Raise `FileChangedError` if an image was changed, added or removed."""
        try:
            state = folder_state(self._path)
        except OSError:
            raise FileChangedError from None
        if state != self.state:
            raise FileChangedError

    def close(self) -> None:
        """Do nothing: no file stays open."""


def _version(found: os.stat_result) -> _Version:
    return _Version(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _settled_version(descriptor: int) -> _Version:
    for _ in range(_MAX_WAITS):
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "not a regular file")
        version = _version(found)
        newest_ns = max(version.modified_ns, version.changed_ns)
        is_coarse = version.modified_ns % 10**9 == version.changed_ns % 10**9 == 0
        tick_s = _COARSE_TICK_S if is_coarse else _TICK_S
        age_s = (time.time_ns() - newest_ns) / 1e9
        if not -_COARSE_TICK_S < age_s < tick_s:  # a larger difference is a difference of clocks
            return version
        time.sleep(tick_s - max(0.0, age_s))
    raise FileChangedError
