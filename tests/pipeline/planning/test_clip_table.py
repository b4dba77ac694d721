"""Tables of clips: their contents, and the messages for wrong lines."""

from __future__ import annotations

import os

import pytest

from arabesque.manifests.errors import InputError, StoreError
from arabesque.models.labels import read_labels
from arabesque.models.splits import duplicates, shuffled_groups
from arabesque.pipeline.planning.clip_table import read_clips
from arabesque.pipeline.planning.selection import InputSelection, find_inputs
from arabesque.pipeline.store.clip_columns import CLIPS_FILE, ClipColumns, keep_clip_columns, read_clip_columns
from arabesque.pipeline.store.store import Store

TITLES = "path,id,start_s,end_s"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("day1/a.mp4", "day2/a.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True)
        (tmp_path / "videos" / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def clips(text, **options):
    with open("clips.csv", "w", encoding="utf-8", newline="") as file:
        file.write(text)
    return [
        (clip.video_id, f"{clip.input_root}/{clip.source}".removeprefix(os.getcwd()), clip.start_s, clip.end_s)
        for clip in read_clips("clips.csv", **options).videos
    ]


def test_a_table(folder):
    text = f"{TITLES},score\nvideos/day1/a.mp4,vault,10.5,20,9.1\n./videos/day1/a.mp4,beam/1,,1.0000004,8\n"
    text += f"{folder}/videos/day2/a.mp4,all,,,7\n"
    assert clips(text) == [
        ("all", "/videos/day2/a.mp4", None, None),
        ("beam/1", "/videos/day1/a.mp4", None, 1.0),
        ("vault", "/videos/day1/a.mp4", 10.5, 20.0),
    ]
    columns = read_clips("clips.csv", id_prefix="p").columns
    assert columns.titles == ("path", "id", "start_s", "end_s", "score")
    assert columns.rows["p/vault"] == (f"{folder}/videos/day1/a.mp4", "p/vault", "10.5", "20", "9.1")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_separators_byte_order_mark_quotes_line_ends_and_order_of_columns(folder, separator):
    lines = [["score", "end_s", "id", "start_s", "path"], ["9", "2", '"a ""b"""', "1", "videos/day1/a.mp4"], []]
    assert clips("\ufeff" + "\r\n".join(separator.join(cells) for cells in lines)) == [
        ('a "b"', "/videos/day1/a.mp4", 1.0, 2.0)
    ]


@pytest.mark.parametrize(
    ("cells", "excluded_s", "exclude"),
    [
        ("12.5-14;18-19,", ((12.5, 14.0), (18.0, 19.0)), "cut"),
        ("12.5-14,cut", ((12.5, 14.0),), "cut"),
        (" 18 - 19 ; 12.5-14;13-15;,mask", ((12.5, 15.0), (18.0, 19.0)), "mask"),
        ("0-12;19-90;200-300,mask", ((10.0, 12.0), (19.0, 20.0)), "mask"),
        ("12.5-14,keep", (), "cut"),
        (",yes please", (), "cut"),
    ],
)
def test_stretches_can_be_excluded(folder, cells, excluded_s, exclude):
    clips(f"{TITLES},excluded_s,exclude\nvideos/day1/a.mp4,a,10,20,{cells}\n")
    found = read_clips("clips.csv")
    assert (found.videos[0].excluded_s, found.videos[0].exclude) == (excluded_s, exclude)
    assert found.columns.rows["a"][4:] == tuple(cell.strip() for cell in cells.split(","))


def test_paths_are_relative_to_the_folder_that_is_given(folder):
    (folder / "tables").mkdir()
    (folder / "tables" / "clips.csv").write_text(f"{TITLES}\nday1/a.mp4,x,0,1\n")
    selection = InputSelection(("videos",), clips="tables/clips.csv")
    assert [str(clip.path) for clip in find_inputs(selection).videos] == ["videos/day1/a.mp4"]
    with pytest.raises(InputError, match=r"none of its files exists, such as tables/day1/a.mp4"):
        find_inputs(InputSelection(clips="tables/clips.csv"))


def test_a_missing_file_fails_alone_and_filters_apply(folder):
    (folder / "clips.csv").write_text(
        f"{TITLES}\nvideos/day1/a.mp4,a1,0,1\ngone.mp4,b,0,1\nvideos/day1/a.mp4,a2,1,2\nvideos/day2/a.mp4,c,1,2\n"
    )
    inputs = find_inputs(InputSelection(clips="clips.csv"))
    assert inputs.missing == ("gone.mp4",)
    assert [clip.video_id for clip in inputs.videos] == ["a1", "a2", "b", "c"]
    chosen = find_inputs(InputSelection(clips="clips.csv", include=("a*", "day2/*"), exclude=("gone*",), limit=2))
    assert [clip.video_id for clip in chosen.videos] == list(chosen.columns.rows) == ["a1", "a2"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "clips.csv: has no clips"),
        (TITLES, "clips.csv: has no clips"),
        ("path,id,start,end_s\n", r"line 1: has no column 'start_s' \(is it start\?"),
        ("path,id,start_s\n", "line 1: has no column 'end_s'; it has path, id, start_s"),
        (f"{TITLES},id\n", "line 1: has two columns 'id'"),
        (f"{TITLES},\n", "line 1: column 5 has no title"),
        (f"{TITLES}\nV,a,0,1\n\nV,a,2,3\n", "line 4: the id 'a' is also on line 2"),
        (f"{TITLES}\nV,a,5,3\n", r"line 2: end_s \(3\) is not after start_s \(5\)"),
        (f"{TITLES}\nV,a,,0\n", r"line 2: end_s \(0\) is not after start_s \(0\)"),
        (f"{TITLES}\nV,a,-1,3\n", "line 2: start_s is '-1', which is not a time in seconds"),
        (f"{TITLES}\nV,a,1:20,1:30\n", "line 2: start_s is '1:20', which is not a time in seconds"),
        (f"{TITLES}\nV,a,nan,1\n", "line 2: start_s is 'nan', which is not a time"),
        (f"{TITLES}\nV,a,0,inf\n", "line 2: end_s is 'inf', which is not a time"),
        (f"{TITLES}\nV,a,0\n", "line 2: has 3 cells, but the first line has 4 titles"),
        (f"{TITLES}\n,a,0,1\n", "line 2: has no path"),
        (f"{TITLES}\nV,,0,1\n", "line 2: '' is not an id"),
        (f"{TITLES}\nV,../a,0,1\n", "line 2: '../a' is not an id"),
        (f"{TITLES}\nV,/a,0,1\n", "line 2: '/a' is not an id"),
        (f'{TITLES}\nV,"a\n b",0,1\n', "line 3: 'a\\\\n b' is not an id"),
        (f'{TITLES}\nV,"a,0,1\n', "is not CSV"),
        (f"{TITLES},excluded_s\nV,a,0,9,4\n", "line 2: excluded_s has '4', which is not a stretch in seconds"),
        (f"{TITLES},excluded_s\nV,a,0,9,5-4\n", "line 2: excluded_s has '5-4', which is not a stretch"),
        (f"{TITLES},excluded_s\nV,a,0,9,1-x\n", "line 2: excluded_s is 'x', which is not a time in seconds"),
        (f"{TITLES},excluded_s\nV,a,1,9,0-5;5-10\n", r"line 2: excluded_s \(0-5;5-10\) covers the whole clip"),
        (f"{TITLES},exclude,excluded_s\nV,a,1,9,maks,2-3\n", "line 2: exclude is 'maks'; write cut, mask or keep"),
        (f"{TITLES}\nvideos,a,0,1\n", "line 2: videos is a folder"),
        (f"{TITLES}\ngone.mp4,a,0,1\n", "none of its files exists, such as gone.mp4"),
    ],
)
def test_wrong_tables(folder, text, problem):
    with pytest.raises(InputError, match=problem) as raised:
        clips(text.replace("V,", "videos/day1/a.mp4,"))
    assert "\n" not in str(raised.value)


