"""Discovery of videos in folders and at URLs, and their ids."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from posixpath import basename, normpath
from typing import Any
from urllib.parse import urlsplit

from ...manifests.errors import InputError
from ...manifests.urls import is_web_address, join_url, public_url, split_query
from ..decoding.frame_folders import folder_state, is_image
from ..decoding.signatures import (
    OTHER_SUFFIXES,
    READ_SUFFIXES,
    SOMETIMES_VIDEO_SUFFIXES,
    UNREAD_SUFFIXES,
    format_of,
    head_of,
    is_moving,
)
from ..records import FileState, RemotePath, VideoFile, state_of
from ..store.clip_columns import ClipColumns
from ..store.files.storage import StorePath, as_store_path, is_url
from ..store.files.urls import connect, modified_ns, network_errors

VIDEO_SUFFIXES = READ_SUFFIXES | UNREAD_SUFFIXES
"""Suffixes of files that count as videos and are not opened to check this."""
_FIRST_SUFFIXES = frozenset([".3g2", ".3gp", ".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mts", ".ts", ".webm"])
"""Suffixes of common containers. If several files would have the same id, such a file has it."""
MAX_LOOKS = 1000
"""Maximum number of files with other suffixes whose first bytes are read: a folder may have 100,000 of them."""
_NOT_YET_VIDEOS = frozenset([".aria2", ".crdownload", ".download", ".filepart", ".part", ".partial", ".tmp", ".ytdl"])
"""Suffixes of incomplete downloads."""
MAX_WEB_DEPTH = 32
MAX_WEB_FOLDERS = 20_000
"""Limits for a folder on a web server. Its links may form a circle on the server's disk, or lead to generated pages."""
MAX_NAMED = 3
"""Maximum number of paths in a message."""
_VIDEO_PAGES = re.compile(
    r"(.*\.)?(youtube(-nocookie)?\.com|youtu\.be|vimeo\.com|dailymotion\.com|bilibili\.com|b23\.tv|tiktok\.com|"
    r"facebook\.com|fb\.watch|instagram\.com|twitter\.com|x\.com|twitch\.tv|olympics\.com)"
)
"""Hosts of web pages that play videos. Addresses of such pages are not those of video files."""
_AT_ONCE = 16
"""Concurrent requests to a web server, each of which takes 20 to 200 ms."""


@dataclass(frozen=True)
class Inputs:
    """Videos of one or several inputs in the order of their ids, ids of several files, and other files."""

    videos: tuple[VideoFile, ...]
    clashes: dict[str, tuple[Path | RemotePath, ...]]
    """Video id → the files that would have this id; they are not extracted."""
    num_other_files: int
    """Number of files without a video suffix, except hidden files."""
    num_images: int = 0
    """Number of images among these files."""
    unlisted: tuple[str, ...] = ()
    """Folders that cannot be listed, so that their videos are unknown."""
    missing: tuple[str, ...] = ()
    """Files and folders of a list that do not exist. Each missing file is also one of the videos, and fails."""
    is_selection: bool = False
    """Whether the videos are only some of those in the folders, because of a list, a pattern or a filter."""
    columns: ClipColumns | None = None
    """The table of the clips; None for whole videos."""


def inputs_entry(inputs: Inputs, roots: Sequence[StorePath], id_prefix: str, num_videos: int) -> dict[str, Any]:
    """Return the record of a run's inputs in the manifest of a store."""
    places = () if inputs.is_selection else roots
    folders = [str(root.resolve()) if isinstance(root, Path) else public_url(root) for root in places]
    entry: dict[str, Any] = {"folder": folders[0] if len(folders) == 1 else "", "videos": num_videos}
    return entry | ({"id_prefix": id_prefix} if id_prefix else {})


