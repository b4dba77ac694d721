"""``arabesque import``: import features from files into a feature store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..manifests.errors import InputError
from .arguments import ID_PREFIX, REPLACE
from .console import JSON, print_json
from .messages import progress_is_shown

_LOG = logging.getLogger(__name__)

FORMAT_HELP = (
    "npy-folder, pamfn-folder, pamfn-dict, finefs-folder, logo-dict, npz, npz-folder, hdf5, webdataset or "
    "video-features. Default: detected."
)
TRUST_HELP = (
    "Read pickles that contain more than arrays and plain containers. Such a pickle can run any code with your "
    "permissions: use it only for files from a source you trust."
)
NAME_HELP = "STREAM=LABEL: label of a stream in the files, if it is unusual; may be repeated."

UNNAMED = "features"


def import_features(
    source: Annotated[Path, typer.Argument(help="File or folder of features, in a supported format.")],
    out: Annotated[
        str, typer.Option("--out", "-o", help="Feature store: a new folder or URL, or the store of an earlier import.")
    ],
    stream: Annotated[
        str | None,
        typer.Option(help=f"Import only this stream; names it if the files do not (default: {UNNAMED})."),
    ] = None,
    name: Annotated[list[str] | None, typer.Option(help=NAME_HELP)] = None,
    format: Annotated[str | None, typer.Option(help=FORMAT_HELP)] = None,
    fps: Annotated[
        float | None,
        typer.Option(min=1e-3, help="Frame rate at which the features were computed, in frames per second."),
    ] = None,
    frames_per_segment: Annotated[int | None, typer.Option(min=1, help="Length of a segment, in frames.")] = None,
    step: Annotated[
        int | None, typer.Option(min=1, help="Step between segments, in frames. Default: the length of a segment.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Use frame rate, segment and step of this recipe; add --fps if its rate is native."),
    ] = None,
    recipe_name: Annotated[
        str | None,
        typer.Option(help="Recipe name in the store's manifest. Default: that of the export, else imported."),
    ] = None,
    parts: Annotated[
        str,
        typer.Option(help="Reduce arrays of segments × parts × dim: mean (as PAMFN does) or split (one row per part)."),
    ] = "mean",
    id_prefix: ID_PREFIX = "",
    replace_sources: REPLACE = False,
    trust: Annotated[bool, typer.Option("--trust", help=TRUST_HELP)] = False,
    as_json: JSON = False,
) -> None:
    """Import features from files into a feature store. Running it again stores nothing twice.

    Files that `arabesque export` wrote restore the rows of their store: ids, streams, times and keys. For other files,
    --fps and --frames-per-segment give the times of the segments; without them, times are in segments, not seconds.
    The output folder of video_features has times, which are used.

    Exit status: 0 all imported, 3 some arrays could not be used, 1 a file is damaged or not trusted, 2 wrong usage.
    """
    from ..pipeline.interop.feature_files import of_stream, opened
    from ..pipeline.interop.import_timing import TimeGrid, time_grid
    from ..pipeline.interop.importing import import_features as import_arrays
    from ..pipeline.planning.discovery import checked_id_prefix
    from ..pipeline.status import read_status
    from .status import print_status

    as_rows = _parts(parts)
    with opened(source, format, trust=trust, names=stream_labels(name)) as found:
        arrays = of_stream(found, stream or (UNNAMED if found.streams == ("",) else None))
        if id_prefix:
            prefix = checked_id_prefix(id_prefix)
            arrays = [replace(array, video_id=f"{prefix}/{array.video_id}") for array in arrays]
            found = found.with_prefixed_outcomes(prefix)
        streams = sorted({array.stream for array in arrays})
        if found.exported is None:
            grids = {each: time_grid(fps, frames_per_segment, step, recipe, each) for each in streams}
            if not (fps or frames_per_segment or step or recipe):
                timed = {array.stream for array in arrays if array.load_times is not None}
                grids |= {each: TimeGrid(in_files=True) for each in streams if each in timed}
            in_seconds = all(grid.unit == "seconds" for grid in grids.values())
            _announce(found.format, len(arrays), streams, in_seconds=in_seconds)
        elif fps or frames_per_segment or step or recipe:
            raise InputError(
                f"{source}: is an export, which contains the times of its rows; "
                "remove --fps, --frames-per-segment, --step and --recipe"
            )
        else:
            grids = {}
            _LOG.info(f"{found.format}, an export: {len(arrays)} arrays of {', '.join(streams)}")
        with show_files("importing") as on_array:
            problems = found.problems
            done = import_arrays(
                found,
                arrays,
                out,
                grids=grids,
                recipe_name=recipe_name,
                parts=as_rows,
                replaces_sources=replace_sources,
                on_array=on_array,
            )
    _LOG.info(f"{done.added} imported, {done.unchanged} already present, {done.failed} failed")
    if done.rounded:
        _LOG.warning(f"{done.rounded} arrays contain numbers that float32 cannot represent; they were rounded")
    for problem in problems:
        _LOG.warning(f"failed: {problem}")
    if as_json:
        facts = {"added": done.added, "unchanged": done.unchanged, "failed": done.failed, "problems": list(problems)}
        print_json(facts)
        raise typer.Exit(3 if problems or done.failed else 0)
    status = print_status(read_status(out))
    raise typer.Exit(3 if problems and status == 0 else status)


def stream_labels(given: Sequence[str] | None) -> dict[str, str]:
    """Parse values of ``--name``, e.g. ``vst=rgb_VST``, into a dict."""
    labels: dict[str, str] = {}
    for one in given or ():
        stream, equals, label = one.partition("=")
        if not (stream and equals and label):
            raise typer.BadParameter(f"{one!r} is not STREAM=LABEL; write e.g. vst=rgb_VST", param_hint="--name")
        labels[stream] = label
    return labels


@contextmanager
def show_files(what: str) -> Generator[Callable[[int, int], None], None, None]:
    """Show a progress bar on standard error while the block runs, if it is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not progress_is_shown()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _parts(name: str) -> Literal["mean", "split"]:
    if name == "mean" or name == "split":
        return name
    raise typer.BadParameter(f"{name!r} is neither mean nor split; give one of them", param_hint="--parts")


def _announce(format: str, num_arrays: int, streams: Sequence[str], *, in_seconds: bool) -> None:
    _LOG.info(f"{format}: {num_arrays} arrays of {', '.join(streams)}")
    if streams == [UNNAMED]:
        _LOG.info(f"the files do not name their stream; it is stored as {UNNAMED!r}. --stream names it")
    if not in_seconds:
        _LOG.info("no --fps and --frames-per-segment: start_s and end_s are in segments, not seconds")
