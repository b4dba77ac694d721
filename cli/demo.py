"""``arabesque demo``: from raw videos to a score in about a minute, with nothing downloaded."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer


def demo(
    folder: Annotated[Path, typer.Argument(help="Where to leave videos, features and the trained model.")] = Path(
        "arabesque-demo"
    ),
    videos: Annotated[int, typer.Option(min=8, help="How many routines to draw.")] = 36,
    seed: Annotated[int, typer.Option(help="Another seed draws other routines.")] = 0,
) -> None:
    """Draw short routines, extract the `starter` features, train a scoring model, and say how well it scores.

    No download, no GPU; about a minute on two cores.
    """
    from rich.console import Console

    from ..manifests.recipes import load_recipe
    from ..models.training import train_and_evaluate
    from ..pipeline.extraction import Extraction
    from ..pipeline.synthetic.routines import write_routines
    from .extract import run_options
    from .progress import show_run
    from .status import print_status

    began = time.monotonic()
    console = Console(stderr=True)
    with console.status(f"drawing {videos} routines with music …"):
        write_routines(folder / "videos", videos, seed)
    print(f"1. {videos} routines in {folder / 'videos'}, their scores in labels.csv", file=sys.stderr)

    run = Extraction(folder / "videos", load_recipe("starter"), folder / "features", options=run_options())
    show_run(run)
    from ..pipeline.status import read_status

    status = print_status(read_status(folder / "features", run.inputs))
    print(f"2. features in {folder / 'features'}", file=sys.stderr)
    if status:
        raise typer.Exit(status)

    with console.status("training ACTION-NET's context attention …"):
        report = train_and_evaluate(folder / "features", folder / "videos" / "labels.csv", folder / "model", seed=seed)
    print(f"3. model and predictions in {folder / 'model'}", file=sys.stderr)
    print(report.summary())
    print(f"{time.monotonic() - began:.0f} s in all")
    print(f"now try: arabesque score {folder / 'videos' / 'routine_000.mp4'} --model {folder / 'model'}")
