"""Recipes: the streams of a method, read from TOML into frozen records."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field, ValidationError

from .errors import ConfigError
from .recipe_changes import changed_name, changed_table, precision_changes
from .streams import OF_NETWORK, Precision, Record, Sampling, StreamSpec
from .validation import read_config, suggestion, validation_message
from .weights import Checkpoints, read_weights_manifest, weights_manifest_with

RECIPES = resources.files("arabesque.manifests") / "recipes"

SHARED_FIELDS = ("audio_track", "deinterlace", "pixel_aspect")
"""Fields of `StreamSpec` that may be set at the top of a recipe for all streams."""

StreamName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Recipe(Record):
    """The streams of a method. The sampling of each stream is complete: the recipe's values and the stream's overrides.

    Attributes:
        name: The recipe's name; a feature store belongs to one recipe.
        summary: One line about the method.
        streams: Stream → its sampling, extractor, settings and checkpoints.
        weights: Name → checkpoint that is not in the package's ``weights.toml``: the tables ``[weights.NAME]`` of the
            recipe, and those of ``--weights-manifest`` that its streams name.
        changes: Dotted key → value of the settings that were changed when the recipe was loaded (``--set``,
            ``--weights STREAM.ROLE=NAME``, ``--precision``). The streams already have these values.

    Example:
        >>> import arabesque
        >>> recipe = arabesque.load_recipe("starter")
        >>> list(recipe.streams)
        ['motion', 'rhythm']
        >>> recipe.streams["motion"].extractor
        'motion'
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*(\+[0-9a-f]+)?$")]
    """A store belongs to one recipe. The digits after ``+`` are a digest of changed settings."""
    summary: str
    """One line about the method."""
    streams: Annotated[dict[StreamName, StreamSpec], Field(min_length=1)]
    weights: Checkpoints | None = None
    changes: dict[str, Any] | None = None
    """Changes to the recipe with the first part of the name. For information; the settings above include them."""

    @cached_property
    def source(self) -> str:
        """File of the recipe, for error messages. It is not compared or stored."""
        return f"recipe {self.name}"


_KEYS = (*Recipe.model_fields, *StreamSpec.model_fields, *OF_NETWORK, *Sampling.model_fields)
"""Keys of a recipe's tables, for suggestions in error messages."""


