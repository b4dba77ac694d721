from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
from small_trainings import make_run

from arabesque.manifests.errors import MissingPackageError
from arabesque.models import metric_log, trainer
from arabesque.models.experiment import Stage
from arabesque.models.metric_log import CsvLog, open_log
from arabesque.models.protocol import Protocol

TWO_STAGES = {"before": (Stage(protocol=Protocol(epochs=3, batch_size=8)),), "epochs": 3}


def rows_in(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_epoch_has_a_line(tmp_path: Path) -> None:
    result = make_run(tmp_path, log="csv", schedule={"kind": "steps", "at_epochs": [4]}).result()
    rows = rows_in(tmp_path)
    assert [(row["stage"], row["epoch"]) for row in rows] == [("1", str(epoch)) for epoch in range(1, 7)]
    assert [float(row["spearman"]) for row in rows] == pytest.approx(list(result.history), rel=1e-5)
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.003] * 4 + [0.0003] * 2)
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


def test_a_resumed_training_writes_the_same_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "through", log="csv", selection="last", **TWO_STAGES).result()
    monkeypatch.setattr(trainer, "SAVE_EVERY_S", 0.0)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    for _ in range(2):  # once in each stage
        with pytest.raises(KeyboardInterrupt):
            make_run(tmp_path / "stopped", log="csv", selection="last", **TWO_STAGES).result(stop)
    make_run(tmp_path / "stopped", log="csv", selection="last", **TWO_STAGES).result()
    assert rows_in(tmp_path / "stopped") == rows_in(tmp_path / "through")
    assert len(rows_in(tmp_path / "through")) == 6


def test_a_line_that_a_kill_cut_off_is_discarded(tmp_path: Path) -> None:
    log = CsvLog(tmp_path)
    log.start(1, 0)
    log.write(1, 1, {"loss": 0.5})
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("1,")
    log.start(1, 1)
    log.write(1, 2, {"loss": 0.25})
    assert rows_in(tmp_path) == [
        {"stage": "1", "epoch": "1", "loss": "0.5"},
        {"stage": "1", "epoch": "2", "loss": "0.25"},
    ]


def test_a_missing_tensorboard_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingPackageError, match=r"--logger tensorboard: .* pip install .*\[train\]"):
        open_log("tensorboard", tmp_path)


def test_tensorboard_has_the_curves_of_both_stages(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    make_run(tmp_path, log="tensorboard", selection="last", **TWO_STAGES).result()
    for stage in (1, 2):
        events = EventAccumulator(str(tmp_path / metric_log.TENSORBOARD_FOLDER / f"stage-{stage}")).Reload()
        assert [each.step for each in events.Scalars("loss")] == [1, 2, 3]
