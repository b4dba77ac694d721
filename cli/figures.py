"""``arabesque figures``: draw the figures of the papers for a trained model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from ..manifests.optional_packages import require_package
from .arguments import ID_PREFIX, check_device, check_output_folder, check_store_path, model_folder
from .console import JSON, print_json
from .report import show_steps

_LOG = logging.getLogger(__name__)


def figures(
    model: Annotated[Path, typer.Argument(help="Folder of a model that `arabesque train` wrote.")],
    store: Annotated[str, typer.Argument(help="Feature store with the videos to draw, e.g. the test videos.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("figures"),
    videos: Annotated[
        list[str] | None,
        typer.Option(help="Videos of the store, or their folder, for frames and flow; may be repeated."),
    ] = None,
    video: Annotated[
        list[str] | None,
        typer.Option(help="Id of a video to draw; may be repeated. Default: the highest and the lowest score."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="table.json of `arabesque reproduce pamfn-figure-6`, for that figure.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="Format of the figures: svg, png or pdf.")] = "svg",
    id_prefix: ID_PREFIX = "",
    device: Annotated[str, typer.Option(help="Device for the model: auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: JSON = False,
) -> None:
    """Draw Figures 4 to 6 of ACTION-NET and 5 to 9 of PAMFN for a trained model, as far as it has the data.

    Attention weights, decisions of the PolicyNet and weights of modalities are those of the model on these videos.
    """
    if form not in ("svg", "png", "pdf"):
        raise typer.BadParameter(f"{form!r} is not one of svg, png, pdf; give one of them", param_hint="--format")
    from ..pipeline.planning.discovery import checked_id_prefix, required_videos
    from ..pipeline.store.files.storage import as_store_path
    from ..pipeline.store.manifest import read_manifest

    require_package("matplotlib", "figures")
    check_device(device)
    model = model_folder(model)
    check_store_path(store)
    manifest = read_manifest(as_store_path(store))
    check_output_folder(out, "--out")
    prefix = id_prefix or str(manifest.get("inputs", {}).get("id_prefix", ""))
    files = {}
    if videos:
        found = required_videos([as_store_path(each) for each in videos], checked_id_prefix(prefix) if prefix else "")
        files = {file.video_id: file for file in found.videos}
    from ..pipeline.machine import find_device
    from ..pipeline.store.reader import FeatureStore
    from ..reports.figures import write_figures
    from ..reports.score_data import score_store

    opened = FeatureStore(as_store_path(store))
    with show_steps() as on_progress:
        scores = score_store(
            model, opened, device=find_device(device), on_done=lambda done, total: on_progress("scores", done, total)
        )
    made = write_figures(
        scores,
        out,
        video_ids=video or (),
        files=files,
        table=table,
        form=form,
    )
    if as_json:
        print_json({"written": list(made.written), "not_drawn": dict(made.left_out)})
    else:
        for name, reason in made.left_out.items():
            _LOG.info("not drawn: %s: %s", name, reason)
        for path in made.written:
            print(path)
    if not made.written:
        _LOG.warning("no figure was drawn; the messages above state what each figure needs")
        raise typer.Exit(3)
