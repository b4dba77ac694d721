from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from arabesque.manifests.errors import InputError, WeightsError
from arabesque.models.checkpoints import check_streams, load_checkpoint
from arabesque.models.evaluation import LabeledFeatures, evaluate
from arabesque.models.features import label_samples, read_store
from arabesque.models.prediction import predict
from arabesque.models.training import train_and_evaluate
from arabesque.pipeline.records import FeatureRow, Outcome
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.writer import StoreWriter

Learnable = Callable[..., tuple[Path, Path]]


def test_cross_validation_ranks_unseen_videos(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(40)
    report = train_and_evaluate(store, labels, tmp_path / "model", epochs=8)
    assert report.spearman.value > 0.7
    assert report.spearman.low < report.spearman.value < report.spearman.high
    assert sorted(row.video_id for row in report.predictions) == [f"routine_{n:03d}" for n in range(40)]
    assert "cross-validation" in report.scheme


def test_shuffled_labels_are_not_learned(learnable: Learnable, tmp_path: Path) -> None:
    """Shuffled labels would correlate only if held-out videos were used in training."""
    store, labels = learnable(40)
    with labels.open() as file:
        rows = list(csv.DictReader(file))
    scores = np.random.default_rng(1).permutation([row["score"] for row in rows])
    labels.write_text("".join(f"{row['video_id']},{score}\n" for row, score in zip(rows, scores, strict=True)))
    report = train_and_evaluate(store, labels, tmp_path / "model", epochs=8)
    assert abs(report.spearman.value) < 0.35
    assert report.spearman.low < 0 < report.spearman.high


def test_results_depend_on_the_seed_only(learnable: Learnable, tmp_path: Path) -> None:
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


def test_the_number_of_threads_is_restored(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(10)
    torch.set_num_threads(2)
    during: list[int] = []
    train_and_evaluate(
        store, labels, tmp_path / "model", epochs=1, on_epoch=lambda *_: during.append(torch.get_num_threads())
    )
    assert (set(during), torch.get_num_threads()) == ({1}, 2)
    torch.set_num_threads(1)


def test_output_files(learnable: Learnable, tmp_path: Path) -> None:
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


def test_the_checkpoint_predicts_like_the_trained_model(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(16)
    train_and_evaluate(store, labels, tmp_path / "model", epochs=20)
    network, card = load_checkpoint(tmp_path / "model")
    data = label_samples(read_store(FeatureStore(store), list(card.dims)), {f"routine_{n:03d}": 0.0 for n in range(16)})
    fractions = predict(network, data.samples, torch.arange(len(data.samples))).numpy()
    low, high = card.score_range
    with labels.open() as file:
        true = {row["video_id"]: float(row["score"]) for row in csv.DictReader(file)}
    # these are training videos: a low correlation would mean wrong statistics, range or weights
    errors = [
        low + (high - low) * got - true[name] for name, got in zip(data.samples.video_ids, fractions, strict=True)
    ]
    assert np.sqrt(np.mean(np.square(errors))) < 0.5 * np.std(list(true.values()))


def test_features_of_other_settings_are_rejected(learnable: Learnable, tmp_path: Path) -> None:
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


def test_unmatched_and_unfinished_videos_are_listed(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(16, partial=2)
    kept = [line for line in labels.read_text().splitlines() if not line.startswith("routine_003")]
    labels.write_text("\n".join([*kept, "missing,3"]))
    report = train_and_evaluate(store, labels, tmp_path / "model", epochs=1)
    assert report.without_label == ("routine_003",)
    assert report.without_video == ("missing",)
    assert report.partial == ("routine_014", "routine_015")
    assert report.num_videos == 13
    with_partial = train_and_evaluate(store, labels, tmp_path / "model", epochs=1, partial=True)
    assert with_partial.num_videos == 15
    assert (with_partial.without_video, with_partial.partial) == (("missing",), ())


def add_copies(store: Path, labels: Path, count: int, *, by: float = 0.0) -> None:
    """Add the first videos again under other ids, as byte-identical files, with labels that differ ``by`` points."""
    whole = FeatureStore(store)
    lines = labels.read_text().splitlines()
    with StoreWriter(store) as writer:
        for line in lines[1 : count + 1]:
            name, score = line.split(",")
            for stream, features in whole[name].items():
                writer.add(
                    FeatureRow(
                        video_id=f"copy_of_{name}",
                        stream=stream,
                        key=features.key,
                        content_digest=features.content_digest,
                        settings_digest=whole.manifest["streams"][stream]["settings_digest"],
                        outcome="done",
                        features=features.values,
                        start_s=features.start_s,
                        end_s=features.end_s,
                    )
                )
            lines.append(f"copy_of_{name},{float(score) + by:.2f}")
    labels.write_text("\n".join(lines))


def test_a_video_and_its_copy_are_in_one_fold(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(20)
    before = train_and_evaluate(store, labels, tmp_path / "before", epochs=1)
    assert before.notes == ()
    add_copies(store, labels, 20, by=0.5)
    report = train_and_evaluate(store, labels, tmp_path / "model", epochs=1)
    folds_of = {row.video_id: row.fold for row in report.predictions}
    assert len(folds_of) == 40
    assert all(folds_of[name] == folds_of[f"copy_of_{name}"] for name in folds_of if name.startswith("sample"))
    identical, unequal = report.notes
    assert identical.startswith("40 videos have 20 different contents, each under several ids: copy_of_routine_000")
    assert "and 17 more" in identical
    assert unequal.startswith("20 of these contents have different scores under their ids: copy_of_routine_000 (")


def test_a_hold_out_does_not_separate_copies(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(60)
    add_copies(store, labels, 45)
    report = train_and_evaluate(store, labels, tmp_path / "model", epochs=1)
    held_out = {row.video_id for row in report.predictions}
    assert 20 < len(held_out) <= 23
    copied = {f"routine_{n:03d}" for n in range(45)}
    assert {name for name in held_out if name in copied} == {name[8:] for name in held_out if name.startswith("copy")}


def test_eight_ids_of_four_contents_are_too_few(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(5)
    add_copies(store, labels, 4)
    with pytest.raises(InputError, match="the 9 labeled videos have 5 different contents, but 8 are needed"):
        train_and_evaluate(store, labels, tmp_path / "model")


def test_evaluate_recognizes_a_training_video_under_another_id(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(12)
    train_and_evaluate(store, labels, tmp_path / "model", epochs=1)
    add_copies(store, labels, 3)
    copies = tmp_path / "copies.csv"
    copies.write_text("\n".join(line for line in labels.read_text().splitlines() if line.startswith("copy")))
    found = evaluate(tmp_path / "model", LabeledFeatures(store, copies))
    assert found.cautions == (
        "3 of the 3 videos have the same content as videos that the model was trained on, under other ids: "
        + ", ".join(f"copy_of_routine_00{n} = routine_00{n}" for n in range(3)),
    )


def test_labels_match_by_suffix_and_case(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(12)
    plain = train_and_evaluate(store, labels, tmp_path / "plain", epochs=1)
    labels.write_text(labels.read_text().replace("routine_0", "/data/VIDEOS/Routine_0").replace(",", ".MP4;"))
    report = train_and_evaluate(store, labels, tmp_path / "model", epochs=1)
    assert report.predictions == plain.predictions
    (note,) = report.notes
    assert note.startswith(
        "12 of 12 labels were matched to videos despite a different folder, suffix or case, for example"
    )
    assert report.without_video == ()


def test_partial_videos_are_included_up_to_a_lost_share(learnable: Learnable, tmp_path: Path) -> None:
    store, labels = learnable(20, partial=5)
    lost = {"routine_015": 0.04, "routine_016": 0.05, "routine_017": 0.06, "routine_018": 0.0, "routine_019": 0.0}
    frames = {"routine_018": (1000, 990), "routine_019": (50, 50)}  # outcomes without lost shares
    whole = FeatureStore(store, partial=True)
    with StoreWriter(store) as writer:
        for name, share in lost.items():
            for stream in whole.streams:
                expected, delivered = frames.get(name, (100, 100))
                writer.add_outcome(
                    Outcome(
                        name,
                        stream,
                        "partial",
                        key=whole[name][stream].key,
                        content_digest=whole[name][stream].content_digest,
                        settings_digest=whole.manifest["streams"][stream]["settings_digest"],
                        frames_expected=expected,
                        frames_delivered=delivered,
                        holes=((1.0, 2.0),) if share else (),
                        lost_share=share,
                    )
                )

    def used(**options: Any) -> set[str]:
        report = train_and_evaluate(store, labels, tmp_path / "model", epochs=1, **options)
        names = {prediction.video_id for prediction in report.predictions}
        assert names | set(report.partial) == {f"routine_{n:03d}" for n in range(20)}
        if "max_lost" in options:
            assert report.notes[0].startswith(
                f"partial videos: {len(names) - 15} that lost at most {100 * options['max_lost']:g}% of"
            )
        return names & lost.keys()

    assert used() == set()
    assert used(max_lost=0.0) == set()
    assert used(max_lost=0.05) == {"routine_015", "routine_016", "routine_018"}
    assert used(max_lost=0.5) == lost.keys() - {"routine_019"}
    assert used(partial=True) == lost.keys()


def test_silent_videos_are_used_and_failed_ones_are_not(learnable: Learnable, tmp_path: Path) -> None:
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
    with pytest.raises(InputError, match=r"has 2 labeled videos, but 8 are needed.*no video for routine_00$"):
        train_and_evaluate(store, few, tmp_path / "model")
    labels.write_text("".join(f"routine_{n:03d},7\n" for n in range(10)))
    with pytest.raises(InputError, match="videos have the same score, 7; add videos"):
        train_and_evaluate(store, labels, tmp_path / "model")
    assert not (tmp_path / "model").exists()
