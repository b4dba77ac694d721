"""Training and evaluation settings of a model, as one frozen record that is stored in its checkpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from ..manifests.streams import Record

Precision = Literal["float32", "bfloat16"]
Selection = Literal["last", "validation", "best-test"]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Constant(Record):
    """Constant learning rate."""

    kind: Literal["constant"] = "constant"


class Cosine(Record):
    """Cosine decay from the learning rate to ``final_factor`` times the learning rate over all epochs."""

    kind: Literal["cosine"] = "cosine"
    final_factor: NonNegativeFloat = 0.0


class Steps(Record):
    """Step decay: the learning rate is multiplied by ``factor`` at the start of each of these epochs."""

    kind: Literal["steps"] = "steps"
    at_epochs: tuple[PositiveInt, ...] = ()
    """Epochs counted from 0"""
    before_end: tuple[PositiveInt, ...] = ()
    """Numbers of epochs before the end; 100 is the start of the last 100 epochs"""
    factor: PositiveFloat = 0.1

    def count(self, epoch: int, epochs: int) -> int:
        """Return the number of steps up to this epoch in a training of ``epochs`` epochs."""
        starts = (*self.at_epochs, *(epochs - last for last in self.before_end))
        return sum(epoch >= start for start in starts)


class Protocol(Record):
    """All settings of training and evaluation that do not belong to the network.

    ``selection`` determines the epoch whose weights are evaluated. ``last``: the last epoch. ``validation``: the best
    epoch on a held-out part of the training videos. ``best-test``: the best epoch on the test videos, as in the papers;
    the result is an upper bound, and reports call it ``best on test``.
    """

    epochs: PositiveInt
    batch_size: PositiveInt = 32
    crop: PositiveInt | dict[str, PositiveInt] | None = None
    """Length in segments of the random crops for training, per stream; shorter samples are padded with zeros. None:
    whole samples, padded to the longest of their batch. Evaluation always uses whole samples."""
    score_range: tuple[float, float] | None = None
    """Scores that correspond to the fractions 0 and 1; (0, 1) for raw scores. None: the range of the target."""
    standardize: bool = False
    """Shift and scale features by the training videos' statistics."""
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    momentum: NonNegativeFloat = 0.9
    """Momentum of ``sgd``."""
    weight_decay: NonNegativeFloat = 0.0
    rate_factors: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Prefix of parameter names → factor on their learning rate."""
    schedule: Annotated[Constant | Cosine | Steps, Field(discriminator="kind")] = Constant()
    clip_norm: PositiveFloat | None = None
    """Maximum norm of the gradients."""
    selection: Selection = "last"
    validation_fraction: Fraction = 0.15
    stream_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a training video loses a stream, for models that score videos with missing streams."""
    precision: Precision = "float32"
    """Precision of matrix products in training; evaluation always uses float32."""

    @model_validator(mode="after")
    def _values_fit_each_other(self) -> Protocol:
        if self.score_range is not None and not self.score_range[0] < self.score_range[1]:
            raise ValueError(f"score_range {list(self.score_range)} must be (lowest, highest)")
        if isinstance(self.schedule, Steps):
            for name in ("at_epochs", "before_end"):
                steps = getattr(self.schedule, name)
                if any(epoch >= self.epochs for epoch in steps):
                    raise ValueError(f"schedule.{name} {list(steps)} must be less than epochs {self.epochs}")
        return self

    def shortened(self, epochs: int) -> Protocol:
        """Return the protocol with another number of epochs, without schedule steps at later epochs."""
        schedule = self.schedule
        if isinstance(schedule, Steps):
            kept = {
                name: tuple(step for step in getattr(schedule, name) if step < epochs)
                for name in ("at_epochs", "before_end")
            }
            schedule = schedule.model_copy(update=kept)
        return self.model_copy(update={"epochs": epochs, "schedule": schedule})

    def crop_of(self, stream: str) -> int | None:
        return self.crop.get(stream) if isinstance(self.crop, dict) else self.crop
