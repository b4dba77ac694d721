"""Check that the checkpoints of a run are on this machine, before any slow work starts."""

from __future__ import annotations

from collections.abc import Mapping

from ...manifests.errors import WeightsError
from ...manifests.recipes import Recipe, named_weights
from ...manifests.streams import StreamSpec
from .cache import is_folder, is_random, manifest_option, open_cache


def require_checkpoints(recipe: Recipe, specs: Mapping[str, StreamSpec], override: str | None = None) -> None:
    """Check the checkpoints of some streams of a recipe.

    Args:
        recipe: The recipe. It may define checkpoints that are not in the package's manifest.
        specs: Stream → its specification.
        override: See `named_weights`.

    Raises:
        WeightsError: Checkpoints are missing. The message lists all of them and the commands that get them.
    """
    cache = open_cache(recipe.weights)
    every = (name for roles in named_weights(recipe, specs, override).values() for name in roles.values())
    names = dict.fromkeys(name for name in every if not is_random(name))
    missing = [name for name in names if not cache.is_present(name)]
    if not missing:
        return
    published = [name for name in missing if is_folder(name) or cache.entry(name).urls]
    option = manifest_option(missing)
    ways = [f"`arabesque weights fetch {' '.join(published)}{option}` downloads them"] if published else []
    files = [name for name in missing if not is_folder(name)]
    ways += [f"`arabesque weights add {name} FILE{option}` adds a file that you have" for name in files]
    what = "checkpoint" if len(missing) == 1 else "checkpoints"
    raise WeightsError(f"recipe {recipe.name}: {what} {', '.join(missing)} not in {cache.folder}; {'; '.join(ways)}")
