"""The published tables: printed numbers, methods, protocols, and the state of each row."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from arabesque.manifests.datasets import load_dataset
from arabesque.manifests.errors import ConfigError, InputError
from arabesque.models.data_at_hand import ANY, DataAtHand
from arabesque.models.experiment import PartStage, Stage
from arabesque.models.fitting import rate_factor
from arabesque.models.metrics import fisher_mean
from arabesque.models.published_methods import load_method, methods_for
from arabesque.models.published_tables import Table, list_tables, load_table, parse_table
from arabesque.models.table import resolve_settings
from arabesque.models.table_status import table_status

SHARED = Path(__file__).parents[3] / "shared"
MISPRINTED = {
    ("pamfn-1", "ACTION-NET", "fisv"): (0.744, 0.757),
    ("pamfn-9", "GIFs", "youtube-highlights"): (0.464, 0.434),
    ("pamfn-9", "PLD", "youtube-highlights"): (0.730, 0.717),
    ("pamfn-9", "CO-AV", "youtube-highlights"): (0.747, 0.734),
}
"""Table, row and data set → the printed average, and the average of the printed columns"""
PUBLISHED = [*(f"action-net-{number}" for number in range(1, 5)), *(f"pamfn-{number}" for number in range(1, 10))]


def test_every_published_table_is_there() -> None:
    assert sorted([*PUBLISHED, "pamfn-figure-6", "fisv", "rg"]) == list_tables()
    with pytest.raises(InputError, match=r"table 'pamfn-77' is not known.*did you mean pamfn-7"):
        load_table("pamfn-77")


@pytest.mark.parametrize("name", list_tables())
def test_every_row_is_a_valid_experiment(name: str) -> None:
    table = load_table(name)
    for column in table.columns.values():
        dataset = load_dataset(column.dataset)
        assert column.target in dataset.targets
        assert column.subset in (dataset.subset_names or [None])
    for row in table.rows:
        if row.not_implemented:
            continue
        for column in table.columns.values():
            experiment = row.experiment(column, "validation")
            resolve_settings(experiment.model, experiment.settings)
            assert experiment.streams == row.all_streams
            assert {stage.protocol.selection for stage in experiment.stages} == {"validation"}
            assert set(experiment.last_stage.frozen) <= {f"branches.{stream}" for stream in experiment.streams}
            if isinstance(experiment.protocol.crop, dict):
                assert set(experiment.protocol.crop) == set(experiment.streams)


def printed_in_order(table: Table, row: int) -> list[float]:
    """The numbers of a row as printed: the columns of a data set, then their average."""
    found: list[float] = []
    for dataset in table.datasets:
        found += [
            table.rows[row].printed[name] for name in table.columns_of(dataset) if name in table.rows[row].printed
        ]
        found += [table.rows[row].printed_averages[dataset]] if dataset in table.rows[row].printed_averages else []
    return found


@pytest.mark.skipif(not SHARED.is_dir(), reason="the texts of the papers are not here")
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_printed_row_is_in_the_text_of_its_paper(name: str) -> None:
    table = load_table(name)
    text = (SHARED / "papers" / f"{name.rsplit('-', 1)[0]}.txt").read_text(encoding="utf-8")
    numbers = [float(number) for number in re.findall(r"\d+\.\d+|\d+", text)]
    for place, row in enumerate(table.rows):
        wanted = printed_in_order(table, place)
        starts = [at for at, number in enumerate(numbers) if number == wanted[0]]
        assert any(numbers[at : at + len(wanted)] == wanted for at in starts), row.name
        for value in (row.printed_parameters_m, row.printed_inference_ms):
            assert value is None or value in numbers


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_printed_averages_are_those_of_the_printed_columns(name: str) -> None:
    """Spearman is averaged by Fisher's z, mAP arithmetically."""
    table = load_table(name)
    for row in table.rows:
        for dataset, average in row.printed_averages.items():
            values = [row.printed[column] for column in table.columns_of(dataset)]
            mean = fisher_mean(values) if table.metric == "spearman" else float(np.mean(values))
            if (name, row.name, dataset) in MISPRINTED:
                assert (average, round(mean, 3)) == MISPRINTED[name, row.name, dataset]
            else:
                assert mean == pytest.approx(average, abs=0.0012), row.name


