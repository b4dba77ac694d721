"""``arabesque demo``: generate videos, extract, train and write a report in about two minutes, without downloads."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..manifests.errors import InputError
from .arguments import check_output_folder
from .console import JSON, print_json
from .messages import progress_is_shown
from .report import OPEN, show_page, show_steps

_LOG = logging.getLogger(__name__)

NEW = "not_trained_on"
"""Id of the generated video that is not used for training"""


def demo(
    folder: Annotated[
        Path, typer.Argument(help="Output folder for videos, features, the model and the report.")
    ] = Path("arabesque-demo"),
    videos: Annotated[int, typer.Option(min=8, help="Number of videos to generate.")] = 36,
    seed: Annotated[int, typer.Option(help="Seed of the generated videos and of the training.")] = 0,
    clip: Annotated[
        Path | None,
        typer.Option(help="A video of your own, shown in the report, too. Its score is meaningless."),
    ] = None,
    open_it: OPEN = False,
    as_json: JSON = False,
) -> None:
    """Generate short skating videos, extract the `starter` features, train a scoring model and write a report.

    The report shows each video, its features, its score and what the score depends on. One video is not trained on.
    Features and videos that exist are used again. Needs no download and no GPU; takes about two minutes on two cores.
    """
    from rich.console import Console

    check_output_folder(folder, "FOLDER")
    if clip is not None:
        _check_clip(clip, videos)
    from ..manifests.recipes import load_recipe
    from ..models.labels import Labels, read_labels
    from ..models.training import train_and_evaluate
    from ..pipeline.extraction import Extraction
    from ..pipeline.options import default_decoders
    from ..pipeline.store.reader import FeatureStore
    from ..pipeline.system.process_resources import available_cores
    from ..reports.report import write_report
    from .demo_videos.routines import write_routine, write_routines
    from .extract import run_options
    from .progress import show_run
    from .status import print_status

    began = time.monotonic()
    console = Console(stderr=True, quiet=not progress_is_shown())
    (folder / "new").mkdir(parents=True, exist_ok=True)
    with console.status(f"generating {videos + 1} videos with music …"):
        write_routines(folder / "videos", videos, seed)
        new = write_routine(folder / "new" / f"{NEW}.mp4", seed=(seed, videos))
    _LOG.info(f"1. {videos} videos in {folder / 'videos'}, their scores in labels.csv; another one in {folder / 'new'}")

    roots = [folder / "videos", folder / "new", *([clip] if clip is not None else [])]
    run = Extraction(roots, load_recipe("starter"), folder / "features", options=run_options())
    show_run(run)
    from ..pipeline.status import read_status

    found = read_status(folder / "features", run.inputs)
    status = (3 if (found.inputs or found).troubles else 0) if as_json else print_status(found, of_inputs=True)
    _LOG.info(f"2. features in {folder / 'features'}")
    if status:
        raise typer.Exit(status)

    labels = read_labels(folder / "videos" / "labels.csv")
    with console.status("training ACTION-NET's context attention …"):
        report = train_and_evaluate(folder / "features", labels, folder / "model", seed=seed)
    _LOG.info(f"3. model and predictions in {folder / 'model'}")
    if not as_json:
        print(report.summary())
    with show_steps() as on_progress:
        written = write_report(
            FeatureStore(folder / "features", partial=True),
            folder / "report",
            videos=run.inputs,
            model=folder / "model",
            labels=Labels(labels.target, {**labels.scores, NEW: new.score}),
            num_decoders=default_decoders(available_cores(), "cpu"),
            on_progress=on_progress,
        )
    if as_json:
        facts = {"folder": folder, "num_videos": report.num_videos, "spearman": asdict(report.spearman)}
        print_json({**facts, "page": written.index})
        return
    if written.scores is not None:
        print(
            f"{new.path}, not in the training: predicted {written.scores.scores[NEW].score:.2f}, true {new.score:.2f}"
        )
    print(f"{time.monotonic() - began:.0f} s in total")
    print(f"next: arabesque score {new.path} --model {folder / 'model'} --store {folder / 'features'}")
    show_page(written.index, open_it=open_it)


def _check_clip(clip: Path, num_videos: int) -> None:
    if not clip.is_file():
        raise InputError(f"{clip}: {'is a folder' if clip.is_dir() else 'does not exist'}; give --clip a video file")
    if clip.stem == NEW or clip.stem in {f"routine_{index:03d}" for index in range(num_videos)}:
        raise InputError(f"{clip}: the demo has a video of the same name; rename the clip")
