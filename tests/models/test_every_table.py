"""Every table of scores runs on drawn data: each row that is implemented, with folds and comparisons."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from store_rows import new_store, row

from arabesque.manifests.datasets import Dataset, load_dataset
from arabesque.models.data_at_hand import ANY, DataAtHand
from arabesque.models.published_tables import list_tables, load_table
from arabesque.models.reproduction import Reproduction
from arabesque.pipeline.store.writer import StoreWriter
from arabesque.reports.comparison import write_table_page

NUM_TRAIN, NUM_TEST = 12, 8
DRAWN = {"mit-skating": "MIT-Skating", "rg": "Ball", "fisv": "TES"}
"""Data set → the column that is run"""
SPLITS = {"train": NUM_TRAIN, "test": NUM_TEST}
TABLES = [name for name in list_tables() if name != "pamfn-9"]  # test_highlights.py runs it


def small(name: str) -> Dataset:
    """Return the data set with the number of videos that `data` draws."""
    dataset = load_dataset(name)
    random = SPLITS if dataset.random_splits else {}
    return dataset.model_copy(update={"counts": {}, "subset_counts": {}, "random_splits": random})


def drawn_label(dataset: str, quality: float) -> str:
    """Return the columns after the id, for a quality between 0 and 1."""
    if dataset == "mit-skating":
        return f"{90 * quality:.2f}"
    if dataset == "fisv":
        return f"{10 + 30 * quality:.2f} {15 + 20 * quality:.2f} 0"
    hundredths = round(500 * quality)
    return f"{4 + hundredths / 100:.2f} 6.00 {10 + hundredths / 100:.2f} 0 90"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataAtHand:
    """Twenty videos of each data set with the streams of all tables; their scores are a function of the features."""
    folder, rng = tmp_path_factory.mktemp("drawn"), np.random.default_rng(0)
    streams = sorted({stream for name in TABLES for each in load_table(name).rows for stream in each.all_streams})
    store = new_store(folder / "features", dict.fromkeys(streams, 6))
    labels: dict[str, Path] = {}
    with StoreWriter(store) as writer:
        for dataset in DRAWN:
            skill = rng.random(NUM_TRAIN + NUM_TEST)
            names = [f"{'Ball_' if dataset == 'rg' else dataset}{number}" for number in range(len(skill))]
            for name, quality in zip(names, skill, strict=True):
                for stream in streams:
                    features = quality + 0.3 * rng.standard_normal((8, 6))
                    writer.add(row(name, stream, features=features.astype(np.float32)))
            lines = [f"{name} {drawn_label(dataset, quality)}" for name, quality in zip(names, skill, strict=True)]
            labels[dataset] = folder / dataset
            labels[dataset].mkdir()
            files = {"train.txt": lines[:NUM_TRAIN], "test.txt": lines[NUM_TRAIN:]}
            for file, part in {"scores.txt": lines}.items() if dataset == "mit-skating" else files.items():
                (labels[dataset] / file).write_text("\n".join(part))
    return DataAtHand({ANY: store}, labels)


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_every_row_is_run(name: str, data: DataAtHand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arabesque.models.data_at_hand.load_dataset", small)
    table = load_table(name)
    columns = tuple(column for column in table.columns if column in DRAWN.values())
    seeds = (0, 1) if "MIT-Skating" in columns else (0,)  # its splits are random, one for each seed
    reproduction = Reproduction(
        name, data, tmp_path, columns=columns, seeds=seeds, selections=("best-test",), folds=2, epochs=1, workers=1
    )
    lines = reproduction.run()
    for published, line in zip(table.rows, lines, strict=True):
        if published.not_implemented:
            assert line.not_run.startswith("not implemented: ")
            continue
        assert line.not_run == ""
        assert set(line.cells) == set(columns)
        for cell in line.cells.values():
            assert cell.last is not None
            assert len(cell.cross_validated or ()) >= 1
            assert cell.predictions is not None
            assert all(np.isfinite(predicted).all() for predicted, _ in cell.predictions.pairs)
    content = json.loads((tmp_path / "table.json").read_text())
    run = [line for line in lines if line.cells]
    for column in columns:
        compared = content["comparisons"][column]
        assert len(compared["differences"]) == math.comb(len(run), 2)
        if len(run) > 1:
            assert compared["averages"][-1]["rows"] == [line.name for line in run]
    assert write_table_page(tmp_path / "table.json", tmp_path / "report").is_file()
