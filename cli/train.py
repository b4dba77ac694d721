"""``arabesque train``: from features and labels to a scoring model, and how far to trust it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..models.training import Progress, Report


def train(
    store: Annotated[Path, typer.Argument(help="A feature store that extract wrote.")],
    labels: Annotated[Path, typer.Option(help="A CSV file: video_id,score per line; titles are optional.")],
    target: Annotated[str | None, typer.Option(help="The score's title, where the file has several.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for model, predictions, report. Default: model/ in the store's parent.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training videos. Default: 60.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides the split and the first weights.")] = 0,
    partial: Annotated[bool, typer.Option("--partial", help="Also use videos whose file breaks off.")] = False,
) -> None:
    """Train a small scoring model and report Spearman's rank correlation on videos that it has not seen."""
    from ..models.training import train_and_evaluate

    folder = out or store.resolve().parent / "model"
    with show_epochs() as on_epoch:
        report = train_and_evaluate(
            store, labels, folder, target=target, epochs=epochs, seed=seed, partial=partial, on_epoch=on_epoch
        )
    print_report(report)


@contextmanager
def show_epochs() -> Iterator[Progress]:
    """A bar on standard error while the block runs; nothing where that is no terminal, since it takes seconds."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("training", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_report(report: Report) -> None:
    """The held-out numbers and the files on standard output; what was left out on standard error."""
    from rich.console import Console
    from rich.table import Table

    _tell_left_out("video(s) without a label", report.without_label)
    _tell_left_out("label(s) without a video", report.without_video)
    _tell_left_out("labelled video(s) not extracted whole", report.unfinished)
    table = Table(show_header=False)
    for name, value in report.rows():
        table.add_row(name, value)
    Console().print(table)
    for path in report.files:
        print(path)


def _tell_left_out(what: str, names: Sequence[str], most: int = 3) -> None:
    if names:
        more = f" and {len(names) - most} more" if len(names) > most else ""
        print(f"{len(names)} {what} left out: {', '.join(names[:most])}{more}", file=sys.stderr)
