"""``arabesque train``: from features and labels to a scoring model, and how far to trust it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..models.reports import SeedsReport
    from ..models.side_by_side import EpochsDone
    from ..models.training import Progress, Report
    from ..pipeline.store.folders import Root


def train(
    store: Annotated[str, typer.Argument(help="A feature store, or released features (.npz, folder of .npy).")],
    labels: Annotated[Path, typer.Option(help="A CSV file (video_id,score), or with --dataset its label folder.")],
    target: Annotated[str | None, typer.Option(help="Which score, where there are several.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for model, predictions, report. Default: model/ in the store's parent.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training videos.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides the split and the first weights.")] = 0,
    partial: Annotated[bool, typer.Option("--partial", help="Also use videos whose file breaks off.")] = False,
    dataset: Annotated[
        str | None, typer.Option(help="Train a published model on a split: rg, fisv, …; csv for a CSV.")
    ] = None,
    model: Annotated[str, typer.Option(help="With --dataset: which model, for example gdlt.")] = "gdlt",
    subset: Annotated[str | None, typer.Option(help="With --dataset: an apparatus of rg, for example Ball.")] = None,
    streams: Annotated[str | None, typer.Option(help="With --dataset: names, by commas; as published.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="With --dataset: how many trainings, from --seed on.")] = 1,
    selection: Annotated[
        str, typer.Option(help="With --dataset: whose weights are judged: last, validation, or best-test as papers do.")
    ] = "last",
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --dataset: trainings at once. Default: as many as cores and seeds.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="With --dataset: CPU threads of each. Default: the cores' share.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="With --dataset: a setting of the model, as in dropout=0.7.")
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(help="With --dataset: a field of the training protocol, as in score_range=[0,40]."),
    ] = None,
    one_stage: Annotated[
        bool, typer.Option("--one-stage", help="With --dataset: PAMFN all at once, no branches trained before.")
    ] = False,
    drop_first: Annotated[
        bool, typer.Option("--drop-first", help="With --dataset: leave out each label file's first line, as some do.")
    ] = False,
) -> None:
    """Train a scoring model and report Spearman's rank correlation on videos that it has not seen.

    With a CSV of scores: a small model, made for a few dozen to a few hundred videos. With --dataset: a published model
    on a published split, or with --dataset csv on a CSV of which a fifth is held out. Killed, the latter go on where
    they stopped.
    """
    from ..pipeline.store.folders import as_root

    place = as_root(store)
    if out is None and not isinstance(place, Path):
        raise typer.BadParameter("a store at a URL has no folder beside it; name one", param_hint="--out")
    folder = out or Path(place).resolve().parent / "model"
    if dataset is None:
        _train_small(place, labels, folder, target, epochs, seed, partial=partial)
        return
    from ..models.dataset_training import experiment_for, train_on_dataset
    from ..models.side_by_side import plan_crew

    if target is None and dataset != "csv":
        raise typer.BadParameter("a data set has several scores; name one", param_hint="--target")
    if selection not in ("last", "validation", "best-test"):
        raise typer.BadParameter(f"{selection!r} is none of last, validation, best-test", param_hint="--selection")
    experiment = experiment_for(
        dataset,
        model,
        subset or target or "score",
        streams=None if streams is None else tuple(streams.split(",")),
        settings=dict(_setting(each, "--set") for each in setting or []),
        protocol=dict(_setting(each, "--protocol") for each in protocol or []),
        selection=selection,
        epochs=epochs,
        one_stage=one_stage,
    )
    with show_seeds() as on_epoch:
        reports = train_on_dataset(
            place,
            labels,
            dataset,
            target,
            experiment,
            tuple(range(seed, seed + seeds)),
            folder,
            subset=subset,
            partial=partial,
            drop_first=drop_first,
            crew=plan_crew(seeds, workers, threads, len(os.sched_getaffinity(0))),
            on_epoch=on_epoch,
        )
    print_seeds(reports)
    print(folder)


def _train_small(
    store: Root, labels: Path, folder: Path, target: str | None, epochs: int | None, seed: int, *, partial: bool
) -> None:
    from ..models.training import train_and_evaluate

    with show_epochs() as on_epoch:
        report = train_and_evaluate(
            store, labels, folder, target=target, epochs=epochs, seed=seed, partial=partial, on_epoch=on_epoch
        )
    print_report(report)


def _setting(text: str, option: str) -> tuple[str, Any]:
    """``dropout=0.7``; the value is TOML, a bare word is text."""
    import tomllib

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} should read name=value", param_hint=option)
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


@contextmanager
def show_epochs() -> Iterator[Progress]:
    """A bar on standard error while the block runs; nothing where that is no terminal, since it takes seconds."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("training", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def show_seeds() -> Iterator[EpochsDone]:
    """A bar per seed, or a line per ten percent where standard error is no terminal: it takes minutes."""
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    terminal = sys.stderr.isatty()
    tasks: dict[int, TaskID] = {}
    with Bar(console=Console(stderr=True), transient=True, disable=not terminal) as bar:

        def show(seed: int, done: int, total: int) -> None:
            if seed not in tasks:
                tasks[seed] = bar.add_task(f"seed {seed}")
            bar.update(tasks[seed], completed=done, total=total)
            if not terminal and (done == total or done % max(1, total // 10) == 0):
                print(f"seed {seed}: epoch {done} of {total}", file=sys.stderr, flush=True)

        yield show


def print_seeds(reports: Sequence[SeedsReport]) -> None:
    """One column per way of choosing the epoch."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", *(report.words for report in reports), box=None, padding=(0, 3, 0, 0))
    table.add_row("Spearman", *(str(report.spearman) for report in reports))
    table.add_row("95 % interval", *(f"{report.interval.low:.3f} … {report.interval.high:.3f}" for report in reports))
    table.add_row("Pearson", *(str(report.pearson) for report in reports))
    table.add_row("R-l2 ×100", *(str(report.relative_l2) for report in reports))
    table.add_row("MSE", *(str(report.mean_squared_error) for report in reports))
    Console().print(table)
    first = reports[0]
    seeds = ", ".join(map(str, first.seeds))
    over = f"seeds {seeds}; mean ± deviation over seeds" if len(first.seeds) > 1 else f"seed {seeds}"
    print(f"{first.num_test} test videos, {over}")


def print_report(report: Report) -> None:
    """The held-out numbers and the files on standard output; what was left out on standard error."""
    from rich.console import Console
    from rich.table import Table

    _tell_left_out("video(s) without a label", report.without_label)
    _tell_left_out("label(s) without a video", report.without_video)
    _tell_left_out("partial video(s), taken with --partial,", report.partial)
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
