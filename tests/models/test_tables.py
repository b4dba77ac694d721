from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from store_rows import new_store, row

from arabesque.manifests.datasets import load_dataset
from arabesque.manifests.errors import ManifestError, WeightsError
from arabesque.models.dataset_training import PLAIN_PROTOCOL, experiment_for, train_on_dataset
from arabesque.models.evaluation import evaluate
from arabesque.models.reports import SeedsReport, report_seeds
from arabesque.models.reproduction import Cell, Line, Reproduction
from arabesque.models.seed_run import SeedResult
from arabesque.models.table import resolve_settings
from arabesque.models.tables import load_table
from arabesque.pipeline.store.writer import StoreWriter


@pytest.mark.parametrize("name", ["fisv", "rg"])
def test_every_row_is_an_experiment_on_its_data_set(name: str) -> None:
    table = load_table(name)
    dataset = load_dataset(table.dataset)
    for column in table.columns.values():
        assert column.target in dataset.targets
        assert column.subset is None or column.subset in dataset.subsets
    for line in table.rows:
        assert set(line.published) <= set(table.columns)
        assert set(line.by_column) <= set(table.columns)
        for column in table.columns:
            experiment = line.experiment(column, "validation")
            resolve_settings(experiment.model, experiment.settings)
            assert experiment.protocol.selection == "validation"
            if experiment.branches is not None:
                assert experiment.branches.protocol.selection == "validation"


def test_a_column_may_have_its_own_schedule() -> None:
    rows = {row.name: row for row in load_table("fisv").rows}
    assert rows["GDLT"].experiment("TES", "last").protocol.epochs == 320
    assert rows["GDLT"].experiment("PCS", "last").protocol.epochs == 400
    with pytest.raises(ManifestError, match="table 'logo' is not known; there are fisv, rg"):
        load_table("logo")


def test_an_experiment_comes_from_its_table_or_is_plain() -> None:
    published = experiment_for("fisv", "gdlt", "PCS", streams=None, settings={"dropout": 0.1}, selection="last")
    assert (published.protocol.epochs, published.settings["dropout"]) == (400, 0.1)
    assert published.settings["triplet_weight"] == 0.5
    shorter = experiment_for("rg", "context-attention", "Ball", streams=("a", "b"), epochs=320)
    assert shorter.streams == ("a", "b")
    assert shorter.protocol.crop == {"a": 68, "b": 80}
    assert shorter.protocol.schedule.model_dump()["at_epochs"] == (300,)
    renamed = experiment_for("fisv", "pamfn", "TES", streams=("r", "f", "s"))
    assert renamed.settings["frozen"] == ["r", "f"]
    pair = experiment_for("fisv", "pamfn", "TES", streams=("ast", "vst"))
    assert (pair.streams, pair.settings["frozen"], pair.protocol.epochs) == (("ast", "vst"), ["vst"], 500)
    assert pair.branches is not None
    at_once = experiment_for("fisv", "pamfn", "TES", streams=None, one_stage=True)
    assert (at_once.branches, at_once.settings.get("frozen")) == (None, None)
    static = experiment_for("rg", "context-attention", "Ball", streams=("resnet_crop",))
    assert static.protocol.crop == {"resnet_crop": 80}
    mixed = experiment_for("fisv", "pamfn", "TES", streams=None, selection="best-test", protocol={"selection": "last"})
    assert [each.chooses_on_test for each in (mixed, at_once)] == [True, False]  # its branches still do
    plain = experiment_for("fisv", "lstm", "TES", streams=("vst",))
    assert plain.protocol == PLAIN_PROTOCOL
    assert plain.protocol.selection == "last"
    other = experiment_for("fisv", "gdlt", "TES", streams=None, protocol={"score_range": [0, 40], "batch_size": 8})
    assert (other.protocol.score_range, other.protocol.batch_size, other.protocol.epochs) == ((0, 40), 8, 320)
    with pytest.raises(ManifestError, match=r"protocol\.score_range: .* \(got 'wide'\)"):
        experiment_for("fisv", "gdlt", "TES", streams=None, protocol={"score_range": "wide"})
    with pytest.raises(ManifestError, match=r"protocol\.epoch: this key is not known; did you mean epochs\?"):
        experiment_for("fisv", "gdlt", "TES", streams=None, protocol={"epoch": 3})
    with pytest.raises(ManifestError, match="data set 'fis' is not known; did you mean fisv"):
        experiment_for("fis", "gdlt", "TES", streams=None)
    with pytest.raises(ManifestError, match="no published table trains lstm on fisv"):
        experiment_for("fisv", "lstm", "TES", streams=None)
    with pytest.raises(ManifestError, match="'gdlr' is not known; did you mean gdlt"):
        experiment_for("fisv", "gdlr", "TES", streams=None)


