"""Published tables (`manifests/tables.toml`) as experiments that can be run again."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from pydantic import Field, ValidationError

from ..manifests.complaints import first_complaint
from ..manifests.errors import ManifestError
from ..manifests.streams import Record
from .experiment import BranchStage, Experiment
from .protocol import Protocol


class Column(Record):
    """What one column of a table is about."""

    target: str
    subset: str | None = None


class Row(Record):
    """One method's line."""

    name: str
    model: str
    streams: tuple[str, ...]
    settings: dict[str, Any] = Field(default_factory=dict)
    protocol: dict[str, Any]
    branches: dict[str, Any] | None = None
    by_column: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Column → ``protocol`` and ``settings`` that differ in it"""
    published: dict[str, float] = Field(default_factory=dict)
    note: str = ""

    def experiment(self, column: str, selection: str) -> Experiment:
        """What is run for one cell."""
        own = self.by_column.get(column, {})
        protocol = {**self.protocol, **own.get("protocol", {}), "selection": selection}
        branches = None
        if self.branches is not None:
            stage = {**self.branches, "protocol": {**self.branches["protocol"], "selection": selection}}
            branches = BranchStage.model_validate(stage)
        return Experiment(
            model=self.model,
            settings={**self.settings, **own.get("settings", {})},
            streams=self.streams,
            protocol=Protocol.model_validate(protocol),
            branches=branches,
        )


class Table(Record):
    """One published table."""

    dataset: str
    source: str
    columns: dict[str, Column]
    rows: tuple[Row, ...]


def load_table(name: str) -> Table:
    """A table by name; raises `ManifestError` for one that is not known."""
    tables = _tables()
    if name not in tables:
        raise ManifestError(f"table {name!r} is not known; there are {', '.join(tables)}")
    return tables[name]


def row_of(dataset: str, model: str) -> Row | None:
    """The first row that trains this model on this data set: where published settings come from."""
    tables = [table for table in _tables().values() if table.dataset == dataset]
    return next((row for table in tables for row in table.rows if row.model == model), None)


@cache
def _tables() -> Mapping[str, Table]:
    text = (resources.files("arabesque.manifests") / "tables.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)
    protocols = content.pop("protocols", {})
    try:
        return {name: Table.model_validate(_resolved(table, protocols)) for name, table in content.items()}
    except ValidationError as error:
        raise ManifestError(f"tables.toml: {first_complaint(error)}") from None


def _resolved(value: Any, protocols: Mapping[str, Any]) -> Any:
    """Named protocols put in the place of their names."""
    if isinstance(value, list):
        return [_resolved(item, protocols) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _resolved(item, protocols) for key, item in value.items()}
    if isinstance(found.get("protocol"), str):
        found["protocol"] = protocols[found["protocol"]]
    return found