@dataclass(frozen=True, slots=True)
class ListedRoot:
    """A file, folder or URL in a list or pattern. It may not exist."""

    place: StorePath
    name: str
    """Path below ``folder`` with suffix and POSIX separators, which determines the ids; a file name for other paths."""
    folder: StorePath
    """Folder or URL to which ``name`` is relative."""
    ignores_others: bool = False
    """Whether files that are not videos are ignored. Otherwise such a file counts as a video, and fails."""


def find_videos(*roots: StorePath | ListedRoot, id_prefix: str = "", frame_rate: float | None = None) -> Inputs:
    """Find all videos below folders and URLs. Links are followed.

    Args:
        roots: Folders, files and URLs. A video's id is its path below its root, without suffix.
        id_prefix: Precedes every id as ``id_prefix/…``; see `checked_id_prefix`.
        frame_rate: Also find folders of frames (`frame_folders`), and empty folders, which fail. None: find files only.

    Raises:
        FileNotFoundError: A root that is not in a list does not exist; the message is the root.
        InputError: The links of a web folder are deeper than `MAX_WEB_DEPTH`, or lead to too many folders.
        StoreError: A URL cannot be reached.
    """
    claims: defaultdict[str, dict[str, VideoFile]] = defaultdict(dict)
    found = files_at(roots, frame_rate)
    for _, file in found.files:
        video_id = f"{id_prefix}/{file.video_id}" if id_prefix else file.video_id
        claims[video_id][str(file.path)] = replace(file, video_id=video_id) if id_prefix else file
    # An original or a preview beside an MP4 file must not get the id of a video that was extracted before: if one of
    # several files with the same id has a suffix of `_FIRST_SUFFIXES`, the ids of the others end with their suffix.
    files_of: defaultdict[str, dict[str, VideoFile]] = defaultdict(dict)
    for video_id, files in claims.items():
        first = {path for path, file in files.items() if _suffix(file.path.name) in _FIRST_SUFFIXES}
        for path, file in files.items():
            added = os.path.splitext(_as_text(file.path.name))[1] if first and path not in first else ""
            files_of[video_id + added][path] = replace(file, video_id=video_id + added)
    return Inputs(
        videos=tuple(file for _, files in sorted(files_of.items()) for file in files.values() if len(files) == 1),
        clashes={
            name: tuple(files[path].path for path in sorted(files))
            for name, files in sorted(files_of.items())
            if len(files) > 1
        },
        num_other_files=found.num_others,
        num_images=found.num_images,
        unlisted=tuple(found.unlisted),
        missing=tuple(found.missing),
    )


@dataclass
class FoundFiles:
    """The videos at some roots."""

    files: list[tuple[StorePath | ListedRoot, VideoFile]] = field(
        default_factory=list[tuple["StorePath | ListedRoot", VideoFile]]
    )
    """The root of each file, and the file. Several files may have the same id."""
    num_others: int = 0
    num_images: int = 0
    unlisted: list[str] = field(default_factory=list[str])
    missing: list[str] = field(default_factory=list[str])


