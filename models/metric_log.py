"""Curves of a training, with the metrics of each epoch, as a CSV file or for TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from ..manifests.optional_packages import require_package
from .checkpoints import write_atomically

LogFormat = Literal["csv", "tensorboard"]
CSV_NAME = "metrics.csv"
TENSORBOARD_FOLDER = "tensorboard"


class MetricLog(Protocol):
    """Receives the metrics of each epoch of one training."""

    def start(self, stage: int, epoch: int) -> None:
        """Begin a stage, counted from 1, or resume it after this epoch. Later epochs in the log are discarded."""
        ...

    def write(self, stage: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of one epoch, counted from 1. All epochs have the same metrics; undefined ones are NaN."""
        ...

    def close(self) -> None:
        """Write buffered metrics and close the log."""
        ...


class CsvLog:
    """``metrics.csv`` with the columns ``stage``, ``epoch`` and one for each metric.

    Args:
        folder: Folder of the file.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / CSV_NAME

    def start(self, stage: int, epoch: int) -> None:
        """Keep the lines up to this epoch."""
        rows: list[dict[str, str]] = []
        if self._path.is_file():
            with self._path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if _is_before(row, stage, epoch)]
        text = io.StringIO()
        if rows:
            writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        write_atomically(self._path, text.getvalue().encode())

    def write(self, stage: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Append a line."""
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if not file.tell():
                writer.writerow(["stage", "epoch", *metrics])
            writer.writerow([stage, epoch, *(f"{value:.6g}" for value in metrics.values())])

    def close(self) -> None:
        """Do nothing, because each line is written immediately."""


def _is_before(row: Mapping[str, str | None], stage: int, epoch: int) -> bool:
    """Return whether the line is complete and belongs to this epoch or an earlier one."""
    if None in row.values() or not (row["stage"] and row["epoch"]):
        return False
    return (int(row["stage"]), int(row["epoch"])) <= (stage, epoch)


class TensorBoardLog:
    """Event files in ``tensorboard/stage-N``, for ``tensorboard --logdir``.

    Args:
        folder: Folder of the training.

    Raises:
        MissingPackageError: The package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / TENSORBOARD_FOLDER
        self._make = summary_writer_class()
        self._writer: Any = None

    def start(self, stage: int, epoch: int) -> None:
        """Open an event file that replaces later epochs in earlier files."""
        self.close()
        self._writer = self._make(str(self._folder / f"stage-{stage}"), purge_step=epoch + 1)

    def write(self, stage: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add a scalar for each metric; the step is the epoch."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, epoch)

    def close(self) -> None:
        """Write the buffered events and close the file."""
        if self._writer is not None:
            self._writer.close()


def open_log(log_format: LogFormat | None, folder: Path | None) -> MetricLog | None:
    """Return the log of a training in its folder; None without a format or a folder."""
    if log_format is None or folder is None:
        return None
    return CsvLog(folder) if log_format == "csv" else TensorBoardLog(folder)


def summary_writer_class() -> Any:
    """Return PyTorch's writer of event files.

    Raises:
        MissingPackageError: The package tensorboard is not installed.
    """
    require_package("tensorboard", "--logger tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter
