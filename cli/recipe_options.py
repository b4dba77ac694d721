"""Options that change a recipe: ``--set``, ``--weights``, ``--precision``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from ..manifests.errors import ConfigError

if TYPE_CHECKING:
    from ..manifests.recipes import Recipe

T = TypeVar("T")

RECIPE_NAME = "Name of a recipe (see `arabesque recipes`), or path of a .toml file."
SET = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting of the recipe, e.g. sampling.fps=25 or streams.vst.precision=bfloat16; may be "
        "repeated. `arabesque recipes NAME` lists the keys. The store then belongs to a recipe of another name.",
    ),
]
PRECISION = Annotated[
    Literal["float32", "tf32", "bfloat16", "float16"] | None,
    typer.Option(help="Precision of all networks. Default: the recipe's."),
]
WEIGHTS = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WEIGHTS",
        help="STREAM.ROLE=NAME uses another checkpoint, or random weights if NAME is random:SEED; may be repeated. "
        "random:SEED alone: random weights for all others. For tests only. Default: the recipe's checkpoints.",
    ),
]
RANDOM = re.compile(r"random:\d{1,18}")
_CHECKPOINT = re.compile(r"(?P<stream>[a-z][a-z0-9_]*)\.(?P<role>[a-z][a-z0-9_]*)=(?P<name>\S+)")


def chosen_recipe(
    name: str,
    *,
    settings: Sequence[str] | None,
    weights: Sequence[str] | None,
    precision: Literal["float32", "tf32", "bfloat16", "float16"] | None,
    weights_manifest: Path | None = None,
) -> tuple[Recipe, str | None]:
    """Load a recipe and apply the options.

    Args:
        name: Name of the recipe, or path of its file.
        settings: Values of ``--set``.
        weights: Values of ``--weights``.
        precision: Value of ``--precision``.
        weights_manifest: Value of ``--weights-manifest``.

    Returns:
        The recipe, and ``random:SEED`` if all other checkpoints are to be replaced.

    Raises:
        typer.BadParameter: An option does not have the right form.
        ConfigError: The recipe or a changed setting is wrong.
    """
    from ..manifests.recipe_changes import parse_change
    from ..manifests.recipes import load_recipe

    changes: dict[str, Any] = {}
    override: str | None = None
    for text in weights or ():
        if RANDOM.fullmatch(text):
            if override not in (None, text):
                raise typer.BadParameter(f"{override} and {text} are given; give one seed", param_hint="--weights")
            override = text
        else:
            _add(changes, *_checkpoint(text), "--weights")
    for text in settings or ():
        _add(changes, *_in_option(lambda text=text: parse_change(text), "--set"), "--set")
    return load_recipe(name, weights_manifest=weights_manifest, changes=changes, precision=precision), override


def _checkpoint(text: str) -> tuple[str, str]:
    match = _CHECKPOINT.fullmatch(text)
    if match is None or (match["name"].startswith("random:") and not RANDOM.fullmatch(match["name"])):
        raise typer.BadParameter(
            f"{text!r} is neither random:SEED nor STREAM.ROLE=NAME; give e.g. random:0, vst.network=random:0 or "
            "vst.network=video_swin_b_k400",
            param_hint="--weights",
        )
    return f"streams.{match['stream']}.weights.{match['role']}", match["name"]


def _add(changes: dict[str, Any], key: str, value: Any, option: str) -> None:
    if changes.get(key, value) != value:
        raise typer.BadParameter(f"{key} is {changes[key]!r} and {value!r}; give one of them", param_hint=option)
    changes[key] = value


def _in_option(call: Callable[[], T], option: str) -> T:
    try:
        return call()
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def random_roles(recipe: Recipe, streams: Sequence[str], override: str | None) -> list[str]:
    """Return ``stream.role`` of all random weights of a run."""
    from ..manifests.recipes import named_weights
    from ..pipeline.weights.cache import is_random

    names = named_weights(recipe, {name: recipe.streams[name] for name in streams}, override)
    return [f"{stream}.{role}" for stream, roles in names.items() for role, name in roles.items() if is_random(name)]