def files_at(roots: Sequence[StorePath | ListedRoot], frame_rate: float | None = None) -> FoundFiles:
    """Find the videos at each root; see `find_videos`."""
    found, look, real_folder = FoundFiles(), _Looks(MAX_LOOKS), cache(_real_folder)
    for root, listing in _listings(roots, found.unlisted):
        place = root.place if isinstance(root, ListedRoot) else root
        given, is_local = str(place), isinstance(place, Path)
        if listing is None:
            found.missing.append(public_url(place))
            listing = [(basename(given), given, None if is_local else FileState(0, 0, 0))]
        for name, path, state in listing:
            is_given = path == given and not (isinstance(root, ListedRoot) and root.ignores_others)
            if not (is_given or _suffix(name) in VIDEO_SUFFIXES or (is_local and look(path, state))):
                is_frame = is_image(basename(name))
                found.num_images += is_frame
                found.num_others += not (is_frame and frame_rate is not None)
                continue
            if isinstance(root, ListedRoot):
                folder = real_folder(root.folder)
                name = root.name if path == given else "/".join(filter(None, (root.name, name)))
            elif path == given:
                folder = real_folder(place.parent if isinstance(place, Path) else place.rpartition("/")[0])
            else:
                folder = real_folder(place)
            place_of_file = RemotePath(path) if is_url(path) else Path(path)
            video_id = _as_text(os.path.splitext(name)[0])
            found.files.append((root, VideoFile(video_id, place_of_file, state, _as_text(name), folder)))
        if frame_rate is not None and isinstance(place, Path) and place.is_dir():
            for path in _frame_folders(place, set()):
                below = path.relative_to(place).as_posix()
                if isinstance(root, ListedRoot) and (root.name or below != "."):
                    names, above = [root.name, *([] if below == "." else [below])], root.folder
                else:
                    names, above = (
                        ([place.resolve().name], place.resolve().parent) if below == "." else ([below], place)
                    )
                name = _as_text("/".join(filter(None, names)))
                file = VideoFile(name, path, _folder_state(path), name, real_folder(above), frame_rate=frame_rate)
                found.files.append((root, file))
    return found


