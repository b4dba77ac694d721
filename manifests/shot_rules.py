"""Thresholds for shots, their kinds, replays and routines, read from ``shot_rules.toml``, which explains them."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat, ValidationError

from .errors import ConfigError
from .streams import Record
from .validation import read_config, validation_message

Share = Annotated[float, Field(ge=0, le=1)]


class BoundaryRules(Record):
    """Thresholds for the beginning of a new shot."""

    cut_least: PositiveFloat
    cut_gray_least: PositiveFloat
    cut_ratio: Annotated[float, Field(ge=1)]
    cut_share: Share
    jump_least: PositiveFloat
    local_jump_least: PositiveFloat
    local_jump_share: PositiveFloat
    jump_ratio: Annotated[float, Field(ge=1)]
    flash_s: PositiveFloat
    flash_return: Share
    gradual_s: PositiveFloat
    gradual_least: PositiveFloat
    gradual_ratio: Annotated[float, Field(ge=1)]
    black_level: PositiveFloat
    logo_difference: PositiveFloat
    shortest_shot_s: PositiveFloat
    probability: Share


class KindRules(Record):
    """Thresholds for the kind of a shot."""

    black_share: Share
    still_change: PositiveFloat
    still_share: Share
    flicker_change: PositiveFloat
    flicker_share: Share
    crowd_texture: Share
    face_height: Share
    face_width: Share
    face_aspect: tuple[PositiveFloat, PositiveFloat]
    face_fill: Share
    face_share: Share
    person_height: Share
    person_bottom: Share
    person_width: PositiveFloat
    person_share: Share


class ReplayRules(Record):
    """Thresholds for a shot that repeats an earlier one."""

    search_s: PositiveFloat
    slowest: Annotated[float, Field(gt=0, lt=1)]
    fastest: Annotated[float, Field(gt=0, le=1)]
    zooms: tuple[Annotated[float, Field(ge=1, le=2)], ...]
    least_match: Share
    least_evidence: PositiveFloat
    least_margin: Share
    least_motion: PositiveFloat
    longest_s: PositiveFloat
    logo_s: PositiveFloat


class RoutineRules(Record):
    """Thresholds for beginning and end of a routine."""

    music_db: PositiveFloat
    least_tonality: Share
    shortest_music_s: PositiveFloat
    music_gap_s: PositiveFloat
    shortest_s: PositiveFloat
    longest_gap_s: PositiveFloat
    still_motion: PositiveFloat


class ShotRules(Record):
    """All thresholds."""

    boundaries: BoundaryRules
    kinds: KindRules
    replays: ReplayRules
    routines: RoutineRules


def load_shot_rules(path: Path | None = None) -> ShotRules:
    """Return the rules of a file, or those of the package.

    Args:
        path: A TOML file in the form of ``shot_rules.toml``; None for that file.

    Raises:
        ConfigError: The file cannot be read, is not valid TOML, or a key or value is wrong.

    Example:
        >>> load_shot_rules().boundaries.flash_s
        0.25
    """
    if path is None:
        source, text = (
            "shot_rules.toml",
            (resources.files("arabesque.manifests") / "shot_rules.toml").read_text("utf-8"),
        )
    else:
        source, text = f"{path}", read_config(path)
    try:
        return ShotRules.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{source}: {validation_message(error)}") from None
