"""Which files of a folder are videos, and under which id each one goes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .records import VideoFile

VIDEO_SUFFIXES = frozenset([".3g2", ".3gp", ".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mts", ".ts", ".webm"])
"""Of the containers that the decoders open."""


@dataclass(frozen=True)
class Inputs:
    """What a folder holds: videos in the order of their ids, ids that several files claim, and the rest."""

    videos: tuple[VideoFile, ...]
    clashes: dict[str, tuple[Path, ...]]
    """Video id → the files that would share it; none of them is extracted."""
    num_other_files: int
    """Files without a video suffix; hidden files are not counted."""


def find_videos(*roots: Path) -> Inputs:
    """All videos below folders, links followed, and the files among ``roots``; an id counts from its own root.

    Raises `FileNotFoundError`, which names the root, where there is nothing at one.
    """
    claims: defaultdict[str, set[Path]] = defaultdict(set)
    others = 0
    for root in roots:
        files, videos = _files_at(root)
        others += len(files) - len(videos)
        folder = root if root.is_dir() else root.parent
        for path in videos:
            claims[video_id(path, folder)].add(path)
    return Inputs(
        videos=tuple(VideoFile(name, *paths) for name, paths in sorted(claims.items()) if len(paths) == 1),
        clashes={name: tuple(sorted(paths)) for name, paths in sorted(claims.items()) if len(paths) > 1},
        num_other_files=others,
    )


def _files_at(root: Path) -> tuple[list[Path], list[Path]]:
    """All files that are not hidden, and those of them that are videos; a file that was named is one in any case."""
    if root.is_dir():
        files = [path for path in _files_below(root) if not path.name.startswith(".")]
        return files, [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    if not os.path.lexists(root):
        raise FileNotFoundError(root)
    return [root], [root]


def file_sizes(videos: Iterable[VideoFile]) -> dict[str, float]:
    """Video id → bytes, by which the longest may come first; without those that cannot be read."""
    sizes: dict[str, float] = {}
    for file in videos:
        with suppress(OSError):
            sizes[file.video_id] = file.path.stat().st_size
    return sizes


def video_id(path: Path, root: Path) -> str:
    """Path below ``root`` without suffix, POSIX separators; bytes that are no UTF-8 are written as ``\\xNN``."""
    name = path.relative_to(root).with_suffix("").as_posix()
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def _files_below(root: Path) -> Iterator[Path]:
    """Every entry that is no folder, sorted within its folder; a loop of links is walked once.

    A folder with a video's suffix counts as a file, so that it ends as a failure with a reason and not in silence.
    """
    seen: set[tuple[int, int]] = set()
    for folder, names, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            names.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        videos_by_name = [name for name in names if Path(name).suffix.lower() in VIDEO_SUFFIXES]
        names[:] = sorted(name for name in names if name not in videos_by_name and not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files + videos_by_name))
