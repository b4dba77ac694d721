"""Update the tables of docs/measurements.md from results/*.json.

    python benchmarks/readme_tables.py

A table is identified by its titles. Text and other tables of the page are not changed.
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
    """Yield the tables for all results in the folder."""
    yield importlib.import_module("whole_runs").table([read(results / f"bench_{recipe}.json") for recipe in RECIPES])
    planned = [read(results / f"{name}.json") for name in ("planning", "planning_before")]
    yield importlib.import_module("planning").table(*planned)
    for name in SCRIPTS:
        if (path := results / f"{name}.json").exists():
            yield importlib.import_module(name).table(read(path))


def with_table(text: str, table: list[str]) -> str:
    """Return ``text`` with the table of the same titles replaced. Raises `ValueError` unless there is exactly one."""
    lines = text.split("\n")
    found = [number for number, line in enumerate(lines) if line == table[0]]
    if len(found) != 1:
        raise ValueError(f"{PAGE.name} has {len(found)} tables with the titles {table[0]!r}; there must be one")
    begin = found[0]
    end = next(number for number in range(begin, len(lines)) if not lines[number].startswith("|"))
    return "\n".join([*lines[:begin], *table, *lines[end:]])


if __name__ == "__main__":
    main()
