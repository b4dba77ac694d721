"""A row is never replaced by one of another source file unless the user requests it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from clips import Clip, write_clip
from known_extractors import RECIPE
from store_contents import stored_rows
from store_rows import new_store, outcome_of, row, settings_of

from arabesque.manifests.errors import InputError, StoreError
from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.planning.discovery import checked_id_prefix
from arabesque.pipeline.planning.partition import Partition
from arabesque.pipeline.planning.resume_index import ResumeIndex
from arabesque.pipeline.planning.run_claims import Claim, OutcomeWatcher, RunClaims
from arabesque.pipeline.records import Outcome, VideoFile, state_of
from arabesque.pipeline.store.outcomes import OutcomeTable
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.writer import StoreWriter
from arabesque.pipeline.workers.local_pool import LocalWorkers


@pytest.fixture
def two_folders(tmp_path: Path) -> tuple[Path, Path]:
    """``a`` and ``b`` with an ``r1.mp4`` each, of different lengths."""
    for name, frames in (("a", 16), ("b", 24)):
        (tmp_path / name).mkdir()
        write_clip(tmp_path / name / "r1.mp4", Clip(num_frames=frames))
    return tmp_path / "a", tmp_path / "b"


def prepared(videos: Path | list[Path], out: Path, *, replaces: bool = False, **options: object) -> Extraction:
    chosen = RunOptions(replaces_sources=replaces)
    return Extraction(videos, parse_recipe(RECIPE, "known.toml"), out, options=chosen, **options)  # type: ignore[arg-type]


def extract(videos: Path | list[Path], out: Path, **options: object) -> dict[tuple[str, str], Outcome]:
    events = list(prepared(videos, out, **options))  # type: ignore[arg-type]
    return {(event.video_id, event.stream): event for event in events if isinstance(event, Outcome)}


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def digest_of(out: Path, video_id: str = "r1") -> str:
    return FeatureStore(out)[video_id]["numbers"].content_digest


def test_every_outcome_names_its_source(two_folders, tmp_path):
    a, _ = two_folders
    (a / "deep").mkdir()
    write_clip(a / "deep" / "R2.MP4", Clip(num_frames=16))
    (a / "noise.mp4").write_bytes(b"no video")
    extract(a, tmp_path / "out")
    ends = FeatureStore(tmp_path / "out").outcomes()
    sources = {end.video_id: (end.input_root, end.source) for end in ends}
    assert sources == {
        "r1": (str(a), "r1.mp4"),
        "deep/R2": (str(a), "deep/R2.MP4"),
        "noise": (str(a), "noise.mp4"),
    }
    provenance = FeatureStore(tmp_path / "out")["r1"]["numbers"].provenance
    assert (provenance["input_root"], provenance["source"]) == (str(a), "r1.mp4")


def test_a_file_given_alone_is_the_same_source_as_in_its_folder(two_folders, tmp_path):
    a, _ = two_folders
    extract(a / "r1.mp4", tmp_path / "out")
    assert not prepared(a, tmp_path / "out").remaining
    write_clip(a / "r1.mp4", Clip(num_frames=32))
    assert extract(a, tmp_path / "out")["r1", "numbers"].source == "r1.mp4"


def test_another_source_of_a_stored_id_is_refused_before_anything_is_written(two_folders, tmp_path):
    a, b = two_folders
    extract(a, tmp_path / "out")
    write_clip(b / "new.mp4", Clip(num_frames=16))
    before = files_of(tmp_path / "out")
    with pytest.raises(InputError) as refused:
        prepared(b, tmp_path / "out")
    for part in (f"'r1' is of {a}/r1.mp4, not of {b}/r1.mp4", "--id-prefix NAME", "NAME/r1", "--replace", "1 video:"):
        assert part in str(refused.value)
    assert files_of(tmp_path / "out") == before


def test_several_are_named_with_their_number(tmp_path):
    for name, frames in (("a", 16), ("b", 24)):
        (tmp_path / name).mkdir()
        for number in range(5):
            write_clip(tmp_path / name / f"r{number}.mp4", Clip(num_frames=frames))
    extract(tmp_path / "a", tmp_path / "out")
    with pytest.raises(InputError, match=r"the ids of 5 videos: 'r0' .*; 'r1' .*; 'r2' .*; and 2 more; give --id"):
        prepared(tmp_path / "b", tmp_path / "out")
    part = next(Partition(number, 5) for number in range(1, 6) if Partition(number, 5).holds("r4"))
    with pytest.raises(InputError, match="'r4'"):
        prepared(tmp_path / "b", tmp_path / "out", partition=part)


def test_a_prefix_keeps_both(two_folders, tmp_path):
    a, b = two_folders
    extract(a, tmp_path / "out")
    extract(b, tmp_path / "out", id_prefix="second/half")
    assert FeatureStore(tmp_path / "out").video_ids == ("r1", "second/half/r1")
    assert not prepared(a, tmp_path / "out").remaining
    assert not prepared(b, tmp_path / "out", id_prefix="second/half").remaining


@pytest.mark.parametrize("prefix", ["/", "a/", "/a", "a//b", "..", "a/../b", ".", " ", "a\n", "a\\b"])
def test_a_prefix_that_is_not_a_name_is_refused(prefix):
    with pytest.raises(InputError, match="--id-prefix"):
        checked_id_prefix(prefix)


def test_replacing_is_possible_on_request(two_folders, tmp_path):
    a, b = two_folders
    extract(a, tmp_path / "out")
    first = digest_of(tmp_path / "out")
    assert extract(b, tmp_path / "out", replaces=True)["r1", "numbers"].input_root == str(b)
    assert digest_of(tmp_path / "out") != first
    with pytest.raises(InputError, match=r"r1\.mp4, not of"):
        prepared(a, tmp_path / "out")


def test_a_changed_file_replaces_its_own_rows(two_folders, tmp_path):
    a, b = two_folders
    extract(a, tmp_path / "out")
    first = digest_of(tmp_path / "out")
    shutil.copy(b / "r1.mp4", a / "r1.mp4")
    extract(a, tmp_path / "out")
    assert digest_of(tmp_path / "out") != first


@pytest.mark.parametrize("keeps_times", [True, False])
def test_a_moved_data_set_is_the_same(two_folders, tmp_path, keeps_times):
    a, _ = two_folders
    extract(a, tmp_path / "out")
    before = stored_rows(tmp_path / "out")
    shutil.copytree(a, tmp_path / "moved", copy_function=shutil.copy2 if keeps_times else shutil.copyfile)
    if not keeps_times:
        os.utime(tmp_path / "moved" / "r1.mp4", ns=(10**18, 10**18))
    run = prepared(tmp_path / "moved", tmp_path / "out")
    assert bool(run.remaining) is not keeps_times
    assert not [event for event in run if isinstance(event, Outcome)]
    assert stored_rows(tmp_path / "out") == before


def test_equal_sizes_do_not_make_files_equal(two_folders, tmp_path):
    a, b = two_folders
    extract(a, tmp_path / "out")
    data = bytearray((a / "r1.mp4").read_bytes())
    data[-1] ^= 1
    (b / "r1.mp4").write_bytes(data)
    with pytest.raises(InputError, match="not of"):
        prepared(b, tmp_path / "out")


def test_another_suffix_is_another_source(two_folders, tmp_path):
    a, _ = two_folders
    extract(a, tmp_path / "out")
    (a / "r1.mp4").unlink()
    write_clip(a / "r1.avi", Clip(num_frames=16, codec="mpeg4", options={}))
    with pytest.raises(InputError, match=r"r1\.mp4, not of .*r1\.avi"):
        prepared(a, tmp_path / "out")


def test_a_stream_that_the_store_lacks_is_not_taken_from_another_file(two_folders, tmp_path):
    a, b = two_folders
    extract(a, tmp_path / "out", streams=["numbers"])
    with pytest.raises(InputError, match="not of"):
        prepared(b, tmp_path / "out", streams=["loudness"])


def test_videos_that_only_failed_may_come_from_another_folder(two_folders, tmp_path):
    a, b = two_folders
    (a / "r1.mp4").write_bytes(b"no video")
    assert extract(a, tmp_path / "out")["r1", "numbers"].kind == "failed"
    assert extract(b, tmp_path / "out")["r1", "numbers"].kind == "done"


def test_a_run_with_workers_records_and_refuses_the_same_inputs(two_folders, tmp_path):
    a, b = two_folders
    workers = LocalWorkers([RunOptions().device])
    assert extract(a, tmp_path / "out", executor=workers)["r1", "numbers"].input_root == str(a)
    with pytest.raises(InputError, match="not of"):
        prepared(b, tmp_path / "out", executor=workers)


@pytest.mark.parametrize("has_workers", [False, True])
def test_two_runs_that_start_at_once_on_two_folders_do_not_replace_each_other(two_folders, tmp_path, has_workers):
    """Both are constructed before either has written: the second finds out when it reads the video."""
    a, b = two_folders
    workers = LocalWorkers([RunOptions().device]) if has_workers else None
    first, second = prepared(a, tmp_path / "out"), prepared(b, tmp_path / "out", executor=workers)
    list(first)
    rows = stored_rows(tmp_path / "out")
    with pytest.raises(InputError, match=f"'r1' is of {a}/r1.mp4, not of {b}/r1.mp4"):
        list(second)
    assert stored_rows(tmp_path / "out") == rows


def test_a_video_that_a_run_waits_for_is_refused_when_it_turns_out_to_be_another(tmp_path):
    new_store(tmp_path)
    (tmp_path / "r1.mp4").write_bytes(b"mine")
    mine_is = VideoFile("r1", tmp_path / "r1.mp4", state_of(tmp_path / "r1.mp4"), "r1.mp4", "/b")
    settings = {"vst": settings_of("vst")}
    with StoreWriter(tmp_path) as my_writer, StoreWriter(tmp_path) as their_writer:
        mine = RunClaims(my_writer, ResumeIndex(), OutcomeWatcher(tmp_path), settings)
        theirs = RunClaims(their_writer, ResumeIndex(), OutcomeWatcher(tmp_path), settings)
        assert theirs.claim(replace(mine_is, input_root="/a")) is Claim.GRANTED
        assert mine.claim(mine_is) is Claim.HELD_BY_OTHER
        their_writer.add(row("r1"))
        their_writer.add_outcome(replace(outcome_of(row("r1")), source="r1.mp4", input_root="/a"))
        their_writer.end_reading("r1")
        their_writer.flush()
        assert list(mine.remaining()) == [mine_is], "it is not settled by the other run: it is another file"
        assert mine.claim(mine_is) is Claim.GRANTED
        with pytest.raises(InputError, match=r"'r1' is of /a/r1\.mp4, not of /b/r1\.mp4"):
            mine.refuse_other_source(mine_is, "another digest")
        mine.refuse_other_source(mine_is, row("r1").content_digest)


def test_without_claims_the_second_run_reports_that_both_have_stored_it():
    root = "memory://without-claims"
    new_store(root)  # type: ignore[arg-type]
    file = VideoFile("r1", Path("/b/r1.mp4"), None, "r1.mp4", "/b")
    settings = {"vst": settings_of("vst")}
    with StoreWriter(root) as my_writer, StoreWriter(root) as their_writer:
        mine = RunClaims(my_writer, ResumeIndex(), OutcomeWatcher(root), settings)
        assert mine.claim(file) is Claim.GRANTED
        mine.refuse_other_source(file, "another digest")
        their_writer.add(row("r1"))
        their_writer.add_outcome(replace(outcome_of(row("r1")), source="r1.mp4", input_root="/a"))
        their_writer.flush()
        with pytest.raises(
            StoreError, match=r"two concurrent runs stored 'r1', one from /a/r1\.mp4 and one from /b/r1\.mp4"
        ):
            list(mine.remaining())


def without_sources(root: Path) -> None:
    """Rewrite the store in the form of an earlier version."""
    ends = [replace(end, source="", input_root="") for end in FeatureStore(root).outcomes()]
    shutil.rmtree(root / "outcomes")
    with StoreWriter(root) as writer:
        for end in ends:
            writer.add_outcome(end)


def test_a_store_without_sources_continues_with_its_folder(two_folders, tmp_path):
    a, b = two_folders
    extract(a, tmp_path / "out")
    without_sources(tmp_path / "out")
    assert not prepared(a, tmp_path / "out").remaining
    with pytest.raises(InputError, match=f"'r1' is of a file in {a}, not of {b}/r1.mp4"):
        prepared(b, tmp_path / "out")
    shutil.copy(b / "r1.mp4", a / "r1.mp4")
    assert extract(a, tmp_path / "out")["r1", "numbers"].source == "r1.mp4"


def test_comparing_sources_of_many_videos_opens_none_that_did_not_move():
    state = state_of(Path(__file__))
    assert state is not None
    files = [VideoFile(f"{number:05d}", Path("gone.mp4"), state, f"{number:05d}.mp4", "/a") for number in range(2000)]
    ends = [
        replace(outcome_of(row(file.video_id)), source=file.source, input_root="/a" if number % 2 else "/b")
        for number, file in enumerate(files)
    ]
    resume_index = ResumeIndex(OutcomeTable.of(ends))
    assert resume_index.sources_to_compare(files) == files[::2]
    same = [replace(end, size_bytes=state.size_bytes, modified_ns=state.modified_ns) for end in ends]
    assert ResumeIndex(OutcomeTable.of(same)).sources_to_compare(files) == []
    assert all(resume_index.of_video(file.video_id) for file in files[:3])
