"""Published tables (`manifests/tables/*.toml`, or your own file) as reproducible experiments."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field, ValidationError, model_validator

from ..manifests.errors import ConfigError, InputError, UsageError
from ..manifests.streams import Record
from ..manifests.validation import read_config, suggestion, validation_message
from .experiment import Experiment
from .protocol import Selection
from .published_methods import Method, parse_methods
from .table import resolve_settings

Metric = Literal["spearman", "map"]


class Column(Record):
    """Data set, score and subset of one column of a table."""

    dataset: str
    target: str
    subset: str | None = None

    @property
    def key(self) -> str:
        """Name of the column in `manifests/protocols.toml`: the subset, or the target if there are no subsets."""
        return self.subset or self.target


class Row(Record):
    """Row of a table: a method, changes to it, and the printed numbers."""

    name: str
    method: Method | None = None
    """The method, in the file its name; None for a row that only quotes numbers"""
    not_implemented: str = ""
    """Reason why a method is missing"""
    streams: tuple[str, ...] = ()
    """Streams, if they differ from those of the method"""
    settings: dict[str, Any] = Field(default_factory=dict)
    protocol: dict[str, Any] = Field(default_factory=dict)
    one_stage: bool = False
    """Train branches and fusion together"""
    printed: dict[str, float] = Field(default_factory=dict)
    """Column → printed value"""
    printed_averages: dict[str, float] = Field(default_factory=dict)
    """Data set → printed average over its columns"""
    printed_parameters_m: float | None = None
    """Printed number of parameters, in millions"""
    printed_inference_ms: float | None = None
    """Printed time of one inference, in milliseconds"""
    note: str = ""

    @model_validator(mode="after")
    def _has_a_method_or_a_reason(self) -> Row:
        if (self.method is None) != bool(self.not_implemented):
            raise ValueError(f"row {self.name!r}: give either method or not_implemented")
        return self

    @property
    def all_streams(self) -> tuple[str, ...]:
        """The streams that the row reads; empty for a row that only quotes numbers."""
        return self.streams or (self.method.streams if self.method is not None else ())

    def experiment(self, column: Column, selection: Selection) -> Experiment:
        """Return the experiment of one cell of the table.

        Raises:
            InputError: The row only quotes numbers, or its protocol is not published for the data set.
        """
        if self.method is None:
            raise InputError(f"{self.name}: {self.not_implemented}")
        return self.method.experiment(
            column.dataset,
            column.key,
            selection,
            streams=self.streams,
            settings=self.settings,
            protocol=self.protocol,
            one_stage=self.one_stage,
        )


class Table(Record):
    """One published table."""

    title: str
    source: str
    number: str = ""
    """Number of the table in its source, e.g. ``Table VII``"""
    metric: Metric = "spearman"
    """``spearman``, or ``map``: mean average precision of highlights"""
    columns: dict[str, Column]
    rows: tuple[Row, ...]

    @model_validator(mode="after")
    def _printed_numbers_have_a_column(self) -> Table:
        datasets = {column.dataset for column in self.columns.values()}
        for row in self.rows:
            unknown = [*(row.printed.keys() - self.columns.keys()), *(row.printed_averages.keys() - datasets)]
            if unknown:
                raise ValueError(f"row {row.name!r} has numbers of {', '.join(unknown)}, which are not columns")
        return self

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets of the columns, in their order."""
        return tuple(dict.fromkeys(column.dataset for column in self.columns.values()))

    def columns_of(self, dataset: str) -> dict[str, Column]:
        """Return the columns of one data set."""
        return {name: column for name, column in self.columns.items() if column.dataset == dataset}

    def chosen_columns(self, names: Sequence[str]) -> dict[str, Column]:
        """Return the columns of these names; all columns if no name is given.

        Raises:
            InputError: A name is not that of a column.
        """
        for name in names:
            if name not in self.columns:
                hint = suggestion(name, self.columns)
                raise InputError(f"column {name!r} is not known{hint}; the table has {', '.join(self.columns)}")
        return {name: column for name, column in self.columns.items() if not names or name in names}


def list_tables() -> list[str]:
    """Return the names of the published tables, sorted."""
    folder = resources.files("arabesque.manifests") / "tables"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_table(name_or_path: str) -> Table:
    """Load a published table, or your own table.

    Args:
        name_or_path: The name of a table in the package, e.g. ``pamfn-7``, or the path of a ``.toml`` file. The file
            may define methods and protocols in ``[methods.NAME]`` and ``[protocols.NAME]``, in the form of
            `manifests/methods.toml` and `manifests/protocols.toml`. A path of a data set is relative to the file.

    Raises:
        InputError: The name is not known.
        ConfigError: The file cannot be read, or has a wrong key or value.
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        return parse_table(read_config(path), name_or_path, path.parent)
    if name_or_path not in list_tables():
        raise InputError(
            f"table {name_or_path!r} is not known{suggestion(name_or_path, list_tables())}; there are "
            f"{', '.join(list_tables())}; for your own table, give a path that ends in .toml"
        )
    text = (resources.files("arabesque.manifests") / "tables" / f"{name_or_path}.toml").read_text(encoding="utf-8")
    return parse_table(text, f"tables/{name_or_path}.toml")


def parse_table(text: str, source: str, folder: Path | None = None) -> Table:
    """Parse the TOML text of a table.

    Args:
        text: TOML.
        source: Name of the file for error messages.
        folder: Folder of the file, to which paths of data sets are relative.

    Raises:
        ConfigError: The text is not valid TOML, or a key or value is wrong; the message names it.
    """
    try:
        content: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from error
    methods = parse_methods(content.pop("methods", {}), content.pop("protocols", {}), source)
    for row in content["rows"] if isinstance(content.get("rows"), list) else ():
        name = cast("dict[str, Any]", row).get("method") if isinstance(row, dict) else None
        if isinstance(name, str):
            if name not in methods:
                raise ConfigError(
                    f"{source}: method {name!r} is not known{suggestion(name, methods)}; give it in [methods.{name}]"
                )
            row["method"] = methods[name]
    try:
        table = Table.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{source}: {validation_message(error)}") from None
    if folder is not None:
        table = _beside(table, folder)
        _check_rows(table, source)
    return table


def _beside(table: Table, folder: Path) -> Table:
    """Return the table with the paths of its data sets relative to the current folder instead of its file."""
    columns = {
        name: column.model_copy(update={"dataset": str(folder / column.dataset)})
        if column.dataset.endswith(".toml")
        else column
        for name, column in table.columns.items()
    }
    return table.model_copy(update={"columns": columns})


def _check_rows(table: Table, source: str) -> None:
    """Raise `ConfigError` for a row whose model, settings or protocol are not valid."""
    for row in table.rows:
        for column in table.columns.values() if row.method is not None else ():
            try:
                experiment = row.experiment(column, "last")
                resolve_settings(experiment.model, experiment.settings)
            except ValidationError as error:
                raise ConfigError(f"{source}: row {row.name}: {validation_message(error)}") from None
            except UsageError as error:
                raise ConfigError(f"{source}: row {row.name}: {error}") from None
