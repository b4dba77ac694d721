"""``arabesque reproduce``: train the rows of a published table and print our results beside the published ones."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import LOGGER, TRAINING_DEVICE, check_device, check_features, check_logger, check_output_folder
from .console import JSON, print_json

if TYPE_CHECKING:
    from ..models.published_tables import Column
    from ..models.reproduction import RowResult
    from ..models.table_status import RowStatus

OUT = Path("reproduced")


_LOG = logging.getLogger(__name__)


def reproduce(
    table: Annotated[
        str | None,
        typer.Argument(help="Published table: action-net-1 … 4, pamfn-1 … 9, fisv, rg, or a .toml file; see --list."),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="[DATASET=]PATH: feature store, or released features (.npz, folder of .npy); may be repeated."
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(help="[DATASET=]FOLDER: folder of the label files of a data set; may be repeated."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Output folder of the trainings; the same command resumes them.")
    ] = OUT,
    list_rows: Annotated[
        bool, typer.Option("--list", help="Print the state of each row: done, runnable, or what is missing.")
    ] = False,
    stream: Annotated[str | None, typer.Option(help="Stream of the released features, e.g. vst.")] = None,
    row: Annotated[
        list[str] | None, typer.Option(help="Run only rows whose name contains this; may be repeated. Default: all.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Run only this column, e.g. TES; may be repeated. Default: all.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of trainings per table cell.")] = 5,
    folds: Annotated[
        int, typer.Option(min=0, help="Folds of the training videos for the cross-validated figure; 0 for none.")
    ] = 5,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs per training, for tests. Default: as published.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Precision of matrix products: float32, or bfloat16 (half the time).")
    ] = "float32",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of parallel trainings. Default: number of cores.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads per training. Default: cores ÷ workers.")
    ] = None,
    device: TRAINING_DEVICE = "auto",
    logger: LOGGER = None,
    best_test_only: Annotated[
        bool, typer.Option("--best-test-only", help="Skip the trainings that choose the epoch on validation videos.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Train the rows of a published table that the features allow; print published and reproduced values.

    ``best on test`` chooses the epoch on the test videos, as the papers do. It is an upper bound, not a result.
    A table of several data sets needs features and labels of each: --features rg=… --features fisv=… --labels rg=….
    """
    if precision not in ("float32", "bfloat16"):
        raise typer.BadParameter(
            f"{precision!r} is neither float32 nor bfloat16; give one of them", param_hint="--precision"
        )
    check_device(device)
    log = check_logger(logger)
    feature_paths = by_dataset(features or [], "--features")
    label_paths = {name: Path(path) for name, path in by_dataset(labels or [], "--labels").items()}
    from ..models.published_tables import load_table

    published = None if table is None else load_table(table)
    for path in feature_paths.values():
        check_features(path)
    if not list_rows:
        if published is None:
            raise typer.BadParameter("name a table, or add --list", param_hint="TABLE")
        for option, paths in (("--features", feature_paths), ("--labels", label_paths)):
            if not paths:
                raise typer.BadParameter(
                    "is needed to run a table; --list shows what each row needs", param_hint=option
                )
        check_labels(published.chosen_columns(column or []).values(), label_paths)
        check_output_folder(out, "--out")
    from ..models.data_at_hand import DataAtHand

    data = DataAtHand(feature_paths, label_paths, stream)
    if list_rows:
        from ..models.table_status import table_status

        rows = table_status([table] if table is not None else [], data, out)
        if as_json:
            print_json([asdict(each) for each in rows])
        else:
            print_status(rows)
        return
    assert table is not None
    from ..models.metric_log import summary_writer_class
    from ..models.reproduction import SELECTIONS, Reproduction
    from ..pipeline.machine import find_device

    if log == "tensorboard":
        summary_writer_class()
    reproduction = Reproduction(
        name=table,
        data=data,
        out=out / Path(table).stem,
        rows=tuple(row or ()),
        columns=tuple(column or ()),
        seeds=tuple(range(seeds)),
        selections=SELECTIONS[:1] if best_test_only else SELECTIONS,
        folds=folds,
        epochs=epochs,
        precision=precision,
        workers=workers,
        threads=threads,
        device=find_device(device),
        log=log,
    )
    lines = reproduction.run(_print_progress)
    from ..reports.comparison import write_table_page

    write_table_page(reproduction.out / "table.json", reproduction.out / "report")
    if as_json:
        files = {"page": reproduction.out / "report" / "index.html", "table": reproduction.out / "table.json"}
        print_json({"table": table, "description": reproduction.description, "files": files})
        return
    print_lines(lines)
    print(reproduction.description)
    print(reproduction.out / "report" / "index.html")
    print(reproduction.out / "table.md")


