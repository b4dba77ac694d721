from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from store_rows import new_store, row

from arabesque.manifests.datasets import load_dataset
from arabesque.manifests.errors import ConfigError, InputError, WeightsError
from arabesque.models.checkpoints import load_checkpoint
from arabesque.models.data_at_hand import ANY, DataAtHand
from arabesque.models.dataset_training import experiment_for, train_on_dataset
from arabesque.models.evaluation import LabeledFeatures, evaluate
from arabesque.models.experiment import PartStage, Stage
from arabesque.models.fitting import rate_factor
from arabesque.models.published_methods import load_method, methods_for, named_protocol
from arabesque.models.published_tables import load_table
from arabesque.models.reports import SeedsReport, report_seeds
from arabesque.models.reproduction import Cell, Reproduction, RowResult
from arabesque.models.table import model_class
from arabesque.models.trainer import SeedResult
from arabesque.pipeline.store.writer import StoreWriter
from arabesque.reports.comparison import write_table_page


def test_experiments_have_published_or_default_settings() -> None:
    published = experiment_for("fisv", "gdlt", "PCS", streams=None, settings={"dropout": 0.1}, selection="last")
    assert (published.protocol.epochs, published.settings["dropout"]) == (400, 0.1)
    assert published.settings["triplet_weight"] == 0.5
    shorter = experiment_for("rg", "context-attention", "Ball", streams=("a", "b"), epochs=320)
    assert shorter.streams == ("a", "b")
    assert shorter.protocol.crop == {"a": 26, "b": 80}
    assert experiment_for("rg", "context-attention", "Ball", streams=("vst", "resnet_crop")).protocol.crop == {
        "vst": 68,
        "resnet_crop": 80,
    }
    assert shorter.protocol.schedule.model_dump()["before_end"] == (100, 50)
    renamed = experiment_for("fisv", "pamfn", "TES", streams=("r", "f", "s"))
    assert renamed.last_stage.frozen == ("branches.r", "branches.f")
    pair = experiment_for("fisv", "pamfn", "TES", streams=("ast", "vst"))
    assert (pair.streams, pair.last_stage.frozen, pair.protocol.epochs) == (("ast", "vst"), ("branches.vst",), 500)
    assert [type(stage) for stage in pair.stages] == [PartStage, Stage]
    at_once = experiment_for("fisv", "pamfn", "TES", streams=None, one_stage=True)
    assert (len(at_once.stages), at_once.last_stage.frozen) == (1, ())
    static = experiment_for("rg", "context-attention", "Ball", streams=("resnet_crop",))
    assert static.protocol.crop == {"resnet_crop": 80}
    mixed = experiment_for("fisv", "pamfn", "TES", streams=None, selection="best-test", protocol={"selection": "last"})
    assert [each.chooses_on_test for each in (mixed, at_once)] == [
        True,
        False,
    ]  # the branches are selected on the test videos
    plain = experiment_for("fisv", "lstm", "TES", streams=("vst",))
    assert plain.protocol == named_protocol("plain")
    assert plain.protocol.selection == "last"
    other = experiment_for("fisv", "gdlt", "TES", streams=None, protocol={"score_range": [0, 40], "batch_size": 8})
    assert (other.protocol.score_range, other.protocol.batch_size, other.protocol.epochs) == ((0, 40), 8, 320)
    with pytest.raises(ConfigError, match=r"protocol\.score_range: .* \(got 'wide'\)"):
        experiment_for("fisv", "gdlt", "TES", streams=None, protocol={"score_range": "wide"})
    with pytest.raises(ConfigError, match=r"protocol\.epoch: this key is not known.*did you mean epochs\?"):
        experiment_for("fisv", "gdlt", "TES", streams=None, protocol={"epoch": 3})
    with pytest.raises(InputError, match=r"data set 'fis' is not known.*did you mean fisv"):
        experiment_for("fis", "gdlt", "TES", streams=None)
    with pytest.raises(InputError, match="no published method trains lstm on fisv"):
        experiment_for("fisv", "lstm", "TES", streams=None)
    with pytest.raises(InputError, match=r"'gdlr' is not known.*did you mean gdlt"):
        experiment_for("fisv", "gdlr", "TES", streams=None)


