"""``arabesque reproduce``: a published table run again on the features at hand, ours beside theirs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..models.reproduction import Line


def reproduce(
    table: Annotated[str, typer.Argument(help="fisv or rg.")],
    features: Annotated[Path, typer.Option(help="A feature store, or released features (.npz, folder of .npy).")],
    labels: Annotated[Path, typer.Option(help="The folder of the data set's label files.")],
    out: Annotated[Path, typer.Option(help="Where trainings are kept; the same command goes on there.")] = Path(
        "reproduced"
    ),
    stream: Annotated[str | None, typer.Option(help="What released features are, for example vst.")] = None,
    row: Annotated[list[str] | None, typer.Option(help="Only rows whose name has this in it; may be repeated.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Only this column, for example TES; may be repeated.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per number.")] = 5,
    epochs: Annotated[int | None, typer.Option(min=1, help="Fewer than published, to try things out.")] = None,
    precision: Annotated[
        str, typer.Option(help="Of training's matrix products: float32, or bfloat16 in half the time.")
    ] = "float32",
    workers: Annotated[int | None, typer.Option(min=1, help="Trainings at once. Default: as many as cores.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each training. Default: the cores' share.")
    ] = None,
    best_test_only: Annotated[
        bool, typer.Option("--best-test-only", help="Leave out the trainings whose epoch validation videos choose.")
    ] = False,
) -> None:
    """Run the rows of a published table that the features at hand allow; print what was printed, and what they reach.

    ``best on test`` chooses the epoch on the test videos, as the papers do: it is an upper bound, not a result.
    """
    from ..models.reproduction import SELECTIONS, Reproduction

    if precision not in ("float32", "bfloat16"):
        raise typer.BadParameter(f"{precision!r} is neither float32 nor bfloat16", param_hint="--precision")
    reproduction = Reproduction(
        name=table,
        features=features,
        labels=labels,
        out=out / table,
        streams=None if stream is None else (stream,),
        rows=tuple(row or ()),
        columns=tuple(column or ()),
        seeds=tuple(range(seeds)),
        selections=SELECTIONS[:1] if best_test_only else SELECTIONS,
        epochs=epochs,
        precision=precision,
        workers=workers,
        threads=threads,
    )
    lines = reproduction.run(_tell)
    print_lines(lines)
    print(reproduction.how)
    print(reproduction.out / "table.md")


def _tell(row: str, column: str, selection: str, seed: int, done: int, total: int) -> None:
    if done == total or done % max(1, total // 5) == 0:
        print(f"{row} · {column} · {selection} · seed {seed}: epoch {done} of {total}", file=sys.stderr, flush=True)


def print_lines(lines: Sequence[Line]) -> None:
    """Spearman, mean ± deviation over seeds: below each method's name a line per column and its averages."""
    from rich.console import Console
    from rich.table import Table

    from ..models.reproduction import TITLES

    console = Console()
    table = Table("", *TITLES, box=None, padding=(0, 1, 0, 0))
    for line in lines:
        if not line.not_run:
            table.add_row(line.name, style="bold")
            for title, *numbers in line.rows():
                table.add_row(f"  {title}", *numbers)
    if table.row_count:
        console.print(table)
    for line in lines:
        if line.not_run:
            console.print(f"not run: {line.name} {line.not_run}", highlight=False)