def _frame_folders(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield the folders below a folder that contain images or nothing. Loops of links are followed once."""
    try:
        status = os.stat(folder)
        entries = sorted((each for each in os.scandir(folder) if each.name[0] != "."), key=lambda each: each.name)
    except OSError:
        return  # reported as a folder that cannot be listed
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    if not entries or any(is_image(entry.name) for entry in entries):
        yield folder
    for entry in entries:
        if _is_folder(entry):
            yield from _frame_folders(folder / entry.name, seen)


def _folder_state(folder: Path) -> FileState | None:
    try:
        return folder_state(folder)
    except OSError:
        return None


_Listing = Iterable[tuple[str, str, FileState | None]]


def _listings(
    roots: Sequence[StorePath | ListedRoot], unlisted: list[str]
) -> Iterator[tuple[StorePath | ListedRoot, _Listing | None]]:
    """Yield each root with its files; None for a root in a list that does not exist.

    URLs in a list are requested concurrently.
    """

    def at_url(root: ListedRoot) -> _Listing | None:
        try:
            return list(_files_at_url(str(root.place), unlisted))
        except FileNotFoundError:
            return None

    urls = [root for root in roots if isinstance(root, ListedRoot) and not isinstance(root.place, Path)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        requested = pool.map(at_url, urls) if urls else iter(())
        for root in roots:
            if not isinstance(root, ListedRoot):
                root = as_store_path(root)
                yield root, _files_at(root, unlisted) if isinstance(root, Path) else _files_at_url(root, unlisted)
            elif isinstance(root.place, Path):
                yield root, _files_at(root.place, unlisted) if os.path.lexists(root.place) else None
            else:
                yield root, next(requested)


def _real_folder(folder: StorePath) -> str:
    """Return the real path of a folder, or a URL without credentials."""
    return _as_text(public_url(folder) if is_url(str(folder)) else str(Path(folder).resolve()))


@dataclass
class _Looks:
    """Recognizes videos without a video suffix by their first bytes; opens at most `MAX_LOOKS` files."""

    num_left: int

    def __call__(self, path: str, state: FileState | None) -> bool:
        suffix = _suffix(path)
        if suffix in OTHER_SUFFIXES or suffix in _NOT_YET_VIDEOS or state is None or not state.size_bytes:
            return False
        if not self.num_left or not os.path.isfile(path):
            return False
        self.num_left -= 1
        try:
            head = head_of(Path(path))
        except OSError:
            return False
        if suffix in SOMETIMES_VIDEO_SUFFIXES:
            return is_moving(head)
        known = format_of(head)
        return known is not None and known.is_video


def required_videos(
    roots: Sequence[StorePath | ListedRoot], id_prefix: str = "", frame_rate: float | None = None
) -> Inputs:
    """Find all videos like `find_videos`. Raises `InputError` if there are none."""
    try:
        inputs = find_videos(*roots, id_prefix=id_prefix, frame_rate=frame_rate)
    except FileNotFoundError as error:
        raise InputError(_nothing_at(str(error))) from None
    if not inputs.videos and not inputs.clashes:
        places = [public_url(root.place if isinstance(root, ListedRoot) else root) for root in roots[:MAX_NAMED]]
        more = f" and {len(roots) - MAX_NAMED} more" if len(roots) > MAX_NAMED else ""
        others = f" among its {inputs.num_other_files} files" if inputs.num_other_files else ""
        others += f", and {inputs.unlisted[0]} cannot be listed" if inputs.unlisted else ""
        where = ", ".join(places) + more
        if inputs.num_images and frame_rate is None:
            raise InputError(
                f"{where}: contains no videos, but {inputs.num_images:,} images; for folders of frames, give "
                "their rate (--frame-rate 25)"
            )
        raise InputError(f"{where}: contains no videos{others}; give a folder with .mp4, .avi, .webm, … files")
    return inputs


def _nothing_at(place: str) -> str:
    if is_url(place):
        return f"{place}: no file or folder exists at this address; check it"
    return f"{place}: no such folder or file; check the path"


def checked_id_prefix(text: str) -> str:
    """Return a prefix for video ids: one or more names, separated by ``/``. Raises `InputError` for other texts."""
    names = text.split("/")
    if not text.isprintable() or "\\" in text or any(name.strip() in ("", ".", "..") for name in names):
        raise InputError(f"--id-prefix {text!r}: is not a name; give one or more names, such as fisv or fisv/2024")
    return text


def file_sizes(videos: Iterable[VideoFile]) -> dict[str, float]:
    """Return video id → size in bytes, without files whose size is unknown."""
    states = ((file.video_id, file.state or file.current_state) for file in videos)
    return {video_id: float(state.size_bytes) for video_id, state in states if state is not None}


def video_id(path: Path, root: Path) -> str:
    """Return the path below ``root`` without suffix, with POSIX separators and bytes outside UTF-8 as ``\\xNN``."""
    return _as_text(os.path.splitext(path.relative_to(root))[0])


def _as_text(name: str) -> str:
    return os.fsencode(name.replace(os.sep, "/")).decode("utf-8", errors="backslashreplace")


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _files_at(root: Path, unlisted: list[str]) -> Iterator[tuple[str, str, FileState | None]]:
    """Yield name below the root, path and state of all files that are not hidden, or of the given file."""
    if root.is_dir():
        yield from _files_below(str(root), "", set(), unlisted)
    elif os.path.lexists(root):
        yield root.name, str(root), state_of(root)
    else:
        raise FileNotFoundError(root)


def _files_at_url(url: str, unlisted: list[str]) -> Iterator[tuple[str, str, FileState | None]]:
    """Yield the same properties of all files below a URL. Names have no query."""
    if is_web_address(url):
        _refuse_video_page(url)
    files, key = connect(url)
    found: dict[str, dict[str, Any]] = {}
    is_web = is_web_address(url)
    with suppress(FileNotFoundError), network_errors(url):  # some services report a missing bucket this way
        listed: dict[str, dict[str, Any]] = {}
        if not is_web:
            listed = files.find(key, detail=True)
        elif _suffix(key) not in VIDEO_SUFFIXES:
            listed = _files_of_web_folder(files, key, unlisted)
        if is_web and not listed:
            listed = {key: {}}
        found = listed | _described(files, [path for path, entry in listed.items() if entry.get("size") is None], key)
    if not found:
        raise FileNotFoundError(public_url(url))
    for path, entry in sorted(found.items()):
        place, query = split_query(path) if is_web else (path, "")
        name = place[len(key) :].lstrip("/")
        state = FileState(int(entry.get("size") or 0), modified_ns(entry), 0)
        if path == key:
            yield public_url(url).rpartition("/")[2], url, state
        elif name and not path.endswith("/") and not any(part.startswith(".") for part in name.split("/")):
            yield name, path if query else join_url(url, name), state


def _refuse_video_page(url: str) -> None:
    """Raise `InputError` for a page of a web site that plays videos, before it is requested."""
    parts = urlsplit(url)
    is_file = _suffix(parts.path) in READ_SUFFIXES
    if parts.hostname and _VIDEO_PAGES.fullmatch(parts.hostname.lower()) and not is_file:
        raise InputError(
            f"{url}: is a web page, not a video file; download the video with a tool such as yt-dlp "
            "(yt-dlp -o 'videos/%(id)s.%(ext)s' ADDRESS), then give the file or its folder"
        )


def _files_of_web_folder(files: Any, root: str, unlisted: list[str]) -> dict[str, dict[str, Any]]:
    """Return the files to which the pages of a web folder and of the folders below it link."""
    found: dict[str, dict[str, Any]] = {}
    top = root.rstrip("/") + "/"
    seen, pending = {top}, [top]
    while pending:
        folder = pending.pop()  # the deepest first, so that a circle of links is detected after a few requests
        try:
            entries = files.ls(root if folder == top else folder, detail=True)
        except FileNotFoundError as error:
            cause: Any = error.__cause__
            if folder == top or (cause is not None and getattr(cause, "status", None) not in (404, 410)):
                raise
            unlisted.append(public_url(folder))
            continue
        for entry in entries:
            parts = urlsplit(str(entry["name"]))
            address = parts._replace(path=normpath(parts.path).rstrip("/") + "/").geturl()
            if entry["type"] != "directory":
                found[entry["name"]] = entry
            elif address.startswith(top) and address not in seen:
                seen.add(address)
                pending.append(address)
                if address.count("/") - top.count("/") > MAX_WEB_DEPTH or len(seen) > MAX_WEB_FOLDERS:
                    raise InputError(
                        f"{public_url(address)}: links lead more than {MAX_WEB_DEPTH} folders deep or to more than "
                        f"{MAX_WEB_FOLDERS:,} folders, probably in a circle; give the addresses of smaller folders"
                    )
    return found


def _described(files: Any, paths: list[str], root: str | None = None) -> dict[str, dict[str, Any]]:
    """Request size and time of videos, and of the root, from a web server whose listing does not state them."""
    videos = [path for path in paths if path == root or _suffix(split_query(path)[0]) in VIDEO_SUFFIXES]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        described: dict[str, dict[str, Any]] = dict(zip(videos, pool.map(files.info, videos), strict=True))
    for path, entry in described.items():
        if str(entry.get("mimetype")).startswith("text/"):
            raise InputError(
                f"{public_url(path)}: is a web page without links to video files; give the address of a video file, or "
                "of a folder that its server lists; download a video that plays on the page with a "
                "tool such as yt-dlp"
            )
        if entry.get("size") is None:
            raise InputError(f"{public_url(path)}: its server does not state its size; download it and give its path")
    return described


def _files_below(
    folder: str, prefix: str, seen: set[tuple[int, int]], unlisted: list[str]
) -> Iterator[tuple[str, str, FileState | None]]:
    """Yield all entries that are not folders. Each one is read once, directly after its folder was listed.

    A folder with a video suffix counts as a file, so that it is reported as a failure. Loops of links are followed
    once. Folders that cannot be listed are added to ``unlisted``.
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
        if _is_folder(entry) and _suffix(entry.name) not in VIDEO_SUFFIXES:
            folders.append(entry)
        else:
            yield prefix + entry.name, entry.path, state_of(entry)
    for entry in folders:
        yield from _files_below(entry.path, f"{prefix}{entry.name}{os.sep}", seen, unlisted)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether the entry is a folder; False for a link to itself, which raises `OSError`."""
    try:
        return entry.is_dir()
    except OSError:
        return False
