"""``arabesque train``: train a scoring model on features and labels, and evaluate it on held-out videos."""

from __future__ import annotations

import logging
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..pipeline.system.process_resources import available_cores
from .arguments import (
    LOGGER,
    TRAINING_DEVICE,
    check_device,
    check_features,
    check_labels,
    check_logger,
    check_output_folder,
)
from .console import JSON, print_json
from .messages import progress_is_shown

if TYPE_CHECKING:
    import torch

    from ..models.highlights import AnyReport
    from ..models.parallel_training import EpochsDone
    from ..models.search import Trial
    from ..models.training import Progress, Report
    from ..pipeline.store.files.storage import StorePath


_LOG = logging.getLogger(__name__)


def train(
    store: Annotated[str, typer.Argument(help="Feature store, or released features (.npz, folder of .npy).")],
    labels: Annotated[
        Path, typer.Option(help="CSV file (video_id,score); with --dataset, the folder of its label files.")
    ],
    target: Annotated[str | None, typer.Option(help="Name of the score column, if there are several.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Output folder. Default: model/ in the parent folder of the store."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training videos. Default: depends on the model.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split and of the initial weights.")] = 0,
    partial: Annotated[bool, typer.Option("--partial", help="Also use partial videos.")] = False,
    max_lost: Annotated[
        str | None, typer.Option(help="Also use partial videos that lost at most this share, e.g. 5%.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Train on this data set: rg, fisv, …, or a .toml file; csv for a CSV file."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="With --dataset: name of the model, e.g. gdlt, or an import path, module:class.")
    ] = "gdlt",
    subset: Annotated[str | None, typer.Option(help="With --dataset: apparatus of rg, e.g. Ball.")] = None,
    streams: Annotated[
        str | None, typer.Option(help="With --dataset: streams, separated by commas. Default: as published.")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --dataset: number of trainings, with seeds from --seed on. Default: number of random splits, or "
            "1.",
        ),
    ] = None,
    selection: Annotated[
        str, typer.Option(help="With --dataset: epoch to evaluate: last, validation or best-test (as papers do).")
    ] = "last",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="With --dataset: parallel trainings. Default: number of cores, at most seeds."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="With --dataset: CPU threads per training. Default: cores ÷ workers.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="With --dataset: setting of the model, e.g. dropout=0.7; may be repeated."),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="With --dataset: field of the protocol, e.g. batch_size=16, or a protocol's name; may be repeated."
        ),
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(
            help="With --dataset: training stages: branches-first, pamfn, or a TOML file. Default: as published."
        ),
    ] = None,
    one_stage: Annotated[
        bool,
        typer.Option(
            "--one-stage", help="With --dataset: train PAMFN end to end, without separate training of its branches."
        ),
    ] = False,
    drop_first: Annotated[
        bool,
        typer.Option(
            "--drop-first", help="With --dataset: skip the first line of each label file, as some authors do."
        ),
    ] = False,
    search: Annotated[
        int,
        typer.Option(
            min=0, help="With --dataset: random settings to compare by cross-validation on the training videos."
        ),
    ] = 0,
    search_space: Annotated[
        Path | None,
        typer.Option(help="With --search: TOML file of the settings to draw. Default: manifests/search.toml."),
    ] = None,
    device: TRAINING_DEVICE = "auto",
    logger: LOGGER = None,
    as_json: JSON = False,
) -> None:
    """Train a scoring model and report Spearman's rank correlation on held-out videos.

    Without --dataset: a small model for a few dozen to a few hundred videos with scores in a CSV file. With --dataset:
    a published model on a published split; --dataset csv holds out a fifth of a CSV file. Interrupted trainings with
    --dataset resume with the same command.
    """
    from ..manifests.datasets import load_dataset
    from ..models.published_methods import protocol_names
    from ..models.table import require_known
    from ..pipeline.store.files.storage import as_store_path

    features = as_store_path(store)
    if out is None and not isinstance(features, Path):
        raise typer.BadParameter("has no default for a store at a URL; give a folder", param_hint="--out")
    share = parse_share(max_lost, partial=partial)
    folder = out or Path(features).resolve().parent / "model"
    if dataset is not None and dataset != "csv" and target is None and len(load_dataset(dataset).targets) > 1:
        raise typer.BadParameter("the data set has several scores; give one", param_hint="--target")
    if selection not in ("last", "validation", "best-test"):
        raise typer.BadParameter(f"{selection!r} is not one of last, validation, best-test", param_hint="--selection")
    settings = dict(_setting(each, "--set") for each in setting or [])
    fields = dict(_setting(each, "--protocol") for each in protocol or [] if "=" in each)
    names = [each for each in protocol or [] if "=" not in each]
    if unknown := [name for name in names if name not in protocol_names()]:
        raise typer.BadParameter(
            f"{unknown[0]!r} is neither field=value nor one of {', '.join(protocol_names())}", param_hint="--protocol"
        )
    if len(names) > 1:
        raise typer.BadParameter(f"{' and '.join(names)} are several protocols; give one", param_hint="--protocol")
    if one_stage and stages is not None:
        raise typer.BadParameter("--one-stage trains a single stage; give one of the two", param_hint="--stages")
    check_device(device)
    log = check_logger(logger)
    require_known(model)
    check_output_folder(folder, "--out")
    check_features(store)
    check_labels(labels, dataset, target, drop_first=drop_first)
    from ..pipeline.machine import find_device

    place = find_device(device)
    if seeds is None:
        seeds = 1 if dataset in (None, "csv") or search else load_dataset(dataset).num_splits
    if dataset is None:
        _train_small(
            features,
            labels,
            folder,
            target,
            epochs,
            seed,
            partial=partial,
            max_lost=share,
            device=place,
            as_json=as_json,
        )
        return
    from ..models.dataset_training import experiment_for, train_on_dataset
    from ..models.metric_log import summary_writer_class
    from ..models.parallel_training import plan_pool_size
    from ..models.search import load_space

    if log == "tensorboard":
        summary_writer_class()

    experiment = experiment_for(
        dataset,
        model,
        subset or target or "score",
        streams=None if streams is None else tuple(streams.split(",")),
        settings=settings,
        protocol=fields,
        named=names[0] if names else None,
        selection=selection,
        epochs=epochs,
        stages=stages,
        one_stage=one_stage,
    )
    space = load_space(search_space) if search else None
    _LOG.info(f"settings: {experiment.source}")
    pool_size = plan_pool_size(max(seeds, search), workers, threads, available_cores(), place)
    with show_seeds() as on_epoch:
        reports = train_on_dataset(
            features,
            labels,
            dataset,
            target,
            experiment,
            tuple(range(seed, seed + seeds)),
            folder,
            subset=subset,
            partial=partial,
            max_lost=share,
            drop_first=drop_first,
            trials=search,
            space=space,
            on_search=(lambda trials: None) if as_json else print_search,
            device=place,
            log=log,
            pool_size=pool_size,
            on_epoch=on_epoch,
        )
    if as_json:
        first = reports[0]
        print_json(
            {
                "folder": folder,
                "num_test": first.num_test,
                "seeds": list(first.seeds),
                "figures": {report.selection_text: report.figures() for report in reports},
                "notes": list(first.notes),
            }
        )
        return
    print_seeds(reports)
    print(folder)