def by_dataset(values: Sequence[str], option: str) -> dict[str, str]:
    """Parse ``[DATASET=]PATH`` of a repeated option: data set → path; the empty name is for all other data sets."""
    from ..manifests.datasets import list_datasets

    found: dict[str, str] = {}
    for value in values:
        name, equals, path = value.partition("=")
        dataset, path = (name, path) if equals and name in list_datasets() else ("", value)
        if dataset in found:
            raise typer.BadParameter(f"{dataset or 'a path without data set'} is given twice", param_hint=option)
        found[dataset] = path
    return found


def check_labels(columns: Iterable[Column], folders: Mapping[str, Path]) -> None:
    """Read the labels of every data set of these columns, before torch is imported.

    Args:
        columns: Columns of the table that are to be run.
        folders: Data set → folder of its label files; the empty name is for all other data sets.

    Raises:
        InputError: Labels cannot be read, or none of the data sets has labels.
    """
    from ..manifests.datasets import load_dataset
    from ..manifests.errors import InputError
    from ..manifests.label_files import read_dataset_labels

    readable, errors = False, list[InputError]()
    for dataset in dict.fromkeys(column.dataset for column in columns):
        folder = folders.get(dataset, folders.get(""))
        if folder is None:
            continue
        try:
            read_dataset_labels(load_dataset(dataset), folder)
            readable = True
        except InputError as error:
            if dataset in folders:
                raise
            errors.append(error)
    if not readable:
        raise errors[0] if errors else InputError("none of the data sets has labels; add --labels DATASET=FOLDER")


def _print_progress(row: str, column: str, selection: str, seed: int, done: int, total: int) -> None:
    if done == total or done % max(1, total // 5) == 0:
        _LOG.info(f"{row} · {column} · {selection} · seed {seed}: epoch {done} of {total}")


def print_status(rows: Sequence[RowStatus]) -> None:
    """Print the state of each row of each table, one line per data set where they differ."""
    from rich.console import Console
    from rich.table import Table

    from ..models.published_tables import load_table

    console = Console()
    for name in dict.fromkeys(row.table for row in rows):
        published = load_table(name)
        heading = f"[bold]{name}[/bold]  {published.source}, {published.number}: {published.title}"
        console.print(heading, highlight=False, soft_wrap=True)
        grid = Table(show_header=False, box=None, padding=(0, 2, 0, 2))
        own = [row for row in rows if row.table == name]
        for title in dict.fromkeys(row.row for row in own):
            states: dict[tuple[str, str], list[str]] = {}
            for row in own:
                if row.row == title:
                    states.setdefault((row.state, row.detail), []).append(row.dataset)
            for (state, detail), datasets in states.items():
                grid.add_row(title, ", ".join(datasets), f"{state}: {detail}" if detail else state)
        console.print(grid)


def print_lines(lines: Sequence[RowResult]) -> None:
    """Print Spearman as mean ± deviation over seeds; each method has one line per column and its averages."""
    from rich.console import Console
    from rich.table import Column, Table

    from ..models.reproduction import TITLES

    console = Console()
    if not console.is_terminal:  # a file or a pipe: no title is cut
        console = Console(width=max(console.width, 140))
    table = Table(Column("", no_wrap=True), *TITLES, box=None, padding=(0, 1, 0, 0))
    for line in lines:
        if line.cells:
            table.add_row(line.name, style="bold")
            for title, *numbers in line.rows():
                table.add_row(f"  {title}", *numbers)
    if table.row_count:
        console.print(table)
    for line in lines:
        if size := line.size_text():
            print(f"{line.name}: {size}")
    for line in lines:
        if line.not_run:
            print(f"not run: {line.name} {line.not_run}")
