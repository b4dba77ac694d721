from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from arabesque.manifests.datasets import list_datasets, load_dataset, parse_dataset
from arabesque.manifests.errors import ManifestError
from arabesque.manifests.label_files import WHOLE, read_dataset_labels

SHARED = Path(__file__).parents[3] / "shared" / "data"

SMALL = """
name = "small"
summary = "Six routines"
[labels]
kind = "columns"
names = ["video_id", "difficulty", "execution", "total", "penalty"]
[files]
train = ["train.txt", "train_dataset.txt"]
test = ["test.txt"]
[counts]
train = 4
test = 2
[subsets]
Ball = "^Ball_"
Hoop = "^Hoop_"
[subset_counts]
train = 2
[targets.total]
column = "total"
score_range = [0, 25]
plausible = [3, 24]
[[identities]]
total = "total"
terms = ["difficulty", "execution", "-penalty"]
"""
TRAIN = (
    "name  difficulty execution total penalty\nBall_1 9 7 16 0\nBall_2 5 6 10.4 0.6\nHoop_1 8 8 16 0\nHoop_2 4 4 8 0\n"
)
TEST = "Ball_3\t7\t7\t14\t0\nHoop_3\t6\t6\t12\t0\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train_dataset.txt").write_text(TRAIN)
    (tmp_path / "test.txt").write_text(TEST)
    return tmp_path


def test_every_data_set_of_the_package_is_whole() -> None:
    assert list_datasets() == ["finefs-fs", "finefs-sp", "fisv", "fs1000", "logo", "mit-skating", "rg"]
    for name in list_datasets():
        dataset = load_dataset(name)
        assert dataset.name == name
        for target in dataset.targets.values():
            assert target.score_range[0] < target.score_range[1]
    with pytest.raises(ManifestError, match="'fis-v' is not known; did you mean fisv"):
        load_dataset("fis-v")


def test_labels_by_split_and_subset(folder: Path) -> None:
    labels = read_dataset_labels(parse_dataset(SMALL, "small"), folder)
    assert labels.scores("total", "train") == {"Ball_1": 16, "Ball_2": 10.4, "Hoop_1": 16, "Hoop_2": 8}
    assert labels.scores("total", "test", "Hoop") == {"Hoop_3": 12}
    with pytest.raises(ManifestError, match="small target 'TES' is not known; there are total"):
        labels.scores("TES", "train")
    with pytest.raises(ManifestError, match="small subset 'Clubs' is not known; there are Ball, Hoop"):
        labels.scores("total", "train", "Clubs")


def test_the_first_line_may_be_dropped_as_some_works_do(folder: Path) -> None:
    labels = read_dataset_labels(parse_dataset(SMALL, "small"), folder, drop_first=True)
    assert list(labels.splits["train"]) == ["Ball_2", "Hoop_1", "Hoop_2"]
    assert list(labels.splits["test"]) == ["Hoop_3"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("Ball_2 5 6 10.4", "line 3: 4 fields where video_id difficulty execution total penalty are expected"),
        ("Ball_2 5 six 10.4 0.6", "line 3: execution is 'six', which is no finite number"),
        ("Ball_2 5 6 11 0.6", r"line 3: total is 11, but difficulty \+ execution - penalty gives 10.4"),
        ("Ball_2 20 9 29 0", "line 3: total 29 lies outside 3 … 24"),
        ("Ball_1 9 7 16 0", "line 3: Ball_1 stands in .*line 2 already"),
        ("Ball_3 9 7 16 0", "line 1: Ball_3 is in two splits"),
        ("", "3 videos in the train split of small, where the published file has 4"),
        ("Hoop_3x 9 7 16 0", "1 videos of Ball in the train split, where 2 are published"),
    ],
)
def test_a_wrong_line_is_named(folder: Path, line: str, complaint: str) -> None:
    (folder / "train_dataset.txt").write_text(TRAIN.replace("Ball_2 5 6 10.4 0.6", line))
    with pytest.raises(ManifestError, match=complaint):
        read_dataset_labels(parse_dataset(SMALL, "small"), folder)


def test_missing_files(folder: Path, tmp_path: Path) -> None:
    (folder / "test.txt").unlink()
    with pytest.raises(ManifestError, match=r"none of test\.txt is there"):
        read_dataset_labels(parse_dataset(SMALL, "small"), folder)
    with pytest.raises(ManifestError, match="no such folder"):
        read_dataset_labels(parse_dataset(SMALL, "small"), tmp_path / "nowhere")


