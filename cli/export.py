"""``arabesque export``: a feature store becomes the files that published code reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .import_features import stream_labels


def export(
    store: Annotated[str, typer.Argument(help="A feature store.")],
    out: Annotated[Path, typer.Option(help="The folder to write into, or a file's name: .npz, .pkl, .h5.")],
    format: Annotated[
        str,
        typer.Option(
            help="npy-folder (ACTION-NET, GDLT), pamfn-folder, pamfn-dict, finefs-folder, logo-dict, npz, npz-folder, "
            "hdf5 or webdataset."
        ),
    ],
    stream: Annotated[list[str] | None, typer.Option(help="Only this stream; may be given several times.")] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="STREAM=LABEL: a stream's folder, suffix or dict file, as i3d_rgb=dynamic_feat; may be given several "
            "times. One stream without a label goes into --out itself."
        ),
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="pamfn-dict: the action of videos whose id does not begin with one, as FISV.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="source (as it was imported; else float32), float32 or float16.")
    ] = "source",
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there already.")] = False,
) -> None:
    """Write a store's features in a format of the field. Ids with a slash make folders below the output.

    Exit status: 0 all written, 1 the export failed, 2 wrong usage (files that are there already included).
    """
    from ..pipeline.exchange.exporting import export as write
    from ..pipeline.store.reader import FeatureStore
    from .import_features import show_files

    number = _number(dtype)
    with show_files("exporting") as on_file:
        done = write(
            FeatureStore(store),
            out,
            format,
            streams=stream or (),
            names=stream_labels(name),
            action=action,
            number=number,
            force=force,
            on_file=on_file,
        )
    files = "1 file" if len(done.files) == 1 else f"{len(done.files)} files"
    print(f"{done.num_arrays} arrays in {files}: {done.files[0]}{' …' if len(done.files) > 1 else ''}")


def _number(name: str) -> Literal["source", "float32", "float16"]:
    if name == "source" or name == "float32" or name == "float16":
        return name
    raise typer.BadParameter(f"{name!r} is none of source, float32, float16", param_hint="--dtype")
