from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from arabesque.manifests.errors import InputError, StoreError
from arabesque.pipeline.interop.feature_files import of_stream, opened
from arabesque.pipeline.interop.import_timing import TimeGrid, time_grid
from arabesque.pipeline.interop.importing import Imported, import_features
from arabesque.pipeline.status import read_status
from arabesque.pipeline.store.reader import FeatureStore

SECONDS = TimeGrid(25.0, 32, 32)


def features(seed: int, *shape: int, dtype: str = "float16") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape or (5, 4)).astype(dtype)


def npz(path: Path, **videos: np.ndarray) -> Path:
    np.savez(path, **videos)
    return path


def bring_in(source: Path, out: Path, *, stream: str = "vst", grid: TimeGrid = SECONDS, **options) -> Imported:
    with opened(source) as found:
        return import_features(found, of_stream(found, stream), out, grids={stream: grid}, **options)


def test_every_row_records_its_source(tmp_path: Path):
    source = npz(tmp_path / "f.npz", **{"1": features(1), "2": features(2)})
    assert bring_in(source, tmp_path / "out") == Imported(added=2, unchanged=0, failed=0, rounded=0)
    store = FeatureStore(tmp_path / "out")
    one = store["1"]["vst"]
    assert one.values.astype(np.float16).tobytes() == features(1).tobytes()
    assert one.start_s.tolist() == [0, 1.28, 2.56, 3.84, 5.12]
    np.testing.assert_array_equal(one.end_s, one.start_s + 1.28)
    assert one.provenance == {
        "source": str(source),
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "source_format": "npz",
        "source_dtype": "float16",
        "source_shape": "5x4",
        "time_unit": "seconds",
    }
    assert {(end.video_id, end.kind, end.segments) for end in store.outcomes()} == {("1", "done", 5), ("2", "done", 5)}
    assert store.manifest["recipe"]["name"] == "imported"
    assert store.manifest["streams"]["vst"]["sources"] == [str(source)]


def test_a_second_import_stores_nothing_and_changed_arrays_replace_their_rows(tmp_path: Path):
    source = npz(tmp_path / "f.npz", **{"1": features(1), "2": features(2)})
    bring_in(source, tmp_path / "out")
    keys = FeatureStore(tmp_path / "out").keys("vst")
    assert bring_in(source, tmp_path / "out") == Imported(added=0, unchanged=2, failed=0, rounded=0)
    npz(source, **{"1": features(1), "2": features(7), "3": features(3)})
    assert bring_in(source, tmp_path / "out") == Imported(added=2, unchanged=1, failed=0, rounded=0)
    store = FeatureStore(tmp_path / "out")
    assert store.keys("vst")["1"] == keys["1"]
    assert store.keys("vst")["2"] != keys["2"]
    np.testing.assert_array_equal(store["2"]["vst"].values, features(7))
    assert read_status(tmp_path / "out").streams["vst"].counts == {"done": 3}


def test_another_file_does_not_replace_rows_unless_asked_to(tmp_path: Path):
    bring_in(npz(tmp_path / "a.npz", **{"1": features(1), "2": features(2)}), tmp_path / "out")
    other = npz(tmp_path / "b.npz", **{"1": features(7), "2": features(2), "3": features(3)})
    keys = FeatureStore(tmp_path / "out").keys("vst")
    with pytest.raises(InputError) as refused:
        bring_in(other, tmp_path / "out")
    named = f"under 1 of these ids: '1' [vst] is of {tmp_path}/a.npz, not of {other}; give --id-prefix"
    assert named in str(refused.value)
    assert FeatureStore(tmp_path / "out").keys("vst") == keys
    assert bring_in(other, tmp_path / "out", replaces_sources=True) == Imported(2, 1, 0, 0)
    np.testing.assert_array_equal(FeatureStore(tmp_path / "out")["1"]["vst"].values, features(7))


def test_files_of_one_stream_and_other_streams_join_a_store(tmp_path: Path):
    bring_in(npz(tmp_path / "ball.npz", Ball_001=features(1)), tmp_path / "out")
    bring_in(npz(tmp_path / "hoop.npz", Hoop_001=features(2)), tmp_path / "out")
    bring_in(npz(tmp_path / "audio.npz", Ball_001=features(3, 5, 3)), tmp_path / "out", stream="ast")
    store = FeatureStore(tmp_path / "out")
    assert {video_id: tuple(store[video_id]) for video_id in store} == {
        "Ball_001": ("vst", "ast"),
        "Hoop_001": ("vst",),
    }
    assert store.manifest["inputs"]["videos"] == 2
    assert len(store.manifest["streams"]["vst"]["sources"]) == 2


def test_without_a_grid_intervals_count_segments_and_the_store_says_so(tmp_path: Path):
    source = npz(tmp_path / "f.npz", **{"1": features(1)})
    bring_in(source, tmp_path / "out", grid=TimeGrid())
    store = FeatureStore(tmp_path / "out")
    assert store["1"]["vst"].start_s.tolist() == [0, 1, 2, 3, 4]
    assert store["1"]["vst"].end_s.tolist() == [1, 2, 3, 4, 5]
    assert store["1"]["vst"].provenance["time_unit"] == "segments"
    assert "no seconds" in store.manifest["streams"]["vst"]["time"]["note"]
    with pytest.raises(InputError, match="counts time in segments, stream 'ast' in seconds"):
        bring_in(source, tmp_path / "out", stream="ast")


