"""``arabesque evaluate``: compare the scores of a trained model with the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import TRAINING_DEVICE, check_device, check_features, check_labels, model_folder
from .console import JSON, print_json
from .train import parse_share

if TYPE_CHECKING:
    from ..models.evaluation import Evaluation


def evaluate(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] FEATURES",
            help="Folder of a model that `arabesque train` wrote (left out with --checkpoint), and a feature store or "
            "released features (.npz, folder of .npy).",
        ),
    ],
    labels: Annotated[
        Path, typer.Option(help="CSV file (video_id,score); with --dataset, the folder of its label files.")
    ],
    target: Annotated[str | None, typer.Option(help="Name of the score column, if there are several.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Data set: rg, fisv, …, or a .toml file; csv for the held-out videos of a CSV.")
    ] = None,
    subset: Annotated[str | None, typer.Option(help="With --dataset: apparatus of rg, e.g. Ball.")] = None,
    split: Annotated[str, typer.Option(help="With --dataset: train or test split.")] = "test",
    metric: Annotated[
        str | None,
        typer.Option(
            help="spearman, or map: mean average precision of highlights, with --dataset. Default: depends on the data "
            "set."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="With --dataset: checkpoint of ACTION-NET, GDLT or PAMFN as its authors published it."),
    ] = None,
    streams: Annotated[
        str | None,
        typer.Option(help="With --checkpoint: its streams, separated by commas, in the order of its authors."),
    ] = None,
    stream_subsets: Annotated[
        bool, typer.Option("--stream-subsets", help="Also score with each subset of the streams, and print the mean.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write video_id,true,predicted to this CSV file.")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Also use partial videos.")] = False,
    max_lost: Annotated[
        str | None, typer.Option(help="Also use partial videos that lost at most this share, e.g. 5%.")
    ] = None,
    device: TRAINING_DEVICE = "auto",
    as_json: JSON = False,
) -> None:
    """Score videos with a trained model, compare with their labels, and print caveats.

    Caveats are videos that were used for training or for the choice of the epoch, and labels of another score. Features
    of another recipe than the model's are an error.
    """
    if split not in ("train", "test"):
        raise typer.BadParameter(f"{split!r} is neither train nor test; give one of them", param_hint="--split")
    check_device(device)
    wanted = "FEATURES" if checkpoint is not None else "MODEL FEATURES"
    if len(paths) != len(wanted.split()):
        raise typer.BadParameter(f"{len(paths)} paths are given; give {wanted}", param_hint="[MODEL] FEATURES")
    if metric not in (None, "spearman", "map"):
        raise typer.BadParameter(f"{metric!r} is neither spearman nor map; give one of them", param_hint="--metric")
    highlights = metric == "map" or (metric is None and has_segment_labels(dataset))
    if highlights and (dataset is None or checkpoint is not None):
        raise typer.BadParameter("map needs --dataset and a model that arabesque trained", param_hint="--metric")
    if checkpoint is not None and dataset is None:
        raise typer.BadParameter("is needed with --checkpoint, for the range of the scores", param_hint="--dataset")
    model = None if checkpoint is not None else model_folder(Path(paths[0]))
    store = paths[-1]
    check_features(store)
    check_labels(labels, dataset, target)
    from ..models.evaluation import LabeledFeatures, evaluate_highlights, evaluate_published
    from ..models.evaluation import evaluate as evaluate_model
    from ..models.metrics import mean_squared_error, pearson
    from ..pipeline.machine import find_device

    share, place = parse_share(max_lost, partial=partial), find_device(device)
    data = LabeledFeatures(
        store,
        labels,
        dataset=dataset,
        target=target,
        subset=subset,
        split=split,
        partial=partial,
        max_lost=share,
        device=place,
    )
    if highlights:
        assert model is not None
        assert dataset is not None
        detected = evaluate_highlights(model, data)
        openings = _record_opening(model, store, dataset, subset or "highlights") if split == "test" else None
        if as_json:
            print_json(
                {
                    "num_videos": len(detected.precisions),
                    "mean_average_precision": asdict(detected.mean_average_precision),
                    "precisions": dict(detected.precisions),
                    "openings": openings,
                    "cautions": list(detected.cautions),
                    "notes": list(detected.notes),
                }
            )
        else:
            print(f"videos    {len(detected.precisions)}")
            print(f"mAP       {detected.mean_average_precision}  (95 % bootstrap interval)")
            _print_remarks(openings, detected.cautions, detected.notes)
        if out is not None:
            rows = [[name, f"{value:.4f}"] for name, value in detected.precisions.items()]
            _write_table(out, ["video_id", "average_precision"], rows)
        return
    if model is not None:
        found = evaluate_model(model, data, stream_subsets=stream_subsets)
    else:
        assert checkpoint is not None
        found = evaluate_published(checkpoint, data, streams=None if streams is None else streams.split(","))
    true, predicted = zip(*found.scores.values(), strict=True)
    openings = None
    if model is not None and dataset is not None and split == "test":
        openings = _record_opening(model, store, dataset, "-".join(filter(None, (subset, target))) or "score")
    if as_json:
        print_json(
            {
                "num_videos": len(found.scores),
                "spearman": asdict(found.spearman),
                "pearson": pearson(predicted, true),
                "rmse": mean_squared_error(predicted, true) ** 0.5,
                "scores": {name: {"true": given, "predicted": guess} for name, (given, guess) in found.scores.items()},
                "intervals": {name: list(limits) for name, limits in found.intervals.items()},
                "by_streams": {", ".join(chosen): value for chosen, value in found.by_streams.items()},
                "openings": openings,
                "cautions": list(found.cautions),
                "notes": list(found.notes),
            }
        )
    else:
        _print_evaluation(found, pearson(predicted, true), mean_squared_error(predicted, true) ** 0.5, openings)
    if out is not None:
        rows = [
            [name, given, f"{guess:.4f}", *(f"{limit:.4f}" for limit in found.intervals.get(name, ()))]
            for name, (given, guess) in found.scores.items()
        ]
        _write_table(out, ["video_id", "true", "predicted", *(["lowest", "highest"] if found.intervals else [])], rows)


def _print_evaluation(found: Evaluation, correlation: float, rmse: float, openings: str | None) -> None:
    from ..models.conformal import COVERAGE

    print(f"videos    {len(found.scores)}")
    print(f"Spearman  {found.spearman}  (95 % bootstrap interval)")
    print(f"Pearson   {correlation:.3f}")
    print(f"error     {rmse:.2f} points, root mean square")
    if found.coverage is not None:
        print(f"coverage  {found.coverage:.0%} of the scores are within the intervals (intended: {COVERAGE:.0%})")
    for chosen, value in found.by_streams.items():
        print(f"subset    {value:.3f}  {', '.join(chosen)}")
    if found.mean_over_streams is not None:
        print(f"subsets   {found.mean_over_streams:.3f}  mean over {len(found.by_streams)} subsets of the streams")
    _print_remarks(openings, found.cautions, found.notes)


def has_segment_labels(dataset: str | None) -> bool:
    """Return whether the data set has labels of segments instead of scores of videos."""
    from ..manifests.datasets import SegmentLabels, load_dataset
    from ..models.named_labels import CSV

    return dataset is not None and dataset != CSV and isinstance(load_dataset(dataset).labels, SegmentLabels)


def _record_opening(model: Path, store: str, dataset: str, target: str) -> str:
    """Record an evaluation on test videos, and return a line with the number of evaluations."""
    from ..manifests.errors import StoreError
    from ..models.opening_record import RECORD, record_opening

    try:
        count = record_opening(model, dataset, target, f"evaluate {model} on {store}")
        return f"openings  {count} evaluation{'s' * (count != 1)} of this model on these test videos ({model / RECORD})"
    except StoreError as error:
        return f"caution   this evaluation on test videos could not be recorded: {error}"


def _print_remarks(openings: str | None, cautions: Sequence[str], notes: Sequence[str]) -> None:
    if openings is not None:
        print(openings)
    for caution in cautions:
        print(f"caution   {caution}")
    for note in notes:
        print(f"note      {note}")


def _write_table(path: Path, titles: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(titles)
        writer.writerows(rows)
    print(path)
