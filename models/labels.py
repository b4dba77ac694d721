"""Plain label files: one line per video, its id and its scores, separated by commas."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..manifests.complaints import did_you_mean
from ..manifests.errors import ManifestError

UNTITLED = "score"
"""The name of a score whose file has no titles."""


@dataclass(frozen=True)
class Labels:
    """What the judges gave."""

    target: str
    """Name of the score: a column's title, or `UNTITLED`"""
    scores: dict[str, float]
    """video_id → score, in the file's order"""


def read_labels(path: Path | str, target: str | None = None) -> Labels:
    """``video_id,score`` per line, or several titled columns of which ``target`` names one.

    Whether the first line is a header is decided by trying to read it as data. Raises `ManifestError` that names the
    file and the line for anything else than one finite number per video.
    """
    rows = _rows(Path(path))
    _, first = rows[0]
    header = first if len(first) > 1 and not any(_is_number(cell) for cell in first[1:]) else None
    column, title = _column(path, first, header, target)
    scores: dict[str, float] = {}
    lines: dict[str, int] = {}
    for number, row in rows[1 if header else 0 :]:
        video_id, score = _entry(f"{path}, line {number}", row, column, len(first))
        if video_id in scores:
            raise ManifestError(
                f"{path}, line {number}: {video_id!r} stands on line {lines[video_id]} already; keep one of them"
            )
        scores[video_id], lines[video_id] = score, number
    if not scores:
        raise ManifestError(f"{path}: a header and no scores; write one line per video, as in Ball_001,18.8")
    return Labels(title, scores)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and cells of every line that is not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: cannot read this label file ({error}); it should be UTF-8 text") from error
    rows = [(number, row) for number, row in rows if any(row)]
    if not rows:
        raise ManifestError(
            f"{path}: there is nothing in this label file; write one line per video, as in Ball_001,18.8"
        )
    return rows


def _column(
    path: Path | str, first: Sequence[str], header: Sequence[str] | None, target: str | None
) -> tuple[int, str]:
    """Index and title of the scores' column."""
    if len(first) < 2:
        raise ManifestError(f"{path}: its first line {','.join(first)!r} has one column; write video_id,score")
    if header is None:
        if target is not None or len(first) > 2:
            raise ManifestError(
                f"{path}: {len(first)} columns without titles, so a score cannot be chosen by name; "
                "add a first line such as video_id,TES,PCS, or keep two columns"
            )
        return 1, UNTITLED
    titles = header[1:]
    if target is None and len(titles) == 1:
        return 1, titles[0]
    if target is None:
        raise ManifestError(f"{path}: which score? --target names one of {', '.join(titles)}")
    if target not in titles:
        hint = did_you_mean(target, titles)
        raise ManifestError(f"{path}: there is no column {target!r}{hint}; there are {', '.join(titles)}")
    return 1 + titles.index(target), target


def _entry(place: str, row: Sequence[str], column: int, width: int) -> tuple[str, float]:
    if len(row) != width:
        raise ManifestError(f"{place}: {len(row)} columns where the first line has {width}: {','.join(row)!r}")
    if not row[0]:
        raise ManifestError(f"{place}: no video_id before {','.join(row)!r}")
    if not _is_number(row[column]):
        raise ManifestError(f"{place}: the score of {row[0]!r} is {row[column]!r}, which is no finite number")
    return row[0], float(row[column])


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
