from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from arabesque.manifests.datasets import list_datasets, load_dataset, parse_dataset
from arabesque.manifests.errors import ConfigError, InputError
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


def test_every_data_set_of_the_package_is_complete() -> None:
    assert list_datasets() == [
        *("finefs-fs", "finefs-sp", "fisv", "fs1000", "logo", "mit-skating", "rg", "youtube-highlights"),
    ]
    for name in list_datasets():
        dataset = load_dataset(name)
        assert dataset.name == name
        for target in dataset.targets.values():
            assert target.score_range[0] < target.score_range[1]
    with pytest.raises(InputError, match=r"'fis-v' is not known.*did you mean fisv"):
        load_dataset("fis-v")


RANGES = {
    "finefs-fs": {"TES": (0, 130), "PCS": (0, 100)},
    "finefs-sp": {"TES": (0, 70), "PCS": (0, 50)},
    "fisv": {"TES": (0, 45), "PCS": (0, 45)},
    "fs1000": {"TES": (0, 130), "PCS": (0, 60)} | dict.fromkeys(("SS", "TR", "PE", "CO", "IN"), (0, 10)),
    "logo": {"score": (0, 100)},
    "mit-skating": {"score": (0, 100)},
    "rg": dict.fromkeys(("total", "difficulty", "execution"), (0, 25)),
    "youtube-highlights": {"highlight": (0, 1)},
}
"""Data set → target → the scores of the fractions 0 and 1, as published works train with"""

COLUMNS = {
    "fisv": ("1 28.71 30.64 0", {"TES": 28.71, "PCS": 30.64}),
    "fs1000": (
        "1 60 80 7.1 7.2 7.3 7.4 7.5 1.6",
        {"TES": 60, "PCS": 50, "SS": 7.1, "TR": 7.2, "PE": 7.3, "CO": 7.4, "IN": 7.5},
    ),
    "mit-skating": ("1 68.5", {"score": 68.5}),
    "rg": ("Ball_001 8.1 7.2 15 0.3 95", {"total": 15, "difficulty": 8.1, "execution": 7.2}),
}
"""Data set in text files → a line of its label file and the scores in it"""


@pytest.mark.parametrize("name", RANGES)
def test_the_score_ranges_are_those_of_the_published_works(name: str) -> None:
    assert {target: each.score_range for target, each in load_dataset(name).targets.items()} == RANGES[name]


@pytest.mark.parametrize("name", COLUMNS)
def test_the_columns_of_label_files_have_the_published_order(tmp_path: Path, name: str) -> None:
    line, scores = COLUMNS[name]
    dataset = load_dataset(name).model_copy(update={"counts": {}, "subset_counts": {}})
    files = [names[0] for names in dataset.files.values()] or ["scores.txt"]
    for number, file in enumerate(files):
        (tmp_path / file).write_text(line.replace("1 ", f"{number + 1} ", 1) + "\n")
    labels = read_dataset_labels(dataset, tmp_path)
    split = next(iter(labels.splits))
    assert set(dataset.targets) == set(scores)
    for target, score in scores.items():
        assert list(labels.scores(target, split).values()) == [score]


def test_the_fields_of_json_and_pickled_labels_are_the_published_ones(tmp_path: Path) -> None:
    content = {"total_element_score": 30, "total_program_component_score(factored)": 20, "total_segment_score": 50}
    (tmp_path / "3.json").write_text(json.dumps(content))
    (tmp_path / "900.json").write_text(json.dumps(content))
    for name in ("finefs-sp", "finefs-fs"):
        labels = read_dataset_labels(load_dataset(name).model_copy(update={"counts": {}}), tmp_path)
        assert [list(labels.scores(target, WHOLE).values()) for target in ("TES", "PCS")] == [[30], [20]]
    keys = [("game", 0), ("game", 1)]
    (tmp_path / "anno_dict.pkl").write_bytes(pickle.dumps({key: ["free", 71.5, 0, [1, 2], [3]] for key in keys}))
    for split, key in zip(("train", "test"), keys, strict=True):
        (tmp_path / f"{split}_split3.pkl").write_bytes(pickle.dumps([key]))
    logo = read_dataset_labels(load_dataset("logo").model_copy(update={"counts": {}}), tmp_path)
    assert logo.scores("score", "test") == {"game/1": 71.5}


