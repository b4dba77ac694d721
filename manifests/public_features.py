"""Released features of other projects, and the settings that public documentation states."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from .errors import ConfigError
from .recipes import list_recipes
from .streams import Geometry, Normalization, Record, Sampling
from .validation import suggestion


class DocumentedStream(Record):
    """One stream of released features. Settings that are not documented are absent."""

    columns: tuple[int, int] | None = None
    """First column, and the column after the last; None if a row contains only this stream."""
    rows_per_segment: PositiveInt = 1
    """Rows of the file for each segment."""
    fewer_rows: NonNegativeInt = 0
    """Rows at the end of a video that this package has and the file does not have."""
    extractor: str = ""
    weights: dict[str, tuple[str, ...]] = Field(default_factory=dict[str, tuple[str, ...]])
    """Role → checkpoints with the same numbers."""
    sampling: dict[str, Any] = Field(default_factory=dict[str, Any])
    settings: dict[str, Any] = Field(default_factory=dict[str, Any])
    unknown: tuple[str, ...] = ()
    """Settings that are not documented, one phrase for each."""

    @model_validator(mode="after")
    def _in_the_spelling_of_a_recipe(self) -> DocumentedStream:
        """Write values as a resolved recipe does, without adding defaults."""
        whole = {"fps": "native", "frames_per_segment": 1, "frames_per_step": 1, "remainder": "drop-tail"}
        sampling = Sampling.model_validate(whole | self.sampling).model_dump(mode="json")
        object.__setattr__(self, "sampling", {name: sampling[name] for name in self.sampling})
        settings = dict(self.settings)
        for name, kind in (("geometry", Geometry), ("normalization", Normalization)):
            if name in settings:
                written = kind.model_validate(settings[name]).model_dump(mode="json")
                settings[name] = {field: written[field] for field in settings[name]}
        object.__setattr__(self, "settings", settings)
        return self


class PublicFeatures(Record):
    """Released features: their source, and the known settings of each stream."""

    title: str
    source: str
    streams: Annotated[dict[str, DocumentedStream], Field(min_length=1)]


@cache
def all_public_features() -> dict[str, PublicFeatures]:
    """Return name → released features, from ``public_features.toml``."""
    text = (resources.files("arabesque.manifests") / "public_features.toml").read_text(encoding="utf-8")
    return {name: PublicFeatures.model_validate(table) for name, table in tomllib.loads(text).items()}


def public_features(name: str) -> PublicFeatures | None:
    """Return released features by name; None for the name of a recipe.

    Raises:
        ConfigError: There are no features and no recipe of this name.
    """
    known = all_public_features()
    if name in known:
        return known[name]
    if name in list_recipes():
        return None
    names = [*known, *list_recipes()]
    raise ConfigError(
        f"features {name!r} are not known{suggestion(name, names)}; give a recipe, or one of {', '.join(known)}"
    )