def _train_small(
    store: StorePath,
    labels: Path,
    folder: Path,
    target: str | None,
    epochs: int | None,
    seed: int,
    *,
    partial: bool,
    max_lost: float | None,
    device: torch.device,
    as_json: bool,
) -> None:
    from ..models.training import train_and_evaluate

    with show_epochs() as on_epoch:
        report = train_and_evaluate(
            store,
            labels,
            folder,
            target=target,
            epochs=epochs,
            seed=seed,
            partial=partial,
            max_lost=max_lost,
            device=device,
            on_epoch=on_epoch,
        )
    if as_json:
        print_json(asdict(report))
    else:
        print_report(report)


def parse_share(text: str | None, *, partial: bool) -> float | None:
    """Parse ``--max-lost``: ``5%`` and ``0.05`` are 0.05. None if it is not given."""
    if text is None:
        return None
    if partial:
        raise typer.BadParameter(
            "--partial already uses all partial videos; give one of the two", param_hint="--max-lost"
        )
    digits = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(%?)", text.strip(), re.ASCII)
    share = float(digits[1]) / (100 if digits[2] else 1) if digits else -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter(f"{text!r} is not a share; write 5% or 0.05", param_hint="--max-lost")
    return share


def _setting(text: str, option: str) -> tuple[str, Any]:
    """Parse ``name=value``, e.g. ``dropout=0.7``. The value is TOML; anything else is text."""
    import tomllib

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not name=value; write e.g. dropout=0.7", param_hint=option)
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


