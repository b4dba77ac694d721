"""Measure an epoch of training on Fis-V's published features, by precision and by the number of threads.

    python benchmarks/training.py --features ../shared/data/fisv_vst/features_fp16.npz --labels ../shared/data/fisv_vst

400 training routines and 100 test routines, which are evaluated after every epoch, with the protocol of
`manifests/protocols.toml`. The best of ``--epochs`` after a warm-up epoch, in wall-clock seconds and in processor
seconds, which other load affects least.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from charts import BLUE, SKY, aim, bars, picture
from measured import Found, markdown, parser_for, present

from arabesque.models.checkpoints import new_network
from arabesque.models.dataset_runs import Task, make_task, trainers
from arabesque.models.dataset_training import experiment_for
from arabesque.models.fitting import Fitting, cpu_threads
from arabesque.models.named_labels import read_named_labels
from arabesque.models.objective import ScoreRegression
from arabesque.models.prediction import predict
from arabesque.models.protocol import Precision
from arabesque.models.released_features import read_features

MODELS = ("pamfn-branch", "gdlt")
AIM_MIN = 10.0
"""Aim for all epochs of PAMFN's branch on two cores"""


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args(given)
    if options.redraw is None and not (options.features and options.labels):
        parser.error("--features and --labels, or --redraw")
    present(table, draw, options, lambda: measure_all(options), ["torch"])


def table(found: Found) -> list[str]:
    rows = [
        [
            f"`{row['model']}`",
            row["precision"],
            str(row["threads"]),
            *(f"{row[name]:.2f}" for name in ("train_s", "judge_s")),
            f"{row['train_cpu_s'] + row['judge_cpu_s']:.2f}",
            f"{row['epochs']} epochs: {all_min(row):.1f} min",
        ]
        for row in found["results"]
    ]
    return markdown(["model", "precision", "threads", "s an epoch", "judging", "CPU s of both", "all"], rows)


def measure_all(options: argparse.Namespace) -> Found:
    known, wanted = read_named_labels("fisv", options.labels, "TES")
    task = make_task(read_features(options.features, ("vst",)), known, wanted)
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    return {
        "results": [
            measure(task, model, precision, threads, options.epochs)
            for model in options.models
            for precision in precisions
            for threads in options.threads
        ]
    }


def measure(task: Task, model: str, precision: Precision, threads: int, epochs: int) -> Found:
    experiment = experiment_for("fisv", model, "TES", streams=("vst",), selection="best-test").in_precision(precision)
    run = trainers(task, experiment, [0], Path("never-written"))[0]
    routines, split = task.data.samples, run.split
    network = new_network(run.card)
    objective = ScoreRegression(task.data.scores, run.card.score_range, routines.device)
    fitting = Fitting(network, routines, objective, split.train, experiment.last_stage, seed=0)
    trained: list[tuple[float, float]] = []
    judged: list[tuple[float, float]] = []
    with cpu_threads(threads):
        for _ in range(1 + epochs):
            trained.append(timed(fitting.run_epoch))
            judged.append(timed(lambda: predict(network, routines, split.test)))
    (train_s, train_cpu_s), (judge_s, judge_cpu_s) = (
        map(min, zip(*rounds[1:], strict=True)) for rounds in (trained, judged)
    )
    costs = {"train_s": train_s, "train_cpu_s": train_cpu_s, "judge_s": judge_s, "judge_cpu_s": judge_cpu_s}
    kind: Found = {"model": model, "precision": precision, "threads": threads}
    return kind | {"epochs": experiment.protocol.epochs} | costs


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Return wall-clock seconds and processor seconds."""
    began, began_cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - began_cpu


def all_min(row: Found) -> float:
    """Return the minutes of all epochs of the protocol."""
    return row["epochs"] * (row["train_s"] + row["judge_s"]) / 60


def draw(found: Found, path: Path) -> None:
    results = found["results"]
    rows: dict[str, dict[str, float]] = {}
    for row in results:
        threads = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"
        rows.setdefault(f"{row['model']}, {row['epochs']} epochs, {row['precision']}", {})[threads] = all_min(row)
    colors = dict(zip(next(iter(rows.values())), (SKY, BLUE), strict=False))
    with picture(path, "A whole training on Fis-V takes minutes on a CPU", found, 1.4 + 0.45 * len(rows)) as (axes,):
        bars(axes, rows, "minutes, judging after every epoch included", colors=colors, told="{:.1f}".format)
        aim(axes, AIM_MIN, f"aim for PAMFN's branch on 2 cores: {AIM_MIN:.0f} min")


if __name__ == "__main__":
    main()
