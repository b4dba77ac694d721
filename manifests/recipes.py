"""Recipes: which streams a method needs, read from TOML into frozen records."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field, ValidationError

from .complaints import did_you_mean, first_complaint
from .errors import ManifestError
from .streams import Record, StreamSpec

RECIPES = resources.files("arabesque.manifests") / "recipes"

StreamName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Recipe(Record):
    """The streams of one method. A stream's sampling is complete: the recipe's grid with the stream's own changes."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    summary: str
    streams: Annotated[dict[StreamName, StreamSpec], Field(min_length=1)]


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in RECIPES.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name_or_path: str) -> Recipe:
    """A recipe of the package by name, or of the user by the path of its ``.toml`` file; raises `ManifestError`."""
    if name_or_path.endswith(".toml"):
        try:
            return parse_recipe(Path(name_or_path).read_text(encoding="utf-8"), source=name_or_path)
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"{name_or_path}: cannot read this recipe ({error})") from error
    if name_or_path not in list_recipes():
        hint = did_you_mean(name_or_path, list_recipes())
        raise ManifestError(
            f"recipe {name_or_path!r} is not known{hint}; there are {', '.join(list_recipes())}; "
            "a recipe of your own is given as a path that ends in .toml"
        )
    text = (RECIPES / f"{name_or_path}.toml").read_text(encoding="utf-8")
    return parse_recipe(text, source=f"recipes/{name_or_path}.toml")


def parse_recipe(text: str, source: str) -> Recipe:
    """The recipe in a TOML text. Unknown keys, missing keys and wrong values raise `ManifestError` with their place."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{source}: not valid TOML: {error}") from error
    grid = table.pop("sampling", {})
    streams = table.get("streams")
    if isinstance(streams, dict):
        named = cast(dict[str, Any], streams)
        table["streams"] = {name: _on_grid(stream, grid) for name, stream in named.items()}
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        raise ManifestError(f"{source}: {first_complaint(error)}") from None


def _on_grid(stream: Any, grid: Any) -> Any:
    """The stream's table with the recipe's ``[sampling]`` under its own; other types are left for validation."""
    if not isinstance(stream, dict) or not isinstance(grid, dict):
        return cast(Any, stream)
    own = cast(dict[str, Any], stream)
    own_sampling = own.get("sampling", {})
    if not isinstance(own_sampling, dict):
        return own
    return {**own, "sampling": {**cast(dict[str, Any], grid), **cast(dict[str, Any], own_sampling)}}
