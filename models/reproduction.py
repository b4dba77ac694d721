"""``arabesque reproduce``: run the rows of a published table that have features, and compare the results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ..manifests.errors import InputError
from ..manifests.json_text import to_json
from ..pipeline.system.process_resources import available_cores
from .checkpoints import write_atomically
from .data_at_hand import DataAtHand
from .dataset_runs import Task, fold_mean, fold_trainers, make_task, report, trainers
from .figure_data import NetworkSize, network_size, save_figure_data
from .highlights import AnyReport
from .metric_log import LogFormat
from .metrics import fisher_mean
from .opening_record import RECORD, Opening, openings, record_opening
from .parallel_training import plan_pool_size, run_all
from .protocol import Precision, Selection
from .published_tables import Column, Metric, Row, Table, load_table
from .reports import pair_of, spread
from .row_comparison import RowComparison, RowPredictions, compare_rows
from .selection_gain import SelectionGain, selection_gain
from .table import model_class
from .trainer import SeedResult, Trainer, epoch_predictions, read_cross_validation

TITLES = (
    "printed",
    "best on test",
    "validation",
    "last epoch",
    "cross-validated",
    "gain by choice on test",
    "same on permuted labels",
)
SELECTIONS: tuple[Selection, ...] = ("best-test", "validation")

CellProgress = Callable[[str, str, str, int, int, int], None]
"""Called with row, column, selection, seed, number of finished epochs and total number of epochs."""


@dataclass(frozen=True)
class Cell:
    """Printed and reproduced results of one cell of the table."""

    published: float | None
    best_test: AnyReport | None
    """Results of the epoch that is best on the test videos, as in the papers"""
    last: AnyReport | None
    """Results of the last epochs of the same trainings; for a model with a closed solver, its only result"""
    validation: AnyReport | None
    """Results of the epoch that is best on held-out training videos"""
    cross_validated: tuple[float, ...] | None = None
    """Spearman of each seed on held-out folds of the training videos at the last epoch, averaged over the folds"""
    gains: tuple[SelectionGain, ...] = ()
    """Gain of each seed by selecting the epoch on the test videos"""
    predictions: RowPredictions | None = field(default=None, compare=False)
    """Predictions at the last epoch; None for labels of segments"""

    @property
    def values(self) -> list[Sequence[float] | None]:
        """One value per seed for each of `TITLES` except the first; None for results that were not computed"""
        gains = [each.gain for each in self.gains], [each.permuted for each in self.gains]
        return [
            *(each and each.by_seed for each in self.reports),
            self.cross_validated,
            *(each or None for each in gains),
        ]

    @property
    def reports(self) -> tuple[AnyReport | None, AnyReport | None, AnyReport | None]:
        """Reports on test videos in the order of `TITLES`"""
        return self.best_test, self.validation, self.last


@dataclass(frozen=True)
class RowResult:
    """Results of one row of the table."""

    name: str
    cells: Mapping[str, Cell]
    note: str = ""
    not_run: str = ""
    """Reason for missing cells, or empty"""
    datasets: Mapping[str, str] = field(default_factory=dict[str, str])
    """Column → data set; averages are over the columns of a data set"""
    printed_averages: Mapping[str, float] = field(default_factory=dict[str, float])
    """Data set → printed average"""
    metric: Metric = "spearman"
    size: NetworkSize | None = None
    """Measured size of the network; None if no column was run"""
    printed_parameters_m: float | None = None
    printed_inference_ms: float | None = None

    def rows(self) -> list[list[str]]:
        """Return a title and one text for each of `TITLES`, per column: the metric, mean ± deviation over the seeds.

        The last rows are averages over the columns, by Fisher's z as in the papers, and arithmetic.
        """
        found = [_texts(column, cell.published, cell.values) for column, cell in self.cells.items()]
        groups: dict[str, list[Cell]] = {}
        for column, cell in self.cells.items():
            groups.setdefault(self.datasets.get(column, ""), []).append(cell)
        for dataset, cells in groups.items():
            if len(cells) > 1:
                where = f" of {dataset}" if len(groups) > 1 else ""
                if self.metric == "map":
                    average = _average(f"average{where}", cells, _mean)
                    average[1] = f"{self.printed_averages[dataset]:.3f}" if dataset in self.printed_averages else "–"
                    found.append(average)
                    continue
                fisher = _average(f"average{where} (Fisher-z)", cells, fisher_mean)
                if dataset in self.printed_averages and len(cells) == list(self.datasets.values()).count(dataset):
                    fisher[1] = f"{self.printed_averages[dataset]:.3f}"
                found += [fisher, _average(f"average{where} (plain)", cells, _mean)]
        return found

    def size_text(self) -> str:
        """Return parameters and inference time, printed and measured; empty if neither is known."""
        parts: list[str] = []
        if self.printed_parameters_m is not None or self.size is not None:
            measured = "–"
            if self.size is not None:
                count = self.size.num_parameters
                measured = f"{count / 1e6:.2f} M" if count else "none (closed solver)"
            parts.append(f"parameters {_printed(self.printed_parameters_m, ' M')} printed, {measured} here")
        if self.printed_inference_ms is not None or self.size is not None:
            measured = "–" if self.size is None else f"{self.size.inference_ms:.1f} ms on {self.size.device}"
            parts.append(f"inference {_printed(self.printed_inference_ms, ' ms')} printed, {measured}")
        return "; ".join(parts)


def _average(title: str, cells: Sequence[Cell], mean: Callable[[Sequence[float]], float]) -> list[str]:
    """Average each seed over the columns, if every column has a result."""
    printed = [cell.published for cell in cells if cell.published is not None]
    by_column = zip(*(cell.reports for cell in cells), strict=True)
    ours: list[Sequence[float] | None] = [
        tuple(mean(values) for values in zip(*(each.by_seed for each in column if each), strict=True))
        if all(column)
        else None
        for column in by_column
    ]
    crossed = [cell.cross_validated for cell in cells]
    ours.append(tuple(mean(each) for each in zip(*filter(None, crossed), strict=True)) if all(crossed) else None)
    ours += [None, None]  # gains are not averaged by Fisher's z
    return _texts(title, mean(printed) if len(printed) == len(cells) else None, ours)


def _printed(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:g}{unit}"


@dataclass(frozen=True, eq=False)
class Reproduction:
    """Settings of a reproduction: table, features, labels and output folder."""

    name: str
    data: DataAtHand
    out: Path
    rows: tuple[str, ...] = ()
    """Names of rows, or parts of names; empty for all"""
    columns: tuple[str, ...] = ()
    """Names of columns; empty for all"""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of the trainings; models with a closed solver are fitted once for each split"""
    selections: tuple[Selection, ...] = SELECTIONS
    folds: int = 5
    """Number of folds of the training videos for the cross-validated result of the first seed; 0: not computed"""
    epochs: int | None = None
    """Maximum number of epochs, for quick tests; None for the published number"""
    precision: Precision = "float32"
    """Precision of matrix products in training: ``bfloat16`` halves the time on processors that support it"""
    workers: int | None = None
    """Number of parallel trainings; None for one per core"""
    threads: int | None = None
    """CPU threads of each training; None for an equal share of the cores"""
    device: torch.device | str = "cpu"
    """Device of features and networks"""
    log: LogFormat | None = None
    """Format of the curves that each training writes to its folder"""

    def run(self, on_epoch: CellProgress | None = None) -> list[RowResult]:
        """Run every row that has features, and write ``table.json`` and ``table.md`` to ``out``.

        Finished trainings in ``out`` are not repeated.

        Args:
            on_epoch: Progress callback.

        Raises:
            InputError: The table, a row or a column is not known, or features or labels cannot be read.
        """
        table = load_table(self.name)
        plan = self._planned(table)
        runs = [(cell, run) for cell in plan.cells for run in cell.runs]

        def report_epoch(number: int, done: int, total: int) -> None:
            cell, run = runs[number]
            if on_epoch is not None:
                on_epoch(cell.row.name, cell.column, cell.selection, run.card.seed, done, total)

        pool_size = plan_pool_size(len(runs), self.workers, self.threads, available_cores(), self.device)
        results = iter(run_all([run for _, run in runs], pool_size, report_epoch))
        finished = [(cell, list(islice(results, len(cell.runs)))) for cell in plan.cells]
        lines = [
            _row_result(table, row, [each for each in finished if each[0].row is row], plan.not_run.get(row.name, ""))
            for row in self._chosen(table)
        ]
        opened = dict.fromkeys((cell.task.labels.dataset.name, cell.task.title) for cell in plan.cells)
        for dataset, target in opened:
            record_opening(self.out, dataset, target, f"reproduce {self.name}: {self.description}")
        rows: list[dict[str, Any]] = [asdict(line) for line in lines]
        for row in rows:
            for values in row["cells"].values():
                del values["predictions"]
        compared = comparisons(lines)
        content = {
            "source": f"{table.source}, {table.number}",
            "ours": self.description,
            "rows": rows,
            "comparisons": {column: asdict(each) for column, each in compared.items()},
        }
        for cell in plan.cells:
            for run in cell.runs:
                if cell.selection != "cross-validation":
                    save_figure_data(run, cell.task)
        write_atomically(self.out / "table.json", to_json(content).encode())
        text = markdown(table, lines, self.description, compared, openings(self.out))
        write_atomically(self.out / "table.md", text.encode())
        return lines

    @property
    def description(self) -> str:
        """Seeds, features, precision and versions of the reproduced results"""
        several = len(self.seeds) > 1
        seeds = f"seed{'s' if several else ''} {', '.join(map(str, self.seeds))}"
        seeds += ", mean ± standard deviation" if several else ""
        made_with = ", ".join(f"{package} {version(package)}" for package in ("arabesque", "torch"))
        table = load_table(self.name)
        features = self.data.describe(table.datasets)
        metric = "Spearman" if table.metric == "spearman" else "Mean average precision"
        words = f"{metric} of {seeds}; {features}; {self.precision} products; {made_with}"
        return words if self.epochs is None else f"{words}; at most {self.epochs} epochs, FEWER THAN PUBLISHED"

    def _planned(self, table: Table) -> _Plan:
        """Return all trainings of the chosen rows, and the missing data of rows that cannot be run."""
        columns = table.chosen_columns(self.columns)
        datasets = list(dict.fromkeys(column.dataset for column in columns.values()))
        plan = _Plan([], {})
        for row in self._chosen(table):
            missing = {dataset: self.data.missing(row, dataset) for dataset in datasets}
            found = list(dict.fromkeys(filter(None, missing.values())))
            if len(found) == 1 and all(missing.values()):
                plan.not_run[row.name] = found[0]
            elif found:
                plan.not_run[row.name] = "; ".join(f"{dataset}: {text}" for dataset, text in missing.items() if text)
            for name, column in columns.items():
                if not missing[column.dataset]:
                    plan.cells.extend(self._cells_of(row, name, column))
        return plan

    def _cells_of(self, row: Row, name: str, column: Column) -> Iterator[_PlannedCell]:
        model = row.experiment(column, "last").model
        features = self.data.read(row, column.dataset, model, self.device)
        task = make_task(features, self.data.labels_of(column.dataset), column.target, column.subset)
        solved = hasattr(model_class(model), "solve")
        # a closed solver has no random numbers: a seed changes its result only through a random split
        seeds = self.seeds[:1] if solved and not task.labels.dataset.random_splits else self.seeds
        selections: tuple[Selection, ...] = ("last",) if solved else self.selections
        for selection in selections:
            experiment = row.experiment(column, selection).in_precision(self.precision)
            if self.epochs is not None:
                experiment = experiment.shortened(self.epochs)
            folder = cell_folder(self.out, row, name, selection)
            yield _PlannedCell(row, name, selection, task, trainers(task, experiment, seeds, folder, log=self.log))
        if self.folds and not task.highlights and not hasattr(model_class(model), "cross_validation"):
            experiment = row.experiment(column, "last").in_precision(self.precision)
            experiment = experiment if self.epochs is None else experiment.shortened(self.epochs)
            folder = cell_folder(self.out, row, name, "cross-validation")
            if runs := fold_trainers(task, experiment, self.seeds[0], self.folds, folder):
                yield _PlannedCell(row, name, "cross-validation", task, runs)

    def _chosen(self, table: Table) -> list[Row]:
        wanted = [part.lower() for part in self.rows]
        chosen = [row for row in table.rows if not wanted or any(part in row.name.lower() for part in wanted)]
        if not chosen:
            names = "; ".join(row.name for row in table.rows)
            raise InputError(f"no row of {self.name} has {' or '.join(self.rows)} in its name; there are {names}")
        return chosen