def test_the_source_of_the_settings_is_stated() -> None:
    given = experiment_for("fisv", "gdlt", "PCS", streams=None)
    assert given.source == load_method("gdlt").source
    other = experiment_for("fisv", "gdlt", "PCS", streams=("i3d_rgb",))
    assert other.source == f"{given.source}, with i3d_rgb instead of vst"
    assert (other.protocol, other.settings) == (given.protocol, given.settings)
    plain = experiment_for("csv", "gdlt", "score", streams=("vst",))
    assert plain.source == "protocol plain: no published method trains gdlt on csv with these streams"
    named = experiment_for("fisv", "pamfn", "TES", streams=None, named="pamfn-released", epochs=20)
    assert named.source.endswith("; protocol pamfn-released")
    assert (named.protocol.schedule.kind, named.protocol.epochs) == ("constant", 20)
    assert given.digest() == given.model_copy(update={"source": "elsewhere"}).digest()


def test_streams_without_a_published_protocol_need_a_named_one() -> None:
    """ACTION-NET on one stream is not in a table, and must not be trained by the plain protocol without an error."""
    with pytest.raises(InputError, match=r"with the streams a,b,c; give --streams .*--protocol plain has no published"):
        experiment_for("fisv", "context-attention", "TES", streams=("a", "b", "c"))
    plain = experiment_for("fisv", "context-attention", "TES", streams=("a", "b", "c"), named="plain")
    assert plain.protocol == named_protocol("plain")
    with pytest.raises(InputError, match=r"protocol 'pamfn-fis' is not known.*did you mean"):
        experiment_for("fisv", "pamfn", "TES", streams=None, named="pamfn-fis")
    with pytest.raises(InputError, match="protocol 'action-net' is not published for fisv; it is for rg, mit-skating"):
        experiment_for("fisv", "gdlt", "TES", streams=("vst",), named="action-net")


def test_protocols_of_paper_and_code_have_names() -> None:
    """PAMFN on Fis-V: cosine decay in section IV-C, no schedule in the released code."""
    paper, code = (named_protocol(name, "fisv", "TES") for name in ("pamfn", "pamfn-released"))
    assert (paper.schedule.kind, code.schedule.kind) == ("cosine", "constant")
    for each in (paper, code):
        assert (each.optimizer, each.learning_rate, each.batch_size, each.crop) == ("adamw", 8e-4, 32, 130)
        assert (each.epochs, each.rate_factors) == (500, {"fc.": 0.1})


def test_action_nets_protocols_are_those_of_section_5_2() -> None:
    skating = experiment_for("mit-skating", "context-attention", "score", streams=None).protocol
    assert (skating.batch_size, skating.epochs, skating.crop) == (16, 200, {"i3d_rgb": 48, "resnet_crop": 150})
    rates = [rate_factor(skating, epoch) for epoch in (149, 150, 179, 180)]
    assert rates == pytest.approx([1, 0.1, 0.1, 0.01])
    dataset = load_dataset("mit-skating")
    assert (dataset.random_splits, dataset.num_splits) == ({"train": 100, "test": 50}, 5)
    gymnastics = named_protocol("action-net", "rg", "Clubs")
    assert [rate_factor(gymnastics, epoch) for epoch in (199, 200, 249, 250)] == pytest.approx([1, 0.1, 0.1, 0.01])
    assert (gymnastics.optimizer, gymnastics.learning_rate, gymnastics.rate_factors) == ("sgd", 0.01, {"head": 5.0})
    assert (gymnastics.momentum, gymnastics.weight_decay, gymnastics.batch_size) == (0.9, 1e-4, 32)