def test_reports_over_seeds() -> None:
    true = {"a": 1.0, "b": 2.0, "c": 4.0}
    right = SeedResult(0, "best-test", 3, dict(true), {"a": 4.0, "b": 2.0, "c": 1.0}, (0.1, 0.2, 1.0))
    wrong = SeedResult(1, "best-test", 1, {"a": 4.0, "b": 2.0, "c": 1.0}, dict(true), (-1.0,))
    report = report_seeds([right, wrong], true, (0, 10))
    assert report.spearman.mean == pytest.approx(0)
    assert report.spearman.deviation == pytest.approx(np.sqrt(2))
    assert report.mean_squared_error.mean == pytest.approx((0 + (9 + 0 + 9) / 3) / 2)
    assert report.relative_l2.mean == pytest.approx(3 * 100 / 100)
    assert report.relative_l2_test.mean == pytest.approx(3 * 100 / 9)
    assert "upper bound" in report.words
    assert report.epochs == (3, 1)
    last = report_seeds([right], true, (0, 10), last=True)
    assert (last.selection, last.spearman.mean, last.words) == ("last", pytest.approx(-1), "last epoch")
    assert (str(report.spearman), str(last.spearman)) == ("0.000 ± 1.414", "-1.000")  # one seed has no deviation


def test_averages_over_the_columns_of_a_line() -> None:
    """The printed ones are the paper's: PAMFN's table has .755 for its RGB branch."""
    true = dict(zip("abcd", (1.0, 2.0, 3.0, 4.0), strict=True))

    def reached(*orders: str) -> SeedsReport:
        guesses = [{name: float(order.index(name)) for name in true} for order in orders]
        return report_seeds([SeedResult(0, "validation", 1, guess, {}, (0.0,)) for guess in guesses], true, (0, 10))

    tes, pcs = reached("abdc", "bcad"), reached("abdc", "abdc")  # 0.8 and 0.4, 0.8 and 0.8
    line = Line("a", {"TES": Cell(0.665, None, None, tes), "PCS": Cell(0.823, None, None, pcs)})
    assert line.rows() == [
        ["TES", "0.665", "–", "0.600 ± 0.283", "–"],
        ["PCS", "0.823", "–", "0.800 ± 0.000", "–"],
        ["average (Fisher-z)", "0.755", "–", "0.721 ± 0.112", "–"],
        ["average (plain)", "0.744", "–", "0.700 ± 0.141", "–"],
    ]
    assert len(Line("a", {"TES": Cell(None, None, None, tes)}).rows()) == 1


def test_a_row_or_column_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    nothing = Reproduction("fisv", tmp_path, tmp_path, tmp_path / "out", streams=("vst",), rows=("nonsense",))
    with pytest.raises(ManifestError, match=r"no row of fisv has nonsense in its name; there are Average pooling"):
        nothing.run()
    with pytest.raises(ManifestError, match=r"fisv has no column 'TSE'; did you mean TES\?; there are TES, PCS"):
        replace(nothing, rows=(), columns=("TSE",)).run()
    assert not (tmp_path / "out").exists()


def shorten(labels: Path) -> None:
    """Forty programmes to train on and forty to judge, for the sake of time."""
    for name in ("train.txt", "test.txt"):
        (labels / name).write_text("\n".join((labels / name).read_text().splitlines()[:40]))


@pytest.fixture
def fisv(tmp_path: Path) -> tuple[Path, Path]:
    """As many programmes as Fis-V has, of six numbers in a few segments."""
    rng = np.random.default_rng(0)
    skill = rng.random(500)
    arrays = {
        str(number): (skill[number] + 0.4 * rng.standard_normal((rng.integers(4, 7), 6))).astype(np.float16)
        for number in range(500)
    }
    np.savez(tmp_path / "vst.npz", **arrays)  # pyright: ignore[reportArgumentType]
    lines = [f"{number} {10 + 30 * skill[number]:.2f} {15 + 20 * skill[number]:.2f} 0" for number in range(500)]
    (tmp_path / "train.txt").write_text("\n".join(lines[:400]))
    (tmp_path / "test.txt").write_text("\n".join(lines[400:]))
    return tmp_path / "vst.npz", tmp_path