def test_tables_that_cannot_be_read(folder):
    for name, problem in (("gone.csv", "the file does not exist"), ("videos", "is a folder")):
        with pytest.raises(InputError, match=problem):
            read_clips(name)
    (folder / "clips.csv").write_bytes(b"path,id\xff")
    with pytest.raises(InputError, match="is not UTF-8"):
        read_clips("clips.csv")


def test_a_store_keeps_the_columns_of_all_tables(tmp_path):
    store = Store.open(tmp_path / "store")
    assert read_clip_columns(store).rows == {}
    first = ("path", "id", "start_s", "end_s", "score")
    keep_clip_columns(
        store, ClipColumns(first, {"b": ("v", "b", "1", "2", "9"), "a": ("v", "a", "", "2", "x,y")}), "me"
    )
    second = ("path", "id", "start_s", "end_s", "split")
    keep_clip_columns(store, ClipColumns(second, {"b": ("v", "b", "1", "3", "test")}), "me")
    assert (tmp_path / "store" / CLIPS_FILE).read_text() == (
        'path,id,start_s,end_s,score,split\nv,a,,2,"x,y",\nv,b,1,3,,test\n'
    )
    (tmp_path / "store" / CLIPS_FILE).write_text("path,id\nonly one cell\n")
    with pytest.raises(StoreError, match=r"clips\.csv: is damaged"):
        read_clip_columns(store)


def test_a_table_of_clips_has_labels(folder):
    (folder / "clips.csv").write_text(f"{TITLES},score,split\nv.mp4,1,0.5,2,9.1,train\nv.mp4,2,2,4,8.5,test\n")
    labels = read_labels("clips.csv")
    assert (labels.target, labels.scores) == ("score", {"1": 9.1, "2": 8.5})
    (folder / "clips.csv").write_text(f"{TITLES},TES,PCS\nv.mp4,a,0.5,2,9.1,3\nv.mp4,b,2,4,8.5,3\n")
    assert read_labels("clips.csv", "PCS").scores == {"a": 3, "b": 3}
    with pytest.raises(InputError, match="choose one with --target: TES, PCS"):
        read_labels("clips.csv")


def test_clips_that_overlap_are_in_one_fold_and_other_clips_of_a_file_are_not_copies():
    contents = {"a": "f#t=0,10", "b": "f#t=10,20", "c": "f#t=19.5,30", "d": "g#t=0", "e": "g", "x": "h", "y": "h"}
    groups = {frozenset(group) for group in shuffled_groups(list(contents), 0, contents)}
    assert groups == {frozenset("a"), frozenset("bc"), frozenset("de"), frozenset("xy")}
    assert duplicates(list(contents), contents) == [["x", "y"]]