def test_stages_are_read_by_name_or_from_a_file(tmp_path: Path) -> None:
    first = experiment_for("csv", "late-fusion", "score", streams=("a", "b"), stages="branches-first", epochs=3)
    assert [type(stage) for stage in first.stages] == [PartStage, Stage]
    assert first.last_stage.frozen == ("branches",)
    assert {stage.protocol.epochs for stage in first.stages} == {3}
    file = tmp_path / "stages.toml"
    file.write_text('[[stages]]\nprotocol = "short"\n[[stages]]\nfrozen = ["head"]\nprotocol = "plain"\n')
    with pytest.raises(ConfigError, match=r"stages\.toml: protocol 'short' is not known; give its settings"):
        experiment_for("csv", "gdlt", "score", streams=("a",), stages=str(file))
    file.write_text(file.read_text() + "[protocols.short]\nepochs = 7\nstandardize = true\n")
    own = experiment_for("csv", "gdlt", "score", streams=("a",), stages=str(file), selection="validation")
    assert [(stage.protocol.epochs, stage.protocol.selection) for stage in own.stages] == [
        (7, "validation"),
        (200, "validation"),
    ]
    file.write_text(file.read_text().replace("standardize = true\n", ""))
    with pytest.raises(ConfigError, match="standardize must be the same in all stages"):
        experiment_for("csv", "gdlt", "score", streams=("a",), stages=str(file))
    with pytest.raises(InputError, match=r"branch-first: neither a file nor a name.*did you mean branches-first"):
        experiment_for("csv", "gdlt", "score", streams=("a",), stages="branch-first")


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
    assert "upper bound" in report.selection_text
    assert report.epochs == (3, 1)
    last = report_seeds([right], true, (0, 10), last=True)
    assert (last.selection, last.spearman.mean, last.selection_text) == ("last", pytest.approx(-1), "last epoch")
    assert (str(report.spearman), str(last.spearman)) == ("0.000 ± 1.414", "-1.000")  # one seed has no deviation
    constant = SeedResult(0, "last", 1, dict.fromkeys(true, 2.0), dict.fromkeys(true, 2.0), ())
    flat = report_seeds([constant, right], true, (0, 10))
    assert (str(flat.spearman), str(flat.interval)) == ("undefined", "undefined")


def test_averages_over_the_columns_of_a_row() -> None:
    """The printed values are those of PAMFN's table, which has .755 for the RGB branch."""
    true = dict(zip("abcd", (1.0, 2.0, 3.0, 4.0), strict=True))

    def reached(*orders: str) -> SeedsReport:
        guesses = [{name: float(order.index(name)) for name in true} for order in orders]
        return report_seeds([SeedResult(0, "validation", 1, guess, {}, (0.0,)) for guess in guesses], true, (0, 10))

    tes, pcs = reached("abdc", "bcad"), reached("abdc", "abdc")  # 0.8 and 0.4, 0.8 and 0.8
    line = RowResult("a", {"TES": Cell(0.665, None, None, tes), "PCS": Cell(0.823, None, None, pcs)})
    assert line.rows() == [
        ["TES", "0.665", "–", "0.600 ± 0.283", "–", "–", "–", "–"],
        ["PCS", "0.823", "–", "0.800 ± 0.000", "–", "–", "–", "–"],
        ["average (Fisher-z)", "0.755", "–", "0.721 ± 0.112", "–", "–", "–", "–"],
        ["average (plain)", "0.744", "–", "0.700 ± 0.141", "–", "–", "–", "–"],
    ]
    assert len(RowResult("a", {"TES": Cell(None, None, None, tes)}).rows()) == 1


def test_an_unknown_row_or_column_is_rejected(tmp_path: Path) -> None:
    nothing = Reproduction("fisv", DataAtHand({}, {}), tmp_path / "out", rows=("nonsense",))
    with pytest.raises(InputError, match=r"no row of fisv has nonsense in its name; there are Average pooling"):
        nothing.run()
    with pytest.raises(InputError, match=r"column 'TSE' is not known.*did you mean TES\?.*; the table has TES, PCS"):
        replace(nothing, rows=(), columns=("TSE",)).run()
    assert not (tmp_path / "out").exists()


def shorten(labels: Path) -> None:
    """Forty training videos and forty test videos, for a fast test."""
    for name in ("train.txt", "test.txt"):
        (labels / name).write_text("\n".join((labels / name).read_text().splitlines()[:40]))


