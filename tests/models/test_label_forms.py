"""Label files in all combinations of their forms are read correctly or rejected."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from arabesque.manifests.errors import InputError
from arabesque.models.label_matching import match_labels
from arabesque.models.labels import read_labels

SCORES = {1: 17.1, 2: 16.25, 3: 18.0}
"""Number of a video → its score"""
KNOWN = [f"Ball/Ball_00{number}" for number in range(1, 7)]
IDS = {
    "whole": "Ball/Ball_00{}",
    "without folder": "Ball_00{}",
    "with suffix": "Ball_00{}.mp4",
    "whole with suffix": "Ball/Ball_00{}.mp4",
    "absolute": "/data/VIDEOS/Ball/Ball_00{}.mp4",
    "other case": "ball_00{}",
    "with blanks, quoted": '"VIDEOS 2/Ball/Ball_00{}.MP4"',
}
NUMBERS = {
    "point": lambda value: f"{value:.2f}",
    "comma": lambda value: f"{value:.2f}".replace(".", ","),
    "quoted comma": lambda value: '"' + f"{value:.2f}".replace(".", ",") + '"',
}
SEPARATORS = {"comma": ",", "comma and blank": ", ", "semicolon": ";", "tab": "\t", "blank": " ", "bar": "|"}
ENCODINGS = {
    "UTF-8": "utf-8",
    "UTF-8 with mark": "utf-8-sig",
    "UTF-16": "utf-16",
    "Latin-1": "latin-1",
}
ENDS = {"LF": "\n", "CRLF": "\r\n", "CR": "\r"}
COLUMNS = ["id, score", "score, id", "index, id, score", "index, score, id"]


def content(ids: str, number: str, separator: str, columns: str, *, header: bool) -> list[str]:
    lines = (
        [[{"index": "", "id": "video_id", "score": "total"}[name] for name in columns.split(", ")]] if header else []
    )
    for row, (video, score) in enumerate(SCORES.items()):
        cells = {"index": str(row), "id": IDS[ids].format(video), "score": NUMBERS[number](score)}
        lines.append([cells[name] for name in columns.split(", ")])
    return [SEPARATORS[separator].join(cells) for cells in lines]


def may_be_refused(number: str, separator: str, columns: str, *, header: bool) -> bool:
    """Forms with a comma for both columns and decimals, and ambiguous forms without titles."""
    if number == "comma" and separator.startswith("comma"):
        return True
    if separator == "blank" and number == "comma" and not header:
        return True
    return separator == "blank" and header and "index" in columns  # the title of the index is empty


FILES = list(itertools.product(ENCODINGS.values(), ENDS.values()))


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("header", [True, False])
def test_every_form_is_read_or_rejected(tmp_path: Path, separator: str, header: bool) -> None:
    forms = list(itertools.product(IDS, NUMBERS, COLUMNS))
    files = [(form, FILES[place % len(FILES)]) for place, form in enumerate(forms)]
    files += [(forms[0], file) for file in FILES]
    for (ids, number, columns), (encoding, end) in files:
        lines = content(ids, number, separator, columns, header=header)
        path = tmp_path / "scores.csv"
        path.write_bytes(end.join([*lines, ""]).encode(encoding))
        form = f"{ids}; {number}; {columns}; {encoding}; {end!r}: {lines}"
        try:
            labels = read_labels(path)
            matching = match_labels(labels.scores, KNOWN, path, labels.titles_of)
        except InputError as error:
            refusal = str(error)
        else:
            found = {matching.videos.get(label, label): score for label, score in labels.scores.items()}
            assert found == {f"Ball/Ball_00{video}": score for video, score in SCORES.items()}, form
            assert labels.target == ("total" if header else "score"), form
            assert bool(matching.note) == (ids != "whole"), form
            continue
        assert may_be_refused(number, separator, columns, header=header), f"{form}: {refusal}"
        assert refusal.startswith(f"{path}"), form
        assert "; " in refusal, form


BAD_NUMBERS = ["17_10", "1e5_0", "inf", "nan", "-inf", "0x1", "１７", "1.7.1", "17 pts", "", "1'000", "−3", "1e999"]


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
@pytest.mark.parametrize("header", [True, False])
def test_scores_that_are_not_numbers_are_rejected(tmp_path: Path, separator: str, header: bool) -> None:
    path = tmp_path / "scores.csv"
    for number, line, ids in itertools.product(BAD_NUMBERS, range(3), ("Ball_00{}", "Anna{}")):
        lines = [f"{ids.format(row)}{separator}{number if row == line else 10 + row}" for row in range(3)]
        path.write_text("\n".join([*([f"video_id{separator}total"] if header else []), *lines]), encoding="utf-8")
        with pytest.raises(InputError, match=r"scores\.csv"):
            read_labels(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,score\nBall_001;17,10\nBall_002;18,10\n", r"line 2: 'Ball_001;17,10' may be an id and a score"),
        ("id,score\nBall_001 17,10\nBall_002 18,20\n", r"line 2: 'Ball_001 17,10' may be an id and a score"),
        ("id,score\nBall_001:17,10\n", r"line 2: 'Ball_001:17,10' may be an id and a score"),
        ("score,id\n17,10;Ball_001\n", r"line 2: '17,10;Ball_001' may be an id and a score"),
        ("17,10,Ball 1\n18,20,Ball 2\n", r"line 1: '17,10,Ball 1' may be an id and a score"),
        ("17_10;Ball 1\n18_20;Ball 2\n", r"line 1: '17_10;Ball 1' may be an id and a score"),
        ("Ball_001 17,10\nBall_002 18,20\n", r"line 1: 'Ball_001 17,10' can be read as .* or .*; separate the columns"),
        ("Ball_001:17,10\nBall_002:18,20\n", r"line 1: .*can be read as"),
        ("id,score\nBall_001,17,10\n", r"line 2: has 3 columns, but the first line has 2.*decimals with a point"),
        ("Ball_001,17,10\nBall_002,18,20\n", r"3 columns without titles.*decimals with a point"),
        (",video_id,score\nBall_001,17,10\nBall_002,18,20\n", r"the first column has no title"),
        (",score\n0,17.1\n1,18.2\n", r"the column of ids is not clear"),
        ("28.7,1\n29.1,2\n", r"line 1: 28.7, 1 are two numbers, and the id is not clear"),
        ("id;score\na;1,234\nb;2,345\n", r"line 2: the score of 'a' is '1,234', whose comma may separate"),
        ("id;score\na;1,5\nb;2.5\n", r"line 2: the score of 'a' is '1,5', but '2.5' .*has a decimal point"),
        ("id;score\na;1.234,5\n", r"line 2: the score of 'a' is '1.234,5'"),
        ("a,1\nb,2\na,1\n", "line 3: 'a' is also on line 1; keep one of them"),
        ("video_id,2019\na,17\n", r"line 1: the title of a column is the number 2019"),
        ("id,score,score\na,1,2\n", r"several scores|two columns"),
        ('id,score\n"a,1\nb,2\n', "a quote is not closed"),
        ("Ball_001,\n", "has one column"),
        (",17.1\nBall_002,18\n", "line 1: has no video_id"),
        ("id,score\nBall\ufeff_001,17\n", r"line 2 has U\+FEFF"),
        ("id,score\r\nBall\x00_001,17\r\n", r"line 2 has U\+0000"),
    ],
)
def test_ambiguous_files_are_rejected(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(text.encode())
    with pytest.raises(InputError, match=message):
        read_labels(path)


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("Ball_001;17,10\nBall_002;18,20\n", {"Ball_001": 17.1, "Ball_002": 18.2}),
        ("sep=;\nid;score\na;1,5\n", {"a": 1.5}),
        ('id,score\n"Ball 1",17\n"Ball 2",18\n', {"Ball 1": 17, "Ball 2": 18}),
        ("id,score\nBall 1,17.5\nBall 2,18.0\n", {"Ball 1": 17.5, "Ball 2": 18}),
        ("Ball 001,17\nBall 002,18\n", {"Ball 001": 17, "Ball 002": 18}),
        ("Ball_001: 17.1\nBall_002: 18\n", {"Ball_001": 17.1, "Ball_002": 18}),
        ("athlete,video_id,total\nAnna,v1,3\nEva,v2,4\n", {"v1": 3, "v2": 4}),
        ("id,name,total\n0,v1,3\n1,v2,4\n", {"v1": 3, "v2": 4}),
        ("Unnamed: 0,id,total\n0,v1,3\n1,v2,4\n", {"v1": 3, "v2": 4}),
        (",total\nv1,3\nv2,4\n", {"v1": 3, "v2": 4}),
        ("id,score,\nv1,3,\n", {"v1": 3}),
        ("C:\\data\\v1.mp4,3\nC:\\data\\v2.mp4,4\n", {"C:\\data\\v1.mp4": 3, "C:\\data\\v2.mp4": 4}),
        ("id,split,score\nv1,train,3\nv2,test,4\n", {"v1": 3, "v2": 4}),
    ],
)
def test_other_forms_that_are_read(tmp_path: Path, text: str, scores: dict[str, float]) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(text.encode())
    assert read_labels(path).scores == scores


def test_latin_1_is_read_with_a_note_and_a_mixture_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes("id,score\nKäthe_1,17\n".encode("latin-1"))
    labels = read_labels(path)
    assert labels.scores == {"Käthe_1": 17}
    assert labels.notes == (f"{path}: line 2 is not UTF-8; the file was read as Latin-1",)
    path.write_bytes("id,score\nKäthe_1,17\n".encode() + "Käthe_2,18\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"line 3 has the byte 0xE4, which is neither UTF-8 nor Latin-1"):
        read_labels(path)
    path.write_bytes("id,score\nv1,17\n".encode("utf-16-le"))  # without a byte order mark
    with pytest.raises(InputError, match=r"line 1 has U\+0000"):
        read_labels(path)


def test_ids_match_where_the_match_is_unique() -> None:
    known = ["Ball/001", "Rope/001", "Rope/002", "x.v2", "A/y", "y"]
    found = match_labels(["rope/002.MOV", "x.v2.mp4", "A/y.mp4"], known)
    assert found.videos == {"rope/002.MOV": "Rope/002", "x.v2.mp4": "x.v2", "A/y.mp4": "A/y"}
    assert found.note.startswith("3 of 3 labels were matched to videos despite a different folder, suffix or case")
    assert match_labels(["Ball/001", "Hoop/001", "002.v2"], known).videos == {"Ball/001": "Ball/001"}
    with pytest.raises(InputError, match=r"scores\.csv: label '001' matches 'Ball/001' and 'Rope/001'"):
        match_labels(["001"], known, "scores.csv")
    with pytest.raises(InputError, match=r"labels '002' and 'Rope/002\.mp4' both match video 'Rope/002'"):
        match_labels(["002", "Rope/002.mp4"], known)
    with pytest.raises(InputError, match=r"label '/data/A/y\.mp4' matches 'A/y' and 'y'"):
        match_labels(["/data/A/y.mp4"], known)


def test_a_video_id_in_the_title_line_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("Anna,withdrawn\nEva,17\nIda,18\n")
    labels = read_labels(path)
    with pytest.raises(InputError, match="line 1: 'Anna' was read as the title of a column, but it is a video"):
        match_labels(labels.scores, ["Anna", "Eva", "Ida"], path, labels.titles_of)
