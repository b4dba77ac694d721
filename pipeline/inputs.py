"""Which files of a folder are videos, and under which id each one goes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..manifests.errors import ManifestError
from .records import FileState, RemotePath, VideoFile, state_of
from .store.folders import Root, as_root, is_url
from .store.urls import connect, modified_ns, reached

VIDEO_SUFFIXES = frozenset([".3g2", ".3gp", ".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mts", ".ts", ".webm"])
"""Of the containers that the decoders open."""
_AT_ONCE = 16
"""Requests under way to a web server, each of which takes 20 to 200 ms."""


@dataclass(frozen=True)
class Inputs:
    """What a folder holds: videos in the order of their ids, ids that several files claim, and the rest."""

    videos: tuple[VideoFile, ...]
    clashes: dict[str, tuple[Path | RemotePath, ...]]
    """Video id → the files that would share it; none of them is extracted."""
    num_other_files: int
    """Files without a video suffix; hidden files are not counted."""
    unlisted: tuple[str, ...] = ()
    """Folders that cannot be listed: nobody knows what is in them."""


def find_videos(*roots: Root) -> Inputs:
    """All videos below folders, links followed, and the files among ``roots``; an id counts from its own root.

    Raises `FileNotFoundError`, which names the root, where there is nothing at one, `StoreError` where a URL cannot be
    reached.
    """
    claims: defaultdict[str, dict[str, FileState | None]] = defaultdict(dict)
    others, unlisted = 0, list[str]()
    for root in map(as_root, roots):
        for name, path, state in _files_at(root, unlisted) if isinstance(root, Path) else _files_at_url(root):
            if path != str(root) and not _is_video(path):
                others += 1
            else:
                claims[_id_of(name)][path] = state
    return Inputs(
        videos=tuple(
            VideoFile(video_id, _place(path), state)
            for video_id, files in sorted(claims.items())
            for path, state in files.items()
            if len(files) == 1
        ),
        clashes={name: tuple(map(_place, sorted(files))) for name, files in sorted(claims.items()) if len(files) > 1},
        num_other_files=others,
        unlisted=tuple(unlisted),
    )


def file_sizes(videos: Iterable[VideoFile]) -> dict[str, float]:
    """Video id → bytes, by which the longest may come first; without those that cannot be looked at."""
    states = ((file.video_id, file.state or file.current_state) for file in videos)
    return {video_id: float(state.size_bytes) for video_id, state in states if state is not None}


def video_id(path: Path, root: Path) -> str:
    """Path below ``root`` without suffix, POSIX separators; bytes that are no UTF-8 are written as ``\\xNN``."""
    return _id_of(str(path.relative_to(root)))


def _id_of(name: str) -> str:
    stem = os.path.splitext(name)[0].replace(os.sep, "/")
    return os.fsencode(stem).decode("utf-8", errors="backslashreplace")


def _is_video(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES


def _files_at(root: Path, unlisted: list[str]) -> Iterator[tuple[str, str, FileState | None]]:
    """Name below the root, path and state of all files that are not hidden, or of the one that was named."""
    if root.is_dir():
        yield from _files_below(str(root), "", set(), unlisted)
    elif os.path.lexists(root):
        yield root.name, str(root), state_of(root)
    else:
        raise FileNotFoundError(root)


def _files_at_url(url: str) -> Iterator[tuple[str, str, FileState | None]]:
    """The same of a URL: one list of everything below it, however deep."""
    files, key = connect(url)
    found: dict[str, dict[str, Any]] = {}
    with reached(url), suppress(FileNotFoundError):  # some say so of a bucket that is not there
        found = files.find(key, detail=True)
        found |= _described(files, [path for path, entry in found.items() if entry.get("size") is None])
    if not found:
        raise FileNotFoundError(url)
    for path, entry in sorted(found.items()):
        name = path[len(key) :].lstrip("/")
        if not name.endswith("/") and not any(part.startswith(".") for part in name.split("/")):
            state = FileState(int(entry.get("size") or 0), modified_ns(entry), 0)
            yield (name, f"{url}/{name}", state) if name else (url.rpartition("/")[2], url, state)


def _described(files: Any, paths: list[str]) -> dict[str, dict[str, Any]]:
    """Size and time of files whose list does not tell: a web server is asked for each video."""
    videos = [path for path in paths if _is_video(path)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        told: dict[str, dict[str, Any]] = dict(zip(videos, pool.map(files.info, videos), strict=True))
    for path, entry in told.items():
        if entry.get("size") is None:
            raise ManifestError(f"{path}: its server does not say how large it is; download it and give its path")
    return told


def _place(path: str) -> Path | RemotePath:
    return RemotePath(path) if is_url(path) else Path(path)


def _files_below(
    folder: str, prefix: str, seen: set[tuple[int, int]], unlisted: list[str]
) -> Iterator[tuple[str, str, FileState | None]]:
    """Every entry that is no folder, each looked at once, while its folder is fresh in the file system's memory.

    A folder with a video's suffix counts as a file, so that it ends as a failure with a reason and not in silence. A
    loop of links is walked once. Adds to ``unlisted`` what cannot be listed.
    """
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as listing:
            entries = sorted((each for each in listing if not each.name.startswith(".")), key=lambda each: each.name)
    except OSError:
        unlisted.append(folder)
        return
    folders: list[os.DirEntry[str]] = []
    for entry in entries:
        if _is_folder(entry) and not _is_video(entry.name):
            folders.append(entry)
        else:
            yield prefix + entry.name, entry.path, _state_of_entry(entry)
    for entry in folders:
        yield from _files_below(entry.path, f"{prefix}{entry.name}{os.sep}", seen, unlisted)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """A link that leads to itself is none, and must not end the listing."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _state_of_entry(entry: os.DirEntry[str]) -> FileState | None:
    try:
        found = entry.stat()
    except OSError:
        return None
    return FileState(found.st_size, found.st_mtime_ns, found.st_ctime_ns)
