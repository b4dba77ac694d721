from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from arabesque.manifests.errors import ManifestError, WeightsError
from arabesque.models.checkpoints import check_streams, load_checkpoint
from arabesque.models.features import label_routines, read_store
from arabesque.models.fitting import judge
from arabesque.models.training import train_and_evaluate
from arabesque.pipeline.store.reader import FeatureStore

Learnable = Callable[..., tuple[Path, Path]]


def test_cross_validation_ranks_unseen_videos(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(40)
    report = train_and_evaluate(store, labels, tmp_path / "model", epochs=15)
    assert report.spearman.value > 0.7
    assert report.spearman.low < report.spearman.value < report.spearman.high
    assert sorted(row.video_id for row in report.predictions) == [f"routine_{n:03d}" for n in range(40)]
    assert "cross-validation" in report.scheme


def test_shuffled_labels_are_not_learnt(learnable: Learnable, tmp_path: Path) -> None:
    """The honesty check: were held-out videos seen in training, this would correlate."""
    store, labels = learnable(40)
    with labels.open() as file:
        rows = list(csv.DictReader(file))
    scores = np.random.default_rng(1).permutation([row["score"] for row in rows])
    labels.write_text("".join(f"{row['video_id']},{score}\n" for row, score in zip(rows, scores, strict=True)))
    report = train_and_evaluate(store, labels, tmp_path / "model", epochs=15)
    assert abs(report.spearman.value) < 0.35
    assert report.spearman.low < 0 < report.spearman.high


def test_same_seed_same_numbers_another_seed_others(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(16)
    first, again, other = (
        train_and_evaluate(store, labels, tmp_path / str(number), epochs=3, seed=seed)
        for number, seed in enumerate((5, 5, 6))
    )
    assert first.predictions == again.predictions
    assert first.predictions != other.predictions


def test_a_hundred_videos_are_split_once(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(100)
    report = train_and_evaluate(store, labels, tmp_path / "model", epochs=2)
    assert len(report.predictions) == 20
    assert report.scheme == "20 of 100 videos held out of training"


def test_it_leaves_the_number_of_threads_as_it_was(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(10)
    torch.set_num_threads(2)
    during: list[int] = []
    train_and_evaluate(
        store, labels, tmp_path / "model", epochs=1, on_epoch=lambda *_: during.append(torch.get_num_threads())
    )
    assert (set(during), torch.get_num_threads()) == ({1}, 2)
    torch.set_num_threads(1)


def test_what_it_writes(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(16)
    report = train_and_evaluate(store, labels, tmp_path / "model", epochs=3, seed=2)
    assert {path.name for path in report.files} == {"model.pt", "model.json", "predictions.csv", "report.json"}
    assert {path.name for path in (tmp_path / "model").iterdir()} == {path.name for path in report.files}
    with (tmp_path / "model" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["video_id"] for row in rows] == [row.video_id for row in report.predictions]
    written = json.loads((tmp_path / "model" / "report.json").read_text())
    assert written["spearman"]["value"] == report.spearman.value
    assert "videos    16" in report.summary()


def test_the_checkpoint_scores_as_the_trained_model(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(16)
    train_and_evaluate(store, labels, tmp_path / "model", epochs=20)
    network, card = load_checkpoint(tmp_path / "model")
    data = label_routines(
        read_store(FeatureStore(store), list(card.dims)), {f"routine_{n:03d}": 0.0 for n in range(16)}
    )
    fractions = judge(network, data.routines, torch.arange(len(data.routines))).numpy()
    low, high = card.score_range
    with labels.open() as file:
        true = {row["video_id"]: float(row["score"]) for row in csv.DictReader(file)}
    # it has seen these videos, so it must know them well: wrong statistics, range or weights would show
    errors = [
        low + (high - low) * got - true[name] for name, got in zip(data.routines.video_ids, fractions, strict=True)
    ]
    assert np.sqrt(np.mean(np.square(errors))) < 0.5 * np.std(list(true.values()))


def test_features_of_other_settings_are_refused(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(10)
    train_and_evaluate(store, labels, tmp_path / "model", epochs=1)
    _, card = load_checkpoint(tmp_path / "model")
    streams = FeatureStore(store).manifest["streams"]
    check_streams(card, streams, store)
    streams["motion"]["settings_digest"] = "f" * 32
    with pytest.raises(WeightsError, match="'motion' was made with settings ffffffffffff"):
        check_streams(card, streams, store)
    del streams["motion"]
    with pytest.raises(WeightsError, match="no stream 'motion'"):
        check_streams(card, streams, store)


def test_unmatched_and_unfinished_videos_are_named(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(16, partial=2)
    kept = [line for line in labels.read_text().splitlines() if not line.startswith("routine_003")]
    labels.write_text("\n".join([*kept, "nobody,3"]))
    report = train_and_evaluate(store, labels, tmp_path / "model", epochs=1)
    assert report.without_label == ("routine_003",)
    assert report.without_video == ("nobody",)
    assert report.partial == ("routine_014", "routine_015")
    assert report.num_videos == 13
    with_partial = train_and_evaluate(store, labels, tmp_path / "model", epochs=1, partial=True)
    assert with_partial.num_videos == 15
    assert (with_partial.without_video, with_partial.partial) == (("nobody",), ())


def test_a_silent_video_trains_a_video_that_failed_does_not(learnable: Learnable, tmp_path: Path) -> None:
    from arabesque.pipeline.records import Outcome
    from arabesque.pipeline.store.writer import StoreWriter

    store, labels = learnable(14, silent=2)
    with StoreWriter(store) as writer:
        writer.add_outcome(Outcome("routine_000", "rhythm", "failed", reason="disk"))
    report = train_and_evaluate(store, labels, tmp_path / "model", epochs=1)
    assert report.unfinished == ("routine_000",)
    assert "routine_001" in {row.video_id for row in report.predictions}
    assert all(np.isfinite(row.predicted) for row in report.predictions)


def test_too_few_videos_and_equal_scores(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(10)
    few = tmp_path / "few.csv"
    few.write_text("routine_001,3\nroutine_002,4\nroutine_00,4\n")
    with pytest.raises(ManifestError, match=r"2 labelled videos, 8 are needed.*no video for routine_00$"):
        train_and_evaluate(store, few, tmp_path / "model")
    labels.write_text("".join(f"routine_{n:03d},7\n" for n in range(10)))
    with pytest.raises(ManifestError, match="has the score 7; there is nothing to learn"):
        train_and_evaluate(store, labels, tmp_path / "model")
    assert not (tmp_path / "model").exists()
