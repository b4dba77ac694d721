"""``arabesque train --dataset``: a model on a data set's own split, over seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..manifests.complaints import first_complaint
from ..manifests.datasets import load_dataset
from ..manifests.errors import ManifestError
from ..pipeline.store.folders import Root
from .checkpoints import put_whole, to_json
from .dataset_runs import make_task, report, seed_runs
from .experiment import Experiment
from .named_labels import CSV, read_named_labels
from .protocol import Cosine, Protocol
from .released_features import read_features
from .reports import SeedsReport
from .seed_run import SeedResult
from .side_by_side import Crew, EpochsDone, run_all
from .table import model_class
from .tables import row_of

PLAIN_PROTOCOL = Protocol(
    epochs=200, standardise=True, learning_rate=5e-4, weight_decay=0.01, schedule=Cosine(), clip_norm=2.0
)
"""For a model that no published table trains on the data set"""
SOLVED = Protocol(epochs=1)
"""For a model that is fitted in one go and scales its features itself"""


def experiment_for(
    dataset: str,
    model: str,
    column: str,
    *,
    streams: tuple[str, ...] | None,
    settings: Mapping[str, Any] | None = None,
    protocol: Mapping[str, Any] | None = None,
    selection: str = "last",
    epochs: int | None = None,
    one_stage: bool = False,
) -> Experiment:
    """The published settings where a table has the model on this data set, plain ones otherwise.

    ``streams``: some of the published ones, or as many under other names; ``column``: the table's, whose schedule may
    be its own; ``settings``, ``protocol``: fields that shall be otherwise; ``one_stage``: no branches trained before.
    """
    model_class(model)
    if dataset != CSV:
        load_dataset(dataset)  # refuses a name that is not known
    row = row_of(dataset, model)
    if row is not None and (streams is None or set(streams) <= set(row.streams)):
        found = row.experiment(column, selection).only(streams or row.streams)
    elif row is not None and streams is not None and len(streams) == len(row.streams):
        found = row.experiment(column, selection).renamed(dict(zip(row.streams, streams, strict=True)))
    elif streams is not None:
        plain = SOLVED if hasattr(model_class(model), "solve") else PLAIN_PROTOCOL
        found = Experiment(model=model, streams=streams, protocol=plain.model_copy(update={"selection": selection}))
    else:
        raise ManifestError(f"no published table trains {model} on {dataset}; say on which --streams")
    found = found.in_one_stage() if one_stage else found
    found = found.model_copy(update={"settings": {**found.settings, **(settings or {})}})
    found = found if epochs is None else found.shortened(epochs)
    return found if not protocol else found.model_copy(update={"protocol": _changed(found.protocol, protocol)})


def _changed(protocol: Protocol, fields: Mapping[str, Any]) -> Protocol:
    try:
        return Protocol.model_validate({**protocol.model_dump(), **fields})
    except ValidationError as error:
        raise ManifestError(first_complaint(error, "protocol", Protocol.model_fields)) from None


def train_on_dataset(
    features: Root,
    labels: Path,
    dataset: str,
    target: str | None,
    experiment: Experiment,
    seeds: tuple[int, ...],
    out: Path,
    *,
    subset: str | None = None,
    partial: bool = False,
    drop_first: bool = False,
    crew: Crew | None = None,
    on_epoch: EpochsDone | None = None,
) -> list[SeedsReport]:
    """The chosen epoch's report and, where an epoch was chosen, the last one's; written to ``out`` with the models.

    ``partial``: take videos whose file breaks off, too. ``drop_first``: leave out the first line of each label file, as
    several works do. ``on_epoch`` is called with a seed, its epochs done and to do.
    """
    known, wanted = read_named_labels(dataset, labels, target, drop_first=drop_first)
    one_grid = bool(model_class(experiment.model).one_grid)
    task = make_task(
        read_features(features, experiment.streams, one_grid=one_grid, partial=partial), known, wanted, subset
    )
    tell = None if on_epoch is None else lambda number, done, total: on_epoch(seeds[number], done, total)
    results = run_all(seed_runs(task, experiment, seeds, out), crew or Crew(), tell)
    reports = [report(task, results)]
    if results[0].history:
        reports.append(report(task, results, last=True))
    put_whole(out / "predictions.csv", _predictions(results, task.true))
    summary = {"experiment": experiment.model_dump(mode="json"), "reports": [asdict(each) for each in reports]}
    put_whole(out / "report.json", to_json(summary))
    return reports


def _predictions(results: list[SeedResult], true: Mapping[str, float]) -> bytes:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["video_id", "seed", "true", "predicted"])
    for result in results:
        writer.writerows([name, result.seed, true[name], f"{value:.4f}"] for name, value in result.test.items())
    return table.getvalue().encode()