def test_rows_of_table_vi_to_viii_change_one_thing_each() -> None:
    settings = {
        row.name: row.settings
        for name in ("pamfn-6", "pamfn-7", "pamfn-8", "pamfn-figure-6")
        for row in load_table(name).rows
    }
    assert settings["w/o CMFD"] == {"cmfd": "none"}
    assert settings["Weighted fusion for MSFD and CMFD"] == {"msfd": "weighted", "cmfd": "weighted"}
    assert settings["Free FusionNets"] == {"ordering": "free"}
    assert settings["First two stages"] == {"fusion_stages": 2}
    assert settings["12 FusionNets"] == {"num_nets": 12}


def test_table_ii_gives_joint_va_and_umt_video_and_audio_alone() -> None:
    """PAMFN, Table II, column "Features": VST + AST for both, all three for MSAF and PAMFN."""
    for name in ("pamfn-2", "fisv", "rg"):
        streams = {row.name: row.all_streams for row in load_table(name).rows}
        assert streams["Joint-VA"] == streams["UMT"] == ("vst", "ast")
        assert streams["MSAF"] == streams["PAMFN"] == ("vst", "i3d_flow", "ast")


def test_one_stage_rows_train_and_freeze_everything_at_once() -> None:
    table = load_table("pamfn-5")
    rows = {row.name: row.experiment(table.columns["Ball"], "last") for row in table.rows}
    assert (len(rows["One-stage, PAMFN"].stages), rows["One-stage, PAMFN"].last_stage.frozen) == (1, ())
    part, last = rows["Two-stage, CAT"].stages
    assert isinstance(part, PartStage)
    assert isinstance(last, Stage)
    assert (part.model, part.copy_to) == ("pamfn-branch", "branches.{stream}")
    assert last.frozen == ("branches.vst", "branches.i3d_flow")


def test_the_published_protocols() -> None:
    """Epochs and rates of ACTION-NET, section 5.2, and PAMFN, section IV-C."""
    action_net = load_method("action-net")
    found = {name: action_net.experiment("rg", name).protocol for name in ("Ball", "Clubs", "Hoop", "Ribbon")}
    assert [each.epochs for each in found.values()] == [400, 300, 500, 300]
    for each in found.values():
        factors = [rate_factor(each, each.epochs - left) for left in (101, 100, 51, 50, 1)]
        assert factors == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])
        assert (each.optimizer, each.learning_rate, each.momentum, each.weight_decay) == ("sgd", 0.01, 0.9, 1e-4)
        assert (each.rate_factors, each.batch_size, each.crop) == (
            {"head": 5.0},
            32,
            {"i3d_rgb": 26, "resnet_crop": 80},
        )
    skating = action_net.experiment("mit-skating", "score").protocol
    assert (skating.batch_size, skating.epochs, skating.schedule.model_dump()["at_epochs"]) == (16, 200, (150, 180))
    assert skating.crop == {"i3d_rgb": 48, "resnet_crop": 150}
    pamfn = load_method("pamfn")
    cells = [("rg", name) for name in found] + [("fisv", "TES"), ("fisv", "PCS")]
    assert [pamfn.experiment(*cell).protocol.epochs for cell in cells] == [400, 500, 300, 500, 500, 500]
    assert [pamfn.experiment(*cell).protocol.learning_rate for cell in cells] == [5e-4] * 4 + [8e-4] * 2
    assert [pamfn.experiment(*cell).settings["num_nets"] for cell in cells] == [10] * 4 + [6] * 2
    kinds = [
        [load_method(name).experiment(*cell).protocol.schedule.kind for cell in cells]
        for name in ("pamfn", "pamfn-released")
    ]
    assert kinds == [["cosine"] * 6, ["cosine"] * 4 + ["constant"] * 2]
    first = pamfn.experiment("rg", "Hoop").stages[0]
    assert (first.protocol.epochs, first.protocol.optimizer, first.protocol.learning_rate) == (250, "sgd", 0.01)
    pair = pamfn.experiment("fisv", "TES", streams=("i3d_flow", "ast"))
    assert (pair.streams, pair.last_stage.frozen) == (("i3d_flow", "ast"), ("branches.i3d_flow",))
    modes = [load_method(name).experiment("rg", "Ball").last_stage.frozen_mode for name in ("pamfn", "pamfn-released")]
    assert modes == ["evaluation", "training"]


