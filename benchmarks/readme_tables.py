"""Write the tables of docs/measurements.md again from results/*.json, so that both say the same.

    python benchmarks/readme_tables.py

A table is known by its first cell; the page has the prose, and what was measured otherwise.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from measured import ROOT, read

PAGE = ROOT / "docs" / "measurements.md"
RESULTS = ROOT / "benchmarks" / "results"
RECIPES = ("starter", "gdlt", "everything")
SCRIPTS = (
    "shots_cost",
    "networks",
    "engines",
    "decoding",
    "memory",
    "scheduling",
    "training_readers",
    "object_storage",
    "training",
    "start_up",
    "batches_at_once",
    "prediction",
    "precision_scores",
)


def main() -> None:
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def written(text: str) -> str:
    for table in tables(RESULTS):
        text = with_table(text, table)
    return text


def tables(results: Path) -> Iterator[list[str]]:
    """Of the figures that are there."""
    yield importlib.import_module("whole_runs").table([read(results / f"bench_{recipe}.json") for recipe in RECIPES])
    planned = [read(results / f"{name}.json") for name in ("planning", "planning_before")]
    yield importlib.import_module("planning").table(*planned)
    for name in SCRIPTS:
        if (path := results / f"{name}.json").exists():
            yield importlib.import_module(name).table(read(path))


def with_table(text: str, table: list[str]) -> str:
    """``text`` with the table in the place of the one that begins with the same cell; `ValueError` if none does."""
    lines = text.split("\n")
    first_cell = "|".join(table[0].split("|")[:2]) + "|"
    begin = next((number for number, line in enumerate(lines) if line.startswith(first_cell)), None)
    if begin is None:
        raise ValueError(f"{PAGE.name} has no table that begins with {first_cell!r}")
    end = next(number for number in range(begin, len(lines)) if not lines[number].startswith("|"))
    return "\n".join([*lines[:begin], *table, *lines[end:]])


if __name__ == "__main__":
    main()
