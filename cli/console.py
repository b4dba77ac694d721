"""Standard output and standard error. A failure to print does not change a run or its exit status."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Collection, Sequence
from typing import Annotated, Any

import typer

from ..manifests.json_text import to_json


def prepare_output() -> None:
    """Replace the standard streams so that printing cannot fail. Call it before anything is printed.

    Characters outside a stream's encoding are written as escapes. Output is dropped if the reader has exited, the disk
    is full or the stream was closed at the start.
    """
    _open_missing_descriptors()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open until the process ends
        elif stream is getattr(sys, f"__{name}__") and type(_raw(stream)) is io.FileIO:
            stream.flush()
            setattr(sys, name, _unfailing(stream))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def lost_output() -> str:
    """Return the error that stopped standard output; empty if there was none, or if the reader closed the pipe."""
    sys.stdout.flush()
    raw = _raw(sys.stdout)
    error = raw.failure if isinstance(raw, _UnfailingFile) else None
    if error is None or error.errno == errno.EPIPE:
        return ""
    return error.strerror or str(error)


JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON, in the form of docs/json.md.")]


def print_json(value: Any) -> None:
    """Print JSON (`to_json`). If the encoding is not UTF-8, other characters are written as JSON escapes."""
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(to_json(value, ascii_only=not is_utf8), end="")


def print_columns(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Print a table of one line per row; the last column is cut to the width of the terminal.

    Args:
        titles: Title of each column.
        rows: The cells.
        right: Titles of the columns that are aligned to the right.
    """
    from rich.console import Console

    console = Console()
    widths = [max(len(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        cells = [
            cell.rjust(width) if title in right else cell.ljust(width)
            for cell, width, title in zip(row, widths, titles, strict=True)
        ]
        line = "  ".join(cells).rstrip()
        print(line if len(line) <= console.width else f"{line[: console.width - 1]}…")


class _UnfailingFile(io.FileIO):
    """A file whose writes always succeed; after the first failed write, data is dropped."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self.failure is None and rest:
                written = super().write(rest)
                if written is None:  # a non-blocking pipe that is full
                    select.select([], [self], [])
                else:
                    rest = rest[written:]
        except OSError as error:
            self.failure = error
        return size


def _raw(stream: Any) -> Any:
    """Return the raw file of a text stream. Under ``python -u`` the stream has no buffer."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def _unfailing(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    file = _UnfailingFile(stream.fileno(), "w", closefd=False)
    is_unbuffered = stream.buffer is _raw(stream)
    output: Any = file if is_unbuffered else io.BufferedWriter(file)
    return io.TextIOWrapper(
        output,
        stream.encoding,
        "backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _open_missing_descriptors() -> None:
    """Open the standard streams that are closed.

    Otherwise the next file to be opened would get such a descriptor, and output of libraries would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
