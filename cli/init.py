"""``arabesque init``: inspect a folder of videos and print the commands to run, with estimates."""

from __future__ import annotations

import logging
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..manifests.plurals import plural
from .console import JSON, print_json
from .label_check import LabelCheck, check_labels
from .recipe_options import RECIPE_NAME

_LOG = logging.getLogger(__name__)

LABEL_SUFFIXES = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class Step:
    """A command, and a note on its cost or purpose."""

    command: str
    note: str


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of videos, with or without a label file (CSV).")],
    recipe: Annotated[str, typer.Option(help=RECIPE_NAME)] = "starter",
    as_json: JSON = False,
) -> None:
    """Inspect a folder of videos and labels, and print the commands to run with estimates. Writes nothing.

    Extracts from a few videos for some seconds to measure the speed, as `extract --dry-run` does.
    """
    from ..manifests.recipes import load_recipe
    from ..pipeline.planning.selection import InputSelection, find_inputs
    from ..pipeline.weights.cache import open_cache

    chosen = load_recipe(recipe)
    inputs = find_inputs(InputSelection((str(folder),)))
    ids = {file.video_id for file in inputs.videos}
    _LOG.info(f"{plural(len(inputs.videos), 'video')} in {folder}; measuring …")
    labels = _find_labels(folder, ids)
    names = {name for spec in chosen.streams.values() for name in spec.weights.values()}
    cache = open_cache(chosen.weights)
    missing = sorted(name for name in names if not cache.is_present(name))
    from tempfile import TemporaryDirectory

    from ..pipeline.benchmarking.estimate import estimate_run
    from ..pipeline.extraction import Extraction
    from .dry_run import duration_text, size_text
    from .extract import run_options

    with TemporaryDirectory(prefix="arabesque-init-") as temporary:
        run = Extraction(
            folder,
            chosen,
            Path(temporary) / "features",
            weights="random:0" if missing else None,  # the speed is the same
            options=run_options(),
            inputs=inputs,
        )
        found = estimate_run(run, on_step=lambda step: _LOG.info(f"{step} …"))
    base = folder.resolve().parent
    out, model = (shlex.quote(str(base / name)) for name in ("features", "model"))
    option = "--labels " + (shlex.quote(labels.labels) if labels is not None else "SCORES.csv")
    steps = [
        *([Step(f"arabesque weights fetch --recipe {shlex.quote(recipe)}", ", ".join(missing))] if missing else []),
        Step(
            f"arabesque extract {shlex.quote(str(folder))} --recipe {shlex.quote(recipe)} --out {out}"
            + (f" {option}" if labels is not None else ""),
            f"{duration_text(found.time_s)} for {duration_text(found.video_s)} of video on {found.device}; "
            f"memory {size_text(found.memory_bytes)}, disk {size_text(found.disk_bytes)}",
        ),
        Step(
            f"arabesque train {out} {option} --out {model}",
            labels.lines()[0] if labels is not None else "no label file was found: one line per video, video_id,score",
        ),
        Step(f"arabesque score NEW.mp4 --model {model}", "scores of new videos"),
    ]
    if as_json:
        print_json(
            {
                "num_videos": len(inputs.videos),
                "video_s": found.video_s,
                "missing_weights": missing,
                "labels": None if labels is None else asdict(labels),
                "estimate": found.model_dump(mode="json"),
                "steps": [asdict(step) for step in steps],
            }
        )
        return
    for step in steps:
        print(f"# {step.note}\n{step.command}")


def _find_labels(folder: Path, ids: set[str]) -> LabelCheck | None:
    """Return the label file beside the videos, or in the folder above, with the most videos; None if there is none."""
    from ..manifests.errors import InputError

    places = [folder, folder.resolve().parent] if folder.is_dir() else [folder.resolve().parent]
    best: LabelCheck | None = None
    for place in places:
        for path in sorted(place.iterdir()):
            if path.suffix.lower() not in LABEL_SUFFIXES or not path.is_file():
                continue
            try:
                found = check_labels(path, ids, None, None)
            except InputError as error:  # another kind of file, or labels of other videos
                _LOG.debug(f"{path} is not used: {error}")
                continue
            if best is None or found.num_matched > best.num_matched:
                best = found
    return best
