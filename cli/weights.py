"""``arabesque weights``: which checkpoints there are, fetch them, verify them, add your own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..manifests.errors import WeightsError

if TYPE_CHECKING:
    from ..manifests.weights import WeightsEntry
    from ..pipeline.weights.downloading import Progress
    from ..pipeline.weights.receipts import Receipt

app = typer.Typer(no_args_is_help=True, help="List, fetch, verify and add the networks' checkpoints.")

STATE_STYLES = {"ready": "green", "unchecked": "yellow", "unfinished": "yellow", "missing": "dim"}

Names = Annotated[list[str] | None, typer.Argument(help="Checkpoints, as `arabesque weights list` names them.")]


@app.command("list")
def list_weights(
    as_json: Annotated[bool, typer.Option("--json", help="Everything known of each, as JSON.")] = False,
) -> None:
    """Show every known checkpoint and whether it is on this machine."""
    from ..pipeline.weights.cache import open_cache

    cache = open_cache()
    if as_json:
        known = [
            {**entry.model_dump(mode="json"), "state": cache.state(name), "path": str(cache.path(name))}
            for name, entry in cache.manifest.weights.items()
        ]
        typer.echo(json.dumps(known, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("size", no_wrap=True, justify="right")
    table.add_column("trained on", overflow="fold")
    table.add_column("licence", overflow="fold")
    for name, entry in cache.manifest.weights.items():
        state = cache.state(name)
        size = "" if entry.size_bytes is None else f"{entry.size_bytes / 1e6:.0f} MB"
        table.add_row(name, Text(state, STATE_STYLES[state]), size, entry.trained_on, entry.licence)
    console = Console()
    console.print(Text(f"in {cache.folder}"), soft_wrap=True)
    console.print(table)


@app.command()
def fetch(
    names: Names = None,
    recipe: Annotated[str | None, typer.Option(help="Fetch all that the streams of this recipe need.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Download even what is there already.")] = False,
) -> None:
    """Download checkpoints from their official addresses and verify them; a broken-off download is continued."""
    from ..pipeline.weights.cache import open_cache

    wanted = [*(names or []), *(_needed_by(recipe) if recipe else [])]
    if not wanted:
        raise typer.BadParameter("name checkpoints to fetch, or a recipe with --recipe", param_hint="NAMES")
    cache = open_cache()
    entries = [cache.manifest.entry(name) for name in dict.fromkeys(wanted)]

    def fetch_one(entry: WeightsEntry) -> Receipt:
        with _progress(entry.name) as progress:
            return cache.fetch(entry.name, progress, force=force)

    _each(entries, fetch_one)


@app.command()
def verify(names: Names = None) -> None:
    """Read checkpoints byte by byte and compare their digests; all that are on this machine unless named."""
    from ..pipeline.weights.cache import open_cache

    cache = open_cache()
    present = [name for name in cache.manifest.weights if cache.path(name).exists()]
    entries = [cache.manifest.entry(name) for name in dict.fromkeys(names or present)]
    if not entries:
        Console().print(Text(f"no checkpoint is in {cache.folder}, so there is none to verify"))
    _each(entries, lambda entry: cache.verify(entry.name))


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Which checkpoint the file is, as `arabesque weights list` names it.")],
    file: Annotated[Path, typer.Argument(help="The file; it is linked or copied into the cache.")],
    trust: Annotated[
        bool, typer.Option("--trust", help="Take it even if it is not the published file. A pickle can run any code.")
    ] = False,
) -> None:
    """Take a file that you have already."""
    from ..pipeline.weights.cache import open_cache

    cache = open_cache()
    _each([cache.manifest.entry(name)], lambda entry: cache.add(entry.name, file, trust=trust))


def _needed_by(recipe: str) -> list[str]:
    from ..manifests.recipes import load_recipe

    return [name for stream in load_recipe(recipe).streams.values() for name in stream.weights.values()]


def _each(entries: list[WeightsEntry], step: Callable[[WeightsEntry], Receipt]) -> None:
    """One line for each entry; a failure does not keep the others from their turn, but shows in the exit status."""
    failed = False
    for entry in entries:
        try:
            receipt = step(entry)
        except WeightsError as error:
            failed = True
            Console(stderr=True).print(Text(f"arabesque: {error}", "red"), soft_wrap=True)
        else:
            Console().print(Text(f"{entry.name}: {_how_known(entry, receipt)}"), soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _how_known(entry: WeightsEntry, receipt: Receipt) -> str:
    if receipt.trusted:
        return f"taken on your word, not the published file: sha256 {receipt.digests.sha256}"
    if entry.published_digest is None:
        return f"no published digest: recorded what came (trust on first use): sha256 {receipt.digests.sha256}"
    return f"verified: {entry.published_digest}"


@contextmanager
def _progress(name: str) -> Iterator[Progress | None]:
    """A bar on the terminal's error stream; nothing where there is no terminal."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
