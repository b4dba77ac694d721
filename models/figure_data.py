"""Data for figures of a trained model: predictions, attention and decisions on the test videos, size and time."""

from __future__ import annotations

import csv
import io
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .checkpoints import load_checkpoint, write_atomically
from .dataset_runs import Task
from .samples import Samples
from .trainer import Trainer

PREDICTIONS = "predictions.csv"
TRACES = "traces.npz"
TIMED_RUNS = 5


@dataclass(frozen=True)
class NetworkSize:
    """Size of a network and time of one inference."""

    num_parameters: int
    """Number of parameters of the network, including frozen ones, without statistics"""
    inference_ms: float = field(compare=False)
    """Median time from features to score for one whole test video, in milliseconds"""
    device: str


def save_figure_data(run: Trainer, task: Task) -> None:
    """Write predictions and traces of the test videos to the folder of a finished training.

    ``predictions.csv`` has a line per test video, or per segment if these have labels. ``traces.npz`` has one array per
    video and value:
    ``VIDEO/importance/STREAM`` (weight of each segment), ``VIDEO/decision_N`` (index of the last active FusionNet at
    each step of stage N), ``VIDEO/modalities_N`` (weights of the modalities at each step of stage N). Existing files
    are not written again. A model without such values has no traces.
    """
    result, folder = run.finished(), run.folder
    if result is None or folder is None:
        return
    if not (folder / PREDICTIONS).exists():
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        if task.highlights:
            writer.writerow(["video_id", "segment", "highlight", "predicted", "predicted_last"])
            for name, marks in ((name, task.highlights[name]) for name in result.test):
                rows = zip(marks, result.test[name], result.last[name], strict=True)
                writer.writerows(
                    [name, segment, int(mark), f"{value:.4f}", f"{last:.4f}"]
                    for segment, (mark, value, last) in enumerate(rows)
                )
        else:
            writer.writerow(["video_id", "true", "predicted", "predicted_last"])
            writer.writerows(
                [name, task.true[name], f"{value:.4f}", f"{result.last[name]:.4f}"]
                for name, value in result.test.items()
            )
        write_atomically(folder / PREDICTIONS, table.getvalue().encode())
    if not (folder / TRACES).exists():
        network = load_checkpoint(folder)[0].to(run.data.samples.device)
        if found := traces(network, run.data.samples, run.split.test):
            content = io.BytesIO()
            np.savez_compressed(content, **found)  # pyright: ignore[reportArgumentType]
            write_atomically(folder / TRACES, content.getvalue())


def traces(network: nn.Module, samples: Samples, rows: Tensor) -> dict[str, NDArray[np.float32]]:
    """Return importance and inner values of whole videos, as described in `save_figure_data`."""
    found: dict[str, NDArray[np.float32]] = {}
    network.eval()
    with torch.inference_mode():
        for row in rows:
            prediction = network(samples.whole(row[None]))
            name = samples.video_ids[int(row)]
            values = {f"importance/{stream}": weights for stream, weights in prediction.importance.items()}
            for key, value in {**values, **prediction.traces}.items():
                found[f"{name}/{key}"] = value[0].float().cpu().numpy()
    return found


def network_size(run: Trainer) -> NetworkSize:
    """Measure the network of a finished training on its first test video, on the device of the features."""
    samples = run.data.samples
    network = run.network().to(samples.device).eval()
    batch = samples.whole(run.split.test[:1])
    times_s: list[float] = []
    with torch.inference_mode():
        network(batch)
        for _ in range(TIMED_RUNS):
            start_s = time.perf_counter()
            network(batch).score.cpu()  # waits for the device
            times_s.append(time.perf_counter() - start_s)
    count = sum(parameter.numel() for parameter in network.parameters())
    return NetworkSize(count, 1000 * float(np.median(times_s)), samples.device.type)
