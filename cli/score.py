"""``arabesque score``: raw videos to scores, with the segments that mattered most."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..manifests.recipes import Recipe
    from ..models.checkpoints import ModelCard
    from ..models.video_scores import Segment, VideoScore
    from ..pipeline.extraction import Extraction
    from ..pipeline.store.reader import FeatureStore


def score(
    videos: Annotated[list[str], typer.Argument(help="Videos, and folders of them; paths or URLs.")],
    model: Annotated[Path, typer.Option(help="A folder that train wrote (with model.pt in it).")],
    store: Annotated[
        str | None, typer.Option(help="The feature store to use and to go on with. Default: features/ in the model's.")
    ] = None,
    segments: Annotated[int, typer.Option(min=1, help="How many of a video's segments to show.")] = 3,
    partial: Annotated[
        bool, typer.Option("--partial", help="Also score what there is of a file that breaks off.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON on standard output.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for networks. Default: all cores.")] = None,
) -> None:
    """Score raw videos with a trained model, extracting the features that are missing under its training's recipe.

    Features of another recipe are refused. Exit status: 0 all scored, 3 some videos could not be, 1 the run itself
    failed, 2 wrong usage.
    """
    from ..models.checkpoints import load_checkpoint
    from ..models.features import read_store
    from ..models.table import model_class
    from ..models.video_scores import score_videos
    from ..pipeline.store.reader import FeatureStore
    from .progress import show_run

    network, card = load_checkpoint(model)
    run = _extraction(videos, card, model, store, device, threads)
    if run.pending or run.inputs.clashes:
        show_run(run)
    opened = FeatureStore(run.out, partial=partial)
    paths = {file.video_id: str(file.path) for file in run.inputs.videos}
    one_grid = bool(model_class(card.model).one_grid)
    found = read_store(opened, tuple(card.dims), one_grid=one_grid, only=paths)
    scores = score_videos(network, card, found, opened, [name for name in paths if name in found.videos])
    unscored = _reasons(run, opened, {each.video_id for each in scores})
    if as_json:
        print(json.dumps(_as_json(card, paths, scores, unscored), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print_scores(card, scores, segments)
    for name, reason in unscored.items():
        print(f"not scored: {name!r}: {reason}", file=sys.stderr)
    raise typer.Exit(3 if unscored else 0)


def _extraction(
    videos: Sequence[str], card: ModelCard, model: Path, store: str | None, device: str, threads: int | None
) -> Extraction:
    """The run that brings the store all that the model needs; refuses a store, or checkpoints, of another recipe."""
    from ..models.checkpoints import check_streams
    from ..pipeline.extraction import Extraction
    from ..pipeline.store.manifest import is_store, read_manifest
    from .extract import run_options

    recipe = _recipe(card, model)
    out = store or model / "features"
    if is_store(out):
        manifest = read_manifest(out)
        known = {name: manifest["streams"].get(name, entry) for name, entry in card.streams.items()}
        check_streams(card, known, out, manifest["recipe"])
    random = {digest for entry in card.streams.values() for digest in entry["weights"].values() if "random:" in digest}
    if random:
        print(f"WARNING: {', '.join(random)} weights, as in training. These scores mean nothing.", file=sys.stderr)
    run = Extraction(
        videos,
        recipe,
        out,
        streams=tuple(card.dims),
        weights=next(iter(random), None),
        options=run_options(device, threads=threads),
    )
    check_streams(card, run.stream_entries, "extraction on this machine", run.recipe.model_dump(mode="json"))
    if store is not None:
        _refuse_namesakes(run)
    return run


def _recipe(card: ModelCard, model: Path) -> Recipe:
    from pydantic import ValidationError

    from ..manifests.complaints import first_complaint
    from ..manifests.errors import ManifestError
    from ..manifests.recipes import Recipe

    if card.recipe is None:
        raise ManifestError(
            f"{model}: was trained on features that others made, by no recipe that is known here; score their features "
            "with `arabesque evaluate`, or train on a store that `arabesque extract` wrote"
        )
    try:
        return Recipe.model_validate(card.recipe)
    except ValidationError as error:
        raise ManifestError(
            f"{model}: the recipe of its training: {first_complaint(error)}; it is of arabesque "
            f"{card.made_with.get('arabesque', '?')}, train it again with this one"
        ) from None


def _refuse_namesakes(run: Extraction) -> None:
    """Another video of the same id would take the place of the store's own."""
    from ..manifests.errors import ManifestError

    for file in run.pending:
        if run.ledger.has_other_bytes(file):
            raise ManifestError(
                f"{run.out}: holds another video {file.video_id!r} than {file.path}, whose features would be replaced; "
                "rename the file, or give --store another folder"
            )


def _reasons(run: Extraction, store: FeatureStore, scored: set[str]) -> dict[str, str]:
    """Video → why it has no score."""
    wanted = {file.video_id for file in run.inputs.videos} | set(run.inputs.clashes)
    reasons = dict.fromkeys(sorted(wanted - scored), "no features came of it")
    ends = [end for end in store.outcomes() if end.video_id in reasons and end.stream in run.streams]
    for end in sorted(ends, key=lambda end: ("done", "empty", "partial", "failed").index(end.kind)):
        hint = "; --partial scores what there is" if end.kind == "partial" else ""
        reasons[end.video_id] = f"{end.kind}: {end.reason or 'the file breaks off'}{hint}"
    return reasons


def _as_json(
    card: ModelCard, paths: Mapping[str, str], scores: Sequence[VideoScore], unscored: Mapping[str, str]
) -> dict[str, object]:
    from ..models.video_scores import MEASURES

    return {
        "model": card.model,
        "target": card.target,
        "measures": dict(MEASURES),
        "videos": [{"video": paths[each.video_id], **asdict(each)} for each in scores],
        "not_scored": dict(unscored),
    }


def _print_scores(card: ModelCard, scores: Sequence[VideoScore], most: int) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..models.video_scores import MEASURES

    if not scores:
        return
    measure = MEASURES[scores[0].measure]
    table = Table("video", card.target, "segments that mattered most", measure)
    for each in scores:
        shown = each.foremost(most)
        remarks = [f"no {stream}" for stream in each.without]
        if each.trained_on:
            remarks.append("was trained on it")
        told = "".join(f"\n({remark})" for remark in remarks)
        values = "\n".join(_importance(each, segment) for segment in shown)
        table.add_row(each.video_id, f"{each.score:.2f}{told}", "\n".join(map(_span, shown)), values)
    Console().print(table)


def _span(segment: Segment) -> str:
    """``01:05–01:08 vst``"""
    return f"{_clock(segment.start_s)}–{_clock(segment.end_s)} {', '.join(segment.streams)}"


def _clock(time_s: float) -> str:
    minutes, seconds = divmod(round(time_s), 60)
    return f"{minutes:02d}:{seconds:02d}"


def _importance(score: VideoScore, segment: Segment) -> str:
    return f"{segment.importance:.0%}" if score.measure == "attention" else f"{segment.importance:+.2f}"
