"""``arabesque predict``: classes that the networks of a recipe recognize in one video."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ..manifests.plurals import plural
from .arguments import WEIGHTS_MANIFEST, check_decoder, check_device, check_streams
from .console import JSON, print_json
from .recipe_options import PRECISION, RECIPE_NAME, SET, WEIGHTS, chosen_recipe, random_roles

if TYPE_CHECKING:
    from ..pipeline.prediction import Prediction

_LOG = logging.getLogger(__name__)


def predict(
    video: Annotated[str, typer.Argument(help="A video, or its URL.")],
    recipe: Annotated[str, typer.Option(help=RECIPE_NAME)] = "video-features-i3d",
    stream: Annotated[
        list[str] | None,
        typer.Option(help="Only this stream; may be repeated. Default: all with a classifier and known class names."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of classes.")] = 5,
    segments: Annotated[bool, typer.Option("--segments", help="Also print the classes of each segment.")] = False,
    setting: SET = None,
    weights: WEIGHTS = None,
    precision: PRECISION = None,
    device: Annotated[str, typer.Option(help="Device for networks: auto, cpu, cuda or cuda:N.")] = "auto",
    decoder: Annotated[str, typer.Option(help="Decoder backend: pyav, decord or nvdec.")] = "pyav",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for networks. Default: all cores.")] = None,
    weights_manifest: WEIGHTS_MANIFEST = None,
    as_json: JSON = False,
) -> None:
    """Print the classes that networks recognize in a video, to check weights and preprocessing.

    Uses the sampling and the preprocessing of the recipe, and writes no store.
    """
    from ..manifests.errors import InputError
    from ..pipeline.planning.discovery import required_videos
    from ..pipeline.store.files.storage import as_store_path

    check_device(device)
    check_decoder(decoder)
    chosen, override = chosen_recipe(
        recipe, settings=setting, weights=weights, precision=precision, weights_manifest=weights_manifest
    )
    check_streams(chosen, stream, "random:0")  # `predict` itself checks the checkpoints of streams with a classifier
    path = as_store_path(video)
    num_videos = len(required_videos([path]).videos)
    if num_videos != 1:
        raise InputError(f"{video}: contains {num_videos} videos; give one")
    from ..pipeline import prediction
    from .extract import run_options

    options = run_options(device, decoder, 1, threads)
    found = prediction.predict(path, chosen, streams=stream, weights=override, top=top, options=options)
    if roles := random_roles(chosen, [each.stream for each in found.streams], override):
        _LOG.warning(f"RANDOM WEIGHTS in {', '.join(roles)}. Classes of these streams are meaningless.")
    for name, reason in found.skipped.items():
        _LOG.info(f"stream {name} is skipped: {reason}")
    if as_json:
        print_json({"video": video, "recipe": chosen.name, **asdict(found)})
        return
    _print(found, with_segments=segments)


def _print(found: Prediction, *, with_segments: bool) -> None:
    for each in found.streams:
        print(f"stream {each.stream} ({each.extractor}, {each.checkpoint}), {plural(len(each.segments), 'segment')}")
        for score in each.classes:
            print(f"  {score.probability:6.1%}  {score.name}")
        if not with_segments:
            continue
        for segment in each.segments:
            classes = ", ".join(f"{score.name} {score.probability:.1%}" for score in segment.classes)
            print(f"  {segment.start_s:7.2f} to {segment.end_s:.2f} s: {classes}")
