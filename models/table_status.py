"""``arabesque reproduce --list``: state of each row of the published tables: done, ready, or what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .data_at_hand import DataAtHand
from .published_tables import Row, Table, list_tables, load_table
from .reproduction import SELECTIONS, cell_folder
from .trainer import RESULT

State = Literal["done", "partly done", "runnable", "missing"]


@dataclass(frozen=True)
class RowStatus:
    """State of one row of a table on one data set."""

    table: str
    row: str
    dataset: str
    state: State
    detail: str = ""
    """Number of finished seeds, or what is missing"""


def table_status(names: Sequence[str], data: DataAtHand, out: Path) -> list[RowStatus]:
    """Return the state of every row of these tables, or of all tables, on every data set.

    A row is done if each of its columns has at least one finished training in ``out``.

    Args:
        names: Names of tables; empty for all.
        data: Available features and labels.
        out: Output folder of earlier reproductions.

    Raises:
        InputError: A table is not known, or features or labels cannot be read.
    """
    found: list[RowStatus] = []
    for name in names or list_tables():
        table = load_table(name)
        for row in table.rows:
            found += [_status(name, table, row, dataset, data, out / Path(name).stem) for dataset in table.datasets]
    return found


def _status(name: str, table: Table, row: Row, dataset: str, data: DataAtHand, out: Path) -> RowStatus:
    seeds = [_finished_seeds(row, column, out) for column in table.columns_of(dataset)]
    if all(seeds):
        return RowStatus(name, row.name, dataset, "done", f"{min(seeds)} seed{'s' if min(seeds) > 1 else ''}")
    missing = data.missing(row, dataset)
    if any(seeds):
        detail = f"{sum(map(bool, seeds))} of {len(seeds)} columns"
        return RowStatus(name, row.name, dataset, "partly done", "; ".join(filter(None, [detail, missing])))
    return RowStatus(name, row.name, dataset, "missing" if missing else "runnable", missing)


def _finished_seeds(row: Row, column: str, out: Path) -> int:
    folders = (cell_folder(out, row, column, selection) for selection in ("last", *SELECTIONS))
    return max(len(list(folder.glob(f"seed-*/{RESULT}"))) for folder in folders)
