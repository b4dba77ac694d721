"""An export in any format and with any ids is imported, compared, continued and updated without options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_rows import new_store, outcome_of, row
from workloads import workload_process

from arabesque.manifests.errors import InputError, StoreError
from arabesque.pipeline.interop.comparing import compared, paired
from arabesque.pipeline.interop.export_manifest import COMPLETE, INCOMPLETE
from arabesque.pipeline.interop.exporting import Exported, export
from arabesque.pipeline.interop.feature_files import opened
from arabesque.pipeline.interop.formats import FORMATS
from arabesque.pipeline.interop.importing import Imported, import_features
from arabesque.pipeline.records import FeatureRow, Outcome
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.writer import StoreWriter

SINGLE = {"npz": ".npz", "logo-dict": ".pkl", "hdf5": ".h5"}


def store_of(root: Path, video_ids: Sequence[str], streams: Sequence[str] = ("vst", "ast")) -> FeatureStore:
    """Rows with gaps in their times, an empty outcome and a partial row."""
    new_store(root)
    with StoreWriter(root) as writer:
        for number, video_id in enumerate(video_ids):
            for stream in streams:
                made = with_gap(row(video_id, stream, segments=3 + number % 2))
                writer.add(made)
                writer.add_outcome(replace(outcome_of(made), source=f"{video_id}.mp4", input_root="/videos"))
        writer.add_outcome(Outcome("Ball_silent", "ast", "empty", "no audio track"))
        partial = row("Ball_partial", "vst", outcome="partial")
        writer.add(partial)
        writer.add_outcome(replace(outcome_of(partial), holes=((1.28, 2.56),), lost_share=0.25))
    return FeatureStore(root)


def with_gap(made: FeatureRow) -> FeatureRow:
    start_s = made.start_s + np.where(np.arange(len(made.start_s)) > 0, 1 / 3, 0)
    return replace(made, start_s=start_s, end_s=start_s + 0.1)


def bring_in(path: Path, out: Path) -> Imported:
    with opened(path) as found:
        assert found.exported is not None
        return import_features(found, found.arrays, out, grids={})


def assert_same_rows(one: FeatureStore, other: FeatureStore) -> None:
    assert one.streams == other.streams
    assert one.manifest["streams"] == other.manifest["streams"]
    assert one.manifest["recipe"] == other.manifest["recipe"]
    assert [(a, tuple(one[a])) for a in one] == [(a, tuple(other[a])) for a in other]
    for video_id in one:
        for stream in one[video_id]:
            a, b = one.read(video_id, stream), other.read(video_id, stream)
            for array in ("values", "start_s", "end_s"):
                assert getattr(a, array).tobytes() == getattr(b, array).tobytes()
            assert (a.key, a.content_digest, a.outcome) == (b.key, b.content_digest, b.outcome)
            assert a.provenance == b.provenance


def assert_same(store: FeatureStore, path: Path, out: Path) -> None:
    with opened(path) as b:
        assert b.exported is not None
        import_features(b, b.arrays, out, grids={})
        assert_same_rows(store, FeatureStore(out, partial=store.partial))
        with opened(store.path) as a:
            pairing = paired(a.arrays, b.arrays)
            assert (pairing.only_a, pairing.only_b) == ((), ())
            assert all(one.same and one.relative_error == 0 for one in compared(pairing.pairs, 0.0))


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_restores_the_store(tmp_path: Path, format: str):
    store = store_of(tmp_path / "store", ["Ball_001", "Hoop_7/лента/3", "Clubs_é x"])
    done = export(store, tmp_path / "out", format)
    assert (done.failed, done.num_arrays, done.num_partial) == ((), 6, 1)
    assert_same(store, tmp_path / "out", tmp_path / "back")
    outcomes = {(one.video_id, one.stream): one for one in FeatureStore(tmp_path / "back").outcomes()}
    assert outcomes["Ball_silent", "ast"].reason == "no audio track"
    assert outcomes["Ball_001", "vst"].source == "Ball_001.mp4"
    assert ("Ball_partial", "vst") not in outcomes
    again = bring_in(tmp_path / "out", tmp_path / "back")
    assert (again.added, again.unchanged) == (0, 6)


@pytest.mark.parametrize("format", SINGLE)
def test_single_files_restore_the_store(tmp_path: Path, format: str):
    streams = ("vst", "ast") if format == "hdf5" else ("vst",)
    store = store_of(tmp_path / "store", ["a", "b/c"])
    path = tmp_path / f"out{SINGLE[format]}"
    export(store, path, format, streams=streams)
    bring_in(path, tmp_path / "back")
    back = FeatureStore(tmp_path / "back")
    assert back.streams == streams
    assert back["b/c"]["vst"].start_s.tobytes() == store["b/c"]["vst"].start_s.tobytes()


def test_partial_rows_are_exported_when_asked_for(tmp_path: Path):
    store_of(tmp_path / "store", ["Ball_001"])
    store = FeatureStore(tmp_path / "store", partial=True)
    export(store, tmp_path / "out", "npz")
    bring_in(tmp_path / "out", tmp_path / "back")
    back = FeatureStore(tmp_path / "back", partial=True)
    assert_same_rows(store, back)
    [partial] = [one for one in back.outcomes() if one.kind == "partial"]
    assert (partial.holes, partial.lost_share) == (((1.28, 2.56),), 0.25)


def test_rounded_rows_are_not_the_stores_rows(tmp_path: Path):
    store = store_of(tmp_path / "store", ["a"])
    export(store, tmp_path / "out", "npz", number="float16")
    bring_in(tmp_path / "out", tmp_path / "back")
    back = FeatureStore(tmp_path / "back")
    assert back["a"]["vst"].key != store["a"]["vst"].key
    assert back["a"]["vst"].provenance["rounded_to"] == "float16"
    with pytest.raises(InputError, match="with other settings"):
        bring_in(tmp_path / "out", tmp_path / "store")


UNFIT = {
    "npy-folder": ["../x", "a//b", ".hidden", "a./b", "x" * 300, "nul\0", "B", "b", "c.npy/d", "c"],
    "pamfn-folder": ["../x", ".hidden", "x" * 260, "B", "b"],
    "finefs-folder": ["../x", "B", "b"],
    "npz-folder": ["../x", "B", "b"],
    "pamfn-dict": ["nothing", "Ball_2"],
    "logo-dict": [],
    "npz": ["nul\0"],
    "hdf5": ["../x", "a//b", "nul\0", "e", "e/f"],
    "webdataset": ["../x", "v1.5", "nul\0", "ok.d/f"],
}
FITS = {"B", "c", "c.npy/d", "Ball_2", "e", "ok.d/f"}
"""If two ids collide, one of them is written."""


@pytest.mark.parametrize("format", FORMATS)
def test_an_id_that_a_format_cannot_hold_fails_alone(tmp_path: Path, format: str):
    sound = ["Ball_1", "Ball_1/2", "лента"] if format not in ("pamfn-dict", "hdf5") else ["Ball_1"]
    store = store_of(tmp_path / "store", [*sound, *UNFIT[format]], streams=("vst",))
    done = export(store, tmp_path / "out", format, streams=("vst",))
    failed = {one.video_id for one in done.failed}
    written = {video_id for video_id in store if video_id not in failed}
    assert failed <= set(UNFIT[format])
    assert set(sound) <= written
    assert written - set(sound) <= FITS
    assert len(failed) == len(UNFIT[format]) - len(FITS & written)
    assert all(repr(one.video_id)[:40] in one.reason for one in done.failed)
    bring_in(tmp_path / "out", tmp_path / "back")
    back = FeatureStore(tmp_path / "back")
    assert set(back) == written
    for video_id in back:
        assert back[video_id]["vst"].values.tobytes() == store[video_id]["vst"].values.tobytes()


ID_CHARACTERS = st.one_of(st.sampled_from(list("aAbB01/._- \\\n")), st.characters(exclude_categories=("Cs",)))


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(ids=st.sets(st.text(ID_CHARACTERS, min_size=1, max_size=12), min_size=1, max_size=20))
def test_any_ids_are_restored_or_named(tmp_path_factory: pytest.TempPathFactory, format: str, ids: set[str]):
    root = tmp_path_factory.mktemp("ids")
    prefix = "Ball_" if format == "pamfn-dict" else ""
    new_store(root / "store")
    with StoreWriter(root / "store") as writer:
        for video_id in {"Ball_000", *(prefix + one for one in ids)}:
            writer.add(row(video_id))
    store = FeatureStore(root / "store")
    done = export(store, root / "out", format)
    bring_in(root / "out", root / "back")
    back = FeatureStore(root / "back")
    assert set(back) | {one.video_id for one in done.failed} == set(store)
    assert not set(back) & {one.video_id for one in done.failed}
    for video_id in back:
        assert back[video_id]["vst"].values.tobytes() == store[video_id]["vst"].values.tobytes()


# interrupted and repeated exports


@pytest.fixture(scope="module")
def export_until() -> Iterator[Callable[..., None]]:
    """Export in a process that is killed after ``moment`` files, or at the ``-moment``-th array."""
    with workload_process("export_workload.py") as give:

        def until(store: Path, out: Path, format: str, moment: int, streams: Sequence[str] | None = None) -> None:
            assert give(store=store, out=out, format=format, moment=moment, streams=streams)["killed"]

        yield until


@pytest.mark.parametrize(
    ("format", "moments"),
    [
        ("npy-folder", (-1, 3)),
        ("npz", (-2,)),
        ("hdf5", (-3,)),
        ("webdataset", (1,)),
        pytest.param("npy-folder", (-1, 1, -4, 3), marks=pytest.mark.slow),
        pytest.param("npz", (-2, 1, -2), marks=pytest.mark.slow),
    ],
)
def test_a_killed_export_is_refused_until_it_is_continued(
    export_until: Callable[..., None], tmp_path: Path, format: str, moments: tuple[int, ...]
):
    store = store_of(tmp_path / "store", ["a", "b", "c"])
    out = tmp_path / "out"
    for moment in moments:
        export_until(tmp_path / "store", out, format, moment)
        assert not (out / COMPLETE).exists()
        with pytest.raises(InputError, match="was interrupted"), opened(out):
            pass
    export(store, out, format)
    assert not (out / INCOMPLETE).exists()
    assert [file for file in out.rglob("*") if file.name.startswith(".")] == []
    assert_same(store, out, tmp_path / "back")


@pytest.mark.parametrize(
    ("format", "moments"),
    [("npz", (-2, 1)), ("logo-dict", (1,)), pytest.param("logo-dict", (-2, 1), marks=pytest.mark.slow)],
)
def test_a_killed_export_to_one_file_is_continued(
    export_until: Callable[..., None], tmp_path: Path, format: str, moments: tuple[int, ...]
):
    store = store_of(tmp_path / "store", ["a", "b"])
    path = tmp_path / f"out{SINGLE[format]}"
    for moment in moments:
        export_until(tmp_path / "store", path, format, moment, streams=["vst"])
        if path.exists():
            with pytest.raises(InputError, match="was interrupted"), opened(path):
                pass
    export(store, path, format, streams=("vst",))
    assert bring_in(path, tmp_path / "back").added == 2


def test_the_same_command_keeps_what_is_there_and_refreshes_what_changed(tmp_path: Path):
    store = store_of(tmp_path / "store", ["a", "b", "c"], streams=("vst",))
    out = tmp_path / "out"
    first = export(store, out, "npy-folder", streams=("vst",))
    again = export(store, out, "npy-folder", streams=("vst",))
    assert (again.num_kept, again.files) == (3, first.files)
    before = {path: path.stat().st_mtime_ns for path in first.files}
    with StoreWriter(tmp_path / "store") as writer:
        for made in (row("b", content="other"), row("d")):
            writer.add(made)
            writer.add_outcome(outcome_of(made))
    (out / "c.npy").write_bytes(b"damaged")
    store = FeatureStore(tmp_path / "store")
    refreshed = export(store, out, "npy-folder", streams=("vst",))
    assert (refreshed.num_kept, refreshed.num_arrays) == (1, 4)
    assert (out / "a.npy").stat().st_mtime_ns == before[out / "a.npy"]
    np.testing.assert_array_equal(np.load(out / "b.npy"), store["b"]["vst"].values)
    assert bring_in(out, tmp_path / "back").added == 4


def test_files_of_former_videos_are_removed(tmp_path: Path):
    export(store_of(tmp_path / "one", ["a", "b/c"], streams=("vst",)), tmp_path / "out", "npy-folder", streams=("vst",))
    store = store_of(tmp_path / "two", ["a"], streams=("vst",))
    done = export(store, tmp_path / "out", "npy-folder", streams=("vst",))
    assert done.removed == (tmp_path / "out" / "b" / "c.npy",)
    assert not (tmp_path / "out" / "b").exists()


@pytest.mark.parametrize("name", ["../theirs.npy", "link/theirs.npy"])
def test_an_export_of_others_removes_nothing_outside_it(tmp_path: Path, name: str):
    out, theirs = tmp_path / "out", tmp_path / "theirs.npy"
    export(store_of(tmp_path / "one", ["a", "b"], streams=("vst",)), out, "npy-folder", streams=("vst",))
    (out / "b.npy").rename(theirs)
    (out / "link").symlink_to(tmp_path)
    (out / COMPLETE).write_text((out / COMPLETE).read_text().replace('"b.npy"', f'"{name}"'))
    assert name in (out / COMPLETE).read_text()
    store = store_of(tmp_path / "two", ["a"], streams=("vst",))
    with suppress(StoreError):
        assert export(store, out, "npy-folder", streams=("vst",)).removed == ()
    export(store, out, "npy-folder", streams=("vst",), force=True)
    assert theirs.exists()


def test_another_command_needs_force_and_leaves_nothing_of_the_first(tmp_path: Path):
    store = store_of(tmp_path / "store", ["Ball_1", "Ball_2"])
    out = tmp_path / "out"
    export(store, out, "npy-folder")
    with pytest.raises(InputError, match="an export with other options"):
        export(store, out, "npz")
    export(store, out, "npz", force=True)
    assert sorted(path.name for path in out.rglob("*.*")) == [COMPLETE, "ast.npz", "vst.npz"]
    assert_same(store, out, tmp_path / "back")


def test_a_file_that_was_changed_or_removed_fails_its_rows(tmp_path: Path):
    store = store_of(tmp_path / "store", ["a", "b", "c"], streams=("vst",))
    export(store, tmp_path / "out", "npy-folder", streams=("vst",))
    np.save(tmp_path / "out" / "a.npy", np.zeros((3, 4), np.float32))
    (tmp_path / "out" / "b.npy").unlink()
    assert bring_in(tmp_path / "out", tmp_path / "back") == Imported(added=1, unchanged=0, failed=2, rounded=0)
    reasons = {one.video_id: one.reason for one in FeatureStore(tmp_path / "back").outcomes()}
    assert "changed after the export" in reasons["a"]
    assert "missing from the export" in reasons["b"]


@pytest.mark.parametrize("cut", [0, 10, -2, -20])
def test_a_damaged_manifest_is_named(tmp_path: Path, cut: int):
    store = store_of(tmp_path / "store", ["a"], streams=("vst",))
    export(store, tmp_path / "out", "npy-folder", streams=("vst",))
    path = tmp_path / "out" / COMPLETE
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(StoreError, match=COMPLETE), opened(tmp_path / "out"):
        pass


def test_two_exports_to_one_place_at_once_are_refused(tmp_path: Path):
    store = store_of(tmp_path / "store", ["a"], streams=("vst",))
    export_again = []

    def second(done: int, total: int) -> None:
        with pytest.raises(InputError, match="another export is writing here"):
            export(store, tmp_path / "out", "npy-folder")
        export_again.append(done)

    assert isinstance(export(store, tmp_path / "out", "npy-folder", on_file=second), Exported)
    assert export_again


def test_files_of_an_export_are_never_outside_of_it(tmp_path: Path):
    """A forged manifest names files outside of the export; they are not read."""
    store = store_of(tmp_path / "store", ["a"], streams=("vst",))
    export(store, tmp_path / "out", "npy-folder", streams=("vst",))
    np.save(tmp_path / "secret.npy", np.zeros((3, 4), np.float32))
    path = tmp_path / "out" / COMPLETE
    path.write_text(path.read_text().replace('"a.npy"', '"../secret.npy"'))
    with opened(tmp_path / "out") as found:
        [array] = [one for one in found.arrays if one.stream == "vst"]
        with pytest.raises(StoreError, match="missing from the export"):
            array.load()


def test_another_exports_rows_do_not_replace_rows_of_other_videos(tmp_path: Path):
    for name in ("one", "two"):
        new_store(tmp_path / name)
        with StoreWriter(tmp_path / name) as writer:
            made = row("a", content=name)
            writer.add(replace(made, provenance={"input_root": f"/{name}", "source": "a.mp4"}))
            writer.add_outcome(outcome_of(made))
        export(FeatureStore(tmp_path / name), tmp_path / f"{name}.npz", "npz", streams=["vst"])
    bring_in(tmp_path / "one.npz", tmp_path / "back")
    assert bring_in(tmp_path / "one.npz", tmp_path / "back").unchanged == 1
    with pytest.raises(InputError, match=r"'a' \[vst\] is of /one/a\.mp4, not of /two/a\.mp4"):
        bring_in(tmp_path / "two.npz", tmp_path / "back")