def cell_folder(out: Path, row: Row, column: str, selection: str) -> Path:
    """Return the folder of the trainings of one cell, which has the sub-folders ``seed-N``."""
    return out / _slug(row.name) / _slug(column) / selection


@dataclass(frozen=True, eq=False)
class _PlannedCell:
    """The trainings for one cell with one selection of the epoch."""

    row: Row
    column: str
    selection: str
    task: Task
    runs: list[Trainer]

    def added_to(self, cell: Cell, results: Sequence[SeedResult]) -> Cell:
        """Return the cell with the results of these trainings."""
        if self.selection == "cross-validation":
            held_out = tuple(each.last for each in results)
            return replace(
                cell,
                cross_validated=(fold_mean(self.task, results),),
                predictions=replace(self._predictions(cell), held_out=held_out),
            )
        if self.selection == "validation":
            return replace(cell, validation=report(self.task, results))
        if self.task.highlights:
            last = report(self.task, results, last=True)
            return replace(cell, best_test=report(self.task, results), last=last)
        pairs = tuple(pair_of(each.last, self.task.true) for each in results)
        predictions = replace(self._predictions(cell), pairs=pairs)
        folders = [run.folder for run in self.runs if run.folder is not None]
        if self.selection == "last":  # a closed solver
            last = report(self.task, results)
            crossed = [found for folder in folders if (found := read_cross_validation(folder)) is not None]
            if not crossed:
                return replace(cell, last=last, predictions=predictions)
            return replace(
                cell,
                last=last,
                cross_validated=tuple(float(each["spearman"]) for each in crossed),
                predictions=replace(predictions, held_out=(crossed[0]["held_out"],)),
            )
        gains = tuple(
            selection_gain(epochs, true, len(epochs) - 1)
            for epochs, (_, true) in zip(map(epoch_predictions, folders), pairs, strict=True)
        )
        best, last = report(self.task, results), report(self.task, results, last=True)
        return replace(cell, best_test=best, last=last, predictions=predictions, gains=gains)

    def _predictions(self, cell: Cell) -> RowPredictions:
        return cell.predictions or RowPredictions(self.row.name, (), (), self.task.true)


