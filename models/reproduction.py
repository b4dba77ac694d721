"""A published table run again: which rows the features at hand allow, what they reach, beside what was printed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Literal

from ..manifests.complaints import did_you_mean
from ..manifests.datasets import load_dataset
from ..manifests.errors import ManifestError
from ..manifests.label_files import read_dataset_labels
from .checkpoints import put_whole, to_json
from .dataset_runs import Task, make_task, report, seed_runs
from .features import FeatureSet
from .metrics import fisher_mean
from .protocol import Precision
from .released_features import read_features
from .reports import SeedsReport, spread
from .seed_run import SeedResult, SeedRun
from .side_by_side import plan_crew, run_all
from .table import model_class
from .tables import Column, Row, Table, load_table

Selection = Literal["best-test", "validation"]
TITLES = ("printed", "best on test", "validation", "last epoch")
SELECTIONS: tuple[Selection, ...] = ("best-test", "validation")

CellProgress = Callable[[str, str, str, int, int, int], None]
"""Called with row, column, selection, seed, epochs done and to do."""


@dataclass(frozen=True)
class Cell:
    """One number of the table, ours beside theirs."""

    published: float | None
    best_test: SeedsReport | None
    """As the papers choose the epoch"""
    last: SeedsReport | None
    """The same trainings' last epochs; of a model that is solved, its only result"""
    validation: SeedsReport | None
    """The epoch chosen on training videos set aside"""

    @property
    def reports(self) -> tuple[SeedsReport | None, SeedsReport | None, SeedsReport | None]:
        """In the order of `TITLES`."""
        return self.best_test, self.validation, self.last


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    name: str
    cells: Mapping[str, Cell]
    note: str = ""
    not_run: str = ""
    """Why there are no cells"""

    def rows(self) -> list[list[str]]:
        """A title and what stands under `TITLES`, per column: Spearman, mean ± deviation over the seeds.

        The averages over the columns follow: of Fisher's z, which is what the papers print, and plain.
        """
        found = [
            _texts(column, cell.published, [each and each.by_seed for each in cell.reports])
            for column, cell in self.cells.items()
        ]
        if len(self.cells) > 1:
            found += [self._average("average (Fisher-z)", fisher_mean), self._average("average (plain)", _mean)]
        return found

    def _average(self, title: str, mean: Callable[[Sequence[float]], float]) -> list[str]:
        """Seed by seed over the columns, where every column has the number."""
        cells = self.cells.values()
        printed = [cell.published for cell in cells if cell.published is not None]
        by_column = zip(*(cell.reports for cell in cells), strict=True)
        ours = [
            tuple(mean(values) for values in zip(*(each.by_seed for each in column if each), strict=True))
            if all(column)
            else None
            for column in by_column
        ]
        return _texts(title, mean(printed) if len(printed) == len(self.cells) else None, ours)


