"""``arabesque weights``: list, fetch, verify and add checkpoints."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ..manifests.errors import ConfigError, InputError, WeightsError
from .arguments import WEIGHTS_MANIFEST
from .console import JSON, print_columns, print_json
from .messages import progress_is_shown, verbose_is_shown, with_messages
from .recipe_options import RANDOM

if TYPE_CHECKING:
    from ..manifests.weights import WeightsEntry
    from ..pipeline.weights.cache import WeightsCache
    from ..pipeline.weights.downloading import Progress
    from ..pipeline.weights.receipts import Receipt

_LOG = logging.getLogger(__name__)
TRANSFORMERS = "transformers:"
"""Prefix of checkpoints that are repositories of the Hugging Face Hub, or folders."""

app = typer.Typer(no_args_is_help=True, help="List, fetch, verify and add the checkpoints of networks.")

Names = Annotated[list[str] | None, typer.Argument(help="Names of checkpoints, as in `arabesque weights list`.")]


RECIPE = Annotated[str | None, typer.Option(help="Recipe that defines further checkpoints.")]


@app.command("list")
@with_messages
def list_weights(
    as_json: JSON = False,
    weights_manifest: WEIGHTS_MANIFEST = None,
    recipe: RECIPE = None,
    commercial_only: Annotated[
        bool,
        typer.Option(
            "--commercial-only", help="Leave out checkpoints whose license is for research only or not stated."
        ),
    ] = False,
) -> None:
    """List the known checkpoints, their licenses, and whether each is on this machine."""
    cache = _cache(weights_manifest, recipe)
    entries = {
        name: entry
        for name, entry in cache.manifest.weights.items()
        if entry.allows_commercial_use or not commercial_only
    }
    users = recipes_by_checkpoint()
    if as_json:
        known = [
            {
                **entry.model_dump(mode="json"),
                "state": cache.state(name),
                "path": str(cache.path(name)),
                "recipes": users.get(name, []),
            }
            for name, entry in entries.items()
        ]
        print_json(known)
        return
    rows = list[list[str]]()
    for name, entry in entries.items():
        path = cache.path(name)
        size_bytes = path.stat().st_size if path.exists() else entry.size_bytes
        size = "?" if size_bytes is None else f"{size_bytes / 1e6:.0f} MB"
        details = (entry.trained_on,) if verbose_is_shown() else ()
        rows.append([name, cache.state(name), size, entry.license, *details, ", ".join(users.get(name, [])) or "-"])
    print(f"in {cache.folder}")
    details = ("trained on",) if verbose_is_shown() else ()
    print_columns(("name", "state", "size", "license", *details, "recipes"), rows, right=("size",))
    if not verbose_is_shown():
        print("-v adds training data")


def recipes_by_checkpoint() -> dict[str, list[str]]:
    """Return checkpoint → recipes of the package that use it; variants of a method count as the method."""
    from ..manifests.recipes import list_recipes, load_recipe

    users: dict[str, list[str]] = {}
    for recipe in list_recipes():
        method = re.sub(r"-(paper|released)$", "", recipe)
        for spec in load_recipe(recipe).streams.values():
            for name in spec.weights.values():
                found = users.setdefault(name, [])
                found += [method] if method not in found else []
    return users


@app.command()
@with_messages
def fetch(
    names: Names = None,
    recipe: Annotated[str | None, typer.Option(help="Fetch all checkpoints of this recipe.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Download again even if the file exists.")] = False,
    weights_manifest: WEIGHTS_MANIFEST = None,
    as_json: JSON = False,
) -> None:
    """Download checkpoints from their official addresses and verify them. An interrupted download is resumed."""
    if not names and recipe is None:
        raise typer.BadParameter("no checkpoint is named; give names, or a recipe with --recipe", param_hint="NAMES")
    wanted = list(dict.fromkeys((names or []) + (_required_by(recipe) if recipe else [])))
    if not wanted:
        _LOG.info(f"recipe {recipe} needs no checkpoint")
    cache = _cache(weights_manifest, recipe)
    for name in wanted:
        if not name.startswith(TRANSFORMERS):
            cache.entry(name)  # an unknown name is an error before the first download

    def fetch_one(name: str) -> str:
        if name.startswith(TRANSFORMERS):
            from ..extractors.hub_snapshot import find_checkpoint

            found = find_checkpoint(name.removeprefix(TRANSFORMERS), tensors=True).with_digest()
            return f"in {found.path}, sha256 {found.digest}"
        with _progress(name) as progress:
            return _verification_text(cache.entry(name), cache.fetch(name, progress, force=force))

    _each(wanted, fetch_one, as_json=as_json)


@app.command()
@with_messages
def verify(
    names: Names = None, weights_manifest: WEIGHTS_MANIFEST = None, recipe: RECIPE = None, as_json: JSON = False
) -> None:
    """Read checkpoints and compare their digests. Default: all checkpoints on this machine."""
    cache = _cache(weights_manifest, recipe)
    present = [name for name in cache.manifest.weights if cache.path(name).exists()]
    entries = {name: cache.entry(name) for name in names or present}
    if not entries and not as_json:
        Console().print(Text(f"{cache.folder} contains no checkpoint to verify"))
    _each(entries, lambda name: _verification_text(entries[name], cache.verify(name)), as_json=as_json)


@app.command()
@with_messages
def add(
    name: Annotated[str, typer.Argument(help="Name of the checkpoint, as in `arabesque weights list`.")],
    file: Annotated[Path, typer.Argument(help="File of the checkpoint. It is linked or copied into the cache.")],
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Accept a file that differs from the published one. A pickle can run any code."),
    ] = False,
    weights_manifest: WEIGHTS_MANIFEST = None,
    recipe: RECIPE = None,
    as_json: JSON = False,
) -> None:
    """Add the file of a checkpoint that you already have."""
    cache = _cache(weights_manifest, recipe)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise InputError(f"{file}: {what}; give the file of {name}")
    entry = cache.entry(name)
    _each([name], lambda _: _verification_text(entry, cache.add(name, file, trust=trust)), as_json=as_json)


def _cache(weights_manifest: Path | None, recipe: str | None) -> WeightsCache:
    """Open the cache of the package's checkpoints, those of ``--weights-manifest``, and those of the recipe."""
    from ..manifests.recipes import load_recipe
    from ..manifests.weights import read_weights_manifest
    from ..pipeline.weights.cache import open_cache

    own = read_weights_manifest(weights_manifest).weights if weights_manifest is not None else {}
    of_recipe = load_recipe(recipe).weights if recipe is not None else None
    return open_cache({**(of_recipe or {}), **own})