def list_recipes() -> list[str]:
    """Return the names of the recipes in the package, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in RECIPES.iterdir() if entry.name.endswith(".toml"))


def load_recipe(
    name_or_path: str,
    *,
    weights_manifest: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    precision: Precision | None = None,
) -> Recipe:
    """Load a recipe.

    Args:
        name_or_path: The name of a recipe in the package, or the path of a ``.toml`` file.
        weights_manifest: A file of your own checkpoints, in the form of ``manifests/weights.toml``. The recipe contains
            those that its streams name.
        changes: Dotted key → value of settings to change, such as ``streams.vst.sampling.frames_per_segment``,
            ``sampling.fps`` (all streams) or ``streams.vst.weights.network`` (a checkpoint, or ``random:SEED``).
        precision: Precision of all streams with a network.

    Returns:
        The recipe. If a setting differs, its name ends with a digest of the differences: ``pamfn+3f2a``.

    Raises:
        ConfigError: The recipe is not known, a file cannot be read, or it has a wrong key or value.

    Example:
        >>> import arabesque
        >>> arabesque.load_recipe("pamfn").streams["vst"].extractor
        'video_swin_b'
        >>> changed = arabesque.load_recipe("pamfn", changes={"streams.vst.sampling.frames_per_segment": 16})
        >>> changed.name, changed.streams["vst"].sampling.frames_per_segment
        ('pamfn+0068', 16)
    """
    text, source = _text_of(name_or_path)
    table = _toml(text, source)
    recipe = _recipe_of(table, source)
    if changes or precision is not None:
        by_precision = {} if precision is None else precision_changes(table, precision, source)
        recipe = _changed(recipe, table, {**by_precision, **(changes or {})}, source)
    if weights_manifest is not None:
        used = {name for spec in recipe.streams.values() for name in spec.weights.values()}
        given = read_weights_manifest(Path(weights_manifest)).weights
        more = {name: entry for name, entry in given.items() if name in used}
        recipe = recipe.model_copy(update={"weights": {**(recipe.weights or {}), **more}})
    if recipe.weights:
        weights_manifest_with(recipe.weights)  # raises an error if the package has another checkpoint of the same name
    return recipe


def named_weights(recipe: Recipe, specs: Mapping[str, StreamSpec], override: str | None) -> dict[str, dict[str, str]]:
    """Return the weights of each stream: names of checkpoints, and ``random:SEED``.

    Args:
        recipe: The recipe.
        specs: Stream → its specification.
        override: ``random:SEED`` replaces all checkpoints except those that were chosen when the recipe was loaded, as
            with ``--weights random:0 --weights resnet_crop.detector=yolov8n``.

    Returns:
        Stream → role → name.
    """
    chosen = recipe.changes or {}
    return {
        stream: {
            role: name if override is None or f"streams.{stream}.weights.{role}" in chosen else override
            for role, name in spec.weights.items()
        }
        for stream, spec in specs.items()
    }


def _text_of(name_or_path: str) -> tuple[str, str]:
    """Return the TOML text of a recipe, and the name of its file."""
    if name_or_path.endswith(".toml"):
        return read_config(Path(name_or_path)), name_or_path
    if name_or_path not in list_recipes():
        base = name_or_path.partition("+")[0]
        if base in list_recipes():
            raise ConfigError(
                f"recipe {name_or_path!r}: the digits are a digest of changed settings; give --recipe {base} and the "
                "same --set, --weights and --precision"
            )
        hint = suggestion(name_or_path, list_recipes())
        raise ConfigError(
            f"recipe {name_or_path!r} is not known{hint}; there are {', '.join(list_recipes())}; "
            "for your own recipe, give a path that ends in .toml"
        )
    return (RECIPES / f"{name_or_path}.toml").read_text(encoding="utf-8"), f"recipes/{name_or_path}.toml"


def parse_recipe(text: str, source: str) -> Recipe:
    """Parse the TOML text of a recipe.

    Args:
        text: TOML.
        source: Name of the file for error messages.

    Raises:
        ConfigError: The text is not valid TOML, or a key is unknown, missing or has a wrong value.
    """
    return _recipe_of(_toml(text, source), source)


def _toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from error


def _changed(recipe: Recipe, table: Mapping[str, Any], changes: Mapping[str, Any], source: str) -> Recipe:
    """Return the recipe with changed settings, under a name that depends on them."""
    found = _recipe_of(changed_table(table, changes, source), f"{source} with changes")
    name = changed_name(recipe.name, recipe.model_dump(mode="json"), found.model_dump(mode="json"))
    return found.model_copy(update={"name": name, "changes": {**(recipe.changes or {}), **changes}})


def _recipe_of(given: Mapping[str, Any], source: str) -> Recipe:
    """Return the recipe of a TOML table; the shared values of the recipe are copied into its streams."""
    table = dict(given)
    grid = table.pop("sampling", {})
    shared = {name: table.pop(name) for name in SHARED_FIELDS if name in table}
    if isinstance(table.get("streams"), dict):
        streams = table["streams"] = dict(cast(dict[str, Any], table["streams"]))
        for name, stream in streams.items():
            if isinstance(stream, dict):  # validation below reports other types
                own = cast(dict[str, Any], stream)
                sampling = own.get("sampling", {})
                if isinstance(grid, dict) and isinstance(sampling, dict):
                    own = own | {"sampling": cast(dict[str, Any], grid | sampling)}
                streams[name] = shared | own
    try:
        recipe = Recipe.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"{source}: {validation_message(error, known=_KEYS)}") from None
    vars(recipe)["source"] = source
    return recipe
