"""One contract for all formats: written files are detected and read back exactly."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from store_rows import new_store, row, written

from arabesque.manifests.errors import InputError, StoreError
from arabesque.pipeline.interop.export_manifest import COMPLETE
from arabesque.pipeline.interop.exporting import export
from arabesque.pipeline.interop.feature_arrays import id_of, safe_path
from arabesque.pipeline.interop.feature_files import detect, of_stream, opened
from arabesque.pipeline.interop.formats import FORMATS
from arabesque.pipeline.store.reader import FeatureStore

TELLS_STREAMS = {"pamfn-folder", "pamfn-dict", "hdf5", "webdataset"}
BY_STREAM = {"npz", "logo-dict"}
"""Formats whose folders have one file for each stream; a single file does not name its stream"""


def features(seed: int, segments: int = 5, dim: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((segments, dim)).astype(np.float16)


def store_of(root: Path, streams: dict[str, dict[str, np.ndarray]]) -> FeatureStore:
    """Write a store like an import of these arrays."""
    new_store(root / "store", {stream: next(iter(videos.values())).shape[1] for stream, videos in streams.items()})
    rows = [
        replace(row(video_id, stream, features=array), provenance={"source_dtype": array.dtype.name})
        for stream, videos in streams.items()
        for video_id, array in videos.items()
    ]
    return FeatureStore(written(root / "store", *rows))


def read_back(path: Path, format: str | None = None, **options) -> dict[tuple[str, str], np.ndarray]:
    with opened(path, format, **options) as found:
        return {(array.video_id, array.stream): array.load() for array in found.arrays}


def assert_equal(found: dict, wanted: dict) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("format", FORMATS)
def test_one_stream_out_and_back(tmp_path: Path, format: str):
    videos = {"Ball_001": features(1), "Clubs_007": features(2, segments=3)}
    export(store_of(tmp_path, {"vst": videos}), tmp_path / "out", format)
    assert detect(tmp_path / "out") == format
    wanted = {(video_id, "vst"): array for video_id, array in videos.items()}
    assert_equal(read_back(tmp_path / "out"), wanted)
    (tmp_path / "out" / COMPLETE).unlink()  # as files of others
    stream = "vst" if format in TELLS_STREAMS | BY_STREAM else ""
    assert_equal(read_back(tmp_path / "out"), {(video_id, stream): array for video_id, array in videos.items()})


@pytest.mark.parametrize("format", ["npz", "logo-dict", "hdf5", "webdataset"])
def test_the_format_of_a_single_file_is_detected(tmp_path: Path, format: str):
    videos = {"Ball_001": features(1), "Clubs_007": features(2, segments=3)}
    [path] = export(store_of(tmp_path, {"vst": videos}), tmp_path / "out", format).files
    assert detect(path) == format
    stream = "vst" if format in TELLS_STREAMS else ""
    assert_equal(read_back(path), {(video_id, stream): array for video_id, array in videos.items()})


@pytest.mark.parametrize("format", sorted(TELLS_STREAMS | BY_STREAM))
def test_three_streams_out_and_back(tmp_path: Path, format: str):
    streams = {
        "vst": {"Ball_001": features(1), "Hoop_002": features(2)},
        "i3d_flow": {"Ball_001": features(3)},
        "ast": {"Hoop_002": features(4, dim=3)},
    }
    export(store_of(tmp_path, streams), tmp_path / "out", format)
    wanted = {(video_id, stream): array for stream, videos in streams.items() for video_id, array in videos.items()}
    assert_equal(read_back(tmp_path / "out"), wanted)


@pytest.mark.parametrize("format", [each for each in FORMATS if each != "pamfn-dict"])
def test_ids_with_folders_in_them(tmp_path: Path, format: str):
    store = store_of(tmp_path, {"vst": {"day 1/skater/1": features(1), "day 2/skater/1": features(2)}})
    export(store, tmp_path / "out", format)
    assert {video_id for video_id, _ in read_back(tmp_path / "out")} == {"day 1/skater/1", "day 2/skater/1"}


@pytest.mark.parametrize(("format", "name"), [("npz", "all.npz"), ("logo-dict", "all.pkl"), ("npz", "sub/all.npz")])
def test_an_output_with_the_right_suffix_is_the_file(tmp_path: Path, format: str, name: str):
    store = store_of(tmp_path, {"vst": {"1": features(1)}})
    assert export(store, tmp_path / name, format).files == (tmp_path / name,)
    assert_equal(read_back(tmp_path / name), {("1", "vst"): features(1)})


# files as the published code writes and reads them, with the libraries' own functions


def test_pamfn_dict_files_are_what_numpy_loads(tmp_path: Path):
    videos = {"Ball_001": features(1), "Ribbon_002": features(2)}
    store = store_of(tmp_path, {"i3d_flow": videos})
    export(store, tmp_path / "out", "pamfn-dict")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "Ball_flow_I3D.npy",
        "Ribbon_flow_I3D.npy",
        COMPLETE,
    ]
    loaded = np.load(tmp_path / "out" / "Ball_flow_I3D.npy", allow_pickle=True).item()
    np.testing.assert_array_equal(loaded["Ball_001"], features(1))
    assert b"numpy._core" not in (tmp_path / "out" / "Ball_flow_I3D.npy").read_bytes()  # NumPy 1 has no such module


def test_pamfn_dict_of_fis_v_needs_its_action_named(tmp_path: Path):
    store = store_of(tmp_path, {"vst": {"12": features(1)}})
    with pytest.raises(InputError, match="--action FISV"):
        export(store, tmp_path / "out", "pamfn-dict")
    export(store, tmp_path / "out", "pamfn-dict", action="FISV", names={"vst": "rgb_UMT"})
    assert_equal(read_back(tmp_path / "out"), {("12", "vst"): features(1)})
    (tmp_path / "out" / COMPLETE).unlink()
    assert_equal(read_back(tmp_path / "out"), {("12", "umt"): features(1)})
    assert_equal(read_back(tmp_path / "out", names={"unmt": "rgb_UMT"}), {("12", "unmt"): features(1)})


def test_a_released_pamfn_folder(tmp_path: Path):
    halves = np.stack([features(1), features(2)], axis=1)
    np.save(tmp_path / "Ball_rgb_VST.npy", {"Ball_001": halves}, allow_pickle=True)
    np.save(tmp_path / "FISV_audio_MAST.npy", {"1": features(3)}, allow_pickle=True)
    assert_equal(read_back(tmp_path), {("Ball_001", "vst"): halves, ("1", "mast"): features(3)})


def test_a_suffix_with_an_underscore_would_not_be_found_again(tmp_path: Path):
    store = store_of(tmp_path, {"resnet_crop": {"1": features(1)}})
    with pytest.raises(InputError, match="label 'a_crop'"):
        export(store, tmp_path / "out", "pamfn-folder", names={"resnet_crop": "a_crop"})
    assert export(store, tmp_path / "plain", "pamfn-folder").files == (tmp_path / "plain" / "1_resnet-crop.npy",)
    export(store, tmp_path / "out", "pamfn-folder", names={"resnet_crop": "crop"})
    assert_equal(read_back(tmp_path / "out", "pamfn-folder"), {("1", "resnet_crop"): features(1)})
    (tmp_path / "out" / COMPLETE).unlink()
    assert_equal(read_back(tmp_path / "out", "pamfn-folder"), {("1", "crop"): features(1)})


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path):
    np.save(tmp_path / "1.npy", features(1))
    with opened(tmp_path) as found:
        (tmp_path / "1.npy").unlink()
        with pytest.raises(StoreError, match=r"1\.npy: cannot be read \(No such file"):
            found.arrays[0].load()
    (tmp_path / "folder.pkl").mkdir()
    with pytest.raises(InputError, match=r"folder\.pkl: no features in it \(read as logo-dict"):
        read_back(tmp_path / "folder.pkl", "logo-dict")


def test_finefs_tensors_by_pickle_and_by_torch(tmp_path: Path):
    tensor = torch.from_numpy(features(1))
    (tmp_path / "0.pkl").write_bytes(pickle.dumps(tensor))
    torch.save(tensor, tmp_path / "729.pkl")
    assert_equal(read_back(tmp_path), {("0", ""): features(1), ("729", ""): features(1)})
    store = store_of(tmp_path, {"vst": {"5": features(2)}})
    export(store, tmp_path / "out", "finefs-folder")
    written = pickle.loads((tmp_path / "out" / "5.pkl").read_bytes())  # noqa: S301 - written a line above
    np.testing.assert_array_equal(written.numpy(), features(2))


def test_logo_keys_are_tuples(tmp_path: Path):
    path = tmp_path / "swin_features_dict_new.pkl"
    path.write_bytes(pickle.dumps({("game", 3): features(1), ("game", 12): features(2)}))
    assert_equal(read_back(path), {("game/3", ""): features(1), ("game/12", ""): features(2)})
    store = store_of(tmp_path, {"vst": {"game/3": features(1)}})
    export(store, tmp_path / "back.pkl", "logo-dict")
    written = pickle.loads((tmp_path / "back.pkl").read_bytes())  # noqa: S301 - written a line above
    assert list(written) == [("game", 3)]


def test_npz_and_npy_are_what_numpy_reads_and_writes(tmp_path: Path):
    np.savez(tmp_path / "plain.npz", **{"1": features(1), "2": features(2)})
    assert_equal(read_back(tmp_path / "plain.npz"), {("1", ""): features(1), ("2", ""): features(2)})
    store = store_of(tmp_path, {"vst": {"1": features(1)}})
    export(store, tmp_path / "out.npz", "npz")
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_array_equal(found["1"], features(1))
    (tmp_path / "harp").mkdir()
    np.savez(tmp_path / "harp" / "clip.npz", features(3))
    assert_equal(read_back(tmp_path / "harp"), {("clip", ""): features(3)})


def test_action_nets_two_folders(tmp_path: Path):
    store = store_of(tmp_path, {"i3d_rgb": {"Ball_001": features(1)}, "resnet_crop": {"Ball_001": features(2)}})
    names = {"i3d_rgb": "dynamic_feat", "resnet_crop": "static_feat"}
    export(store, tmp_path / "data", "npy-folder", names=names)
    np.testing.assert_array_equal(np.load(tmp_path / "data" / "dynamic_feat" / "Ball_001.npy"), features(1))
    np.testing.assert_array_equal(np.load(tmp_path / "data" / "static_feat" / "Ball_001.npy"), features(2))


def test_webdataset_members_are_read_and_other_members_ignored(tmp_path: Path):
    store = store_of(tmp_path, {"vst": {"a/1": features(1)}, "ast": {"a/1": features(2)}})
    (path,) = export(store, tmp_path / "out", "webdataset").files
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["a/1.vst.npy", "a/1.ast.npy"]
    (tmp_path / "1.json").write_text("{}")
    with tarfile.open(path, "a") as archive:
        archive.add(tmp_path / "1.json", "a/1.json")
    assert read_back(path).keys() == {("a/1", "vst"), ("a/1", "ast")}
    dotted = store_of(tmp_path / "dotted", {"vst": {"a.b": features(1)}})
    with pytest.raises(InputError, match=r"'a\.b': WebDataset"):
        export(dotted, tmp_path / "dots", "webdataset")


def test_an_hdf5_file_of_another_program(tmp_path: Path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["Ball_001"] = features(1)
        file["group/Ball_002"] = features(2)
    assert_equal(read_back(tmp_path / "f.h5"), {("Ball_001", ""): features(1), ("group/Ball_002", ""): features(2)})


def test_a_folder_of_hdf5_files_with_one_dataset_each(tmp_path: Path):
    for name, seed in (("Ball_001.h5", 1), ("day/Ball_002.hdf5", 2)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with h5py.File(tmp_path / name, "w") as file:
            file["features"] = features(seed)
    wanted = {("Ball_001", ""): features(1), ("day/Ball_002", ""): features(2)}
    assert_equal(read_back(tmp_path, "hdf5"), wanted)
    assert read_back(tmp_path / "Ball_001.h5").keys() == {("features", "")}  # by itself: the dataset's name


def test_an_hdf5_file_reads_no_other_file_and_says_where_it_is_damaged(tmp_path: Path):
    (tmp_path / "secret").write_bytes(bytes(range(16)))
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("elsewhere", (2, 8), "u1", external=[(str(tmp_path / "secret"), 0, 16)])
        file["linked"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
        checked = file.create_dataset("damaged", data=features(1), chunks=(5, 4), fletcher32=True)
        place = checked.id.get_chunk_info(0).byte_offset
    content = bytearray((tmp_path / "f.h5").read_bytes())
    content[place] ^= 1
    (tmp_path / "f.h5").write_bytes(content)
    with opened(tmp_path / "f.h5") as found:
        arrays = {array.video_id: array for array in found.arrays}
        assert arrays.keys() == {"elsewhere", "damaged"}
        with pytest.raises(StoreError, match="elsewhere: its values are in another file"):
            arrays["elsewhere"].load()
        with pytest.raises(StoreError, match="damaged: a damaged or truncated dataset"):
            arrays["damaged"].load()


# detection of formats, and unknown ones


def test_folders_of_unknown_or_mixed_formats_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no feature files"):
        detect(tmp_path)
    np.save(tmp_path / "a.npy", features(1))
    np.savez(tmp_path / "b.npz", features(1))
    with pytest.raises(InputError, match=r"1 \.npy, 1 \.npz"):
        detect(tmp_path)
    assert read_back(tmp_path, "npy-folder").keys() == {("a", "")}


def test_files_of_no_format_are_refused(tmp_path: Path):
    (tmp_path / "page.npz").write_text("<html>quota exceeded</html>")
    with pytest.raises(InputError, match=r"page\.npz: has the first bytes of no supported"):
        read_back(tmp_path / "page.npz")
    with pytest.raises(InputError, match="the path does not exist"):
        read_back(tmp_path / "nothing")
    with pytest.raises(InputError, match="'csv' is not known; there are npy-folder"):
        read_back(tmp_path / "page.npz", "csv")


@pytest.mark.parametrize(
    ("format", "suffix"), [("npz", ".npz"), ("logo-dict", ".pkl"), ("webdataset", ".tar"), ("hdf5", ".h5")]
)
def test_truncated_archives_are_reported(tmp_path: Path, format: str, suffix: str):
    store = store_of(tmp_path, {"vst": {"1": features(1, segments=200), "2": features(2, segments=200)}})
    export(store, tmp_path / "out", format)
    [path] = export(store, tmp_path / "out", format).files
    (tmp_path / "out" / COMPLETE).unlink()
    path.write_bytes(path.read_bytes()[:2500])
    with pytest.raises(StoreError, match=f"{suffix[1:]}: "):
        read_back(path, format)


def test_the_values_of_a_dict_must_be_numbers(tmp_path: Path):
    np.save(tmp_path / "Ball_rgb_VST.npy", {"Ball_001": "text"}, allow_pickle=True)
    with pytest.raises(StoreError, match="Ball_001: has type <U4, which is not numeric"):
        read_back(tmp_path)


@pytest.mark.parametrize("video_id", ["../../x", "/etc/x", "a//b", "a/./b", "", "a\\..\\b", "a\0b"])
def test_an_id_cannot_lead_outside_of_the_folder(video_id: str):
    with pytest.raises(InputError, match="cannot be a file name"):
        safe_path(video_id)


def test_ids_of_every_kind_of_key():
    assert [id_of(key, "f") for key in ("Ball_001", 12, b"x", ("game", 3), np.int64(4).item())] == [
        "Ball_001",
        "12",
        "x",
        "game/3",
        "4",
    ]
    with pytest.raises(StoreError, match="is not a video id"):
        id_of(1.5, "f")


def test_two_files_for_one_id_are_refused(tmp_path: Path):
    for action in ("Ball", "Hoop"):
        np.save(tmp_path / f"{action}_rgb_VST.npy", {"Ball_001": features(1)}, allow_pickle=True)
    with pytest.raises(StoreError, match="'Ball_001' is there twice"):
        read_back(tmp_path)


def test_streams_are_chosen_or_named(tmp_path: Path):
    np.save(tmp_path / "1_video.npy", features(1))
    np.save(tmp_path / "1_audio.npy", features(2))
    with opened(tmp_path) as found:
        assert found.streams == ("ast", "vst")
        assert [array.stream for array in of_stream(found, "vst")] == ["vst"]
        with pytest.raises(InputError, match="no stream 'i3d_flow' in it; it has ast, vst"):
            of_stream(found, "i3d_flow")


def test_reading_arrays_imports_no_torch(tmp_path: Path):
    np.savez(tmp_path / "a.npz", **{"1": features(1)})
    script = (
        "import sys, pathlib; from arabesque.pipeline.interop.feature_files import opened\n"
        f"with opened(pathlib.Path({str(tmp_path / 'a.npz')!r})) as found: found.arrays[0].load()\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