@contextmanager
def show_epochs() -> Generator[Progress, None, None]:
    """Show a progress bar on standard error while the block runs, if it is a terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True, disable=not progress_is_shown()) as bar:
        task = bar.add_task("training", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def show_seeds() -> Generator[EpochsDone, None, None]:
    """Show a progress bar per seed; without a terminal, print a line every ten percent."""
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    terminal = progress_is_shown()
    tasks: dict[int, TaskID] = {}
    with Bar(console=Console(stderr=True), transient=True, disable=not terminal) as bar:

        def show(seed: int, done: int, total: int) -> None:
            if seed not in tasks:
                tasks[seed] = bar.add_task(f"seed {seed}")
            bar.update(tasks[seed], completed=done, total=total)
            if not terminal and (done == total or done % max(1, total // 10) == 0):
                _LOG.info(f"seed {seed}: epoch {done} of {total}")

        yield show


def print_seeds(reports: Sequence[AnyReport]) -> None:
    """Print one column for each choice of the epoch."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", *(report.selection_text for report in reports), box=None, padding=(0, 3, 0, 0))
    for name in reports[0].figures():
        table.add_row(name, *(report.figures()[name] for report in reports))
    Console().print(table)
    first = reports[0]
    for note in first.notes:
        _LOG.info(note)
    seeds = ", ".join(map(str, first.seeds))
    over = f"seeds {seeds}; mean ± deviation over seeds" if len(first.seeds) > 1 else f"seed {seeds}"
    print(f"{first.num_test} test videos, {over}")


def print_search(trials: Sequence[Trial], most: int = 5) -> None:
    """Print the best trials of a search, with a caveat."""
    from rich.console import Console
    from rich.table import Table

    names = list(dict.fromkeys(name for trial in trials for name in trial.changes))
    table = Table("trial", "Spearman", *names, box=None, padding=(0, 2, 0, 0))
    for trial in trials[:most]:
        table.add_row(
            str(trial.number), f"{trial.spearman:.3f}", *(str(trial.changes.get(name, "as given")) for name in names)
        )
    Console().print(table)
    print(
        f"{len(trials)} configurations, cross-validated on the training videos; the best is trained. Its figure above "
        "is the best of many and therefore too high. The test videos below were not part of the search"
    )


def print_report(report: Report) -> None:
    """Print results and files to standard output, excluded videos and notes to standard error."""
    from rich.console import Console
    from rich.table import Table

    _print_excluded("video(s) without a label", report.without_label)
    _print_excluded("label(s) without a video", report.without_video)
    _print_excluded("partial video(s) (--partial or --max-lost uses them)", report.partial)
    _print_excluded("labeled video(s) without complete features", report.unfinished)
    for note in report.notes:
        _LOG.info(note)
    table = Table(show_header=False)
    for name, value in report.rows():
        table.add_row(name, value)
    Console().print(table)
    for path in report.files:
        print(path)


def _print_excluded(what: str, names: Sequence[str], most: int = 3) -> None:
    if names:
        more = f" and {len(names) - most} more" if len(names) > most else ""
        _LOG.warning(f"{len(names)} {what} excluded: {', '.join(names[:most])}{more}")