@dataclass(frozen=True, eq=False)
class Reproduction:
    """What to run: a table, the features and labels at hand."""

    name: str
    features: Path
    labels: Path
    out: Path
    streams: tuple[str, ...] | None = None
    """The name of released features' stream"""
    rows: tuple[str, ...] = ()
    """Names of rows, or parts of them; all where there is none"""
    columns: tuple[str, ...] = ()
    """Names of columns; all where there is none"""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    selections: tuple[Selection, ...] = SELECTIONS
    epochs: int | None = None
    """Fewer than published, to try things out"""
    precision: Precision = "float32"
    """Of training's matrix products: ``bfloat16`` takes half the time where a processor has it"""
    workers: int | None = None
    """Trainings at once; None: as many as cores"""
    threads: int | None = None
    """CPU threads of each; None: the cores' share"""

    def run(self, on_epoch: CellProgress | None = None) -> list[Line]:
        """Every row that can be run; finished trainings below ``out`` are not repeated. Writes ``table.json`` there."""
        table = load_table(self.name)
        plan = self._planned(table)
        runs = [(cell, run) for cell in plan.cells for run in cell.runs]

        def tell(number: int, done: int, total: int) -> None:
            cell, run = runs[number]
            if on_epoch is not None:
                on_epoch(cell.row.name, cell.column, cell.selection, run.card.seed, done, total)

        crew = plan_crew(len(runs), self.workers, self.threads, len(os.sched_getaffinity(0)))
        results = iter(run_all([run for _, run in runs], crew, tell))
        reports = [(cell, cell.reports(list(islice(results, len(cell.runs))))) for cell in plan.cells]
        lines = [
            Line(row.name, {}, row.note, not_run=plan.not_run[row.name])
            if row.name in plan.not_run
            else Line(row.name, _cells(row, [each for each in reports if each[0].row is row]), row.note)
            for row in self._chosen(table)
        ]
        content = {"source": table.source, "ours": self.how, "rows": [asdict(line) for line in lines]}
        put_whole(self.out / "table.json", to_json(content))
        put_whole(self.out / "table.md", markdown(table, lines, self.how).encode())
        return lines

    @property
    def how(self) -> str:
        """What was done for our numbers, beyond the rows' own settings."""
        several = len(self.seeds) > 1
        seeds = f"seed{'s' if several else ''} {', '.join(map(str, self.seeds))}"
        seeds += ", mean ± standard deviation" if several else ""
        made_with = ", ".join(f"{package} {version(package)}" for package in ("arabesque", "torch"))
        words = f"Spearman of {seeds}; {self.features}; {self.precision} products; {made_with}"
        return words if self.epochs is None else f"{words}; at most {self.epochs} epochs, FEWER THAN PUBLISHED"

    def _planned(self, table: Table) -> _Plan:
        """All trainings of the chosen rows. Rows that read the same streams share them in memory."""
        rows, columns = self._chosen(table), self._chosen_columns(table)
        labels = read_dataset_labels(load_dataset(table.dataset), self.labels)
        features: dict[tuple[tuple[str, ...], bool], FeatureSet] = {}
        plan = _Plan([], {})
        for row in rows:
            missing = [stream for stream in row.streams if stream not in self._known_streams()]
            if missing:
                plan.not_run[row.name] = f"needs {', '.join(missing)}"
                continue
            one_grid = bool(model_class(row.model).one_grid) and len(row.streams) > 1
            if (row.streams, one_grid) not in features:
                features[row.streams, one_grid] = read_features(self.features, row.streams, one_grid=one_grid)
            for name, column in columns.items():
                task = make_task(features[row.streams, one_grid], labels, column.target, column.subset)
                plan.cells.extend(self._cells_of(row, name, task))
        return plan

    def _cells_of(self, row: Row, column: str, task: Task) -> Iterator[_PlannedCell]:
        solved = hasattr(model_class(row.model), "solve")
        for selection in ("last",) if solved else self.selections:
            experiment = row.experiment(column, selection).in_precision(self.precision)
            if self.epochs is not None:
                experiment = experiment.shortened(self.epochs)
            folder = self.out / _slug(row.name) / column / selection
            yield _PlannedCell(row, column, selection, task, seed_runs(task, experiment, self.seeds, folder))

    def _chosen(self, table: Table) -> list[Row]:
        wanted = [part.lower() for part in self.rows]
        chosen = [row for row in table.rows if not wanted or any(part in row.name.lower() for part in wanted)]
        if not chosen:
            names = "; ".join(row.name for row in table.rows)
            raise ManifestError(f"no row of {self.name} has {' or '.join(self.rows)} in its name; there are {names}")
        return chosen

    def _chosen_columns(self, table: Table) -> Mapping[str, Column]:
        for name in self.columns:
            if name not in table.columns:
                hint = did_you_mean(name, table.columns)
                raise ManifestError(f"{self.name} has no column {name!r}{hint}; there are {', '.join(table.columns)}")
        return {name: column for name, column in table.columns.items() if not self.columns or name in self.columns}

    def _known_streams(self) -> tuple[str, ...]:
        if self.streams is not None:
            return self.streams
        from ..pipeline.store.reader import FeatureStore

        return FeatureStore(self.features).streams


@dataclass(frozen=True, eq=False)
class _PlannedCell:
    """The trainings behind one number and one way to choose the epoch."""

    row: Row
    column: str
    selection: str
    task: Task
    runs: list[SeedRun]

    def reports(self, results: list[SeedResult]) -> dict[str, SeedsReport]:
        found = {self.selection: report(self.task, results)}
        if self.selection == "best-test":
            found["last"] = report(self.task, results, last=True)
        return found


@dataclass(frozen=True, eq=False)
class _Plan:
    cells: list[_PlannedCell]
    not_run: dict[str, str]
    """Row → why it cannot be run"""


def _cells(row: Row, reports: list[tuple[_PlannedCell, dict[str, SeedsReport]]]) -> dict[str, Cell]:
    """The row's cells by column."""
    found: dict[str, dict[str, SeedsReport]] = {}
    for cell, mine in reports:
        found.setdefault(cell.column, {}).update(mine)
    return {
        column: Cell(row.published.get(column), each.get("best-test"), each.get("last"), each.get("validation"))
        for column, each in found.items()
    }


def markdown(table: Table, lines: Sequence[Line], how: str) -> str:
    """The table as it goes into a README; ``how``: what was done for our numbers."""
    text = [f"Printed: {table.source}. Ours: {how}.", ""]
    text += [f"| Method | | {' | '.join(TITLES)} |", f"|---|---|{'---|' * len(TITLES)}"]
    for line in lines:
        text += [f"| {line.name} | | not run: {line.not_run} |{' |' * (len(TITLES) - 1)}"] if line.not_run else []
        text += [f"| {line.name} | {' | '.join(row)} |" for row in line.rows()]
    notes = [f"- {line.name}: {line.note}" for line in lines if line.note]
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
