"""Settings that all streams with optical flow share."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from ...manifests.streams import Geometry, Record, ShortSide
from .methods import METHODS, FlowSettings
from .opencv import Dis


def _short_side_256(settings: dict[str, Any]) -> Geometry:
    return Geometry(steps=(ShortSide(short_side_px=256),), gray=not METHODS[settings["flow"].method].color)


class FlowStreamSettings(Record):
    """Settings of a stream that computes optical flow."""

    flow: FlowSettings = Dis()
    """The method of optical flow and its settings."""
    geometry: Geometry = Field(default_factory=_short_side_256)
    """From decoded frames to the frames of which flow is computed; gray unless the method needs color."""

    @property
    def weight_roles(self) -> tuple[str, ...]:
        """Roles of the checkpoints that the method needs"""
        return METHODS[self.flow.method].weight_roles

    @model_validator(mode="after")
    def _frames_suit_the_method(self) -> Self:
        if self.geometry.gray is METHODS[self.flow.method].color:
            kind, value = ("gray", "true") if not self.geometry.gray else ("color", "false")
            raise ValueError(f"{self.flow.method} is computed on {kind} frames; set gray = {value} in geometry")
        return self
