"""``arabesque recipes``: list the recipes, or print one fully resolved."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .arguments import WEIGHTS_MANIFEST
from .console import JSON, print_columns, print_json
from .recipe_options import PRECISION, SET, WEIGHTS, chosen_recipe

if TYPE_CHECKING:
    from ..manifests.recipes import Recipe


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Name of a recipe, or path of a .toml file. Default: list all recipes.")
    ] = None,
    setting: SET = None,
    weights: WEIGHTS = None,
    precision: PRECISION = None,
    weights_manifest: WEIGHTS_MANIFEST = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="STREAM",
            help="List the layers of this stream's network, for streams.NAME.layer, with the shape of their output.",
        ),
    ] = None,
    as_json: JSON = False,
) -> None:
    """List the recipes, or print one as TOML: every setting that is part of the keys of rows, with explanations."""
    from ..manifests.recipes import list_recipes, load_recipe

    if name is None:
        if setting or weights or precision or layers:
            raise typer.BadParameter("--set, --weights and --layers need a recipe; give its name", param_hint="NAME")
        found = [_facts(load_recipe(known)) for known in list_recipes()]
        if as_json:
            print_json(found)
        else:
            _print(found)
        return
    recipe, override = chosen_recipe(
        name, settings=setting, weights=weights, precision=precision, weights_manifest=weights_manifest
    )
    if override is not None:
        raise typer.BadParameter(
            f"{override} belongs to a run, not to a recipe; give it to `arabesque extract`, or STREAM.ROLE={override}",
            param_hint="--weights",
        )
    if layers is not None:
        _print_layers(recipe, layers, as_json=as_json)
        return
    if as_json:
        from ..extractors.table import resolved_recipe

        print_json(resolved_recipe(recipe).model_dump(mode="json", exclude_none=True))
        return
    from .recipe_text import recipe_text

    sys.stdout.write(recipe_text(recipe))


def _print_layers(recipe: Recipe, stream: str, *, as_json: bool) -> None:
    """Print the layers of a stream's network in the order in which they finish."""
    from ..extractors.inner_layers import layers_of
    from ..extractors.table import extractor_kind, resolved_recipe
    from ..manifests.errors import ConfigError, InputError
    from ..manifests.validation import suggestion

    if stream not in recipe.streams:
        hint = suggestion(stream, recipe.streams) or f"; it has {', '.join(recipe.streams)}"
        raise InputError(f"--layers {stream}: recipe {recipe.name} has no such stream{hint}")
    spec = resolved_recipe(recipe).streams[stream]
    networks = getattr(extractor_kind(spec.extractor), "networks", None)
    if networks is None:
        raise ConfigError(f"extractor {spec.extractor}: has no layers that a recipe can name; choose another stream")
    found = layers_of(networks(spec)[0])
    if as_json:
        print_json([{"layer": layer.name, "output": layer.kind, "shape": list(layer.shape)} for layer in found])
        return
    print_columns(
        ("output", "shape", "layer"),
        [[layer.kind, " × ".join(map(str, layer.shape)), layer.name] for layer in found],
    )
    print(
        "map: time × height × width × dim, of single frames height × width × dim;\n"
        f"     set streams.{stream}.layer=LAYER, and .output=pooled, time or map\n"
        "tokens, row: only output=pooled, the mean over tokens"
    )


def _facts(recipe: Recipe) -> dict[str, Any]:
    """Return streams and checkpoints of a recipe, and which checkpoints are not on this machine."""
    from ..pipeline.weights.cache import open_cache

    cache = open_cache(recipe.weights)
    names = [*dict.fromkeys(name for spec in recipe.streams.values() for name in spec.weights.values())]
    # checkpoints of torchvision and timm are looked up in these packages, which takes seconds
    known = [name for name in names if name in cache.manifest.weights]
    by_package = (
        len(names) - len(known) + sum(not spec.weights and ":" in spec.extractor for spec in recipe.streams.values())
    )
    sizes = [
        cache.path(name).stat().st_size if cache.is_present(name) else cache.entry(name).size_bytes for name in known
    ]
    return {
        "name": recipe.name,
        "summary": recipe.summary,
        "streams": {name: spec.extractor for name, spec in recipe.streams.items()},
        "checkpoints": names,
        "missing": [name for name in known if not cache.is_present(name)],
        "size_bytes": sum(size or 0 for size in sizes),
        "unknown_sizes": sum(size is None for size in sizes) + by_package,
    }


def _print(found: list[dict[str, Any]]) -> None:
    """Print one line per recipe."""
    rows = list[list[str]]()
    for one in found:
        size = f"{one['size_bytes'] / 1e6:.0f} MB" if one["size_bytes"] else ""
        size += f"{' ' if size else ''}+ {one['unknown_sizes']}" if one["unknown_sizes"] else ""
        texts = f"{', '.join(one['streams'])}: {one['summary']}"
        rows.append([one["name"], size or "none", str(len(one["missing"]) or ""), texts])
    print_columns(("recipe", "weights", "missing", "streams: summary"), rows, right=("weights", "missing"))
    print(
        "weights: size of the checkpoints, + number of those of unknown size\n"
        "missing: number of checkpoints that are not on this machine;\n"
        "         `arabesque weights fetch --recipe NAME` downloads them"
    )
