"""Tables of clips: CSV files with the columns ``path``, ``id``, ``start_s`` and ``end_s``, and any other columns."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass, replace
from pathlib import Path

from ...manifests.errors import InputError, os_reason
from ...manifests.label_text import CLIP_COLUMNS, parse_number
from ...manifests.validation import suggestion
from ..records import Exclude, RemotePath, VideoFile, source_path
from ..store.clip_columns import ClipColumns
from ..store.files.storage import StorePath
from .discovery import Inputs, ListedRoot, files_at
from .sampling import merged_intervals
from .selection_paths import listed_root

_SEPARATORS = ",;\t"


@dataclass(frozen=True)
class _Line:
    number: int
    path: str
    video_id: str
    start_s: float | None
    end_s: float | None
    excluded_s: tuple[tuple[float, float], ...]
    exclude: Exclude
    others: tuple[str, ...]


def read_clips(
    table: str | Path, folder: StorePath | None = None, id_prefix: str = "", frame_rate: float | None = None
) -> Inputs:
    """Read a table of clips.

    The first line has the titles of the columns, separated by commas, semicolons or tabs. ``start_s`` and ``end_s`` are
    seconds in the file; an empty cell means the start or the end of the file. Other columns (scores, splits, names) are
    kept as text.

    Two optional columns exclude parts of a clip. ``excluded_s`` lists stretches of the file, such as
    ``12.5-16.9;30-31.2``. ``exclude`` is ``cut`` (also if empty), ``mask`` or ``keep``: see `Exclude`. With ``keep``
    the stretches are part of the clip.

    Args:
        table: The CSV file.
        folder: Folder of relative paths. By default it is the folder of the table or, for files that do not exist
            there, the current folder.
        id_prefix: Precedes every id as ``id_prefix/…``.
        frame_rate: Frames per second of folders of frames.

    Returns:
        The clips, and the other columns in `Inputs.columns`.

    Raises:
        InputError: The table cannot be read, a column is missing, or a line is wrong; the message names the line.

    Example:
        >>> from pathlib import Path
        >>> from arabesque.pipeline.planning.clip_table import read_clips
        >>> _ = Path("clips.csv").write_text("path,id,start_s,end_s,score\\nvideos/routine.mp4,jump,0.5,2.5,7.1\\n")
        >>> (clip,) = read_clips("clips.csv").videos
        >>> clip.video_id, clip.start_s, clip.end_s
        ('jump', 0.5, 2.5)
    """
    titles, lines = _lines_of(Path(table))
    base = folder if folder is not None else Path(table).parent
    roots = {path: listed_root(path, base) for path in dict.fromkeys(line.path for line in lines)}
    found = files_at(list(dict.fromkeys(roots.values())), frame_rate)
    by_root = {root: file for root, file in found.files if isinstance(root, ListedRoot) and _is_at(file, root)}
    videos: dict[str, VideoFile] = {}
    rows: dict[str, tuple[str, ...]] = {}
    for line in lines:
        if (file := by_root.get(roots[line.path])) is None:
            raise InputError(f"{table}, line {line.number}: {line.path} is a folder; give the path of a video")
        video_id = f"{id_prefix}/{line.video_id}" if id_prefix else line.video_id
        clip = replace(
            file,
            video_id=video_id,
            start_s=line.start_s,
            end_s=line.end_s,
            excluded_s=line.excluded_s,
            exclude=line.exclude,
        )
        videos[video_id] = clip
        times = ("" if time_s is None else f"{time_s:.15g}" for time_s in (line.start_s, line.end_s))
        rows[video_id] = (source_path(clip), video_id, *times, *line.others)
    if len(found.missing) == len(set(roots.values())):
        raise InputError(
            f"{table}: none of its files exists, such as {found.missing[0]}; paths are relative to the folder of "
            "the table or to the current folder, or give the folder of the videos"
        )
    return Inputs(
        videos=tuple(file for _, file in sorted(videos.items())),
        clashes={},
        num_other_files=0,
        missing=tuple(found.missing),
        is_selection=True,
        columns=ClipColumns((*CLIP_COLUMNS, *titles), rows),
    )


def _is_at(file: VideoFile, root: ListedRoot) -> bool:
    """Return whether the file is the root itself, not a file below it."""
    at = file.path.url if isinstance(file.path, RemotePath) else file.path
    return str(at) == str(root.place)


def _lines_of(table: Path) -> tuple[tuple[str, ...], list[_Line]]:
    """Return the titles of the other columns, and the lines."""
    reader = csv.reader(io.StringIO(_text_of(table), newline=""), delimiter=_separator_of(table), strict=True)
    titles, at, others = list[str](), list[int](), list[int]()
    lines: list[_Line] = []
    numbers: dict[str, int] = {}
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            place = f"{table}, line {reader.line_num}"
            if not any(cells):
                continue
            if not titles:
                titles = _checked_titles(cells, place)
                others = [index for index, title in enumerate(titles) if title not in CLIP_COLUMNS]
                at = [titles.index(title) for title in CLIP_COLUMNS]
                continue
            if len(cells) != len(titles):
                raise InputError(f"{place}: has {len(cells)} cells, but the first line has {len(titles)} titles")
            path, video_id, start, end = (cells[index] for index in at)
            if not path:
                raise InputError(f"{place}: has no path; give the path or URL of a video")
            _check_id(video_id, place)
            if video_id in numbers:
                raise InputError(
                    f"{place}: the id {video_id!r} is also on line {numbers[video_id]}; give every clip another id"
                )
            numbers[video_id] = reader.line_num
            start_s, end_s = _time(start, "start_s", place), _time(end, "end_s", place)
            if end_s is not None and end_s <= (start_s or 0.0):
                raise InputError(f"{place}: end_s ({end}) is not after start_s ({start or 0}); correct them")
            excluded_s, exclude = (), "cut"
            if "excluded_s" in titles and (stretches := cells[titles.index("excluded_s")]):
                what = cells[titles.index("exclude")] if "exclude" in titles else ""
                excluded_s, exclude = _excluded(stretches, what, place)
                excluded_s = _inside(excluded_s, start_s or 0.0, math.inf if end_s is None else end_s)
                if excluded_s and excluded_s[0] == (start_s or 0.0, end_s):
                    raise InputError(f"{place}: excluded_s ({stretches}) covers the whole clip; remove the line")
            others_of_line = tuple([cells[each] for each in others])
            lines.append(_Line(reader.line_num, path, video_id, start_s, end_s, excluded_s, exclude, others_of_line))
    except csv.Error as error:
        raise InputError(f"{table}, line {reader.line_num}: is not CSV ({error}); close quotes in their line") from None
    if not lines:
        raise InputError(f"{table}: has no clips; write {','.join(CLIP_COLUMNS)} and one line for each clip")
    return tuple(titles[index] for index in others), lines


def _checked_titles(titles: list[str], place: str) -> list[str]:
    for title in CLIP_COLUMNS:
        if title not in titles:
            hint = suggestion(title, [each for each in titles if each not in CLIP_COLUMNS])
            hint = hint.replace("did you mean", "is it") or f"; it has {', '.join(titles[:8])}"
            raise InputError(f"{place}: has no column {title!r}{hint}")
    for number, title in enumerate(titles):
        if not title:
            raise InputError(f"{place}: column {number + 1} has no title; name or remove it")
        if title in titles[:number]:
            raise InputError(f"{place}: has two columns {title!r}; rename or remove one")
    return titles


def _check_id(video_id: str, place: str) -> None:
    names = video_id.split("/")
    if not video_id.isprintable() or "\\" in video_id or any(name.strip() in ("", ".", "..") for name in names):
        raise InputError(f"{place}: {video_id!r} is not an id; give one or more names, such as jump or day1/jump")


def _time(cell: str, title: str, place: str) -> float | None:
    """Return a time in seconds, in whole microseconds."""
    if not cell:
        return None
    time_s = parse_number(cell)
    if time_s is None or time_s < 0:
        raise InputError(f"{place}: {title} is {cell!r}, which is not a time in seconds, such as 12.5")
    return round(time_s, 6)


def _excluded(cell: str, exclude: str, place: str) -> tuple[tuple[tuple[float, float], ...], Exclude]:
    """Return the stretches in a cell such as ``12.5-16.9;30-31.2``, ascending and disjoint, and their handling."""
    stretches: list[tuple[float, float]] = []
    for text in filter(None, map(str.strip, cell.split(";"))):
        start, dash, end = text.partition("-")
        start_s, end_s = _time(start.strip(), "excluded_s", place), _time(end.strip(), "excluded_s", place)
        if not dash or start_s is None or end_s is None or start_s >= end_s:
            raise InputError(f"{place}: excluded_s has {text!r}, which is not a stretch in seconds, such as 12.5-16.9")
        stretches.append((start_s, end_s))
    if exclude not in ("", "cut", "mask", "keep"):
        raise InputError(f"{place}: exclude is {exclude!r}; write cut, mask or keep")
    if exclude == "keep":
        return (), "cut"
    return merged_intervals(stretches), "mask" if exclude == "mask" else "cut"


def _inside(
    stretches: tuple[tuple[float, float], ...], start_s: float, end_s: float
) -> tuple[tuple[float, float], ...]:
    """Return the parts of the stretches inside the clip, whose edges may have been corrected by hand."""
    cut = ((max(first_s, start_s), min(last_s, end_s)) for first_s, last_s in stretches)
    return tuple((first_s, last_s) for first_s, last_s in cut if first_s < last_s)


def _separator_of(table: Path) -> str:
    first = next((line for line in _text_of(table).splitlines() if line.strip()), "")
    return max(_SEPARATORS, key=first.count)


def _text_of(table: Path) -> str:
    try:
        return table.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{table}: {os_reason(error)}; give a CSV file of clips") from error
    except UnicodeDecodeError:
        raise InputError(f"{table}: is not UTF-8 text; save it as UTF-8") from None
