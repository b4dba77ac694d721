"""A published table run again: which rows the features at hand allow, what they reach, beside what was printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ..manifests.datasets import load_dataset
from ..manifests.label_files import read_dataset_labels
from .checkpoints import put_whole, to_json
from .dataset_runs import Task, make_task, report, run_seeds
from .features import FeatureSet
from .protocol import Precision
from .released_features import read_features
from .reports import SeedsReport
from .table import model_class
from .tables import Row, Table, load_table

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

    def texts(self) -> list[str]:
        """What stands under `TITLES`: Spearman, mean ± deviation over the seeds."""
        printed = "–" if self.published is None else f"{self.published:.3f}"
        ours = (self.best_test, self.validation, self.last)
        return [printed, *("–" if each is None else str(each.spearman) for each in ours)]


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    name: str
    cells: Mapping[str, Cell]
    note: str = ""
    not_run: str = ""
    """Why there are no cells"""


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
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    selections: tuple[Selection, ...] = SELECTIONS
    epochs: int | None = None
    """Fewer than published, to try things out"""
    precision: Precision = "float32"
    """Of training's matrix products: ``bfloat16`` takes half the time where a processor has it"""

    def run(self, on_epoch: CellProgress | None = None) -> list[Line]:
        """Every row that can be run; finished trainings below ``out`` are not repeated. Writes ``table.json`` there."""
        table = load_table(self.name)
        labels = read_dataset_labels(load_dataset(table.dataset), self.labels)
        lines: list[Line] = []
        for row in self._chosen(table):
            features = self._features(row)
            if isinstance(features, str):
                lines.append(Line(row.name, {}, row.note, not_run=features))
                continue
            cells: dict[str, Cell] = {}
            for name, column in table.columns.items():
                task = make_task(features, labels, column.target, column.subset)
                cells[name] = self._cell(row, name, task, on_epoch)
            lines.append(Line(row.name, cells, row.note))
        put_whole(self.out / "table.json", to_json({"source": table.source, "rows": [asdict(line) for line in lines]}))
        put_whole(self.out / "table.md", markdown(table, lines).encode())
        return lines

    def _chosen(self, table: Table) -> list[Row]:
        wanted = [part.lower() for part in self.rows]
        return [row for row in table.rows if not wanted or any(part in row.name.lower() for part in wanted)]

    def _features(self, row: Row) -> FeatureSet | str:
        """The row's streams, or why they cannot be had."""
        known = self._known_streams()
        missing = [stream for stream in row.streams if stream not in known]
        if missing:
            return f"needs {', '.join(missing)}"
        return read_features(self.features, row.streams, one_grid=model_class(row.model).one_grid)

    def _known_streams(self) -> tuple[str, ...]:
        if self.streams is not None:
            return self.streams
        from ..pipeline.store.reader import FeatureStore

        return FeatureStore(self.features).streams

    def _cell(self, row: Row, column: str, task: Task, on_epoch: CellProgress | None) -> Cell:
        found: dict[str, SeedsReport] = {}
        selections = self.selections if not hasattr(model_class(row.model), "solve") else ("last",)
        for selection in selections:
            experiment = row.experiment(column, selection).in_precision(self.precision)
            if self.epochs is not None:
                experiment = experiment.shortened(self.epochs)
            folder = self.out / _slug(row.name) / column / selection
            show = None if on_epoch is None else _of_cell(on_epoch, row.name, column, selection)
            results = run_seeds(task, experiment, self.seeds, folder, show)
            found[selection] = report(task, results)
            if selection == "best-test":
                found["last"] = report(task, results, last=True)
        return Cell(row.published.get(column), found.get("best-test"), found.get("last"), found.get("validation"))


def markdown(table: Table, lines: Sequence[Line]) -> str:
    """The table as it goes into a README: Spearman, mean ± deviation over the seeds."""
    heads = [f"{column} {title}" for column in table.columns for title in TITLES]
    text = [f"Source of the printed numbers: {table.source}. Spearman, mean ± standard deviation over seeds.", ""]
    text += [f"| Method | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for line in lines:
        if line.not_run:
            text.append(f"| {line.name} | {' | '.join([f'not run: {line.not_run}'] + [''] * (len(heads) - 1))} |")
            continue
        parts = [part for cell in line.cells.values() for part in cell.texts()]
        text.append(f"| {line.name} | {' | '.join(parts)} |")
    notes = [f"- {line.name}: {line.note}" for line in lines if line.note]
    return "\n".join([*text, "", *notes]) + "\n"


def _slug(name: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


def _of_cell(on_epoch: CellProgress, row: str, column: str, selection: str) -> Callable[[int, int, int], None]:
    return lambda seed, done, total: on_epoch(row, column, selection, seed, done, total)
