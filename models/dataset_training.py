"""``arabesque train --dataset``: train a model on the split of a data set with several seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from ..manifests.datasets import load_dataset
from ..manifests.errors import ConfigError, InputError
from ..manifests.json_text import to_json
from ..manifests.validation import validation_message
from ..pipeline.store.files.storage import StorePath
from .checkpoints import write_atomically
from .dataset_runs import Task, make_task, report, trainers
from .experiment import Experiment, Stage, with_protocol
from .highlights import AnyReport
from .metric_log import LogFormat
from .named_labels import CSV, read_named_labels
from .opening_record import RECORD, record_opening
from .parallel_training import EpochsDone, PoolSize, run_all
from .protocol import Protocol, Selection
from .published_methods import load_stages, methods_for, named_protocol
from .released_features import read_features
from .search import SearchSpace, Trial, load_space, search
from .table import model_class
from .trainer import SeedResult

PLAIN = "plain"
"""Name of the protocol for models without published settings on a data set"""
SOLVED = Protocol(epochs=1)
"""Protocol of models with a closed solver, which standardize features themselves"""


def experiment_for(
    dataset: str,
    model: str,
    column: str,
    *,
    streams: tuple[str, ...] | None,
    settings: Mapping[str, Any] | None = None,
    protocol: Mapping[str, Any] | None = None,
    named: str | None = None,
    selection: Selection = "last",
    epochs: int | None = None,
    stages: str | None = None,
    one_stage: bool = False,
) -> Experiment:
    """Return the published settings of a model on a data set, or the protocol ``plain`` for an unpublished pair.

    ``source`` of the result states the origin of the settings.

    Args:
        dataset: Name of the data set, path of its ``.toml`` file, or ``csv``.
        model: Name of the model.
        column: Subset, or target of a data set without subsets; columns may have different epochs.
        streams: Some of the published streams, or the same number of streams with other names.
        settings: Model settings to change.
        protocol: Fields of the last stage's protocol to change.
        named: Name of the protocol of the last stage in `manifests/protocols.toml`, instead of the published one.
        selection: Epoch to evaluate, see `Protocol`.
        epochs: Number of epochs of each stage; None for the published number.
        stages: Name or file of a list of stages (`load_stages`), instead of the published ones.
        one_stage: Train only the last stage, with the whole network.

    Raises:
        ConfigError: A field of the protocol is not valid.
        InputError: The data set, the model or the protocol is not known, or the table has no settings for the streams.

    Example:
        >>> experiment_for("fisv", "gdlt", "PCS", streams=None).protocol.epochs
        400
    """
    model_class(model)
    if dataset != CSV:
        load_dataset(dataset)  # raises for an unknown name
    explicit = named is not None or stages is not None
    found = _published(dataset, model, column, streams, selection, required=not explicit)
    if found is None and streams is not None:
        found = _plain(dataset, model, streams, selection)
    if found is None:
        raise InputError(f"no published method trains {model} on {dataset}; choose streams with --streams")
    if stages is not None:
        listed = tuple(with_protocol(stage, selection=selection) for stage in load_stages(stages, dataset, column))
        found = _checked(found, stages=listed, source=f"{found.source}; stages {stages}")
    if named is not None:
        other = named_protocol(named, dataset, column, {"selection": selection})
        if isinstance(other.crop, dict) and set(found.streams) <= other.crop.keys():
            other = other.model_copy(update={"crop": {stream: other.crop[stream] for stream in found.streams}})
        found = _checked(found.with_last_stage(protocol=other), source=f"{found.source}; protocol {named}")
    found = found.in_one_stage() if one_stage else found
    found = found.model_copy(update={"settings": {**found.settings, **(settings or {})}})
    found = found if epochs is None else found.shortened(epochs)
    return found if not protocol else found.with_last_stage(protocol=_changed(found.protocol, protocol))


def _published(
    dataset: str, model: str, column: str, streams: tuple[str, ...] | None, selection: Selection, *, required: bool
) -> Experiment | None:
    """Return the settings of the method that fits the streams best; None without a method for model and data set.

    Args:
        dataset: Name of the data set.
        model: Name of the model.
        column: Subset, or target of a data set without subsets.
        streams: Streams to train on; None for those of the first method.
        selection: Epoch to evaluate.
        required: Raise an error if there are methods, but not for these streams; otherwise return None.
    """
    methods = methods_for(dataset, model)
    for fits in (_same, _includes, _as_many):
        for method in methods:
            if streams is not None and not fits(method.streams, streams):
                continue
            if streams is None or set(streams) <= set(method.streams):
                return method.experiment(dataset, column, selection, streams=streams or method.streams)
            found = method.experiment(dataset, column, selection)
            source = f"{found.source}, with {', '.join(streams)} instead of {', '.join(method.streams)}"
            renamed = found.renamed(dict(zip(method.streams, streams, strict=True)))
            return renamed.model_copy(update={"source": source})
    if methods and required and streams is not None:
        known = " or ".join(dict.fromkeys(",".join(method.streams) for method in methods))
        raise InputError(
            f"no published method trains {model} on {dataset} with the streams {','.join(streams)}; give --streams "
            f"{known}, or a protocol by its name: --protocol {PLAIN} has no published source"
        )
    return None


def _same(published: tuple[str, ...], streams: tuple[str, ...]) -> bool:
    return set(published) == set(streams)


def _includes(published: tuple[str, ...], streams: tuple[str, ...]) -> bool:
    return set(streams) <= set(published)


def _as_many(published: tuple[str, ...], streams: tuple[str, ...]) -> bool:
    return len(published) == len(streams)


def _plain(dataset: str, model: str, streams: tuple[str, ...], selection: Selection) -> Experiment:
    if hasattr(model_class(model), "solve"):
        protocol, source = SOLVED, "closed solver, without epochs"
    else:
        protocol = named_protocol(PLAIN)
        source = f"protocol {PLAIN}: no published method trains {model} on {dataset} with these streams"
    stage = Stage(protocol=protocol.model_copy(update={"selection": selection}))
    return Experiment(model=model, streams=streams, stages=(stage,), source=source)


def _checked(experiment: Experiment, **changes: Any) -> Experiment:
    """Return the experiment with other values, validated again."""
    try:
        return Experiment.model_validate({**experiment.model_dump(), **changes})
    except ValidationError as error:
        raise ConfigError(validation_message(error, "experiment", Experiment.model_fields)) from None


def _changed(protocol: Protocol, fields: Mapping[str, Any]) -> Protocol:
    try:
        return Protocol.model_validate({**protocol.model_dump(), **fields})
    except ValidationError as error:
        raise ConfigError(validation_message(error, "protocol", Protocol.model_fields)) from None


def train_on_dataset(
    features: StorePath,
    labels: Path,
    dataset: str,
    target: str | None,
    experiment: Experiment,
    seeds: tuple[int, ...],
    out: Path,
    *,
    subset: str | None = None,
    partial: bool = False,
    max_lost: float | None = None,
    drop_first: bool = False,
    trials: int = 0,
    space: SearchSpace | None = None,
    on_search: Callable[[Sequence[Trial]], None] | None = None,
    device: torch.device | str = "cpu",
    log: LogFormat | None = None,
    pool_size: PoolSize | None = None,
    on_epoch: EpochsDone | None = None,
) -> list[AnyReport]:
    """Train with several seeds and write models, predictions and reports to ``out``.

    Args:
        features: Feature store or released features.
        labels: Folder of the label files of the data set, or a CSV.
        dataset: Name of the data set, path of its ``.toml`` file, or ``csv``.
        target: Name of the score, if there are several.
        experiment: Model, settings and protocol.
        seeds: One training per seed.
        out: Output folder.
        subset: Subset of the data set.
        partial: Include partial videos.
        max_lost: Include partial videos that lost at most this share (0 to 1) of their duration.
        drop_first: Ignore the first line of each label file, as several published works do.
        trials: Number of random configurations. Cross-validation on the training videos compares them with the given
            configuration, and the best is trained (`search`). 0: no search.
        space: Search space; None for `manifests/search.toml`.
        on_search: Called with the trials, the best first, before the best is trained.
        device: Device of features and networks, e.g. ``cuda:0``.
        log: Format of the curves that each training writes to its folder.
        pool_size: Number of parallel trainings and threads.
        on_epoch: Called with a seed, its finished epochs and the total number of epochs.

    Returns:
        The report of the selected epoch and, if an epoch was selected, that of the last epoch.
    """
    known, wanted = read_named_labels(dataset, labels, target, drop_first=drop_first)
    one_grid = bool(model_class(experiment.model).one_grid)
    found = read_features(features, experiment.streams, one_grid=one_grid, partial=partial, max_lost=max_lost)
    task = make_task(found.on(device), known, wanted, subset)
    if trials and task.highlights:
        raise InputError(f"--search compares scores of videos, but {dataset} has labels of segments; remove it")
    if trials:
        experiment = _searched(task, experiment, seeds, out / "search", trials, space, on_search, pool_size)

    def report_seed(number: int, done: int, total: int) -> None:
        if on_epoch is not None:
            on_epoch(seeds[number], done, total)

    results = run_all(trainers(task, experiment, seeds, out, log=log), pool_size or PoolSize(), report_seed)
    reports = [report(task, results)]
    if results[0].history:
        reports.append(report(task, results, last=True))
    count = record_opening(out, known.dataset.name, task.title, f"train {experiment.model}, seeds {list(seeds)}")
    noted = f"the test videos were scored by {count} command{'s' * (count != 1)} with this output folder ({RECORD})"
    reports = [replace(each, notes=(*each.notes, noted)) for each in reports]
    write_atomically(out / "predictions.csv", _predictions(results, task))
    summary = {"experiment": experiment.model_dump(mode="json"), "reports": [asdict(each) for each in reports]}
    write_atomically(out / "report.json", to_json(summary).encode())
    return reports


def _searched(
    task: Task,
    experiment: Experiment,
    seeds: Sequence[int],
    out: Path,
    trials: int,
    space: SearchSpace | None,
    on_search: Callable[[Sequence[Trial]], None] | None,
    pool_size: PoolSize | None,
) -> Experiment:
    first, *others = seeds
    if task.labels.dataset.random_splits and others:
        raise InputError(
            f"--search with {len(seeds)} seeds: {task.labels.dataset.name} has a different split for each seed, so the "
            "search would use test videos of other seeds; give --seeds 1"
        )
    found = search(task, experiment, first, out, trials=trials, space=space or load_space(), pool_size=pool_size)
    if on_search is not None:
        on_search(found)
    best = found[0]
    changes = ", ".join(f"{name}={value}" for name, value in best.changes.items()) or "no change"
    stages = tuple(
        with_protocol(stage, selection=given.protocol.selection)
        for stage, given in zip(best.experiment.stages, experiment.stages, strict=True)
    )
    source = f"{experiment.source}; best of {trials + 1} by cross-validation on training videos: {changes}"
    return best.experiment.model_copy(update={"stages": stages, "source": source})


def _predictions(results: list[SeedResult], task: Task) -> bytes:
    """Return a CSV with a line for each test video, or for each of its segments if these have labels."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    if task.highlights:
        writer.writerow(["video_id", "segment", "seed", "highlight", "predicted"])
        writer.writerows(
            [name, segment, result.seed, int(task.highlights[name][segment]), f"{value:.4f}"]
            for result in results
            for name, values in result.test.items()
            for segment, value in enumerate(values)
        )
    else:
        writer.writerow(["video_id", "seed", "true", "predicted"])
        for result in results:
            writer.writerows(
                [name, result.seed, task.true[name], f"{value:.4f}"] for name, value in result.test.items()
            )
    return table.getvalue().encode()
