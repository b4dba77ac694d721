"""A video file as bytes: its digest, and the detection of changes, so that the digest is that of the decoded frames."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from ...manifests.errors import DecodeError
from ..records import FileState

MAX_ZEROS_BYTES = 1 << 30
"""FFmpeg reads zeros at 50 to 100 MB/s without reporting progress. A decoder process counts as hung after a minute."""
_BLOCK_BYTES = 1 << 20
_FEW_ZEROS_BYTES = 16 << 20
"""Containers reserve less than this for tables that they write later."""
_TICK_S, _COARSE_TICK_S = 0.02, 2.0
"""Resolution of file times: of most file systems, and of file systems with times in whole seconds."""
_MAX_WAITS = 10
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags for opening a file. With O_NONBLOCK, opening a FIFO does not wait for its writer."""
_VERSION = attrgetter("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
"""Properties that change with a file's content; the last three are its `FileState`."""


class FileChangedError(Exception):
    """The file has changed since it was opened."""


@dataclass(frozen=True)
class Content:
    """Digest, size and zeros of a file, from one pass over its bytes."""

    digest: str
    """SHA-256, hexadecimal."""
    size_bytes: int
    longest_zeros_bytes: int
    """Longest sequence of whole MiB with only zeros, in bytes."""

    @property
    def never_written(self) -> str:
        """Reason why a file with many zeros, such as an incomplete download, is rejected; otherwise empty.

        Downloaders reserve the whole length at once. Uncompressed black pictures are zeros, too, but there are headers
        between them.
        """
        zeros = self.longest_zeros_bytes
        if zeros <= MAX_ZEROS_BYTES and (zeros <= _FEW_ZEROS_BYTES or 2 * zeros <= self.size_bytes):
            return ""
        return (
            f"{zeros / 2**20:,.0f} MiB of its {self.size_bytes / 2**20:,.0f} are zeros in a row: it was never written "
            "to its end; get the whole file and run again"
        )


def read_content(file: Path | int) -> Content:
    """Read a file once. ``file``: a path, or a descriptor, which stays open."""
    if isinstance(file, int):
        os.lseek(file, 0, os.SEEK_SET)
    digest, block, nothing = hashlib.sha256(), memoryview(bytearray(_BLOCK_BYTES)), bytes(_BLOCK_BYTES)
    size = zeros = longest = 0
    with open(file, "rb", buffering=0, closefd=isinstance(file, Path)) as opened:
        while count := opened.readinto(block):
            digest.update(block[:count])
            size += count
            zeros = zeros + count if block[:count] == nothing[:count] else 0  # pyright: ignore[reportUnnecessaryComparison]
            longest = max(longest, zeros)
    return Content(digest.hexdigest(), size, longest)


def content_digest(path: Path) -> str:
    """Return the SHA-256 of the bytes, hexadecimal."""
    return read_content(path).digest


def check_file(path: Path) -> None:
    """Raise `DecodeError` for anything except a regular, readable file that is not empty.

    It must be called before the file is opened: opening a FIFO waits for a writer, possibly forever.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise DecodeError(f"{path}: {error.strerror}; check the path") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file (a pipe, socket or device)"
        raise DecodeError(f"{path}: is {kind}; give video files")
    if status.st_size == 0:
        raise DecodeError(f"{path}: is empty (0 bytes); get the file again")
    if not os.access(path, os.R_OK):
        raise DecodeError(f"{path}: permission denied; make it readable")


class WatchedFile:
    """A regular file that stays open, so that its inode number is not reused.

    Opening waits a few milliseconds if the file was changed just before, because another change within the same tick of
    the file system's clock would not change the file's times.

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
            for _ in range(_MAX_WAITS):
                found = os.fstat(self.descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise OSError(0, "not a regular file")
                self._version = _VERSION(found)
                self.state = FileState(*self._version[2:])
                """Size and times when the file was opened."""
                is_coarse = found.st_mtime_ns % 10**9 == found.st_ctime_ns % 10**9 == 0
                tick_s = _COARSE_TICK_S if is_coarse else _TICK_S
                age_s = (time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns)) / 1e9
                if not -_COARSE_TICK_S < age_s < tick_s:  # a larger difference is between the clocks
                    return
                time.sleep(tick_s - max(0.0, age_s))
            raise FileChangedError
        except BaseException:
            os.close(self.descriptor)
            raise

    def check(self) -> None:
        """Raise `FileChangedError` if the path refers to another file or the file has changed."""
        with suppress(OSError):  # opening a file makes network file systems refresh its times
            os.close(os.open(self._path, _OPEN))
        try:
            found = os.stat(self._path)
        except OSError:
            raise FileChangedError from None
        if _VERSION(found) != self._version:
            raise FileChangedError

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)
