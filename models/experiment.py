"""One row of a table: a model, its settings, its streams and the protocol that trains and judges it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from ..manifests.streams import Record
from .protocol import Precision, Protocol


class BranchStage(Record):
    """The first of two stages: each stream's branch on its own, before they are fused (PAMFN)."""

    settings: dict[str, Any] = Field(default_factory=dict)
    protocol: Protocol


class Experiment(Record):
    """What is trained. The seed, the data and where results go are the run's."""

    model: str
    settings: dict[str, Any] = Field(default_factory=dict)
    streams: tuple[str, ...]
    protocol: Protocol
    branches: BranchStage | None = None

    @model_validator(mode="after")
    def _branches_belong_to_pamfn(self) -> Experiment:
        if self.branches is not None:
            if self.model != "pamfn":
                raise ValueError(f"branches are PAMFN's; {self.model} has none")
            if self.protocol.standardise or self.branches.protocol.standardise:
                raise ValueError("standardise must be off in both stages: the second reads what the first has learnt")
        return self

    @property
    def chooses_on_test(self) -> bool:
        """The test videos choose an epoch, be it only of the first of two stages."""
        stages = [self.protocol] if self.branches is None else [self.protocol, self.branches.protocol]
        return any(stage.selection == "best-test" for stage in stages)

    def branch(self, stream: str) -> Experiment:
        """The experiment that trains one stream's branch."""
        if self.branches is None:
            raise ValueError("this experiment has one stage")
        return Experiment(
            model="pamfn-branch",
            settings=self.branches.settings,
            streams=(stream,),
            protocol=self.branches.protocol,
        )

    def only(self, streams: tuple[str, ...]) -> Experiment:
        """The same on some of its streams, in this order."""
        crop = self.protocol.crop
        settings = dict(self.settings)
        if isinstance(crop, dict):
            crop = {stream: crop[stream] for stream in streams if stream in crop}
        if "frozen" in settings:
            settings["frozen"] = [stream for stream in settings["frozen"] if stream in streams]
        protocol = self.protocol.model_copy(update={"crop": crop})
        return self.model_copy(update={"streams": streams, "settings": settings, "protocol": protocol})

    def in_one_stage(self) -> Experiment:
        """Without branches trained before, and so without frozen ones."""
        settings = {name: value for name, value in self.settings.items() if name != "frozen"}
        return self.model_copy(update={"branches": None, "settings": settings})

    def renamed(self, names: Mapping[str, str]) -> Experiment:
        """The same on streams of other names."""
        crop = self.protocol.crop
        settings = dict(self.settings)
        if isinstance(crop, dict):
            crop = {names[stream]: size for stream, size in crop.items()}
        if "frozen" in settings:
            settings["frozen"] = [names[stream] for stream in settings["frozen"]]
        return self.model_copy(
            update={
                "streams": tuple(names[stream] for stream in self.streams),
                "settings": settings,
                "protocol": self.protocol.model_copy(update={"crop": crop}),
            }
        )

    def shortened(self, epochs: int) -> Experiment:
        """The same with fewer epochs in each stage; a step that would come too late is left out."""
        branches = self.branches
        if branches is not None:
            branches = branches.model_copy(update={"protocol": branches.protocol.shortened(epochs)})
        return self.model_copy(update={"protocol": self.protocol.shortened(epochs), "branches": branches})

    def in_precision(self, precision: Precision) -> Experiment:
        """The same with other matrix products in each stage of its training."""
        branches = self.branches
        if branches is not None:
            branches = branches.model_copy(update={"protocol": _in_precision(branches.protocol, precision)})
        return self.model_copy(update={"protocol": _in_precision(self.protocol, precision), "branches": branches})

    def digest(self, *rest: object) -> str:
        """Of everything that decides the result; ``rest`` is what the run adds."""
        text = "\n".join([self.model_dump_json(), *map(str, rest)])
        return hashlib.sha256(text.encode()).hexdigest()


def _in_precision(protocol: Protocol, precision: Precision) -> Protocol:
    return protocol.model_copy(update={"precision": precision})
