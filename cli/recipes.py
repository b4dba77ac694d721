"""``arabesque recipes``: which recipes there are, and one of them with nothing left implicit."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe's name, or a .toml file of your own.")] = None,
) -> None:
    """List the recipes, or print one fully resolved: every setting that a feature's key covers, as TOML."""
    from ..manifests.recipes import list_recipes, load_recipe

    if name is None:
        width = max(len(known) for known in list_recipes())
        for known in list_recipes():
            recipe = load_recipe(known)
            print(f"{known:{width}}  {recipe.summary}\n{'':{width}}  streams: {', '.join(recipe.streams)}")
        return
    recipe = load_recipe(name)
    import tomli_w

    from ..extractors.table import resolved_recipe

    sys.stdout.write(tomli_w.dumps(resolved_recipe(recipe).model_dump(mode="json", exclude_none=True)))
