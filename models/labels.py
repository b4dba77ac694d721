"""Read label files with one line per video: its id and its scores in columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..manifests.errors import InputError
from ..manifests.label_text import (
    CLIP_COLUMNS,
    SEPARATORS,
    is_number,
    parse_scores,
    read_label_text,
    resembles_number,
    split_cells,
)
from ..manifests.validation import suggestion

UNTITLED = "score"
"""Name of the score in a file without titles."""

ID_TITLES = (
    *("video_id", "videoid", "video id", "id", "video", "clip_id", "clip", "sample_id", "sample"),
    *("filename", "file_name", "file name", "file", "video_path", "path", "name"),
)
"""Titles of a column of ids, in order of preference."""
INDEX_TITLES = re.compile(r"|unnamed: \d+|index|#|no\.?|nr\.?|row", re.IGNORECASE)
"""Titles of a column of row numbers; pandas writes an empty title."""

_EXAMPLE = "write one line per video, as in Ball_001,18.8"
_ENDS_IN_NUMBER = re.compile(r".*[;|:\s][+-]?(?:0|[1-9][0-9]*)")
_BEGINS_WITH_NUMBER = re.compile(r"[0-9]+\s*[;|:\s]")

Row = tuple[int, list[str]]
"""Line number and cells"""


@dataclass(frozen=True)
class Labels:
    """Scores of videos from a label file."""

    target: str
    """Name of the score: the title of a column, or `UNTITLED`"""
    scores: dict[str, float]
    """video_id → score, in the order of the file"""
    notes: tuple[str, ...] = ()
    """Notes for the user on reading the file"""
    places: Mapping[str, str] = field(default_factory=dict[str, str])
    """video_id → file and line"""
    titles_of: tuple[str, str] | None = None
    """File and line of the titles, and the title of the ids; None for a file without titles"""


def read_labels(path: Path | str, target: str | None = None) -> Labels:
    """Read a file of scores.

    Columns are separated by tabs, semicolons, bars, commas or blanks. A file without titles has two columns, an id and
    a score, which may follow a row number. In a file with titles, the column ``video_id`` (``id``, …) or the first
    column has the ids. The first line has titles if none of its cells resembles a number. Scores may have decimal
    commas if commas do not separate the columns.

    Args:
        path: The file.
        target: Title of the score, if there are several.

    Raises:
        InputError: The file has another format or is ambiguous. The message has file and line.
    """
    text = read_label_text(Path(path))
    lines = list(text.lines)
    separators = list(SEPARATORS)
    if lines and (declared := re.fullmatch(r'"?sep=(.)"?', lines[0][1].strip(), re.IGNORECASE)):
        separators = [name for name, mark in SEPARATORS.items() if mark == declared[1]]  # Excel's first line
        lines = lines[1:]
    if not lines:
        raise InputError(f"{path}: the label file is empty; {_EXAMPLE}")
    found = _read_as_one(Path(path), lines, separators, target)
    return Labels(found.target, found.scores, (text.note,) if text.note else (), found.places, found.titles_of)


def _read_as_one(path: Path, lines: list[tuple[int, str]], separators: Sequence[str], target: str | None) -> Labels:
    """Read the lines with the separator that fits; raise an error if two readings differ."""
    readings: dict[str, Labels] = {}
    errors: dict[str, InputError] = {}
    for name in separators:
        try:
            rows = _split(path, lines, name)
        except csv.Error as error:
            errors[name] = InputError(f"{path}: a quote is not closed ({error}); close each quote on its own line")
            continue
        if rows is None:
            continue
        try:
            readings[name] = _read_rows(path, rows, target)
        except InputError as error:
            errors[name] = error
    plain = [name for name in ("tab", "semicolon", "bar") if name in readings]
    if plain:
        return readings[plain[0]]
    if len(readings) > 1 and len({str(list(each.scores.items())) for each in readings.values()}) > 1:
        options = " or ".join(
            f"{next(iter(each.scores.items()))} separated by a {name}" for name, each in readings.items()
        )
        raise InputError(
            f"{path}, line {lines[0][0]}: {lines[0][1].strip()!r} can be read as {options}; separate the columns by "
            "semicolons or tabs, or add a first line of titles such as video_id,score"
        )
    if readings:
        chosen, found = next(iter(readings.items()))
        _reject_hidden_separator(path, lines, found, chosen)
        return found
    if errors:
        raise next(iter(errors.values()))
    raise _ragged_error(path, lines, separators)


def _split(path: Path, lines: list[tuple[int, str]], separator: str) -> list[Row] | None:
    """Return the rows with this separator without empty columns; None if they are not a table."""
    mark = SEPARATORS[separator]
    if sum(mark in line.strip() or (mark == " " and "\t" in line) for _, line in lines) < len(lines):
        return None
    rows = [(number, split_cells(line, mark)) for number, line in lines]
    width = len(rows[0][1])
    if mark in " :" and any(re.search(r"^[,;|:]|[,;|:]$", cell) for _, cells in rows for cell in cells):
        return None  # "Ball_001, 17.1" is separated by its comma
    if any(len(cells) != width for _, cells in rows):
        return None
    filled = [column for column in range(width) if any(cells[column] for _, cells in rows)]
    if len(filled) < 2 or (mark in " :" and not any(is_number(cell) for _, cells in rows for cell in cells)):
        return None
    return [(number, [cells[column] for column in filled]) for number, cells in rows]


def _ragged_error(path: Path, lines: list[tuple[int, str]], separators: Sequence[str]) -> InputError:
    """Return the error for lines that no separator splits into an equal number of columns."""
    for name in separators:
        try:
            rows = [(number, split_cells(line, SEPARATORS[name])) for number, line in lines]
        except csv.Error:
            continue
        width = len(rows[0][1])
        if width < 2 or (name in ("blank", "colon") and not any(is_number(cell) for _, row in rows for cell in row)):
            continue
        for number, cells in rows:
            if len(cells) != width:
                return InputError(
                    f"{path}, line {number}: has {len(cells)} columns, but the first line has {width}: "
                    f"{SEPARATORS[name].join(cells)!r}; write one {name} between columns, and decimals with a point"
                )
    return InputError(f"{path}: its first line {lines[0][1]!r} has one column; write video_id,score")


def _reject_hidden_separator(path: Path, lines: list[tuple[int, str]], found: Labels, separator: str) -> None:
    """Reject ids such as ``Ball_001;17``, which are an id and the integer part of a score with a decimal comma.

    Ids such as ``17,10,Ball`` in the line ``17,10,Ball 001``, whose id has a blank, are also rejected.
    """
    texts = {f"{path}, line {number}": line for number, line in lines}
    for video_id, place in found.places.items():
        line, name = texts[place], re.escape(video_id)
        after = _ENDS_IN_NUMBER.fullmatch(video_id) and re.search(rf"{name},[0-9]+(?![0-9.])", line)
        before = _BEGINS_WITH_NUMBER.match(video_id) and re.search(rf"[0-9],{name}", line)
        pieces = re.split("[,;|]", video_id) if separator in ("blank", "colon") else []
        holds_number = len(pieces) > 1 and any(map(resembles_number, pieces))
        if '"' not in line and ((separator == "comma" and (after or before)) or holds_number):
            raise InputError(
                f"{place}: {line.strip()!r} may be an id and a score with a decimal comma, or the id {video_id!r}; "
                "separate "
                f'all lines equally and write decimals with a point, or put the id in quotes, as in "{video_id}"'
            )


def _read_rows(path: Path, rows: list[Row], target: str | None) -> Labels:
    """Find titles, ids and scores in the rows."""
    (number, first), rest = rows[0], rows[1:]
    titled = _are_titles(f"{path}, line {number}", first, rest)
    data = rest if titled else rows
    if not data:
        raise InputError(f"{path}: has a header and no scores; {_EXAMPLE}")
    if titled:
        ids, column = _titled_columns(path, first, data, target)
    else:
        ids, column = _untitled_columns(path, data, target)
    places: dict[str, str] = {}
    for number, cells in data:
        place, video_id = f"{path}, line {number}", cells[ids]
        if not video_id:
            raise InputError(f"{place}: has no video_id in {','.join(cells)!r}; write it or remove the line")
        if video_id in places:
            earlier = places[video_id].rpartition(" ")[2]
            raise InputError(f"{place}: {video_id!r} is also on line {earlier}; keep one of them")
        places[video_id] = place
    cells_of = [(places[row[ids]], f"the score of {row[ids]!r}", row[column]) for _, row in data]
    return Labels(
        target=first[column] if titled else UNTITLED,
        scores=dict(zip(places, parse_scores(cells_of), strict=True)),
        places=places,
        titles_of=(f"{path}, line {rows[0][0]}", first[ids]) if titled else None,
    )


def _are_titles(place: str, first: Sequence[str], rest: Sequence[Row]) -> bool:
    """Return whether the first line has titles, i.e. no cell resembles a number or has the form of the ids."""
    known = any(cell.lower() in ID_TITLES for cell in first)
    if known and (numbers := [cell for cell in first if is_number(cell)]):
        raise InputError(f"{place}: the title of a column is the number {numbers[0]}; name it, as in video_id,score")
    if known:
        return True
    titles = first[1:] if INDEX_TITLES.fullmatch(first[0]) else first
    if any(resembles_number(cell) for cell in titles):
        return False
    shapes = {_shape(cell) for _, cells in rest for cell in cells if not is_number(cell)}
    return not any(re.search(r"\d", cell) and _shape(cell) in shapes for cell in first)


def _shape(cell: str) -> str:
    return re.sub(r"\d+", "0", cell)


def _titled_columns(path: Path, titles: Sequence[str], data: Sequence[Row], target: str | None) -> tuple[int, int]:
    """Return the columns of ids and scores in a table with titles."""
    columns = list(range(len(titles)))
    numeric = {column for column in columns if all(is_number(cells[column]) for _, cells in data)}
    text = {column for column in columns if not any(is_number(cells[column]) for _, cells in data)}
    lower = [title.lower() for title in titles]
    if set(CLIP_COLUMNS) <= set(lower):  # a table of clips: times and paths are neither ids nor scores
        columns = [column for column in columns if lower[column] not in CLIP_COLUMNS or lower[column] == "id"]
        return _chosen_column(path, titles, columns, lower.index("id"), text, target)
    if INDEX_TITLES.fullmatch(titles[0]) and len(columns) > 1 and _counts([cells[0] for _, cells in data]):
        columns = columns[1:]
    for column in columns:
        if not titles[column] and (column or len(columns) < 2 or column in numeric):
            raise InputError(f"{path}: column {column + 1} has no title; name it, as in video_id,score")
    named = sorted((ID_TITLES.index(lower[column]), column) for column in columns if lower[column] in ID_TITLES)
    if any(column in text for _, column in named):  # row numbers are not the ids if there are text ids with a title
        named = [(rank, column) for rank, column in named if not _counts([cells[column] for _, cells in data])]
        kept = {column for _, column in named}
        columns = [column for column in columns if lower[column] not in ID_TITLES or column in kept]
    if not titles[columns[0]] and named:
        raise InputError(f"{path}: the first column has no title, and it does not count rows; name it or remove it")
    if named:
        ids = named[0][1]
    elif len(columns) > 1 and columns[0] not in numeric:
        ids = columns[0]
    elif len(others := [column for column in columns if column in text]) == 1:
        ids = others[0]
    else:
        raise InputError(
            f"{path}: the column of ids is not clear from the titles {', '.join(titles)}; give it the title video_id"
        )
    if [lower[column] for column in columns].count(lower[ids]) > 1:
        raise InputError(f"{path}: two columns have the title {titles[ids]!r}; keep one of them")
    return _chosen_column(path, titles, columns, ids, text, target)


def _chosen_column(
    path: Path, titles: Sequence[str], columns: Sequence[int], ids: int, text: set[int], target: str | None
) -> tuple[int, int]:
    """Return the column of ids and that of the scores: ``target``, or the only one with numbers."""
    rest = [column for column in columns if column != ids]
    choices = ", ".join(titles[column] for column in rest)
    if target is not None:
        found = [column for column in rest if titles[column] == target]
        if len(found) > 1:
            raise InputError(f"{path}: two columns have the title {target!r}; keep one of them")
        if not found:
            hint = suggestion(target, [titles[column] for column in rest])
            raise InputError(f"{path}: column {target!r} does not exist{hint}; choose one of {choices}")
        return ids, found[0]
    candidates = rest if len(rest) == 1 else [column for column in rest if column not in text]
    if len(candidates) == 1:
        return ids, candidates[0]
    if not rest:
        raise InputError(f"{path}: has no column of scores in addition to {titles[ids]!r}; {_EXAMPLE}")
    raise InputError(f"{path}: has several scores; choose one with --target: {choices}")


def _untitled_columns(path: Path, data: Sequence[Row], target: str | None) -> tuple[int, int]:
    """Return the columns of ids and scores in a table without titles, which may begin with a column of row numbers."""
    width = len(data[0][1])
    columns = [[cells[column] for _, cells in data] for column in range(width)]
    counts = [sum(map(is_number, cells)) for cells in columns]
    place = f"{path}, line {data[0][0]}"
    if target is None and width == 3 and _counts(columns[0]):
        for ids, scores in ((1, 2), (2, 1)):
            if counts[ids] == 0 and counts[scores] > 0 and not _counts(columns[scores]):
                return ids, scores
    if target is not None or width > 2:
        raise InputError(
            f"{path}: has {width} columns without titles, so a score cannot be chosen by name; add a first line such "
            "as video_id,TES,PCS, or keep two columns, and write decimals with a point"
        )
    whole = [all(cell.isascii() and cell.isdigit() for cell in cells) for cells in columns]
    if counts[0] < len(data):
        if counts[1] == 0 and counts[0] > 0:
            raise InputError(f"{place}: no line has a number in its second column; write the id first, then the score")
        return 0, 1
    if counts[1] == 0:
        return 1, 0
    if counts[1] < len(data):
        number, cells = next((number, cells) for number, cells in data if not is_number(cells[1]))
        raise InputError(
            f"{path}, line {number}: the score of {cells[0]!r} is {cells[1]!r}, which is not a finite number; correct "
            "it, and write the id first, then the score"
        )
    if not whole[0] or (whole[1] and _counts(columns[1]) and not _counts(columns[0]) and len(data) > 2):
        raise InputError(
            f"{place}: {', '.join(data[0][1])} are two numbers, and the id is not clear; add a first line of titles, "
            "as in video_id,score"
        )
    return 0, 1


def _counts(cells: Sequence[str]) -> bool:
    """Return whether the cells are row numbers 0, 1, 2, … or 1, 2, 3, …"""
    return list(cells) in ([str(n) for n in range(len(cells))], [str(n + 1) for n in range(len(cells))])
