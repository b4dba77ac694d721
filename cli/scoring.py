"""Score raw videos: extract the features that a trained model needs, then apply the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from ..manifests.errors import ConfigError, InputError
from ..manifests.recipes import Recipe
from ..manifests.validation import validation_message
from ..models.checkpoints import ModelCard, check_streams, load_checkpoint
from ..models.features import read_store
from ..models.table import model_class
from ..models.video_scores import ScoreReport, score_videos
from ..pipeline.extraction import Extraction
from ..pipeline.machine import options_for_machine
from ..pipeline.planning.discovery import Inputs
from ..pipeline.store.files.storage import StorePath
from ..pipeline.store.manifest import is_store, read_manifest
from ..pipeline.store.reader import FeatureStore
from ..pipeline.streams import random_override


def score_raw_videos(
    inputs: Inputs,
    videos: Sequence[StorePath],
    model: Path,
    *,
    store: StorePath | None = None,
    partial: bool = False,
    id_prefix: str = "",
    replace_sources: bool = False,
    device: str = "auto",
    threads: int | None = None,
    execute: Callable[[Extraction], None],
    on_warning: Callable[[str], None],
) -> ScoreReport:
    """Score videos with a trained model, whose recipe is used for the extraction.

    Args:
        inputs: The videos that ``videos`` names.
        videos: Files and folders, or their URLs.
        model: The folder of a trained model.
        store: The feature store that is read and completed; by default ``features`` in the model's folder.
        partial: Also score partial videos.
        id_prefix: Prefix of every video id.
        replace_sources: Replace features whose id now belongs to another file; always on for the default store.
        device: Device for networks: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads for networks; by default all cores.
        execute: Executes the extraction until it finishes.
        on_warning: Called with the text of each warning about the scores.

    Returns:
        The scores, and the reason for each video without a score.

    Raises:
        WeightsError: The model is damaged, or the store has features with other settings.
        InputError: The model was trained on imported features.
    """
    network, card = load_checkpoint(model)
    if card.unverified:
        on_warning(f"{model}: {card.unverified}")
    recipe, out = _recipe(card, model), store or model / "features"
    if is_store(out):
        manifest = read_manifest(out)
        known = {name: manifest["streams"].get(name, entry) for name, entry in card.streams.items()}
        check_streams(card, known, str(out), manifest["recipe"])
    random = {digest for entry in card.streams.values() for digest in entry["weights"].values() if "random:" in digest}
    if random:
        on_warning(f"{', '.join(random)} weights, as in training. These scores are meaningless.")
    options = options_for_machine(device, threads=threads)
    run = Extraction(
        videos,
        recipe,
        out,
        streams=tuple(card.dims),
        weights=random_override(recipe, {name: entry["weights"] for name, entry in card.streams.items()}),
        options=replace(options, replaces_sources=replace_sources or store is None),
        id_prefix=id_prefix,
        inputs=inputs,
    )
    check_streams(card, run.stream_entries, "extraction on this machine", run.recipe.model_dump(mode="json"))
    if run.remaining or run.inputs.clashes:
        execute(run)
    opened = FeatureStore(run.out, partial=partial)
    network.to(options.device)
    paths = {file.video_id: str(file.path) for file in run.inputs.videos}
    features = read_store(opened, tuple(card.dims), one_grid=bool(model_class(card.model).one_grid), only=paths)
    features = features.on(options.device)
    scores = score_videos(network, card, features, opened, [name for name in paths if name in features.videos])
    return ScoreReport(
        model=card.model,
        target=card.target,
        videos=tuple(scores),
        not_scored=_reasons(run, opened, {each.video_id for each in scores}),
        paths=paths,
    )


def _recipe(card: ModelCard, model: Path) -> Recipe:
    if card.recipe is None:
        raise InputError(
            f"{model}: was trained on imported features, whose recipe is unknown; score features with "
            "`arabesque evaluate`, or train on a store that `arabesque extract` wrote"
        )
    try:
        return Recipe.model_validate(card.recipe)
    except ValidationError as error:
        raise ConfigError(
            f"{model}: the recipe of its training is invalid: {validation_message(error)}; it was written by arabesque "
            f"{card.made_with.get('arabesque', '?')}; train the model again with this version"
        ) from None


def _reasons(run: Extraction, store: FeatureStore, scored: set[str]) -> dict[str, str]:
    """Return the reason for each video without a score."""
    wanted = {file.video_id for file in run.inputs.videos} | set(run.inputs.clashes)
    reasons = dict.fromkeys(sorted(wanted - scored), "it has no features")
    outcomes = [one for one in store.outcomes() if one.video_id in reasons and one.stream in run.streams]
    for one in sorted(outcomes, key=lambda one: ("done", "empty", "partial", "failed").index(one.kind)):
        hint = "; --partial scores the part that decodes" if one.kind == "partial" else ""
        reasons[one.video_id] = f"{one.kind}: {one.reason or 'the file ends early'}{hint}"
    return reasons