@pytest.fixture
def fisv(tmp_path: Path) -> tuple[Path, Path]:
    """The number of videos of Fis-V, with features of dim 6 and a few segments."""
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
def test_rows_with_features_are_run(fisv: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = fisv
    shorten(labels)
    fewer = load_dataset("fisv").model_copy(update={"counts": {}})
    monkeypatch.setattr("arabesque.models.data_at_hand.load_dataset", lambda name: fewer)
    rows = ("pooling", "gdlt", "joint")
    reproduction = Reproduction(
        "fisv",
        DataAtHand({ANY: features}, {ANY: labels}, "vst"),
        tmp_path / "out",
        rows=rows,
        seeds=(0,),
        epochs=2,
        folds=2,
        workers=1,
    )
    told: list[tuple[str, str, str]] = []
    lines = {line.name: line for line in reproduction.run(lambda *event: told.append(event[:3]))}
    assert lines["Joint-VA"].not_run == "needs ast"
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
    assert "not run: needs ast" in written
    again: list[object] = []
    assert {line.name: line for line in reproduction.run(lambda *event: again.append(event))} == lines
    assert again == []


def test_rows_of_a_data_set_with_random_splits(tmp_path: Path) -> None:
    """Each seed has its own split, for models with a closed solver, too; rows are compared split by split."""
    rng = np.random.default_rng(0)
    skill = rng.random(150)
    arrays = {
        str(number): (skill[number] + 0.5 * rng.standard_normal((3, 2))).astype(np.float32) for number in range(150)
    }
    np.savez(tmp_path / "frames.npz", **arrays)  # pyright: ignore[reportArgumentType]
    (tmp_path / "scores.txt").write_text("".join(f"{number} {90 * skill[number]:.2f}\n" for number in range(150)))
    data = DataAtHand({ANY: tmp_path / "frames.npz"}, {ANY: tmp_path}, "resnet_frame")
    table = Reproduction(
        "action-net-1", data, tmp_path, rows=("svr",), columns=("MIT-Skating",), seeds=(0, 1), folds=2, workers=1
    )
    average, maximum = (line.cells["MIT-Skating"] for line in table.run() if line.cells)
    assert average.last is not None
    assert maximum.last is not None
    assert (average.last.seeds, maximum.last.seeds) == ((0, 1), (0, 1))
    assert len(set(average.last.by_seed)) == 2, "both seeds have the same test videos"
    written = json.loads((tmp_path / "table.json").read_text())["comparisons"]["MIT-Skating"]
    (difference,), (mean,) = written["differences"], written["averages"]
    assert difference["test"]["value"] == pytest.approx(average.last.spearman.mean - maximum.last.spearman.mean)
    assert (difference["first"], mean["title"]) == ("ResNet, Avg + SVR", "the 2 rows")
    text = (tmp_path / "table.md").read_text()
    assert f"- MIT-Skating: the 2 rows: {mean['test']['value']:.3f} [" in text
    page = write_table_page(tmp_path / "table.json", tmp_path / "report").read_text()
    assert f"{mean['test']['value']:.3f} <small>[{mean['test']['low']:.3f}, {mean['test']['high']:.3f}]" in page
    assert f"<td>{difference['verdict']}</td>" in page


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

    found = evaluate(tmp_path / "model" / "seed-1", LabeledFeatures(features, labels, dataset="fisv", target="TES"))
    assert len(found.scores) == 100
    assert found.spearman.value > 0.5
    assert found.cautions == ()
    (tmp_path / "few.csv").write_text("".join(f"{n},{found.scores[str(n)][0]}\n" for n in range(400, 420)))
    few = evaluate(tmp_path / "model" / "seed-1", LabeledFeatures(features, tmp_path / "few.csv"))
    assert few.scores == {name: pytest.approx(found.scores[name], abs=1e-5) for name in few.scores}
    assert few.cautions == ()
    with pytest.raises(InputError, match="fisv has several scores"):
        evaluate(tmp_path / "model" / "seed-1", LabeledFeatures(features, labels, dataset="fisv"))
    np.savez(tmp_path / "other.npz", **{str(n): np.ones((4, 6)) for n in range(500)})  # pyright: ignore[reportArgumentType]
    with pytest.raises(WeightsError, match="'vst' was made with settings"):
        evaluate(
            tmp_path / "model" / "seed-1", LabeledFeatures(tmp_path / "other.npz", labels, dataset="fisv", target="TES")
        )


def test_evaluate_lists_caveats(fisv: tuple[Path, Path], tmp_path: Path) -> None:
    features, labels = fisv
    folder = tmp_path / "model" / "seed-0"
    chosen = experiment_for(
        "fisv", "lstm", "TES", streams=("vst",), settings={"hidden_dim": 4}, epochs=1, selection="best-test"
    )
    train_on_dataset(features, labels, "fisv", "TES", chosen, (0,), tmp_path / "model")
    given = (features, labels)
    upper_bound = "best on test: 100 of the 100 videos chose the epoch of its weights: an upper bound"
    assert evaluate(folder, LabeledFeatures(*given, dataset="fisv", target="TES")).cautions == (upper_bound,)
    other_score = "the model was trained to predict fisv-TES, these are scores of fisv-PCS"
    assert evaluate(folder, LabeledFeatures(*given, dataset="fisv", target="PCS")).cautions == (
        upper_bound,
        other_score,
    )
    seen = "the model was trained on 400 of the 400 videos; the result does not apply to unseen videos"
    assert evaluate(folder, LabeledFeatures(*given, dataset="fisv", target="TES", split="train")).cautions == (seen,)
    both = tmp_path / "both.csv"
    both.write_text("id,TES,art\n" + "".join(f"{number},{number},{number}\n" for number in range(390, 410)))
    halves = ("the model was trained on 10 of the 20 videos; the result does not apply to unseen videos",)
    halves += ("best on test: 10 of the 20 videos chose the epoch of its weights: an upper bound",)
    assert evaluate(folder, LabeledFeatures(features, both, target="TES")).cautions == halves
    art = "the model was trained to predict fisv-TES, these are scores of art"
    assert evaluate(folder, LabeledFeatures(features, both, target="art")).cautions == (*halves, art)


def test_a_table_needs_all_videos_of_its_data_set(fisv: tuple[Path, Path], tmp_path: Path) -> None:
    features, labels = fisv
    with np.load(features) as arrays:
        np.savez(tmp_path / "most.npz", **{name: arrays[name] for name in arrays.files if name not in ("7", "450")})  # pyright: ignore[reportArgumentType]
    experiment = experiment_for("fisv", "gdlt", "TES", streams=None, epochs=1)
    with pytest.raises(InputError, match=r"2 of 500 videos of fisv are missing or partial \(missing: 7, 450;"):
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
    judged = [
        set(evaluate(tmp_path / "model" / f"seed-{seed}", LabeledFeatures(*data, dataset="csv")).scores)
        for seed in (0, 1)
    ]
    with (tmp_path / "model" / "predictions.csv").open() as file:
        written = [(int(line["seed"]), line["video_id"]) for line in csv.DictReader(file)]
    assert [{name for seed, name in written if seed == number} for number in (0, 1)] == judged
    labels.write_text("".join(f"{name},3\n" for name in few))
    with pytest.raises(InputError, match=r"has 40 videos with 1 different scores; give at least 10 videos"):
        train_on_dataset(*data, "csv", None, experiment, (0,), tmp_path / "model")


def test_the_range_of_a_csv_is_that_of_its_training_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"v{number}": rng.random((3, 2), dtype=np.float32) for number in range(20)}
    arrays |= {f"copy of {name}": arrays[name] for name in ("v0", "v1", "v2", "v3")}
    np.savez(tmp_path / "few.npz", **arrays)  # pyright: ignore[reportArgumentType]
    labels = tmp_path / "scores.csv"
    labels.write_text("id,art\n" + "".join(f"{name},{number}\n" for number, name in enumerate(arrays)))
    experiment = experiment_for("csv", "pooled-svr", "art", streams=("vst",), settings={"cost": 0.01})
    seeds = tuple(range(12))
    reports = train_on_dataset(tmp_path / "few.npz", labels, "csv", None, experiment, seeds, tmp_path / "model")
    assert reports[0].notes[0].startswith("8 videos have 4 different contents, each under several ids: ")
    assert (
        reports[0]
        .notes[1]
        .startswith("4 of these contents have different scores under their ids: v0 (0) = copy of v0 (20)")
    )
    scores = {name: number for number, name in enumerate(arrays)}
    ranges = set[tuple[float, float]]()
    for seed in seeds:
        _, card = load_checkpoint(tmp_path / "model" / f"seed-{seed}")
        trained = [scores[name] for name in card.trained_on]
        margin = 0.1 * (max(trained) - min(trained))
        assert card.score_range == pytest.approx((min(trained) - margin, max(trained) + margin))
        ranges.add(card.score_range)
        for name in ("v0", "v1", "v2", "v3"):
            assert (name in card.trained_on) == (f"copy of {name}" in card.trained_on)
    assert len(ranges) > 1, "no seed held out the lowest or the highest score"