def test_a_column_may_have_its_own_epochs() -> None:
    gdlt = load_method("gdlt")
    assert [gdlt.experiment("fisv", column).protocol.epochs for column in ("TES", "PCS")] == [320, 400]
    with pytest.raises(InputError, match="protocol 'gdlt' is not published for logo; it is for rg, fisv"):
        gdlt.experiment("logo", "score")
    with pytest.raises(InputError, match=r"method 'gdtl' is not known.*did you mean gdlt"):
        load_method("gdtl")
    assert methods_for("fisv", "lstm") == []
    (found,) = methods_for("mit-skating", "bi-lstm")
    assert found.settings["hidden_dim"] == 128


WRONG = """
title = "A table"
source = "a paper"
number = "Table 1"
metric = "spearman"
[columns]
TES = { dataset = "fisv", target = "TES" }
[[rows]]
name = "GDLT"
"""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (WRONG, "row 'GDLT': give either method or not_implemented"),
        (WRONG + 'method = "gdlt"\nprinted = { PCS = 0.8 }', "row 'GDLT' has numbers of PCS, which are not columns"),
        (WRONG + 'method = "gdlt"\nepochs = 3', "rows.*epochs: this key is not known"),
        ("rows = ", "mine.toml: not valid TOML"),
    ],
)
def test_a_wrong_table_is_rejected(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_table(text, "mine.toml")


def test_the_state_of_every_row(tmp_path: Path) -> None:
    rows = table_status([], DataAtHand({}, {}), tmp_path)
    assert {row.table for row in rows} == set(list_tables())
    assert {row.state for row in rows} == {"missing"}
    told = {(row.table, row.row, row.dataset): row.detail for row in rows}
    assert told["pamfn-7", "Free FusionNets", "rg"] == "needs features: vst, i3d_flow, ast"
    assert told["pamfn-3", "GDLT", "fisv"] == "needs features: unmt"
    assert told["action-net-1", "Pan et al.", "rg"].startswith("not implemented: ")


def test_a_row_is_runnable_with_its_streams_and_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "vst.npz", **{str(number): np.ones((4, 3)) for number in range(500)})  # pyright: ignore[reportArgumentType]
    lines = [f"{number} 20 25 0" for number in range(500)]
    (tmp_path / "train.txt").write_text("\n".join(lines[:400]))
    (tmp_path / "test.txt").write_text("\n".join(lines[400:]))
    given = {ANY: tmp_path / "vst.npz"}, {ANY: tmp_path}
    out = tmp_path / "out"

    def states(data: DataAtHand) -> dict[tuple[str, str], tuple[str, str]]:
        return {(row.row, row.dataset): (row.state, row.detail) for row in table_status(["pamfn-1"], data, out)}

    found = states(DataAtHand(*given, "vst"))
    assert found["GDLT", "fisv"] == ("runnable", "")
    assert found["PAMFN", "fisv"] == ("missing", "needs i3d_flow, ast")
    assert found["C3D+SVR", "fisv"] == ("missing", "needs c3d")
    assert found["GDLT", "rg"][1].startswith("needs the labels of rg (")
    folder = out
    for column in ("tes", "pcs"):
        for seed in range(2):
            folder = out / "pamfn-1" / "gdlt" / column / "best-test" / f"seed-{seed}"
            folder.mkdir(parents=True)
            (folder / "result.json").write_text("{}")
    assert states(DataAtHand(*given, "vst"))["GDLT", "fisv"] == ("done", "2 seeds")
    (folder / "result.json").unlink()
    assert states(DataAtHand(*given, "vst"))["GDLT", "fisv"] == ("done", "1 seed")
    assert states(DataAtHand({}, {}))["MS-LSTM", "fisv"] == ("missing", "needs features: vst")
    unnamed = states(DataAtHand(*given))["MS-LSTM", "fisv"]
    assert unnamed == ("missing", "needs vst (--stream names the released one)")