@pytest.mark.slow
def test_a_table_is_run_as_far_as_the_features_go(
    fisv: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = fisv
    shorten(labels)
    fewer = load_dataset("fisv").model_copy(update={"counts": {}})
    monkeypatch.setattr("arabesque.models.reproduction.load_dataset", lambda name: fewer)
    rows = ("pooling", "gdlt", "joint")
    reproduction = Reproduction(
        "fisv", features, labels, tmp_path / "out", streams=("vst",), rows=rows, seeds=(0,), epochs=2, workers=1
    )
    told: list[tuple[str, str, str]] = []
    lines = {line.name: line for line in reproduction.run(lambda *event: told.append(event[:3]))}
    assert lines["Joint-VA"].not_run == "needs i3d_flow, ast"
    pooled = lines["Average pooling + linear SVR"].cells["TES"]
    assert pooled.best_test is None
    assert pooled.last is not None
    assert pooled.last.spearman.mean > 0.9
    gdlt = lines["GDLT"].cells["PCS"]
    assert gdlt.published == 0.820
    assert gdlt.best_test is not None
    assert gdlt.last is not None
    assert gdlt.best_test.spearman.mean >= gdlt.last.spearman.mean
    assert ("GDLT", "PCS", "validation") in told
    written = (tmp_path / "out" / "table.md").read_text()
    assert "| GDLT | TES | 0.685 |" in written
    assert f"Ours: Spearman of seed 0; {features}; float32 products; arabesque " in written
    assert "; at most 2 epochs, FEWER THAN PUBLISHED." in written
    assert "| GDLT | average (Fisher-z) | 0.761 |" in written
    assert "not run: needs i3d_flow, ast" in written
    again: list[object] = []
    assert {line.name: line for line in reproduction.run(lambda *event: again.append(event))} == lines
    assert again == []


def test_train_and_evaluate_on_a_data_set(fisv: tuple[Path, Path], tmp_path: Path) -> None:
    features, labels = fisv
    experiment = experiment_for(
        "fisv", "lstm", "TES", streams=("vst",), settings={"hidden_dim": 8}, epochs=20, selection="validation"
    )
    reports = train_on_dataset(features, labels, "fisv", "TES", experiment, (0, 1), tmp_path / "model")
    assert [report.selection for report in reports] == ["validation", "last"]
    assert reports[0].num_test == 100
    with (tmp_path / "model" / "predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 200
    assert json.loads((tmp_path / "model" / "report.json").read_text())["experiment"]["model"] == "lstm"

    found = evaluate(tmp_path / "model" / "seed-1", features, labels, dataset="fisv", target="TES")
    assert len(found.scores) == 100
    assert found.spearman.value > 0.5
    assert found.cautions == ()
    (tmp_path / "few.csv").write_text("".join(f"{n},{found.scores[str(n)][0]}\n" for n in range(400, 420)))
    few = evaluate(tmp_path / "model" / "seed-1", features, tmp_path / "few.csv")
    assert few.scores == {name: pytest.approx(found.scores[name], abs=1e-5) for name in few.scores}
    assert few.cautions == ()
    with pytest.raises(ManifestError, match="which score of fisv"):
        evaluate(tmp_path / "model" / "seed-1", features, labels, dataset="fisv")
    np.savez(tmp_path / "other.npz", **{str(n): np.ones((4, 6)) for n in range(500)})  # pyright: ignore[reportArgumentType]
    with pytest.raises(WeightsError, match="'vst' was made with settings"):
        evaluate(tmp_path / "model" / "seed-1", tmp_path / "other.npz", labels, dataset="fisv", target="TES")


def test_evaluate_says_what_speaks_against_its_numbers(fisv: tuple[Path, Path], tmp_path: Path) -> None:
    features, labels = fisv
    folder = tmp_path / "model" / "seed-0"
    chosen = experiment_for(
        "fisv", "lstm", "TES", streams=("vst",), settings={"hidden_dim": 4}, epochs=1, selection="best-test"
    )
    train_on_dataset(features, labels, "fisv", "TES", chosen, (0,), tmp_path / "model")
    given = (folder, features, labels)
    upper_bound = "best on test: 100 of the 100 videos chose the epoch of its weights: an upper bound"
    assert evaluate(*given, dataset="fisv", target="TES").cautions == (upper_bound,)
    other_score = "the model was trained to predict fisv-TES, these are scores of fisv-PCS"
    assert evaluate(*given, dataset="fisv", target="PCS").cautions == (upper_bound, other_score)
    seen = "the model was trained on 400 of the 400 videos: no measure of how it does on others"
    assert evaluate(*given, dataset="fisv", target="TES", split="train").cautions == (seen,)
    both = tmp_path / "both.csv"
    both.write_text("id,TES,art\n" + "".join(f"{number},{number},{number}\n" for number in range(390, 410)))
    halves = ("the model was trained on 10 of the 20 videos: no measure of how it does on others",)
    halves += ("best on test: 10 of the 20 videos chose the epoch of its weights: an upper bound",)
    assert evaluate(folder, features, both, target="TES").cautions == halves
    art = "the model was trained to predict fisv-TES, these are scores of art"
    assert evaluate(folder, features, both, target="art").cautions == (*halves, art)


def test_a_table_needs_all_videos_of_its_data_set(fisv: tuple[Path, Path], tmp_path: Path) -> None:
    features, labels = fisv
    with np.load(features) as arrays:
        np.savez(tmp_path / "most.npz", **{name: arrays[name] for name in arrays.files if name not in ("7", "450")})  # pyright: ignore[reportArgumentType]
    experiment = experiment_for("fisv", "gdlt", "TES", streams=None, epochs=1)
    with pytest.raises(ManifestError, match=r"2 of 500 videos of fisv are not there whole \(not there: 7, 450;"):
        train_on_dataset(tmp_path / "most.npz", labels, "fisv", "TES", experiment, (0,), tmp_path / "model")


def test_a_published_model_on_a_csv(fisv: tuple[Path, Path], tmp_path: Path) -> None:
    features, _ = fisv
    with np.load(features) as arrays:
        few = {name: arrays[name] for name in arrays.files[:40]}
    np.savez(tmp_path / "few.npz", **few)  # pyright: ignore[reportArgumentType]
    labels = tmp_path / "scores.csv"
    labels.write_text("id,art\n" + "".join(f"{name},{array.mean():.4f}\n" for name, array in few.items()))
    experiment = experiment_for("csv", "lstm", "art", streams=("vst",), settings={"hidden_dim": 8}, epochs=15)
    data = (tmp_path / "few.npz", labels)
    reports = train_on_dataset(*data, "csv", None, experiment, (0, 1), tmp_path / "model")
    assert [(report.selection, report.num_test) for report in reports] == [("last", 8)]
    judged = [set(evaluate(tmp_path / "model" / f"seed-{seed}", *data, dataset="csv").scores) for seed in (0, 1)]
    with (tmp_path / "model" / "predictions.csv").open() as file:
        written = [(int(line["seed"]), line["video_id"]) for line in csv.DictReader(file)]
    assert [{name for seed, name in written if seed == number} for number in (0, 1)] == judged
    labels.write_text("".join(f"{name},3\n" for name in few))
    with pytest.raises(ManifestError, match=r"40 videos with 1 different scores; a model needs at least 10 videos"):
        train_on_dataset(*data, "csv", None, experiment, (0,), tmp_path / "model")


def test_partial_videos_are_named_and_taken_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load_dataset("mit-skating").model_copy(update={"counts": {}, "random_splits": {"train": 8, "test": 4}})
    monkeypatch.setattr("arabesque.models.named_labels.load_dataset", lambda name: dataset)
    store = new_store(tmp_path / "features")
    with StoreWriter(store) as writer:
        for number in range(12):
            writer.add(row(f"{number}", outcome="partial" if number < 2 else "done"))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "scores.txt").write_text("".join(f"{number} {5 * number}\n" for number in range(12)))
    experiment = experiment_for("mit-skating", "pooled-svr", "score", streams=("vst",), settings={"cost": 0.01})
    given = (store, tmp_path / "labels", "mit-skating", "score", experiment, (0,), tmp_path / "model")
    with pytest.raises(ManifestError, match=r"2 of 12 videos .*\(partial: 0, 1; --partial takes them\)"):
        train_on_dataset(*given)
    (report,) = train_on_dataset(*given, partial=True)
    assert report.num_test == 4

    # the seed drew the split, and evaluate draws it again
    data = (store, tmp_path / "labels")
    scores = evaluate(tmp_path / "model" / "seed-0", *data, dataset="mit-skating", partial=True).scores
    with (tmp_path / "model" / "predictions.csv").open() as file:
        judged = {line["video_id"]: float(line["predicted"]) for line in csv.DictReader(file)}
    assert {name: predicted for name, (_, predicted) in scores.items()} == pytest.approx(judged, abs=1e-3)
    trained = evaluate(tmp_path / "model" / "seed-0", *data, dataset="mit-skating", split="train", partial=True)
    assert len({*scores, *trained.scores}) == 12
    assert trained.cautions[0].startswith("the model was trained on 8 of the 8 videos")
    with pytest.raises(ManifestError, match="mit-skating has no split 'validation'; there are train, test"):
        evaluate(tmp_path / "model" / "seed-0", *data, dataset="mit-skating", split="validation", partial=True)
