"""Strict parsing of the text in label files: encodings, line ends, separators and numbers."""

from __future__ import annotations

import csv
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError, os_reason

SEPARATORS = {"tab": "\t", "semicolon": ";", "bar": "|", "comma": ",", "blank": " ", "colon": ":"}
CLIP_COLUMNS = ("path", "id", "start_s", "end_s")
"""Column titles of a table of clips, which may also be a label file."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?(?:0|[1-9][0-9]*),[0-9]+")
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
_UTF8_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)


@dataclass(frozen=True)
class LabelText:
    """The non-blank lines of a label file."""

    lines: tuple[tuple[int, str], ...]
    """Line number, counted from 1, and the text without its line end."""
    note: str = ""
    """Message to the user about an unusual encoding, or an empty string."""


def read_label_text(path: Path) -> LabelText:
    """Read a label file in UTF-8, in UTF-16 or UTF-32 with a byte order mark, or in Latin-1.

    Lines may end in LF, CRLF or CR.

    Raises:
        InputError: The file cannot be read, or contains bytes that are not text in one of these encodings.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {os_reason(error)}; name the file of scores") from error
    text, note = _decoded(content, path)
    lines = list(enumerate(re.split(r"\r\n|\r|\n", text), start=1))
    for number, line in lines:
        for mark in line:
            if mark == "\ufeff" or (mark != "\t" and unicodedata.category(mark) in ("Cc", "Cn", "Cs")):
                raise InputError(
                    f"{path}: cannot read this label file (line {number} has U+{ord(mark):04X}, which is not text); "
                    "save it as UTF-8 text"
                )
    return LabelText(tuple((number, line) for number, line in lines if line.strip()), note)


def _decoded(content: bytes, path: Path) -> tuple[str, str]:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            try:
                return content[len(mark) :].decode(encoding), ""
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}: cannot read this label file (it begins as {encoding.upper()}, but {error.reason} at byte "
                    f"{error.start + len(mark)}); save it as UTF-8 text"
                ) from error
    try:
        return content.decode("utf-8"), ""
    except UnicodeDecodeError as error:
        line = 1 + len(re.findall(rb"\r\n|\r|\n", content[: error.start]))
        if re.search(rb"[\x00-\x08\x0e-\x1f\x7f-\x9f]", content) or _UTF8_SEQUENCE.search(content):
            raise InputError(
                f"{path}: cannot read this label file (line {line} has the byte 0x{content[error.start]:02X}, which "
                "is neither UTF-8 nor Latin-1); save it as UTF-8 text"
            ) from error
        return content.decode("latin-1"), f"{path}: line {line} is not UTF-8; the file was read as Latin-1"


def split_cells(line: str, separator: str) -> list[str]:
    """Split a line into stripped cells, with CSV quotes; raise `csv.Error` for an unclosed quote.

    If the separator is a blank, it matches any number of blanks and tabs.
    """
    if separator == " ":
        line = line.replace("\t", " ").strip()
    (cells,) = csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True)
    return [cell.strip() for cell in cells]


def is_number(cell: str) -> bool:
    """Return whether a cell is a finite decimal number with a point or a comma, in ASCII digits."""
    if _NUMBER.fullmatch(cell):
        return math.isfinite(float(cell))
    return _DECIMAL_COMMA.fullmatch(cell) is not None


def resembles_number(cell: str) -> bool:
    """Return whether a cell is a number, possibly malformed (``nan``, ``17_10``, ``17 pts``), not a column title."""
    if is_number(cell) or cell.lower() in ("", "-", "?", "na", "n/a", "none", "null", "dnf", "dns"):
        return True
    try:
        float(cell)
    except ValueError:
        return re.match(r"[+\-−]?[.,]?\d", cell) is not None
    return True


def parse_number(cell: str) -> float | None:
    """Return the value of a number with a decimal point, or None for any other cell."""
    if not _NUMBER.fullmatch(cell):
        return None
    value = float(cell)
    return value if math.isfinite(value) else None


def parse_scores(cells: Sequence[tuple[str, str, str]]) -> list[float]:
    """Return the numbers of one column, which must all have a decimal point or all a decimal comma.

    Args:
        cells: Location in the file, description of the cell, and its text.

    Raises:
        InputError: A cell is not a number, the column mixes points and commas, or its commas may separate thousands.
    """
    for place, what, cell in cells:
        if not is_number(cell):
            raise InputError(
                f"{place}: {what} is {cell!r}, which is not a finite number; correct it or remove the line"
            )
    commas = [each for each in cells if "," in each[2]]
    points = [each for each in cells if "." in each[2]]
    if commas and points:
        place, what, cell = commas[0]
        raise InputError(
            f"{place}: {what} is {cell!r}, but {points[0][2]!r} ({points[0][0]}) has a decimal point; write all "
            "numbers with a point"
        )
    if commas and all(_THOUSANDS.fullmatch(cell) for _, _, cell in commas):
        place, what, cell = commas[0]
        raise InputError(
            f"{place}: {what} is {cell!r}, whose comma may separate decimals or thousands; write numbers with a "
            "decimal point and without separators of thousands"
        )
    return [float(cell.replace(",", ".")) for _, _, cell in cells]
