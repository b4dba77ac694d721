"""Measure the effect of half precision on scores: models of Fis-V on features changed within the tolerance.

    python benchmarks/precision_scores.py --features features_fp16.npz --labels fisv_vst/

Each model is trained once on the published Video Swin features of the 400 training videos. The features of the 100 test
videos are then changed by the tolerance of a precision (`extractors/precision.py`), a share of the largest value of
their row: ``independent`` draws each value of each segment uniformly within the tolerance; ``common`` draws one change
for all segments of all videos, which averages do not remove. Both changes are larger than those of a network.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from charts import BLUE, GRAY, ORANGE, bars, picture
from measured import Found, markdown, parser_for, present
from numpy.typing import NDArray

from arabesque.extractors.precision import TOLERANCES
from arabesque.manifests.streams import Precision
from arabesque.models.dataset_runs import make_task, trainers
from arabesque.models.dataset_training import experiment_for
from arabesque.models.features import FeatureSet
from arabesque.models.metrics import spearman
from arabesque.models.named_labels import read_named_labels
from arabesque.models.prediction import predict
from arabesque.models.released_features import read_features
from arabesque.models.samples import Samples, StreamSegments

STREAM = "vst"
PRECISIONS: tuple[Precision, ...] = ("float16", "bfloat16")
CHANGES = ("independent", "common")


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--models", nargs="+", default=["pooled-svr", "ms-lstm", "pamfn-branch"])
    parser.add_argument("--targets", nargs="+", default=["TES", "PCS"])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="maximum number of epochs; default: as published")
    options = parser.parse_args(given)
    if options.redraw is None and not (options.features and options.labels):
        parser.error("--features and --labels, or --redraw")
    present(table, draw, options, lambda: {"results": measure_all(options)}, ["torch"])


def table(found: Found) -> list[str]:
    titles = ["model", "", "precision", "change", "Spearman", "with the change", "largest change of a score"]
    rows = [
        [
            f"`{row['model']}`",
            row["target"],
            f"{row['precision']} ({row['tolerance']:.0e})",
            row["change"],
            f"{row['spearman']:.4f}",
            f"{row['changed']:.4f}",
            f"{row['points']:.2f} points",
        ]
        for row in found["results"]
    ]
    return markdown(titles, rows)


def measure_all(options: argparse.Namespace) -> list[Found]:
    features = read_features(options.features, (STREAM,))
    results: list[Found] = []
    for target in options.targets:
        for model in options.models:
            results += measure(features, options.labels, target, model, options.draws, options.epochs)
    return results


def measure(
    features: FeatureSet, labels: Path, target: str, model: str, num_draws: int, epochs: int | None
) -> list[Found]:
    """Train a model once, and evaluate it on unchanged and on changed features; means over the draws."""
    known, wanted = read_named_labels("fisv", labels, target)
    experiment = experiment_for("fisv", model, wanted, streams=(STREAM,), selection="last")
    experiment = experiment if epochs is None else experiment.shortened(epochs)
    task = make_task(features, known, wanted)
    with TemporaryDirectory() as folder:
        (trainer,) = trainers(task, experiment, [0], Path(folder))
        network, _ = trainer.fit()
    test = trainer.split.test
    names = task.data.samples.names(test)
    true = np.array([task.true[name] for name in names])
    low, high = trainer.card.score_range

    def scores(samples: Samples) -> NDArray[np.float64]:
        return low + (high - low) * predict(network, samples, test).numpy()

    unchanged = scores(task.data.samples)
    results: list[Found] = []
    for precision in PRECISIONS:
        for change in CHANGES:
            draws = [
                scores(make_task(changed(features, TOLERANCES[precision], change, seed), known, wanted).data.samples)
                for seed in range(num_draws)
            ]
            results.append(
                {
                    "model": model,
                    "target": target,
                    "precision": precision,
                    "tolerance": TOLERANCES[precision],
                    "change": change,
                    "spearman": spearman(unchanged, true),
                    "changed": float(np.mean([spearman(draw, true) for draw in draws])),
                    "points": max(float(np.abs(draw - unchanged).max()) for draw in draws),
                }
            )
    return results


def changed(features: FeatureSet, tolerance: float, change: str, seed: int) -> FeatureSet:
    """Return features whose values are changed by up to a share of the largest value of their row."""
    rng = np.random.default_rng(seed)
    common = rng.uniform(-1, 1, features.dims[STREAM])

    def off(segments: StreamSegments) -> StreamSegments:
        values = segments.values
        off_by = common if change == "common" else rng.uniform(-1, 1, values.shape)
        largest = np.abs(values).max(axis=1, keepdims=True)
        return replace(segments, values=(values + tolerance * largest * off_by).astype(np.float32))

    videos = {name: {STREAM: off(streams[STREAM])} for name, streams in features.videos.items()}
    return replace(features, videos=videos)


def draw(found: Found, path: Path) -> None:
    rows: dict[str, dict[str, float]] = {}
    for row in found["results"]:
        if row["precision"] == "bfloat16":
            kind = rows.setdefault(f"{row['model']}, {row['target']}", {"float32": row["spearman"]})
            kind[f"bfloat16, {row['change']}"] = row["changed"]
    colors = dict(zip(next(iter(rows.values())), (GRAY, BLUE, ORANGE), strict=True))
    title = "Features in bfloat16 and the scores of Fis-V"
    with picture(path, title, found, 1.4 + 0.6 * len(rows)) as (axes,):
        bars(axes, rows, "Spearman on the 100 test videos", colors=colors, told="{:.3f}".format)


if __name__ == "__main__":
    main()