def test_what_is_wrong_in_a_data_set_is_named() -> None:
    with pytest.raises(ManifestError, match=r"small: targets\.total\.rnage: this key is not known"):
        parse_dataset(SMALL.replace("score_range", "rnage = 1\nscore_range"), "small")
    with pytest.raises(ManifestError, match=r"small: .*either files or random_splits"):
        parse_dataset(SMALL.replace("[counts]", "[random_splits]"), "small")


def test_json_files_with_ids_of_their_own(tmp_path: Path) -> None:
    for number in (727, 728, 729):
        content = {"total_element_score": 30 + number / 1000, "total_program_component_score(factored)": 20}
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
    few = load_dataset("finefs-sp").model_copy(update={"counts": {}})
    labels = read_dataset_labels(few, tmp_path)
    assert labels.scores("TES", WHOLE) == {"727": 30.727, "728": 30.728}
    with pytest.raises(ManifestError, match="1 videos in the all split of finefs-fs"):
        read_dataset_labels(load_dataset("finefs-fs"), tmp_path)
    (tmp_path / "727.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"727\.json: total_element_score is None, which is no finite number"):
        read_dataset_labels(few, tmp_path)


def test_a_score_may_be_divided(tmp_path: Path) -> None:
    (tmp_path / "train_fs800.txt").write_text("a 60.5 64 8 8 8 8 8 1.6\n")
    (tmp_path / "val_fs800.txt").write_text("b 60.5 64 8 8 8 8 8 0\n")
    with pytest.raises(ManifestError, match="line 1: factor is 0, not positive"):
        read_dataset_labels(load_dataset("fs1000"), tmp_path)
    (tmp_path / "val_fs800.txt").write_text("b 60.5 64 8 8 8 8 8 1.6\n")
    labels = read_dataset_labels(load_dataset("fs1000"), tmp_path)
    assert labels.scores("PCS", "test") == {"b": 40.0}
    assert labels.scores("TES", "test") == {"b": 60.5}


class Malice:
    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trap),)


def test_a_pickle_is_read_and_not_run(tmp_path: Path) -> None:
    names = {("g1", 0): ["free", 80.5], ("g1", 1): ["free", 70], ("g2", 0): ["free", Malice(tmp_path / "trap")]}
    few = load_dataset("logo").model_copy(update={"counts": {}})
    for split, keys in (("train", [("g1", 0)]), ("test", [("g1", 1)])):
        (tmp_path / f"{split}_split3.pkl").write_bytes(pickle.dumps(keys))
    (tmp_path / "anno_dict.pkl").write_bytes(pickle.dumps({key: names[key] for key in list(names)[:2]}))
    labels = read_dataset_labels(few, tmp_path)
    assert labels.scores("score", "train") == {"g1/0": 80.5}
    assert labels.scores("score", "test") == {"g1/1": 70}
    (tmp_path / "anno_dict.pkl").write_bytes(pickle.dumps(names))
    with pytest.raises(ManifestError, match=r"g2/0: score is .*, which is no finite number"):
        read_dataset_labels(few, tmp_path)
    assert not (tmp_path / "trap").exists()
    (tmp_path / "test_split3.pkl").write_bytes(pickle.dumps([("g9", 9)]))
    (tmp_path / "anno_dict.pkl").write_bytes(pickle.dumps({("g1", 0): ["free", 80.5]}))
    with pytest.raises(ManifestError, match="the test split names g9/9, which has no label"):
        read_dataset_labels(few, tmp_path)
    (tmp_path / "anno_dict.pkl").write_bytes(b"\x80\x04junk")
    with pytest.raises(ManifestError, match="not a readable pickle"):
        read_dataset_labels(few, tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published label files are not here")
def test_the_published_files() -> None:
    fisv = read_dataset_labels(load_dataset("fisv"), SHARED / "fisv_vst")
    assert {split: len(entries) for split, entries in fisv.splits.items()} == {"train": 400, "test": 100}
    assert fisv.scores("TES", "train")["1"] == 28.71
    rg = read_dataset_labels(load_dataset("rg"), SHARED / "rg")
    assert {split: len(entries) for split, entries in rg.splits.items()} == {"train": 800, "test": 200}
    for apparatus in ("Ball", "Clubs", "Hoop", "Ribbon"):
        assert len(rg.scores("total", "train", apparatus)) == 200
        assert len(rg.scores("execution", "test", apparatus)) == 50