def test_labels_by_split_and_subset(folder: Path) -> None:
    labels = read_dataset_labels(parse_dataset(SMALL, "small"), folder)
    assert labels.scores("total", "train") == {"Ball_1": 16, "Ball_2": 10.4, "Hoop_1": 16, "Hoop_2": 8}
    assert labels.scores("total", "test", "Hoop") == {"Hoop_3": 12}
    with pytest.raises(InputError, match="small target 'TES' is not known; there are total"):
        labels.scores("TES", "train")
    with pytest.raises(InputError, match="small subset 'Clubs' is not known; there are Ball, Hoop"):
        labels.scores("total", "train", "Clubs")


def test_the_first_line_may_be_dropped_as_some_works_do(folder: Path) -> None:
    labels = read_dataset_labels(parse_dataset(SMALL, "small"), folder, drop_first=True)
    assert list(labels.splits["train"]) == ["Ball_2", "Hoop_1", "Hoop_2"]
    assert list(labels.splits["test"]) == ["Hoop_3"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("Ball_2 5 6 10.4", "line 3: has 4 fields, expected video_id difficulty execution total penalty"),
        ("Ball_2 5 six 10.4 0.6", "line 3: execution is 'six', which is not a finite number"),
        ("Ball_2 5 6 11 0.6", r"line 3: total is 11, but difficulty \+ execution - penalty gives 10.4"),
        ("Ball_2 20 9 29 0", "line 3: total 29 lies outside 3 … 24"),
        ("Ball_1 9 7 16 0", "line 3: Ball_1 is already in .*line 2"),
        ("Ball_3 9 7 16 0", "line 1: Ball_3 is in two splits"),
        ("", "3 videos in the train split of small, but the published file has 4"),
        ("Hoop_3x 9 7 16 0", "1 videos of Ball in the train split, but 2 are published"),
    ],
)
def test_a_wrong_line_is_named(folder: Path, line: str, complaint: str) -> None:
    (folder / "train_dataset.txt").write_text(TRAIN.replace("Ball_2 5 6 10.4 0.6", line))
    with pytest.raises(InputError, match=complaint):
        read_dataset_labels(parse_dataset(SMALL, "small"), folder)


@pytest.mark.parametrize("text", ["a;17,10\nb;18,20\n", "a 17,10\nb 18,20\n", "a|17,10\nb|18,20\n", "a 17_10\nb 18\n"])
def test_decimal_commas_are_not_other_columns(tmp_path: Path, text: str) -> None:
    few = load_dataset("mit-skating").model_copy(update={"counts": {}})
    (tmp_path / "scores.txt").write_text(text)
    with pytest.raises(InputError, match=r"scores\.txt, line 1: "):
        read_dataset_labels(few, tmp_path)
    for separator in (" ", "\t", ",", ", ", ";", "|"):
        (tmp_path / "scores.txt").write_text(f"a{separator}17.1\r\nb{separator}18\r\n", encoding="utf-16")
        labels = read_dataset_labels(few, tmp_path)
        assert labels.scores("score", WHOLE) == {"a": 17.1, "b": 18}


def test_missing_files(folder: Path, tmp_path: Path) -> None:
    (folder / "test.txt").unlink()
    with pytest.raises(InputError, match=r"has no file test\.txt"):
        read_dataset_labels(parse_dataset(SMALL, "small"), folder)
    with pytest.raises(InputError, match="no such folder"):
        read_dataset_labels(parse_dataset(SMALL, "small"), tmp_path / "nowhere")


def test_an_invalid_data_set_is_reported_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"small: targets\.total\.rnage: this key is not known"):
        parse_dataset(SMALL.replace("score_range", "rnage = 1\nscore_range"), "small")
    with pytest.raises(ConfigError, match=r"small: .*either files, lists or random_splits"):
        parse_dataset(SMALL.replace("[counts]", "[random_splits]"), "small")


def test_json_files_with_ids_of_their_own(tmp_path: Path) -> None:
    for number in (727, 728, 729):
        content = {"total_element_score": 30 + number / 1000, "total_program_component_score(factored)": 20}
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
    few = load_dataset("finefs-sp").model_copy(update={"counts": {}})
    labels = read_dataset_labels(few, tmp_path)
    assert labels.scores("TES", WHOLE) == {"727": 30.727, "728": 30.728}
    with pytest.raises(InputError, match="1 videos in the all split of finefs-fs"):
        read_dataset_labels(load_dataset("finefs-fs"), tmp_path)
    (tmp_path / "727.json").write_text("{}")
    with pytest.raises(InputError, match=r"727\.json: total_element_score is None, which is not a finite number"):
        read_dataset_labels(few, tmp_path)


