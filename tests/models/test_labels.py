from __future__ import annotations

from pathlib import Path

import pytest

from arabesque.manifests.errors import InputError
from arabesque.models.labels import read_labels


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "scores.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_header_is_found_by_parsing(tmp_path: Path) -> None:
    with_header = read_labels(write(tmp_path, "video_id,total\nBall_001,18.8\nBall_002,10.8\n"))
    assert (with_header.target, with_header.scores) == ("total", {"Ball_001": 18.8, "Ball_002": 10.8})
    without = read_labels(write(tmp_path, "Ball_001,18.8\nBall_002,10.8\n"))
    assert (without.target, without.scores) == ("score", {"Ball_001": 18.8, "Ball_002": 10.8})


def test_a_numeric_id_is_not_a_header(tmp_path: Path) -> None:
    assert read_labels(write(tmp_path, "1,28.71\n2,28.88\n")).scores == {"1": 28.71, "2": 28.88}


def test_one_of_several_scores(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeffid,TES,PCS\n\n a/b , 28.7 ,29\n2,28.9,27\n")
    assert read_labels(path, "PCS").scores == {"a/b": 29.0, "2": 27.0}
    with pytest.raises(InputError, match=r"several scores.*TES, PCS"):
        read_labels(path)
    with pytest.raises(InputError, match=r"column 'TSE' does not exist.*did you mean TES"):
        read_labels(path, "TSE")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the label file is empty"),
        ("\n\n", "the label file is empty"),
        ("video_id,score\n", "has a header and no scores"),
        ("a,1\nb,one\n", "line 2: the score of 'b' is 'one'"),
        ("id,s\na,1\n\nb,nan\n", "line 4: the score of 'b' is 'nan'"),
        ("a,1\nb,1,2\n", "line 2: has 3 columns, but the first line has 2"),
        ("a,1\nb,2\na,3\n", "line 3: 'a' is also on line 1; keep one of them"),
        ("a,1\n,2\n", "line 2: has no video_id"),
        ("just one column\n", "has one column"),
        ("a,1,2\nb,3,4\n", "3 columns without titles"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_labels(write(tmp_path, text))


def test_a_binary_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(b"\xff\xfe\x00\x01" * 10)
    with pytest.raises(InputError, match=r"scores\.csv: cannot read"):
        read_labels(path)
    with pytest.raises(InputError, match=r"nowhere\.csv: the file does not exist"):
        read_labels(tmp_path / "nowhere.csv")
