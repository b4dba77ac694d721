"""``arabesque import``: features that others computed become a feature store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

FORMAT_HELP = (
    "npy-folder, pamfn-folder, pamfn-dict, finefs-folder, logo-dict, npz, npz-folder, hdf5 or webdataset. "
    "Default: told by the files."
)
TRUST_HELP = (
    "Read pickles that name more than arrays and plain containers. Reading such a pickle runs whatever it names, with "
    "your rights: only for files whose maker you know."
)
NAME_HELP = "STREAM=LABEL: what the files call a stream, where that is unusual; may be given several times."


UNNAMED = "features"


def import_features(
    source: Annotated[Path, typer.Argument(help="A file or a folder of features, in any format of the field.")],
    out: Annotated[str, typer.Option(help="The feature store: a new folder or URL, or one that an import made.")],
    stream: Annotated[
        str | None,
        typer.Option(help=f"The stream's name where files do not say it (else {UNNAMED}); or the one to take."),
    ] = None,
    name: Annotated[list[str] | None, typer.Option(help=NAME_HELP)] = None,
    format: Annotated[str | None, typer.Option(help=FORMAT_HELP)] = None,
    fps: Annotated[float | None, typer.Option(min=1e-3, help="Frames per second that the features saw.")] = None,
    frames_per_segment: Annotated[int | None, typer.Option(min=1, help="Frames in a segment.")] = None,
    step: Annotated[
        int | None, typer.Option(min=1, help="Frames from one segment to the next. Default: a segment's frames.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Take fps, segment and step from this recipe's stream; --fps where it is native.")
    ] = None,
    recipe_name: Annotated[str, typer.Option(help="What the store's manifest says the features are.")] = "imported",
    parts: Annotated[
        str, typer.Option(help="Of [segments, parts, dim]: mean (as PAMFN's training) or split (a row for each part).")
    ] = "mean",
    trust: Annotated[bool, typer.Option("--trust", help=TRUST_HELP)] = False,
) -> None:
    """Bring features of any format into a feature store; run it again and nothing is stored twice.

    Without --fps and --frames-per-segment nobody knows when a segment was: the store then counts segments, no seconds.

    Exit status: 0 all imported, 3 some arrays could not be used, 1 a file is damaged or not trusted, 2 wrong usage.
    """
    from ..pipeline.exchange.feature_files import of_stream, opened
    from ..pipeline.exchange.import_timing import time_grid
    from ..pipeline.exchange.importing import import_features as bring_in
    from ..pipeline.status import read_status
    from .status import print_status

    as_rows = _parts(parts)
    with opened(source, format, trust=trust, names=stream_labels(name)) as found:
        arrays = of_stream(found, stream or (UNNAMED if found.streams == ("",) else None))
        streams = sorted({array.stream for array in arrays})
        grids = {each: time_grid(fps, frames_per_segment, step, recipe, each) for each in streams}
        _announce(found.format, len(arrays), streams, in_seconds=all(grid.fps for grid in grids.values()))
        with show_files("importing") as on_array:
            done = bring_in(found, arrays, out, grids=grids, recipe_name=recipe_name, parts=as_rows, on_array=on_array)
    print(f"{done.added} imported, {done.unchanged} there already, {done.failed} failed", file=sys.stderr)
    if done.rounded:
        print(f"WARNING: {done.rounded} arrays hold numbers that float32 cannot; they were rounded", file=sys.stderr)
    raise typer.Exit(print_status(read_status(out)))


def stream_labels(given: Sequence[str] | None) -> dict[str, str]:
    """``--name vst=rgb_VST`` as a dict."""
    labels: dict[str, str] = {}
    for one in given or ():
        stream, equals, label = one.partition("=")
        if not (stream and equals and label):
            raise typer.BadParameter(f"{one!r} is not STREAM=LABEL, as in vst=rgb_VST", param_hint="--name")
        labels[stream] = label
    return labels


@contextmanager
def show_files(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while the block runs; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _parts(name: str) -> Literal["mean", "split"]:
    if name == "mean" or name == "split":
        return name
    raise typer.BadParameter(f"{name!r} is neither mean nor split", param_hint="--parts")


def _announce(format: str, num_arrays: int, streams: Sequence[str], *, in_seconds: bool) -> None:
    print(f"{format}: {num_arrays} arrays of {', '.join(streams)}", file=sys.stderr)
    if streams == [UNNAMED]:
        print(f"the files do not say which stream they hold: stored as {UNNAMED!r}; --stream names it", file=sys.stderr)
    if not in_seconds:
        print("no --fps and --frames-per-segment: start_s and end_s count segments, no seconds", file=sys.stderr)
