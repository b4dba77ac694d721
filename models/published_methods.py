"""Published methods (`manifests/methods.toml`); protocols and lists of stages by name (`manifests/protocols.toml`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from pydantic import Field, ValidationError

from ..manifests.errors import ConfigError, InputError
from ..manifests.streams import Record
from ..manifests.validation import suggestion, validation_message
from .experiment import Experiment, PartStage, Stage
from .protocol import Protocol, Selection

R = TypeVar("R", bound=Record)


class DatasetProtocol(Record, extra="allow"):
    """Fields of `Protocol` for one data set; ``columns`` has fields for single columns."""

    columns: dict[str, dict[str, Any]] = Field(default_factory=dict)


class PublishedProtocol(Record, extra="allow"):
    """Fields of `Protocol` for all data sets, and fields for single data sets."""

    name: str = ""
    """Name in the file, for error messages"""
    datasets: dict[str, DatasetProtocol] = Field(default_factory=dict)
    """Empty for a protocol of any data set"""

    def on(self, dataset: str, column: str, changes: Mapping[str, Any] | None = None) -> Protocol:
        """Return the protocol on one column of a data set.

        Args:
            dataset: Name of the data set.
            column: Subset, or target of a data set without subsets.
            changes: Fields that differ.

        Raises:
            InputError: The protocol is not known for the data set.
        """
        if self.datasets and dataset not in self.datasets:
            place = dataset or "a data set without a name"
            raise InputError(
                f"protocol {self.name!r} is not published for {place}; it is for {', '.join(self.datasets)}"
            )
        own = self.datasets.get(dataset, DatasetProtocol())
        fields = {**(self.model_extra or {}), **(own.model_extra or {}), **own.columns.get(column, {})}
        return Protocol.model_validate({**fields, **(changes or {})})


class Method(Record):
    """A published method: an experiment without the data set and the selection of an epoch.

    Example:
        >>> from arabesque.models.published_methods import load_method
        >>> load_method("gdlt").experiment("fisv", "PCS").protocol.epochs
        400
    """

    model: str
    streams: tuple[str, ...]
    settings: dict[str, Any] = Field(default_factory=dict)
    datasets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Data set → settings that apply to it"""
    protocol: PublishedProtocol
    """Protocol of the last stage; in the file a table, or the name of a protocol"""
    first: Method | None = None
    """Method that trains the branch of each stream alone, before the fusion; in the file its name"""
    frozen: tuple[str, ...] = ()
    """Streams whose branch is fixed while the fusion is trained"""
    frozen_mode: Literal["evaluation", "training"] = "evaluation"
    """Mode of the fixed branches, see `Stage`"""
    source: str = ""
    """Origin of settings and protocol"""

    def trains_on(self, dataset: str) -> bool:
        """Return whether the protocol of the method is published for the data set."""
        return dataset in self.protocol.datasets

    def settings_on(self, dataset: str) -> dict[str, Any]:
        """Return the settings of the model on a data set."""
        return {**self.settings, **self.datasets.get(dataset, {})}

    def experiment(
        self,
        dataset: str,
        column: str,
        selection: Selection = "last",
        *,
        streams: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        protocol: Mapping[str, Any] | None = None,
        one_stage: bool = False,
    ) -> Experiment:
        """Return the experiment on one column of a data set.

        Args:
            dataset: Name of the data set.
            column: Subset, or target of a data set without subsets.
            selection: Epoch to evaluate, see `Protocol`.
            streams: Streams, if they differ from those of the method.
            settings: Settings that differ.
            protocol: Fields of the protocol that differ.
            one_stage: Train the whole network in one stage, without training branches first.

        Raises:
            InputError: The protocol is not published for the data set.
        """
        chosen = tuple(streams or self.streams)
        own = self.protocol.on(dataset, column, {**(protocol or {}), "selection": selection})
        if isinstance(own.crop, dict):
            crop = {stream: size for stream, size in own.crop.items() if stream in chosen}
            own = own.model_copy(update={"crop": crop})
        frozen = tuple(f"branches.{stream}" for stream in self.frozen if stream in chosen)
        stages: list[PartStage | Stage] = [Stage(protocol=own, frozen=frozen, frozen_mode=self.frozen_mode)]
        if self.first is not None:
            part = PartStage(
                model=self.first.model,
                settings=self.first.settings_on(dataset),
                protocol=self.first.protocol.on(dataset, column, {"selection": selection}),
                copy_from="branch",
                copy_to="branches.{stream}",
            )
            stages.insert(0, part)
        found = Experiment(
            model=self.model,
            settings={**self.settings_on(dataset), **(settings or {})},
            streams=chosen,
            stages=tuple(stages),
            source=self.source,
        )
        return found.in_one_stage() if one_stage else found


def load_method(name: str) -> Method:
    """Return a published method by name.

    Raises:
        InputError: The name is not known.
    """
    methods = _methods()
    if name not in methods:
        raise InputError(f"method {name!r} is not known{suggestion(name, methods)}; there are {', '.join(methods)}")
    return methods[name]


