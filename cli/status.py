"""``arabesque status``: what a store holds and what it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..pipeline.records import Outcome
    from ..pipeline.status import StoreStatus

MAX_REASONS = 12


def status(
    store: Annotated[str, typer.Argument(help="A feature store, as `arabesque extract --out` wrote it.")],
    all_reasons: Annotated[
        bool, typer.Option("--all", help="Every video that failed or is empty, not the first few.")
    ] = False,
) -> None:
    """Show what is done, empty, partial, failed and left, stream by stream, and why.

    Exit status: 0 nothing failed, 3 some videos failed or are partial.
    """
    from ..pipeline.status import read_status

    found = read_status(store)
    raise typer.Exit(print_status(found, max_reasons=None if all_reasons else MAX_REASONS))


def print_status(found: StoreStatus, max_reasons: int | None = MAX_REASONS) -> int:
    """The table, the reasons of what went wrong, and the exit status that follows from them."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"recipe {found.recipe} · videos of {found.folder}", title_justify="left")
    kinds = ("done", "empty", "partial", "failed")
    table.add_column("stream")
    for title in (*kinds, "left", "segments"):
        table.add_column(title, justify="right")
    for name, stream in found.streams.items():
        counts = (str(stream.counts.get(kind, 0)) for kind in kinds)
        table.add_row(name, *counts, str(stream.left), str(stream.segments))
    Console().print(table)
    _print_reasons(found.troubles, max_reasons)
    _print_reasons(found.empties, max_reasons)
    return 3 if found.troubles else 0


def _print_reasons(outcomes: tuple[Outcome, ...], max_reasons: int | None) -> None:
    """One line for each video and reason; streams that ended alike share it."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for outcome in outcomes:
        lines.setdefault((outcome.video_id, outcome.kind, outcome.reason), []).append(outcome.stream)
    for (video_id, kind, reason), streams in list(lines.items())[:max_reasons]:
        print(f"{kind}: {video_id!r} [{', '.join(streams)}]: {reason}")
    if max_reasons is not None and len(lines) > max_reasons:
        print(f"… and {len(lines) - max_reasons} more; `arabesque status STORE --all` lists them")
