"""``arabesque report``: write HTML pages that show a store, its videos, and the scores of a model."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import ID_PREFIX, check_device, check_labels, check_output_folder, check_store_path, model_folder
from .console import JSON, print_json
from .messages import progress_is_shown

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
_LOG = logging.getLogger(__name__)

OPEN = Annotated[bool, typer.Option("--open", help="Open the report in the browser.")]


def report(
    store: Annotated[str, typer.Argument(help="Feature store; a run may write to it at the same time.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Output folder: new, empty, or an earlier report."),
    ] = Path("report"),
    videos: Annotated[
        list[str] | None,
        typer.Option(help="Videos of the store, or their folder, for pictures, sound and playback; may be repeated."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder of a model that `arabesque train` wrote, for scores and their reasons.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV file (video_id,score) with the scores by the judges.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Name of the score column, if there are several.")] = None,
    id_prefix: ID_PREFIX = "",
    device: Annotated[str, typer.Option(help="Device for the model: auto, cpu, cuda or cuda:N.")] = "auto",
    open_it: OPEN = False,
    as_json: JSON = False,
) -> None:
    """Write a report as HTML pages: the store, each video with its time line, and the scores of a model.

    The pages need neither a server nor a network. Without --videos they have no pictures.

    Exit status: 0 written, 3 some videos could not be read, 1 the store or the model is damaged, 2 wrong usage.
    """
    from ..pipeline.planning.discovery import checked_id_prefix, required_videos
    from ..pipeline.store.files.storage import as_store_path
    from ..pipeline.store.manifest import read_manifest

    check_device(device)
    check_store_path(store)
    manifest = read_manifest(as_store_path(store))
    check_output_folder(out, "--out")
    if model is not None:
        model = model_folder(model)
    if labels is not None:
        check_labels(labels, None, target)
    prefix = id_prefix or str(manifest.get("inputs", {}).get("id_prefix", ""))
    inputs = None
    if videos:
        inputs = required_videos([as_store_path(each) for each in videos], checked_id_prefix(prefix) if prefix else "")
    from ..models.labels import read_labels
    from ..pipeline.machine import find_device
    from ..pipeline.options import default_decoders
    from ..pipeline.store.reader import FeatureStore
    from ..pipeline.system.process_resources import available_cores
    from ..reports.report import write_report

    with show_steps() as on_progress:
        result = write_report(
            FeatureStore(as_store_path(store), partial=True),
            out,
            videos=inputs,
            model=model,
            labels=read_labels(labels, target) if labels is not None else None,
            labels_path=labels,
            num_decoders=default_decoders(available_cores(), "cpu"),
            device=find_device(device),
            on_progress=on_progress,
        )
    for problem in result.problems:
        _LOG.warning(problem)
    show_page(result.index, open_it=open_it, quietly=as_json)
    if as_json:
        print_json({"page": str(result.index), "problems": list(result.problems)})
    raise typer.Exit(3 if result.problems else 0)


def show_page(page: Path, *, open_it: bool, quietly: bool = False) -> None:
    """Print the path of a report, on standard error if ``quietly``; open it in the browser if ``open_it``."""
    if quietly:
        _LOG.info("report: %s", page)
    else:
        print(f"report: {page}")
    if open_it:
        import webbrowser

        if not webbrowser.open(page.resolve().as_uri()):
            _LOG.warning("%s: no browser was found; open this page yourself", page.resolve())


@contextmanager
def show_steps() -> Generator[Callable[[str, int, int], None]]:
    """Show the progress of a report in a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not progress_is_shown()) as progress:
        tasks = {name: progress.add_task(name, total=None, visible=False) for name in ("scores", "videos")}
        yield lambda step, done, total: progress.update(tasks[step], completed=done, total=total, visible=True)