def methods_for(dataset: str, model: str) -> list[Method]:
    """Return the methods of a model whose protocol is published for the data set, in the order of the file."""
    return [method for method in _methods().values() if method.model == model and method.trains_on(dataset)]


def protocol_names() -> list[str]:
    """Return the names of the protocols in `manifests/protocols.toml`."""
    return list(_protocols())


def named_protocol(
    name: str, dataset: str = "", column: str = "", changes: Mapping[str, Any] | None = None
) -> Protocol:
    """Return a protocol of `manifests/protocols.toml`.

    Args:
        name: Name of the protocol.
        dataset: Data set whose values apply.
        column: Subset, or target of a data set without subsets.
        changes: Fields that differ.

    Raises:
        InputError: The name is not known, or the protocol is not known for the data set.

    Example:
        >>> named_protocol("pamfn", "rg", "Hoop").epochs
        300
    """
    known = _protocols()
    if name not in known:
        raise InputError(f"protocol {name!r} is not known{suggestion(name, known)}; there are {', '.join(known)}")
    return known[name].on(dataset, column, changes)


class _Stages(Record):
    stages: tuple[PartStage | Stage, ...] = Field(min_length=1)


def load_stages(name: str, dataset: str = "", column: str = "") -> tuple[PartStage | Stage, ...]:
    """Return the list of stages of this name, or of a TOML file.

    Args:
        name: A name in `manifests/protocols.toml`, or the path of a file with tables ``[[stages]]``. A protocol in the
            file is a table, or the name of a protocol of the package or of the file (``[protocols.NAME]``).
        dataset: Data set whose values apply to named protocols.
        column: Subset, or target of a data set without subsets.

    Raises:
        InputError: There is neither a list of this name nor such a file, or a protocol is not known.
        ConfigError: The file is not valid.
    """
    known = _read("protocols.toml")["stages"]
    if name in known:
        content, source = known[name], "protocols.toml"
    else:
        path = Path(name)
        if not path.is_file():
            raise InputError(
                f"--stages {name}: neither a file nor a name{suggestion(name, known)}; there are {', '.join(known)}"
            )
        try:
            content, source = tomllib.loads(path.read_text(encoding="utf-8")), name
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"{name}: not a TOML file: {error}") from None
    protocols = {**_protocols(), **_parse_protocols(content.pop("protocols", {}), source)}
    for stage in content["stages"] if isinstance(content.get("stages"), list) else ():
        chosen = cast("dict[str, Any]", stage).get("protocol") if isinstance(stage, dict) else None
        if isinstance(chosen, str):
            if chosen not in protocols:
                raise ConfigError(
                    f"{source}: protocol {chosen!r} is not known{suggestion(chosen, protocols)}; give its settings in "
                    f"[protocols.{chosen}]"
                )
            stage["protocol"] = protocols[chosen].on(dataset, column).model_dump()
    return _validated(_Stages, content, source).stages


def parse_methods(
    methods: Mapping[str, Any], protocols: Mapping[str, Any], source: str, *, beside_package: bool = True
) -> dict[str, Method]:
    """Return methods whose protocols and first methods are names.

    Args:
        methods: Name → fields of `Method`, as in `manifests/methods.toml`.
        protocols: Name → fields of `PublishedProtocol`, as in `manifests/protocols.toml`.
        source: Name of the file for error messages.
        beside_package: Names may also be those of the package's protocols and methods.

    Raises:
        ConfigError: A name is not known, or a field is not valid.
    """
    found: dict[str, Method] = dict(_methods()) if beside_package else {}
    known = {**(_protocols() if beside_package else {}), **_parse_protocols(protocols, source)}
    for name, fields in methods.items():
        place = f"{source}, {name}"
        resolved: Any = fields
        if isinstance(fields, dict):
            resolved = dict(cast("dict[str, Any]", fields))
            for key, named in (("protocol", known), ("first", found)):
                value = resolved.get(key)
                if isinstance(value, str):
                    if value not in named:
                        raise ConfigError(
                            f"{place}: {key} {value!r} is not known{suggestion(value, named)}; define it first"
                        )
                    resolved[key] = named[value]
        found[name] = _validated(Method, resolved, place)
    return found


@cache
def _methods() -> Mapping[str, Method]:
    protocols = _read("protocols.toml")["protocols"]
    return parse_methods(_read("methods.toml"), protocols, "methods.toml", beside_package=False)


@cache
def _protocols() -> Mapping[str, PublishedProtocol]:
    return _parse_protocols(_read("protocols.toml")["protocols"], "protocols.toml")


def _parse_protocols(protocols: Mapping[str, Any], source: str) -> dict[str, PublishedProtocol]:
    return {
        name: _validated(PublishedProtocol, {**fields, "name": name}, f"{source}, {name}")
        for name, fields in protocols.items()
    }


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((resources.files("arabesque.manifests") / name).read_text(encoding="utf-8"))


def _validated(record: type[R], fields: Any, place: str) -> R:
    try:
        return record.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(f"{place}: {validation_message(error)}") from None
