"""`arabesque import`, `export` and `compare` on the command line."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from clips import Clip, write_clip
from typer.testing import CliRunner

from arabesque.cli.main import commands
from arabesque.manifests.errors import InputError, StoreError
from arabesque.pipeline.interop.export_manifest import COMPLETE
from arabesque.pipeline.store.reader import FeatureStore

FISV = Path(__file__).resolve().parents[3] / "shared" / "data" / "fisv_vst" / "features_fp16.npz"


def run(*arguments: object, status: int = 0):
    result = CliRunner(env={"COLUMNS": "200"}).invoke(commands, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result


def features(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((12, 8)).astype(np.float16)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "features.npz"
    np.savez(path, Ball_001=features(1), Ball_002=features(2))
    return path


def test_import_export_compare_and_back(source: Path, tmp_path: Path):
    store = tmp_path / "store"
    grid = ["--fps", 25, "--frames-per-segment", 32]
    first = run("import", source, "--out", store, "--stream", "vst", *grid)
    assert "npz: 2 arrays of vst" in first.stderr
    assert "2 imported, 0 already present, 0 failed" in first.stderr
    assert "not seconds" not in first.stderr
    assert "0 imported, 2 already present" in run("import", source, "--out", store, "--stream", "vst", *grid).stderr
    exported = run("export", store, "--out", tmp_path / "pamfn", "--format", "pamfn-dict")
    assert "2 arrays in 1 file" in exported.stdout
    loaded = np.load(tmp_path / "pamfn" / "Ball_rgb_VST.npy", allow_pickle=True).item()
    assert loaded["Ball_002"].tobytes() == features(2).tobytes()
    assert "vst: 2 same" in run("compare", store, tmp_path / "pamfn", "--tolerance", 0).stdout
    assert "recipe imported" in run("status", store).stdout


def test_a_second_file_with_the_same_ids_is_refused_prefixed_or_replaces(source: Path, tmp_path: Path):
    store, other = tmp_path / "store", tmp_path / "other.npz"
    np.savez(other, Ball_001=features(7))
    run("import", source, "--out", store, "--stream", "vst")
    with pytest.raises(InputError, match=r"'Ball_001' .*--id-prefix NAME .*--replace"):
        run("import", other, "--out", store, "--stream", "vst")
    run("import", other, "--out", store, "--stream", "vst", "--id-prefix", "other")
    assert FeatureStore(store).video_ids == ("Ball_001", "Ball_002", "other/Ball_001")
    run("import", other, "--out", store, "--stream", "vst", "--replace")
    assert FeatureStore(store)["Ball_001"]["vst"].values.astype(np.float16).tobytes() == features(7).tobytes()


def test_a_missing_stream_name_and_time_grid_are_reported(source: Path, tmp_path: Path):
    found = run("import", source, "--out", tmp_path / "store").stderr
    assert "stored as 'features'. --stream names it" in found
    assert "start_s and end_s are in segments, not seconds" in found
    assert FeatureStore(tmp_path / "store").streams == ("features",)


def test_failures_are_printed_and_change_the_status(tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    np.save(folder / "good.npy", features(1))
    np.save(folder / "flat.npy", features(1)[0])
    found = run("import", folder, "--out", tmp_path / "store", "--stream", "vst", status=3)
    assert "1 imported, 0 already present, 1 failed" in found.stderr
    assert "failed: 'flat' [vst]: shape [8]" in found.stdout


def test_differences_are_printed_and_change_the_status(source: Path, tmp_path: Path):
    other = tmp_path / "other.npz"
    np.savez(other, Ball_001=features(1)[2:], Ball_003=features(3))
    found = run("compare", source, other, "--stream", "vst", status=3)
    assert "vst: 1 of 1 differ: 1 lag\n  lag, as in 'Ball_001': A is 2 segments late" in found.stdout
    assert "only in A, 1: Ball_002 vst" in found.stdout
    assert "only in B, 1: Ball_003 vst" in found.stdout


def test_videos_of_a_stream_are_diagnosed_together_and_the_last_line_is_the_result(source: Path, tmp_path: Path):
    late = tmp_path / "late.npz"
    np.savez(late, Ball_001=features(1)[2:], Ball_002=features(2)[2:])
    lines = run("compare", source, late, "--stream", "vst", status=3).stdout.splitlines()
    assert lines[-3:] == [
        "vst: 2 of 2 differ: 2 lag",
        "  together (2 of them): lag. A is 2 segments late; then the segments that overlap agree",
        "DIFFERENT",
    ]
    assert run("compare", source, source, "--stream", "vst").stdout.splitlines() == [
        "vst: 2 same, relative error at most 0.0e+00 (tolerance 0.0001)",
        "SAME",
    ]


def test_different_settings_of_two_stores_are_listed(tmp_path: Path):
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "a.mp4", Clip(num_frames=40))
    for name, fps in (("a", "native"), ("b", 12.5)):
        sampling = {"fps": fps, "frames_per_segment": 8, "frames_per_step": 8, "remainder": "drop-tail"}
        streams = {"motion": {"extractor": "motion", "sampling": sampling}}
        recipe = {"name": "mine", "summary": "motion", "streams": streams}
        (tmp_path / f"{name}.toml").write_text(tomli_w.dumps(recipe))
        run("extract", tmp_path / "videos", "--recipe", tmp_path / f"{name}.toml", "--out", tmp_path / name)
    found = run("compare", tmp_path / "a", tmp_path / "b", status=3).stdout
    assert "  setting sampling.fps: native (A), 12.5 (B)\n" in found
    [stream] = json.loads(run("compare", tmp_path / "a", tmp_path / "b", "--json", status=3).stdout)["streams"]
    assert stream["settings"] == {"sampling.fps": ["native", "12.5"]}


def test_videos_on_one_side_differ_unless_only_common_ones_count(source: Path, tmp_path: Path):
    np.savez(tmp_path / "one.npz", Ball_001=features(1))
    run("compare", source, tmp_path / "one.npz", status=3)
    run("compare", source, tmp_path / "one.npz", "--common")


def test_json_contains_all_results(source: Path, tmp_path: Path):
    other = tmp_path / "other.npz"
    np.savez(other, Ball_001=features(1), Ball_002=features(2).astype(np.float32) * 2)
    found = json.loads(run("compare", source, other, "--json", status=3).stdout)
    assert (found["same"], found["only_in_a"]) == (False, [])
    [stream] = found["streams"]
    assert (stream["videos"], stream["different"], stream["diagnosis"]) == (2, 1, "normalization")
    assert stream["diagnoses_of_videos"] == {"normalization": 1}
    first, second = found["pairs"]
    assert (first["same"], first["cosine_min"], first["relative_error"]) == (True, pytest.approx(1), 0)
    assert second["diagnosis"] == "normalization"
    assert len(second["cosines"]) == 12
    assert second["relative_error"] == pytest.approx(0.5)


def test_an_untrusted_pickle_is_not_executed(tmp_path: Path):
    trap = tmp_path / "trap"

    class Malice:
        def __reduce__(self):
            return os.mkdir, (str(trap),)

    path = tmp_path / "features.pkl"
    path.write_bytes(pickle.dumps({"1": Malice()}))
    for command in (["import", path, "--out", tmp_path / "store"], ["compare", path, path]):
        with pytest.raises(StoreError, match=r"names posix\.mkdir, .*--trust"):
            run(*command)
    assert not trap.exists()


def test_wrong_usage(source: Path, tmp_path: Path):
    run("import", source, "--out", tmp_path / "s", "--parts", "both", status=2)
    run("import", source, "--out", tmp_path / "s", "--name", "vst", status=2)
    run("compare", source, source, "--tolerance", -1, status=2)
    run("import", source, "--out", tmp_path / "s")
    run("export", tmp_path / "s", "--out", tmp_path / "o", "--format", "npy-folder", "--dtype", "int8", status=2)
    run("export", tmp_path / "s", "--out", tmp_path / "o", "--format", "npy-folder")
    with pytest.raises(InputError, match="--force overwrites"):  # cli/main.py turns it into status 2
        run("export", tmp_path / "s", "--out", tmp_path / "o", "--format", "npy-folder", "--dtype", "float16")
    run("export", tmp_path / "s", "--out", tmp_path / "o", "--format", "npy-folder", "--dtype", "float16", "--force")


@pytest.mark.slow
@pytest.mark.skipif(not FISV.exists(), reason="needs ../shared/data")
def test_500_released_videos_to_gdlts_folder_and_back_to_the_byte(tmp_path: Path):
    folder = tmp_path / "swintx_avg_fps25_clip32"
    grid = ["--stream", "vst", "--fps", 25, "--recipe", "gdlt", "--recipe-name", "gdlt-released-features"]
    assert "500 imported" in run("import", FISV, "--out", tmp_path / "store", *grid).stderr
    run("export", tmp_path / "store", "--out", folder, "--format", "npy-folder")
    with np.load(FISV) as released:
        assert {path.stem for path in folder.glob("*.npy")} == set(released.files)
        (folder / COMPLETE).unlink()  # like a downloaded folder
        for video_id in released.files:
            written = np.load(folder / f"{video_id}.npy")
            assert written.dtype == released[video_id].dtype
            assert written.tobytes() == released[video_id].tobytes()
    assert "500 imported" in run("import", folder, "--out", tmp_path / "again", *grid).stderr
    assert "vst: 500 same" in run("compare", tmp_path / "store", tmp_path / "again", "--tolerance", 0).stdout
    store = FeatureStore(tmp_path / "again")
    assert sum(len(features) for features in store.scan("vst")) == 68913
    np.testing.assert_allclose(store["1"]["vst"].end_s[-1], 135 * 32 / 25)


def test_an_export_is_imported_without_options(tmp_path: Path):
    (tmp_path / "videos" / "дети").mkdir(parents=True)
    for name in ("skater", "дети/a.b"):
        write_clip(tmp_path / "videos" / f"{name}.mp4", Clip(num_frames=40))
    sampling = {"fps": "native", "frames_per_segment": 8, "frames_per_step": 8, "remainder": "drop-tail"}
    streams = {name: {"extractor": "motion", "sampling": sampling} for name in ("motion", "motion_too")}
    recipe = {"name": "mine", "summary": "motion", "streams": streams}
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(recipe))
    run("extract", tmp_path / "videos", "--recipe", tmp_path / "mine.toml", "--out", tmp_path / "s")
    for format in ("npy-folder", "pamfn-folder", "hdf5"):
        out = tmp_path / format
        assert "4 arrays in" in run("export", tmp_path / "s", "--out", out, "--format", format).stdout
        assert "already complete" in run("export", tmp_path / "s", "--out", out, "--format", format).stdout
        assert "motion: 2 same" in run("compare", tmp_path / "s", out, "--tolerance", 0).stdout
        assert "4 imported" in run("import", out, "--out", tmp_path / f"{format}-back").stderr
        found = run("compare", tmp_path / "s", tmp_path / f"{format}-back", "--tolerance", 0).stdout
        assert "motion: 2 same" in found
        assert "setting" not in found
    with pytest.raises(InputError, match="no stream 'other' in it; it has motion, motion_too"):
        run("import", tmp_path / "hdf5", "--out", tmp_path / "t", "--stream", "other")
    with pytest.raises(InputError, match="remove --fps"):
        run("import", tmp_path / "hdf5", "--out", tmp_path / "t", "--fps", 25, "--frames-per-segment", 8)
    found = run("export", tmp_path / "s", "--out", tmp_path / "tar", "--format", "webdataset", status=3).stdout
    assert "failed: 'дети/a.b' [motion]: video id 'дети/a.b': WebDataset truncates an id at its first dot" in found


def test_files_that_cannot_be_read_are_named_and_the_others_imported(tmp_path: Path):
    (tmp_path / "in").mkdir()
    for stream in ("vst", "ast"):
        np.savez(tmp_path / "in" / f"{stream}.npz", a=features(1), b=features(2))
    (tmp_path / "in" / "cut.npz").write_bytes((tmp_path / "in" / "vst.npz").read_bytes()[:200])
    found = run("import", tmp_path / "in", "--format", "npz", "--out", tmp_path / "s", status=3)
    assert "4 imported" in found.stderr
    assert "cut.npz: a damaged or truncated .npz file" in found.stderr
