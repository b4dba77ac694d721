"""How a model is trained and judged, as one frozen record that a checkpoint carries and a report prints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from ..manifests.streams import Record

Precision = Literal["float32", "bfloat16"]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Constant(Record):
    """The learning rate stays."""

    kind: Literal["constant"] = "constant"


class Cosine(Record):
    """Half a cosine from the learning rate down to ``final_factor`` of it, over all epochs."""

    kind: Literal["cosine"] = "cosine"
    final_factor: NonNegativeFloat = 0.0


class Steps(Record):
    """The learning rate is multiplied by ``factor`` when each of these epochs begins."""

    kind: Literal["steps"] = "steps"
    at_epochs: tuple[PositiveInt, ...]
    factor: PositiveFloat = 0.1


class Protocol(Record):
    """Everything about training and judging that is not the network's own.

    ``selection``: which epoch's weights are judged. ``last``: the last one's. ``validation``: the best on a part of
    the training videos set aside for that. ``best-test``: the best on the test videos themselves, as the papers do;
    such a number is an upper bound and reports call it ``best on test``.
    """

    epochs: PositiveInt
    batch_size: PositiveInt = 32
    crop: PositiveInt | dict[str, PositiveInt] | None = None
    """Segments that training sees of a routine, per stream: a random run of them, shorter ones padded with zeros. None:
    whole routines, padded to the longest of their batch. Evaluation always sees whole routines."""
    score_range: tuple[float, float] | None = None
    """The scores that the fractions 0 and 1 stand for; (0, 1) trains on raw scores. None: the target's own."""
    standardise: bool = False
    """Shift and scale features by the training videos' statistics."""
    optimiser: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    momentum: NonNegativeFloat = 0.9
    """Of ``sgd``."""
    weight_decay: NonNegativeFloat = 0.0
    rate_factors: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Parameters whose name starts so → factor on their learning rate."""
    schedule: Annotated[Constant | Cosine | Steps, Field(discriminator="kind")] = Constant()
    clip_norm: PositiveFloat | None = None
    """Gradients are scaled down to this norm."""
    selection: Literal["last", "validation", "best-test"] = "last"
    validation_fraction: Fraction = 0.15
    precision: Precision = "float32"
    """Of training's matrix products; evaluation is always in float32."""

    @model_validator(mode="after")
    def _values_fit_each_other(self) -> Protocol:
        if self.score_range is not None and not self.score_range[0] < self.score_range[1]:
            raise ValueError(f"score_range {list(self.score_range)} must be (lowest, highest)")
        if isinstance(self.schedule, Steps) and any(epoch >= self.epochs for epoch in self.schedule.at_epochs):
            raise ValueError(f"schedule.at_epochs {list(self.schedule.at_epochs)} must lie below epochs {self.epochs}")
        return self

    def shortened(self, epochs: int) -> Protocol:
        """With other epochs; steps of the schedule that would come after them are left out."""
        schedule = self.schedule
        if isinstance(schedule, Steps):
            schedule = Steps(at_epochs=tuple(at for at in schedule.at_epochs if at < epochs), factor=schedule.factor)
        return self.model_copy(update={"epochs": epochs, "schedule": schedule})

    def crop_of(self, stream: str) -> int | None:
        return self.crop.get(stream) if isinstance(self.crop, dict) else self.crop