def _required_by(recipe: str) -> list[str]:
    from ..manifests.recipes import load_recipe

    loaded = load_recipe(recipe)
    if any(":" in stream.extractor for stream in loaded.streams.values()):  # their cards name the checkpoints
        from ..extractors.table import resolved_recipe

        loaded = resolved_recipe(loaded)
    names = [name for stream in loaded.streams.values() for name in stream.weights.values()]
    return [name for name in names if not RANDOM.fullmatch(name)]


def _each(names: Iterable[str], step: Callable[[str], str], *, as_json: bool) -> None:
    """Process each checkpoint and print one line, or all results as JSON.

    A failure does not stop the others, and gives exit status 1.
    """
    failed, results = False, list[dict[str, Any]]()
    for name in names:
        try:
            text = step(name)
        except (WeightsError, ConfigError) as error:
            failed = True
            results.append({"name": name, "ok": False, "detail": str(error)})
            Console(stderr=True).print(Text(f"arabesque: {error}", "red"), soft_wrap=True)
        else:
            results.append({"name": name, "ok": True, "detail": text})
            if not as_json:
                Console().print(Text(f"{name}: {text}"), soft_wrap=True)
    if as_json:
        print_json(results)
    if failed:
        raise typer.Exit(1)


def _verification_text(entry: WeightsEntry, receipt: Receipt) -> str:
    if receipt.trusted:
        return f"accepted with --trust, not the published file: sha256 {receipt.digests.sha256}"
    if entry.published_digest is None:
        return f"no published digest; recorded on first use: sha256 {receipt.digests.sha256}"
    return f"verified: {entry.published_digest}"


@contextmanager
def _progress(name: str) -> Generator[Progress | None, None, None]:
    """Show a progress bar on standard error, if it is a terminal."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    if not progress_is_shown():
        yield None
        return
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