def test_steps_shorter_than_a_segment_overlap():
    start_s, end_s = TimeGrid(25.0, 16, 10).intervals(3)
    np.testing.assert_allclose(start_s, [0, 0.4, 0.8])
    np.testing.assert_allclose(end_s, [0.64, 1.04, 1.44])


def test_a_grid_comes_from_the_flags_the_recipe_or_not_at_all():
    assert time_grid(None, None, None, None, "vst") == TimeGrid()
    assert time_grid(25, 32, None, None, "vst") == TimeGrid(25, 32, 32)
    assert time_grid(25, None, None, "pamfn", "vst") == TimeGrid(25, 32, 32)
    assert time_grid(None, None, None, "action-net", "i3d_rgb") == TimeGrid(5, 16, 16)
    with pytest.raises(InputError, match="lacks --fps"):
        time_grid(None, None, None, "pamfn", "vst")
    with pytest.raises(InputError, match="lacks --frames-per-segment"):
        time_grid(25, None, None, None, "vst")
    with pytest.raises(InputError, match="has no stream 'rgb'; it has vst"):
        time_grid(25, None, None, "gdlt", "rgb")


def test_parts_of_segments_are_averaged_or_kept(tmp_path: Path):
    halves = features(1, 3, 2, 4, dtype="float32")
    source = npz(tmp_path / "f.npz", **{"1": halves})
    bring_in(source, tmp_path / "mean")
    mean = FeatureStore(tmp_path / "mean")["1"]["vst"]
    np.testing.assert_array_equal(mean.values, halves.mean(axis=1))
    assert mean.start_s.tolist() == [0, 1.28, 2.56]
    bring_in(source, tmp_path / "split", parts="split")
    split = FeatureStore(tmp_path / "split")["1"]["vst"]
    np.testing.assert_array_equal(split.values, halves.reshape(6, 4))
    np.testing.assert_allclose(split.start_s, np.arange(6) * 0.64)
    np.testing.assert_allclose(split.end_s, np.arange(1, 7) * 0.64)


def test_arrays_that_cannot_be_rows_fail_with_a_reason_and_stop_nothing(tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    broken = features(1)
    broken[2, 2] = np.nan
    arrays = {
        "a": features(1),
        "nan": broken,
        "none": features(1, 0, 4),
        "wide": features(1, 5, 6),
        "flat": features(1, 9),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "cut.npy").write_bytes((folder / "a.npy").read_bytes()[:-1])
    assert bring_in(folder, tmp_path / "out") == Imported(added=1, unchanged=0, failed=4, rounded=0)
    ends = {end.video_id: (end.kind, end.reason) for end in FeatureStore(tmp_path / "out").outcomes()}
    assert ends["a"] == ("done", "")
    assert ends["none"][0] == "empty"
    for name, reason in {"nan": "not finite", "wide": "[5, 6]", "flat": "[9]", "cut": "cut.npy: a damaged"}.items():
        assert ends[name][0] == "failed"
        assert reason in ends[name][1]


def test_numbers_that_float32_cannot_represent_are_counted(tmp_path: Path):
    source = npz(tmp_path / "f.npz", **{"1": features(1, dtype="float64"), "2": features(2).astype(np.float64)})
    assert bring_in(source, tmp_path / "out").rounded == 1
    store = FeatureStore(tmp_path / "out")
    assert store["1"]["vst"].provenance["rounded_from"] == "float64"
    assert "rounded_from" not in store["2"]["vst"].provenance


def test_other_facts_other_stores_and_recipes_are_not_mixed_in(tmp_path: Path):
    source = npz(tmp_path / "f.npz", **{"1": features(1)})
    bring_in(source, tmp_path / "out")
    with pytest.raises(InputError, match="with other properties"):
        bring_in(source, tmp_path / "out", grid=TimeGrid(25.0, 16, 16))
    with pytest.raises(InputError, match="with other properties"):
        bring_in(npz(tmp_path / "g.npz", **{"2": features(1, 5, 8)}), tmp_path / "out")
    with pytest.raises(InputError, match="contains features of recipe 'imported', not 'mine'"):
        bring_in(source, tmp_path / "out", recipe_name="mine")
    with pytest.raises(InputError, match="extract --recipe gdlt"):
        bring_in(source, tmp_path / "other", recipe_name="gdlt")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(InputError, match="is not empty and not a feature store"):
        bring_in(source, tmp_path / "full")
    with pytest.raises(InputError, match="is a feature store already"):
        bring_in(tmp_path / "out", tmp_path / "copy")
    assert FeatureStore(tmp_path / "out").keys("vst").keys() == {"1"}


def test_a_source_without_usable_arrays_is_an_error(tmp_path: Path):
    with pytest.raises(StoreError, match="no array of stream 'vst' is valid: shape"):
        bring_in(npz(tmp_path / "f.npz", **{"1": features(1, 9)}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_without_a_stream_need_its_name(tmp_path: Path):
    source = npz(tmp_path / "f.npz", **{"1": features(1)})
    with opened(source) as found, pytest.raises(InputError, match="--stream vst"):
        import_features(found, found.arrays, tmp_path / "out", grids={"": TimeGrid()})