def test_a_score_may_be_divided(tmp_path: Path) -> None:
    (tmp_path / "train_fs800.txt").write_text("a 60.5 64 8 8 8 8 8 1.6\n")
    (tmp_path / "val_fs800.txt").write_text("b 60.5 64 8 8 8 8 8 0\n")
    with pytest.raises(InputError, match="line 1: factor is 0, not positive"):
        read_dataset_labels(load_dataset("fs1000"), tmp_path)
    (tmp_path / "val_fs800.txt").write_text("b 60.5 64 8 8 8 8 8 1.6\n")
    labels = read_dataset_labels(load_dataset("fs1000"), tmp_path)
    assert labels.scores("PCS", "test") == {"b": 40.0}
    assert labels.scores("TES", "test") == {"b": 60.5}


def test_labels_of_segments(tmp_path: Path) -> None:
    """Clips with a positive number are highlights; listed videos without labels are left out."""
    dataset = load_dataset("youtube-highlights")
    counts = {topic: tuple(len(videos) for videos in splits.values()) for topic, splits in dataset.lists.items()}
    assert counts == {
        "Dog": (44, 24),
        "Gymnastics": (34, 28),
        "Parkour": (21, 11),
        "Skating": (24, 11),
        "Skiing": (68, 51),
        "Surfing": (56, 47),
    }
    dogs, skaters = dataset.lists["Dog"]["train"], dataset.lists["Skating"]["test"]
    content = {
        dogs[0]: {"clip": [[0, 100], [50, 150], [100, 200]], "match": [1, 0, -1]},
        skaters[3]: {"match": [0, 1, 1, 1]},
        "elsewhere": {"match": [1]},
    }
    (tmp_path / "youtube_anno.json").write_text(json.dumps(content))
    labels = read_dataset_labels(dataset, tmp_path)
    assert labels.highlights == {dogs[0]: (True, False, False), skaters[3]: (False, True, True, True)}
    assert labels.scores("highlight", "train", "Dog") == {dogs[0]: pytest.approx(1 / 3)}
    assert labels.scores("highlight", "test", "Skating") == {skaters[3]: 0.75}
    assert labels.scores("highlight", "test", "Dog") == {}
    with pytest.raises(InputError, match="subset 'Cat' is not known; there are Dog, Gymnastics"):
        labels.scores("highlight", "test", "Cat")
    for wrong, complaint in (
        ({"match": ["high"]}, "match is 'high', which is not a finite number"),
        ({"match": []}, "has no list 'match' of at least one number"),
        ([1], "has no list 'match'"),
    ):
        (tmp_path / "youtube_anno.json").write_text(json.dumps({dogs[0]: wrong}))
        with pytest.raises(InputError, match=complaint):
            read_dataset_labels(dataset, tmp_path)
    (tmp_path / "youtube_anno.json").write_text("[]")
    with pytest.raises(InputError, match="contains a list, expected an object"):
        read_dataset_labels(dataset, tmp_path)


class Malice:
    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trap),)


def test_a_pickle_is_read_without_executing_code(tmp_path: Path) -> None:
    names = {("g1", 0): ["free", 80.5], ("g1", 1): ["free", 70], ("g2", 0): ["free", Malice(tmp_path / "trap")]}
    few = load_dataset("logo").model_copy(update={"counts": {}})
    for split, keys in (("train", [("g1", 0)]), ("test", [("g1", 1)])):
        (tmp_path / f"{split}_split3.pkl").write_bytes(pickle.dumps(keys))
    (tmp_path / "anno_dict.pkl").write_bytes(pickle.dumps({key: names[key] for key in list(names)[:2]}))
    labels = read_dataset_labels(few, tmp_path)
    assert labels.scores("score", "train") == {"g1/0": 80.5}
    assert labels.scores("score", "test") == {"g1/1": 70}
    (tmp_path / "anno_dict.pkl").write_bytes(pickle.dumps(names))
    with pytest.raises(InputError, match=r"g2/0: score is .*, which is not a finite number"):
        read_dataset_labels(few, tmp_path)
    assert not (tmp_path / "trap").exists()
    (tmp_path / "test_split3.pkl").write_bytes(pickle.dumps([("g9", 9)]))
    (tmp_path / "anno_dict.pkl").write_bytes(pickle.dumps({("g1", 0): ["free", 80.5]}))
    with pytest.raises(InputError, match="the test split contains g9/9, which has no label"):
        read_dataset_labels(few, tmp_path)
    (tmp_path / "anno_dict.pkl").write_bytes(b"\x80\x04junk")
    with pytest.raises(InputError, match="not a readable pickle"):
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
