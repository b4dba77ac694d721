"""``arabesque evaluate``: a trained model's scores beside the judges'."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[Path, typer.Argument(help="A folder that train wrote (with model.pt in it).")],
    store: Annotated[str, typer.Argument(help="A feature store, or released features (.npz, folder of .npy).")],
    labels: Annotated[Path, typer.Option(help="A CSV file (video_id,score), or with --dataset its label folder.")],
    target: Annotated[str | None, typer.Option(help="Which score, where there are several.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="A data set: rg, fisv, …; csv for what such a training held out.")
    ] = None,
    subset: Annotated[str | None, typer.Option(help="With --dataset: an apparatus of rg, for example Ball.")] = None,
    split: Annotated[str, typer.Option(help="With --dataset: train or test.")] = "test",
    out: Annotated[Path | None, typer.Option(help="Write video_id,true,predicted to this CSV file.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Also use videos whose file breaks off.")] = False,
) -> None:
    """Score videos with a trained model, compare with their labels, and say what speaks against believing the numbers:
    videos that it was trained on, or that chose its epoch; labels of another score.

    Features of another recipe than the model's are refused.
    """
    from ..models.evaluation import evaluate as judge_model
    from ..models.metrics import mean_squared_error, pearson

    found = judge_model(
        model, store, labels, dataset=dataset, target=target, subset=subset, split=split, partial=partial
    )
    true, predicted = zip(*found.scores.values(), strict=True)
    print(f"videos    {len(found.scores)}")
    print(f"Spearman  {found.spearman}  (95 % bootstrap interval)")
    print(f"Pearson   {pearson(predicted, true):.3f}")
    print(f"error     {mean_squared_error(predicted, true) ** 0.5:.2f} points, root mean square")
    for caution in found.cautions:
        print(f"caution   {caution}")
    if out is not None:
        import csv

        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["video_id", "true", "predicted"])
            writer.writerows([name, given, f"{guess:.4f}"] for name, (given, guess) in found.scores.items())
        print(out)