def test_copies_across_a_published_split_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"train": ("train.txt",), "test": ("test.txt",)}
    dataset = load_dataset("mit-skating").model_copy(update={"counts": {}, "random_splits": {}, "files": files})
    monkeypatch.setattr("arabesque.models.named_labels.load_dataset", lambda name: dataset)
    rng = np.random.default_rng(0)
    arrays = {f"v{number}": rng.random((3, 2), dtype=np.float32) for number in range(12)}
    arrays["v11"] = arrays["v3"]
    np.savez(tmp_path / "few.npz", **arrays)  # pyright: ignore[reportArgumentType]
    lines = [f"{name} {5 * number}\n" for number, name in enumerate(arrays)]
    (tmp_path / "train.txt").write_text("".join(lines[:8]))
    (tmp_path / "test.txt").write_text("".join(lines[8:]))
    experiment = experiment_for("mit-skating", "pooled-svr", "score", streams=("vst",), settings={"cost": 0.01})
    given = (tmp_path / "few.npz", tmp_path, "mit-skating", "score", experiment, (0,), tmp_path / "model")
    (report,) = train_on_dataset(*given)
    assert "1 of 4 test videos have the content of a training video: v11 = v3" in report.notes


def test_partial_videos_are_listed_and_included_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(InputError, match=r"2 of 12 videos .*\(partial: 0, 1; include them with --partial\)"):
        train_on_dataset(*given)
    (report,) = train_on_dataset(*given, partial=True)
    assert report.num_test == 4

    # the split depends on the seed, so evaluate has the same one
    data = (store, tmp_path / "labels")
    scores = evaluate(tmp_path / "model" / "seed-0", LabeledFeatures(*data, dataset="mit-skating", partial=True)).scores
    with (tmp_path / "model" / "predictions.csv").open() as file:
        judged = {line["video_id"]: float(line["predicted"]) for line in csv.DictReader(file)}
    assert {name: predicted for name, (_, predicted) in scores.items()} == pytest.approx(judged, abs=1e-3)
    trained = evaluate(
        tmp_path / "model" / "seed-0", LabeledFeatures(*data, dataset="mit-skating", split="train", partial=True)
    )
    assert len({*scores, *trained.scores}) == 12
    assert trained.cautions[0].startswith("the model was trained on 8 of the 8 videos")
    with pytest.raises(InputError, match="mit-skating has no split 'validation'; there are train, test"):
        evaluate(
            tmp_path / "model" / "seed-0",
            LabeledFeatures(*data, dataset="mit-skating", split="validation", partial=True),
        )


@pytest.mark.parametrize("model", ["ensemble", "kernel-regression"])
@pytest.mark.parametrize("dataset", ["fisv", "rg"])
def test_models_of_this_project_are_not_given_as_published(model: str, dataset: str) -> None:
    (row,) = [row for row in load_table(dataset).rows if row.method is not None and row.method.model == model]
    assert not row.printed
    assert "not printed" in row.note
    (method,) = methods_for(dataset, model)
    assert method.source.startswith("the project's own, not published")
    assert hasattr(model_class(model), "cross_validation")  # `reproduce` needs no trainings on folds