@dataclass(frozen=True, eq=False)
class _Plan:
    cells: list[_PlannedCell]
    not_run: dict[str, str]
    """Row → reason why it cannot be run"""


def _row_result(
    table: Table, row: Row, finished: Sequence[tuple[_PlannedCell, Sequence[SeedResult]]], not_run: str
) -> RowResult:
    cells: dict[str, Cell] = {}
    for planned, results in finished:
        cell = cells.get(planned.column) or Cell(row.printed.get(planned.column), None, None, None)
        cells[planned.column] = planned.added_to(cell, results)
    return RowResult(
        row.name,
        cells,
        "; ".join(filter(None, [row.note, row.method.source if row.method else ""])),
        not_run,
        {name: column.dataset for name, column in table.columns.items()},
        row.printed_averages,
        table.metric,
        network_size(finished[0][0].runs[0]) if finished else None,
        row.printed_parameters_m,
        row.printed_inference_ms,
    )


def comparisons(lines: Sequence[RowResult]) -> dict[str, RowComparison]:
    """Return column → comparison of the rows that were run on scores of videos."""
    predicted: dict[str, list[RowPredictions]] = {}
    for line in lines:
        for column, cell in line.cells.items():
            if cell.predictions is not None and cell.predictions.pairs:
                predicted.setdefault(column, []).append(cell.predictions)
    return {column: compare_rows(rows) for column, rows in predicted.items()}


