"""``arabesque look``: draw the inputs of each stream of a recipe for one video."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from ..manifests.optional_packages import require_package
from .arguments import WEIGHTS_MANIFEST, check_decoder, check_device
from .console import JSON, print_json
from .recipe_options import RECIPE_NAME, SET, WEIGHTS, chosen_recipe

_LOG = logging.getLogger(__name__)


def look(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    recipe: Annotated[str, typer.Option(help=RECIPE_NAME)] = "starter",
    stream: Annotated[
        list[str] | None, typer.Option(help="Draw only this stream of the recipe; may be repeated. Default: all.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write, .png or .html. Default: VIDEO.look.png.")
    ] = None,
    segments: Annotated[int, typer.Option(min=1, max=64, help="Number of segments to draw, evenly spaced.")] = 8,
    setting: SET = None,
    weights: WEIGHTS = None,
    device: Annotated[str, typer.Option(help="Device of detectors and optical flow: auto, cpu or cuda:N.")] = "auto",
    decoder: Annotated[str, typer.Option(help="Decoder backend: pyav, decord or nvdec.")] = "pyav",
    weights_manifest: WEIGHTS_MANIFEST = None,
    as_json: JSON = False,
) -> None:
    """Draw a contact sheet of the inputs of each stream: frames with boxes and tracks, crops, flow, network inputs.

    No features are computed or stored. Only the checkpoints of detectors and of optical flow are needed.
    """
    from ..manifests.errors import InputError

    if out is None:
        out = Path(f"{video.name}.look.png")
    if out.suffix.lower() not in (".png", ".html"):
        raise typer.BadParameter(f"{out}: ends with neither .png nor .html; give one of them", param_hint="--out")
    if not out.parent.is_dir() or out.is_dir():
        raise typer.BadParameter(f"{out}: cannot be a file; give a path in an existing folder", param_hint="--out")
    check_device(device)
    check_decoder(decoder)
    if not video.is_file():
        what = "is a folder; name one video" if video.is_dir() else "does not exist; check the path"
        raise InputError(f"{video}: {what}")
    if out.exists() and out.samefile(video):
        raise typer.BadParameter(f"{out}: is the video itself; give another file", param_hint="--out")
    chosen, override = chosen_recipe(
        recipe, settings=setting, weights=weights, precision=None, weights_manifest=weights_manifest
    )
    names = list(dict.fromkeys(stream or chosen.streams))
    for name in names:
        if name not in chosen.streams:
            known = ", ".join(chosen.streams)
            raise typer.BadParameter(
                f"{chosen.name} has no stream {name!r}; choose from {known}", param_hint="--stream"
            )
    from ..extractors.table import require_available, resolved_recipe

    require_package("matplotlib", "look")
    for name in names:
        require_available(chosen.streams[name])
    from ..pipeline.weights.required import require_checkpoints
    from ..reports.look import has_only_random_weights, look_at, roles_to_show

    require_checkpoints(chosen, roles_to_show(chosen, names, override), None)
    from ..pipeline.machine import find_device

    if random := has_only_random_weights(chosen, names, override):
        _LOG.warning("RANDOM WEIGHTS of %s: their results are meaningless", ", ".join(random))
    sheet = look_at(video, resolved_recipe(chosen), names, override, find_device(device), segments, decoder)
    try:
        if out.suffix.lower() == ".html":
            out.write_text(sheet.html(), encoding="utf-8")
        else:
            out.write_bytes(sheet.png())
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
    if as_json:
        streams = [{"stream": view.name, "lines": view.lines} for view in sheet.views]
        print_json({"written": out, "streams": streams, "notes": sheet.lines})
        return
    for view in sheet.views:
        print(f"{view.name}: {'; '.join(view.lines)}")
    for line in sheet.lines:
        print(line)
    print(f"written: {out}")
