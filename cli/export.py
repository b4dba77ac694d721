"""``arabesque export``: write a feature store in the file formats that published code reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..manifests.plurals import plural
from .console import JSON, print_json
from .import_features import stream_labels


def export(
    store: Annotated[str, typer.Argument(help="Feature store.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder, or file: .npz, .pkl, .h5.")],
    format: Annotated[
        str,
        typer.Option(
            help="Format: npy-folder (ACTION-NET, GDLT), pamfn-folder, pamfn-dict, finefs-folder, logo-dict, npz, "
            "npz-folder, hdf5 or webdataset."
        ),
    ],
    stream: Annotated[
        list[str] | None, typer.Option(help="Export only this stream; may be repeated. Default: all.")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="STREAM=LABEL: folder, suffix or dict file of a stream, e.g. i3d_rgb=dynamic_feat; may be repeated. A "
            "single stream without a label is written to --out itself."
        ),
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="pamfn-dict: action of the videos whose id does not start with one, e.g. FISV.")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(help="Also write the boxes of people to this file, .csv or .parquet, one row for each box."),
    ] = None,
    sentences: Annotated[
        Path | None,
        typer.Option(help="Also write the sentences of streams with a text tower, and their rows, to this .npz file."),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Number type: source (that of the import, else float32), float32 or float16.")
    ] = "source",
    partial: Annotated[bool, typer.Option("--partial", help="Also export the features of partial videos.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    as_json: JSON = False,
) -> None:
    """Write the features of a store in a common format, with a manifest from which `import` restores the rows.

    Ids with a slash become subfolders of the output. The same command continues an interrupted export, and rewrites
    what has changed in the store.

    Exit status: 0 all written, 3 the format cannot hold some videos, 1 the export failed, 2 wrong usage (this includes
    existing files without --force).
    """
    from ..pipeline.interop.box_files import export_boxes
    from ..pipeline.interop.exporting import export as write
    from ..pipeline.interop.sentence_files import export_sentences
    from ..pipeline.store.reader import FeatureStore
    from .import_features import show_files

    number = _number(dtype)
    reader = FeatureStore(store, partial=partial)
    num_boxes = None if boxes is None else export_boxes(reader, boxes, stream or (), force=force)
    num_sentences = None if sentences is None else export_sentences(reader, sentences, stream or (), force=force)
    with show_files("exporting") as on_file:
        done = write(
            reader,
            out,
            format,
            streams=stream or (),
            names=stream_labels(name),
            action=action,
            number=number,
            force=force,
            on_file=on_file,
        )
    if as_json:
        failed = [{"video_id": one.video_id, "stream": one.stream, "reason": one.reason} for one in done.failed]
        print_json(
            {
                "num_arrays": done.num_arrays,
                "files": [str(file) for file in done.files],
                "num_kept": done.num_kept,
                "removed": [str(file) for file in done.removed],
                "num_partial": done.num_partial,
                "num_boxes": num_boxes,
                "num_sentences": num_sentences,
                "failed": failed,
            }
        )
        raise typer.Exit(3 if done.failed else 0)
    files = plural(len(done.files), "file")
    print(f"{plural(done.num_arrays, 'array')} in {files}: {done.files[0]}{' …' if len(done.files) > 1 else ''}")
    if num_boxes is not None:
        print(f"boxes: {num_boxes:,}, in {boxes}")
    if num_sentences is not None:
        print(f"{plural(num_sentences, 'sentence')}: {sentences}")
    if done.num_kept == len(done.files) and not done.removed:
        print("already complete: nothing has changed in the store")
    elif done.num_kept or done.removed:
        print(f"files that already existed: {done.num_kept:,}; removed, of former videos: {len(done.removed):,}")
    if done.num_partial:
        print(f"not exported: {plural(done.num_partial, 'array')} of partial videos; --partial exports them")
    for one in done.failed:
        print(f"failed: {one.video_id!r} [{one.stream}]: {one.reason}")
    raise typer.Exit(3 if done.failed else 0)


def _number(name: str) -> Literal["source", "float32", "float16"]:
    if name == "source" or name == "float32" or name == "float16":
        return name
    raise typer.BadParameter(f"{name!r} is not one of source, float32, float16", param_hint="--dtype")