def markdown(
    table: Table,
    lines: Sequence[RowResult],
    description: str,
    compared: Mapping[str, RowComparison],
    opened: Sequence[Opening] = (),
) -> str:
    """Return the results as a Markdown table, with paired differences of the rows and their averages.

    Args:
        table: The published table.
        lines: The results.
        description: Description of the `Reproduction`.
        compared: Column → comparison of its rows.
        opened: Earlier scorings of the test videos in this folder.
    """
    text = [f"{table.title}. Printed: {table.source}, {table.number}. Ours: {description}.", ""]
    text += [f"| Method | | {' | '.join(TITLES)} |", f"|---|---|{'---|' * len(TITLES)}"]
    for line in lines:
        text += [f"| {line.name} | | not run: {line.not_run} |{' |' * (len(TITLES) - 1)}"] if line.not_run else []
        text += [f"| {line.name} | {' | '.join(row)} |" for row in line.rows()]
    notes = [f"- {line.name}: {line.note}" for line in lines if line.note]
    notes += [f"- {line.name}: {size}" for line in lines if (size := line.size_text())]
    reports = [each for line in lines for cell in line.cells.values() for each in cell.reports if each]
    notes += dict.fromkeys(f"- {note}" for each in reports for note in each.notes)
    if found := [f"- {column}: {each}" for column, one in compared.items() for each in one.differences]:
        title = "Differences at the last epoch, 95 % interval of a paired bootstrap over the test videos:"
        notes += ["", title, "", *found]
    if found := [f"- {column}: {each}" for column, one in compared.items() for each in one.averages]:
        title = "Averages of standardized predictions at the last epoch, 95 % bootstrap interval; nothing is selected:"
        notes += ["", title, "", *found]
    if opened:
        counted = f"{len(opened)} command{'s' * (len(opened) != 1)}"
        notes += ["", f"The test videos were scored by {counted} with this output folder ({RECORD})."]
    return "\n".join([*text, "", *notes]) + "\n"


def _texts(title: str, printed: float | None, ours: Sequence[Sequence[float] | None]) -> list[str]:
    return [
        title,
        "–" if printed is None else f"{printed:.3f}",
        *("–" if each is None else str(spread(each)) for each in ours),
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _slug(name: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())
