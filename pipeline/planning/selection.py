"""Selection of the inputs of a run: paths, patterns and lists of files, filters by name, and a maximum number."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from posixpath import basename

from ...manifests.errors import InputError, os_reason
from ...manifests.urls import join_url, public_url
from ..records import VideoFile
from ..store.files.storage import StorePath, as_store_path
from .clip_table import read_clips
from .discovery import MAX_NAMED, Inputs, ListedRoot, checked_id_prefix, required_videos
from .selection_paths import listed_root

STANDARD_INPUT = "-"
MAX_FRAME_RATE = 1000


@dataclass(frozen=True)
class InputSelection:
    """Inputs of a run as the user gives them.

    Example:
        >>> from arabesque.pipeline.planning.selection import InputSelection, find_inputs
        >>> inputs = find_inputs(InputSelection(("videos",), exclude=("another*",)))
        >>> [video.video_id for video in inputs.videos]
        ['routine']
    """

    places: Sequence[StorePath] = ()
    """Folders, files, URLs, and patterns such as ``videos/*.mp4``."""
    list_file: str | Path | None = None
    """File with one path or URL per line; ``-`` for standard input."""
    include: Sequence[str] = ()
    """Patterns: only videos whose path, file name or id matches one of them."""
    exclude: Sequence[str] = ()
    """Patterns: no video whose path, file name, folder or id matches one of them."""
    limit: int | None = None
    """Maximum number of videos; the first ones in the order of their ids are chosen."""
    id_prefix: str = ""
    """See `checked_id_prefix`."""
    frame_rate: float | None = None
    """Frames per second of folders of frames; None: folders of frames are not read."""
    clips: str | Path | None = None
    """Table of clips, see `read_clips`; ``places`` is then at most one folder, that of the videos."""


def find_inputs(selection: InputSelection) -> Inputs:
    """Find the videos of a selection.

    Args:
        selection: The selection of the user.

    Returns:
        The videos in the order of their ids.

    Raises:
        InputError: Nothing is given, a path does not exist, a list cannot be read, or no video is left.
        StoreError: A URL cannot be reached.
    """
    prefix = checked_id_prefix(selection.id_prefix) if selection.id_prefix else ""
    if selection.frame_rate is not None and not 0 < selection.frame_rate <= MAX_FRAME_RATE:
        raise InputError(f"--frame-rate {selection.frame_rate:g}: is not between 0 and {MAX_FRAME_RATE}; give e.g. 25")
    if selection.clips is not None:
        if selection.list_file is not None or len(selection.places) > 1:
            raise InputError("--clips: its table names the files; give at most the folder of its relative paths")
        inputs = read_clips(selection.clips, _folder_of_clips(selection.places), prefix, selection.frame_rate)
        return filtered(inputs, selection.include, selection.exclude, selection.limit)
    roots = [root for place in selection.places for root in _roots_at(as_store_path(place))]
    if selection.list_file is not None:
        roots += read_list(selection.list_file)
    elif not selection.places:
        raise InputError("no videos are given; give a folder, files or URLs, or --list FILE")
    inputs = required_videos(roots, prefix, selection.frame_rate)
    if inputs.missing and len(inputs.missing) == len(inputs.videos):
        shown = ", ".join(inputs.missing[:MAX_NAMED])
        more = f" and {len(inputs.missing) - MAX_NAMED:,} more" if len(inputs.missing) > MAX_NAMED else ""
        raise InputError(
            f"{selection.list_file}: does not name an existing file: {shown}{more}; paths may be relative to the "
            "folder of the list or to the current folder"
        )
    chosen = filtered(inputs, selection.include, selection.exclude, selection.limit)
    is_selection = chosen is not inputs or any(isinstance(root, ListedRoot) for root in roots)
    return replace(chosen, is_selection=is_selection)


def _folder_of_clips(places: Sequence[StorePath]) -> StorePath | None:
    if not places:
        return None
    folder = as_store_path(places[0])
    if isinstance(folder, Path) and not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; with --clips, give the folder that its paths are relative to")
    return folder


def filtered(inputs: Inputs, include: Sequence[str], exclude: Sequence[str], limit: int | None) -> Inputs:
    """Return the inputs that match the filters; the same object without filters.

    A pattern has the wildcards ``*``, ``?`` and ``[…]``; ``*`` also matches ``/``. It is compared with the path of a
    file below its input, its name, its id and, for ``exclude``, the folders of its path. Matching is case-sensitive.

    Raises:
        InputError: No video is left.
    """
    if not include and not exclude and limit is None:
        return inputs
    is_included, is_excluded = _matcher(include), _matcher(exclude)

    def is_chosen(name: str, video_id: str) -> bool:
        if include and not any(map(is_included, (name, basename(name), video_id))):
            return False
        return not (exclude and any(map(is_excluded, _names_of(name, video_id))))

    videos = [file for file in inputs.videos if is_chosen(file.source, file.video_id)]
    clashes = {name: paths for name, paths in inputs.clashes.items() if any(is_chosen(str(p), name) for p in paths)}
    if not videos and not clashes:
        options = [f"--include {text}" for text in include] + [f"--exclude {text}" for text in exclude]
        names = ", ".join(repr(file.source) for file in inputs.videos[:MAX_NAMED])
        raise InputError(f"{' '.join(options)}: leaves none of {len(inputs.videos):,} videos, such as {names}")
    if limit is not None:
        videos = videos[:limit]
        clashes = dict(list(clashes.items())[: limit - len(videos)])
    kept = {str(file.path) for file in videos}
    missing = tuple(path for path in inputs.missing if path in kept)
    columns = inputs.columns
    if columns is not None:
        columns = replace(columns, rows={file.video_id: columns.rows[file.video_id] for file in videos})
    return replace(inputs, videos=tuple(videos), clashes=clashes, missing=missing, columns=columns)


def _names_of(name: str, video_id: str) -> Iterable[str]:
    yield from (name, basename(name), video_id)
    while name := name.rpartition("/")[0]:
        yield from (name, basename(name))


def _matcher(patterns: Sequence[str]) -> Callable[[str], object]:
    return re.compile("|".join(fnmatch.translate(text) for text in patterns)).match


def read_list(list_file: str | Path) -> list[ListedRoot]:
    """Read a list of files, folders and URLs, one per line. Blank lines and lines that begin with ``#`` are ignored.

    A relative path is searched in the folder of the list, then in the current folder. Its id is the path in the list
    without suffix; the id of an absolute path or a URL is the file name without suffix.

    Raises:
        InputError: The list cannot be read or is empty.
    """
    lines = [line.strip(" \t\r") for line in _lines_of(list_file)]
    folder = Path() if str(list_file) == STANDARD_INPUT else Path(list_file).parent
    roots = [listed_root(line, folder) for line in lines if line and not line.startswith("#")]
    if not roots:
        raise InputError(f"{list_file}: the list is empty; write one path or URL per line")
    return roots


def _lines_of(list_file: str | Path) -> list[str]:
    try:
        is_piped = str(list_file) == STANDARD_INPUT
        content = sys.stdin.buffer.read() if is_piped else Path(list_file).read_bytes()
    except OSError as error:
        raise InputError(f"{list_file}: {os_reason(error)}; give a text file with one path or URL per line") from error
    if b"\0" in content:
        raise InputError(f"{list_file}: is not a text file (it has zero bytes); write one path or URL per line")
    return os.fsdecode(content.removeprefix(b"\xef\xbb\xbf")).split("\n")


def _roots_at(place: StorePath) -> list[StorePath | ListedRoot]:
    """Return the path itself, or the files and folders that its pattern matches.

    Ids of matches are their paths below the folder before the first wildcard.
    """
    text = str(place)
    wildcard = re.search(r"[*?[]" if isinstance(place, Path) else r"[*]", text)
    if wildcard is None or (isinstance(place, Path) and os.path.lexists(place)):
        return [place]
    fixed = text[: wildcard.start()].rpartition("/")[0]
    if not isinstance(place, Path):
        return _matches_at_url(text, fixed)
    folder = Path(fixed or ("/" if text.startswith("/") else "."))
    pattern = text[len(fixed) :].lstrip("/")
    names = sorted(glob.glob(pattern, root_dir=folder, recursive=True))
    if not names:
        raise InputError(f"{text}: nothing matches this pattern; check it, and quote it in a shell")
    return [ListedRoot(folder / name, name.rstrip("/"), folder, ignores_others=True) for name in names]


def _matches_at_url(pattern: str, fixed: str) -> list[StorePath | ListedRoot]:
    matches = re.compile(fnmatch.translate(pattern[len(fixed) :].lstrip("/"))).match
    found: list[VideoFile] = [file for file in required_videos([fixed]).videos if matches(file.source)]
    if not found:
        raise InputError(f"{public_url(pattern)}: nothing matches this pattern; check it, and quote it in a shell")
    return [ListedRoot(join_url(fixed, file.source), file.source, fixed) for file in found]
