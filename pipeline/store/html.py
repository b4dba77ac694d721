"""HTML tables of stores, features and scores for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

MAX_ROWS = 20
"""Maximal number of rows; an additional row states how many are omitted."""


def html_table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table of the first `MAX_ROWS` rows; every text is escaped."""
    cells = [[escape(str(cell)) for cell in row] for row in rows]
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in cells[:MAX_ROWS])
    if len(cells) > MAX_ROWS:
        body += f'<tr><td colspan="{len(header)}">… and {len(cells) - MAX_ROWS:,} more</td></tr>'
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
