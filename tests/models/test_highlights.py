"""Highlight detection on drawn data whose highlights are known (PAMFN, section IV-G)."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from json_documentation import problems_of
from store_rows import new_store, row
from torch import nn
from typer.testing import CliRunner

from arabesque.cli.evaluate import evaluate
from arabesque.cli.reproduce import reproduce
from arabesque.cli.train import train
from arabesque.manifests.datasets import load_dataset
from arabesque.manifests.errors import ArabesqueError, InputError
from arabesque.models.checkpoints import load_checkpoint
from arabesque.models.features import LabeledSamples
from arabesque.models.highlights import HighlightDetection, cut_to_labels, mean_average_precision
from arabesque.models.samples import StreamSegments, stack_samples
from arabesque.models.scoring import ScorePrediction
from arabesque.models.trainer import RESULT
from arabesque.pipeline.store.writer import StoreWriter

commands = typer.Typer()
commands.command("train")(train)
commands.command("evaluate")(evaluate)
commands.command("reproduce")(reproduce)

pytestmark = pytest.mark.usefixtures("narrow")
DIMS = {"i3d_rgb": 8, "i3d_flow": 6, "panns": 5}


def call(*words: str) -> str:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(commands, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def labeled(lengths: dict[str, int], **streams: list[int]) -> LabeledSamples:
    """Videos with this many segments in each stream; a value is its index."""
    videos = {
        name: {
            stream: StreamSegments(np.arange(counts[at], dtype=np.float32)[:, None] + 1)
            for stream, counts in streams.items()
            if counts[at]
        }
        for at, name in enumerate(lengths)
    }
    samples = stack_samples(videos, dict.fromkeys(streams, 1))
    return LabeledSamples(samples, np.zeros(len(lengths)), {})


def test_features_and_labels_are_cut_to_the_shortest() -> None:
    """Clip i has label i; a stream that a video lacks shortens nothing."""
    marks = {"x": (True, False, True, False), "y": (False, True, True)}
    data = labeled({"x": 4, "y": 3}, a=[5, 2], b=[3, 0])
    cut, kept = cut_to_labels(data, marks)
    assert kept == {"x": (True, False, True), "y": (False, True)}
    assert {stream: lengths.tolist() for stream, lengths in cut.samples.lengths.items()} == {"a": [3, 2], "b": [3, 0]}
    batch = cut.samples.whole(torch.arange(2))
    assert batch.features["a"][:, :, 0].tolist() == [[1, 2, 3], [1, 2, 0]]
    assert batch.masks["b"].tolist() == [[True] * 3, [False] * 3]
    longer, kept = cut_to_labels(labeled({"x": 4, "y": 3}, a=[4, 3], b=[9, 9]), marks)
    assert kept == marks
    assert longer.samples.features["b"].shape == (2, 4, 1)
    with pytest.raises(InputError, match="y: has no segment with features and a label"):
        cut_to_labels(labeled({"x": 4, "y": 3}, a=[4, 0]), marks)


class Known(nn.Module):
    """Predict the value of the first stream, divided by ten."""

    def forward(self, batch: object) -> ScorePrediction:
        values = batch.features["a"][..., 0] / 10  # pyright: ignore[reportAttributeAccessIssue]
        return ScorePrediction(values.mean(1), highlights=values)


def test_the_loss_is_the_cross_entropy_of_the_segments() -> None:
    marks = {"x": (True, False, True), "y": (False, True)}
    data = labeled({"x": 3, "y": 2}, a=[3, 2])
    objective = HighlightDetection(data.samples, marks)
    rows = torch.arange(2)
    batch = data.samples.whole(rows)
    expected = -np.mean(np.log([0.1, 1 - 0.2, 0.3, 1 - 0.1, 0.2]))
    assert objective.loss(Known()(batch), batch, rows).item() == pytest.approx(expected, rel=1e-5)
    assert objective.predict(Known(), data.samples, rows) == {
        "x": pytest.approx([0.1, 0.2, 0.3]),
        "y": pytest.approx([0.1, 0.2]),
    }
    # x is ranked yes, no, yes; y is ranked yes, no
    first = (1 + 1) / 2 / 2 + (1 / 2 + 2 / 3) / 2 / 2
    found = objective.predict(Known(), data.samples, rows)
    assert objective.quality(found, rows) == pytest.approx((first + 1) / 2)
    assert mean_average_precision({"x": [0.9, 0.1, 0.8]}, marks) == 1.0
    short = data.samples.whole(torch.tensor([1]))
    with pytest.raises(ArabesqueError, match="train without crop"):
        objective.loss(Known()(short), short, rows)
    with pytest.raises(ArabesqueError, match="predicts scores of videos, not highlights"):
        objective.loss(ScorePrediction(torch.zeros(2)), batch, rows)


@pytest.fixture
def drawn(tmp_path: Path) -> tuple[str, str]:
    """Ten training and six test videos of the topic Parkour: the first feature of every stream shows the highlights."""
    lists = load_dataset("youtube-highlights").lists["Parkour"]
    rng = np.random.default_rng(0)
    names = [*lists["train"][:10], *lists["test"][:6]]
    annotations = {}
    store = new_store(tmp_path / "features", DIMS)
    with StoreWriter(store) as writer:
        for name in names:
            marks = rng.random(int(rng.integers(6, 10))) < 0.35
            marks[0] = True
            annotations[name] = {"match": [1 if mark else int(rng.integers(-1, 1)) for mark in marks]}
            for stream, dim in DIMS.items():
                values = 0.3 * rng.standard_normal((len(marks), dim))
                values[:, 0] += 2 * marks
                writer.add(row(name, stream, features=values))
    (tmp_path / "youtube_anno.json").write_text(json.dumps(annotations))
    return str(store), str(tmp_path)


def test_a_branch_learns_highlights_and_is_evaluated(drawn: tuple[str, str], tmp_path: Path) -> None:
    store, labels = drawn
    out = tmp_path / "model"
    data = ("--labels", labels, "--dataset", "youtube-highlights", "--subset", "Parkour")
    options = ("--model", "pamfn-branch-highlights", "--streams", "i3d_rgb", "--epochs", "3", "--workers", "1")
    told = call("train", store, *data, *options, "--out", str(out))
    assert "mAP" in told
    assert "6 test videos, seed 0" in told
    told = call("evaluate", f"{out}/seed-0", store, *data, "--metric", "map", "--out", str(tmp_path / "ap.csv"))
    assert told.startswith("videos 6 mAP ")
    assert float(told.split()[3]) > 0.85  # random ranks reach about 0.4
    with (tmp_path / "ap.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6
    printed = json.loads(call("evaluate", f"{out}/seed-0", store, *data, "--metric", "map", "--json"))
    assert problems_of("evaluate --metric map", printed) == []
    segments = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert set(segments[0]) == {"video_id", "segment", "seed", "highlight", "predicted"}
    assert call("evaluate", f"{out}/seed-0", store, *data).startswith("videos 6 mAP ")  # the metric of the data set
    told = call("evaluate", f"{out}/seed-0", store, *data, "--split", "train")
    assert "caution the model was trained on 10 of the 10 videos" in told
    result = CliRunner().invoke(commands, ["evaluate", f"{out}/seed-0", store, *data, "--metric", "ap"])
    assert result.exit_code == 2
    assert "neither spearman nor map" in result.output


def test_a_model_of_scores_does_not_learn_highlights(drawn: tuple[str, str], tmp_path: Path) -> None:
    store, labels = drawn
    data = ("--labels", labels, "--dataset", "youtube-highlights", "--subset", "Parkour", "--out", str(tmp_path / "m"))
    with pytest.raises(InputError, match="gdlt predicts scores of videos; choose --model pamfn-highlights"):
        call("train", store, *data, "--model", "gdlt", "--streams", "i3d_rgb")
    with pytest.raises(InputError, match="youtube-highlights has subsets; choose one with --subset: Dog, Gymnastics"):
        call("train", store, *data[:4], "--model", "pamfn-branch-highlights", "--streams", "i3d_rgb", *data[6:])


def test_pamfn_learns_highlights_in_two_stages(drawn: tuple[str, str], tmp_path: Path) -> None:
    """The branches alone, then the fusion with the first branch fixed; weights of the branches are those of stage 1."""
    store, labels = drawn
    out = tmp_path / "model"
    data = ("--labels", labels, "--dataset", "youtube-highlights", "--subset", "Parkour", "--out", str(out))
    small = ("--set", "num_nets=1", "--set", "fusion_stages=1", "--set", "msfd=weighted", "--workers", "1")
    told = call(
        "train", store, *data, "--model", "pamfn-highlights", "--streams", "i3d_rgb,panns", "--epochs", "1", *small
    )
    assert "6 test videos, seed 0" in told
    whole, card = load_checkpoint(out / "seed-0")
    assert card.protocol.batch_size == 1
    for stream, same in (("i3d_rgb", True), ("panns", False)):
        branch = load_checkpoint(out / "seed-0" / f"branches-{stream}")[0].state_dict()
        ours = whole.get_submodule(f"branches.{stream}").state_dict()
        weight = "stage1.conv1.0.weight"  # with one fusion stage, later blocks of the second branch have no gradient
        assert torch.equal(ours[weight], branch[f"branch.{weight}"]) == same


def test_the_rows_of_table_ix_have_a_state(drawn: tuple[str, str], tmp_path: Path) -> None:
    store, labels = drawn
    told = call(
        "reproduce", "pamfn-9", "--list", "--features", store, "--labels", labels, "--out", str(tmp_path / "out")
    )
    assert "RRAE youtube-highlights missing: not implemented: another paper's method; its numbers are quoted" in told
    assert "PAMFN, RGB + audio + flow youtube-highlights runnable" in told


def test_a_row_of_table_ix_is_reproduced(drawn: tuple[str, str], tmp_path: Path) -> None:
    store, labels = drawn
    out = tmp_path / "out"
    given = ("--features", store, "--labels", labels, "--out", str(out), "--seeds", "1", "--epochs", "1")
    told = call("reproduce", "pamfn-9", *given, "--row", "PAMFN, audio", "--column", "Parkour", "--workers", "1")
    assert "PAMFN, audio Parkour 0.720" in told
    assert "Mean average precision of seed 0" in told
    folder = out / "pamfn-9" / "pamfn-audio" / "parkour" / "best-test" / "seed-0"
    lines = list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))
    assert len({line["video_id"] for line in lines}) == 6
    with np.load(folder / "traces.npz") as traces:
        assert traces[f"{lines[0]['video_id']}/importance/panns"].sum() == pytest.approx(1, abs=1e-3)
    told = call("reproduce", "pamfn-9", "--list", *given)
    assert "partly done: 1 of 6 columns" in told


@pytest.mark.slow
def test_table_ix_is_reproduced_in_two_stages(drawn: tuple[str, str], tmp_path: Path) -> None:
    """The branches of three streams, then the fusion, on the topic for which there are videos."""
    store, labels = drawn
    out = tmp_path / "out"
    given = ("--features", store, "--labels", labels, "--out", str(out))
    options = ("--row", "RGB + audio + flow", "--column", "Parkour", "--seeds", "1", "--epochs", "1", "--workers", "1")
    told = call("reproduce", "pamfn-9", *given, *options, "--best-test-only")
    assert "PAMFN, RGB + audio + flow Parkour 0.822" in told
    assert "Mean average precision of seed 0" in told
    folder = out / "pamfn-9" / "pamfn-rgb-audio-flow" / "parkour" / "best-test" / "seed-0"
    for stream in DIMS:
        assert (folder / f"branches-{stream}" / RESULT).exists()
    lines = list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))
    assert len({line["video_id"] for line in lines}) == 6
    with np.load(folder / "traces.npz") as traces:
        name = lines[0]["video_id"]
        assert traces[f"{name}/decision_2"].max() <= 9
        assert traces[f"{name}/modalities_1"].shape[1] == 3
