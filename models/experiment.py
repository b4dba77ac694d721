"""An experiment: a model, its settings, its streams, and the stages of its training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from ..manifests.streams import Record
from .protocol import Precision, Protocol


class Stage(Record):
    """A stage that trains the network of the experiment, starting from the selected weights of the stage before."""

    protocol: Protocol
    frozen: tuple[str, ...] = ()
    """Modules of the network that are not trained, e.g. ``branches.vst``"""
    frozen_mode: Literal["evaluation", "training"] = "evaluation"
    """Mode of the frozen modules. In ``training`` mode they use dropout and update the statistics of their BatchNorms,
    as in PAMFN's released code."""


class PartStage(Record):
    """A stage that trains another model alone on each stream, and copies its weights into the network."""

    model: str
    """Name of the other model, which reads one stream"""
    settings: dict[str, Any] = Field(default_factory=dict)
    protocol: Protocol
    copy_from: str = ""
    """Module of the other model whose weights are copied; empty for the whole model"""
    copy_to: str
    """Module of the network that receives them; ``branches.{stream}`` is ``branches.vst`` for the stream vst"""

    def module_for(self, stream: str) -> str:
        """Return the name of the module that receives the weights of this stream."""
        return self.copy_to.replace("{stream}", stream)


class Experiment(Record):
    """Settings of a training. The seed, the data and the output folder belong to the `Trainer`."""

    model: str
    settings: dict[str, Any] = Field(default_factory=dict)
    streams: tuple[str, ...]
    stages: tuple[PartStage | Stage, ...] = Field(min_length=1)
    """The stages in order; the last one trains the network of the experiment."""
    source: str = ""
    """Origin of model settings and protocols, as text"""

    @model_validator(mode="after")
    def _stages_fit_each_other(self) -> Experiment:
        if not isinstance(self.stages[-1], Stage):
            raise ValueError(f"the last stage trains {self.stages[-1].model}; it must train {self.model}")
        for stage in self.stages:
            crop = stage.protocol.crop
            if isinstance(crop, dict) and (unknown := crop.keys() - set(self.streams)):
                raise ValueError(
                    f"crop: {', '.join(sorted(unknown))} is not one of the streams {', '.join(self.streams)}"
                )
        if len({stage.protocol.standardize for stage in self.stages}) > 1:
            raise ValueError("standardize must be the same in all stages, because stages continue with earlier weights")
        return self

    @property
    def last_stage(self) -> Stage:
        """The stage whose network is evaluated."""
        stage = self.stages[-1]
        assert isinstance(stage, Stage)
        return stage

    @property
    def protocol(self) -> Protocol:
        """The protocol of the last stage."""
        return self.last_stage.protocol

    @property
    def chooses_on_test(self) -> bool:
        """Whether the test videos select an epoch in any stage."""
        return any(stage.protocol.selection == "best-test" for stage in self.stages)

    def part(self, stage: PartStage, stream: str) -> Experiment:
        """Return the experiment that trains the other model of a stage on one stream."""
        crop = stage.protocol.crop_of(stream)
        protocol = stage.protocol.model_copy(update={"crop": crop})
        return Experiment(
            model=stage.model, settings=stage.settings, streams=(stream,), stages=(Stage(protocol=protocol),)
        )

    def only(self, streams: tuple[str, ...]) -> Experiment:
        """Return the experiment on these of its streams, in this order."""
        dropped = set(self.streams) - set(streams)

        def kept(stage: PartStage | Stage) -> PartStage | Stage:
            crop = stage.protocol.crop
            if isinstance(crop, dict):
                crop = {stream: crop[stream] for stream in streams if stream in crop}
            found = with_protocol(stage, crop=crop)
            if isinstance(found, PartStage):
                return found
            return found.model_copy(
                update={"frozen": tuple(name for name in found.frozen if not dropped.intersection(name.split(".")))}
            )

        return self.model_copy(update={"streams": streams, "stages": tuple(map(kept, self.stages))})

    def renamed(self, names: Mapping[str, str]) -> Experiment:
        """Return the experiment with its streams renamed: old name → new name."""

        def changed(stage: PartStage | Stage) -> PartStage | Stage:
            crop = stage.protocol.crop
            if isinstance(crop, dict):
                crop = {names[stream]: size for stream, size in crop.items()}
            found = with_protocol(stage, crop=crop)
            if isinstance(found, PartStage):
                return found
            frozen = (".".join(names.get(part, part) for part in name.split(".")) for name in found.frozen)
            return found.model_copy(update={"frozen": tuple(frozen)})

        streams = tuple(names[stream] for stream in self.streams)
        return self.model_copy(update={"streams": streams, "stages": tuple(map(changed, self.stages))})

    def in_one_stage(self) -> Experiment:
        """Return the experiment with its last stage only, which then trains the whole network."""
        return self.model_copy(update={"stages": (self.last_stage.model_copy(update={"frozen": ()}),)})

    def shortened(self, epochs: int) -> Experiment:
        """Return the experiment with this number of epochs in each stage, without schedule steps at later epochs."""
        stages = (stage.model_copy(update={"protocol": stage.protocol.shortened(epochs)}) for stage in self.stages)
        return self.model_copy(update={"stages": tuple(stages)})

    def in_precision(self, precision: Precision) -> Experiment:
        """Return the experiment with this precision of matrix products in each stage."""
        return self.model_copy(
            update={"stages": tuple(with_protocol(stage, precision=precision) for stage in self.stages)}
        )

    def with_last_stage(self, **changes: Any) -> Experiment:
        """Return the experiment with other values in its last stage."""
        return self.model_copy(update={"stages": (*self.stages[:-1], self.last_stage.model_copy(update=changes))})

    def digest(self, *rest: object) -> str:
        """Return the SHA-256 over the settings and the values in ``rest``."""
        text = "\n".join([self.model_dump_json(exclude={"source"}), *map(str, rest)])
        return hashlib.sha256(text.encode()).hexdigest()


def with_protocol(stage: PartStage | Stage, **changes: Any) -> PartStage | Stage:
    """Return the stage with other values in its protocol."""
    return stage.model_copy(update={"protocol": stage.protocol.model_copy(update=changes)})
