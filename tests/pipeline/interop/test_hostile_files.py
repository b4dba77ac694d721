"""Feature files that try to exhaust memory or time, or to execute code: each fails alone, and the others are read."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from store_rows import new_store, row, written

from arabesque.manifests.errors import StoreError
from arabesque.manifests.untrusted_npy import SMALL_BYTES
from arabesque.pipeline.interop.array_files import built, read_npy, read_pickle
from arabesque.pipeline.interop.exporting import export
from arabesque.pipeline.interop.feature_files import of_stream, opened
from arabesque.pipeline.interop.import_timing import TimeGrid
from arabesque.pipeline.interop.importing import import_features
from arabesque.pipeline.interop.reading_process import ReadLimits
from arabesque.pipeline.store.reader import FeatureStore

GOOD = np.arange(12, dtype=np.float32).reshape(3, 4)
LARGE = SMALL_BYTES + 4


def shared_lists(levels: int) -> bytes:
    """``l = [l, l]``, ``levels`` times: seven bytes a level, 2**levels elements."""
    return b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (n + 1, n, n) for n in range(levels)) + b"."


PICKLES = {
    "shared lists": (shared_lists(30), "more than 4,000,000 elements"),
    "a memo of gigabytes": (b"\x80\x02]r\xff\xff\xff\x1fh\x00.", "KeyError"),
    "a text of gigabytes": (b"\x80\x02X\xff\xff\xff\x7fa.", "ValueError"),
    "bytes of exabytes": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"a.", "Error"),
    "a list in itself": (b"\x80\x02]q\x00h\x00a.", "contains itself"),
    "lists in lists": (b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".", "nested deeper"),
    "a tuple of tuples as a key": (
        b"\x80\x02)q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(40)) + b"}h\x28K\x01s.",
        "a key of more than 64 parts",
    ),
    "a text that is copied": (
        b"\x80\x02c_codecs\nencode\nq\x00X"
        + struct.pack("<I", 1 << 20)
        + b"a" * (1 << 20)
        + b"q\x01X\x06\x00\x00\x00latin1q\x02("
        + b"h\x00h\x01h\x02\x86R" * 64
        + b"l.",
        "copies more than four times",
    ),
    "a tensor of zero strides": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\x00J\xff\xff\xff\x7f\x85K\x00\x85\x89NtR.",
        "a tensor without its numbers",
    ),
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_beyond_its_budget_is_refused(name: str):
    content, reason = PICKLES[name]
    with pytest.raises(StoreError, match=reason):
        read_pickle(io.BytesIO(content), "bomb.pkl")


def test_lists_that_are_shared_a_little_are_read():
    assert np.asarray(read_pickle(io.BytesIO(shared_lists(3)), "x")).shape == (2, 2, 2, 0)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_npy_headers_is_read(version: tuple[int, int]):
    handle = io.BytesIO()
    np.lib.format.write_array(handle, GOOD, version=version)
    handle.seek(0)
    np.testing.assert_array_equal(built(read_npy(handle, "x"), "x"), GOOD)


def npy(descr: str, shape: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


HEADERS = {
    "terabytes": npy("'<f4'", "(1000000000000,)"),
    "more than it may": npy("'<f4'", f"({LARGE},)"),
    "negative": npy("'<f4'", "(-1, 4)"),
    "not numbers": npy("[('a', '<f4')]", "(1,)", bytes(4)),
    "code": npy("'<f4'", "(__import__('os').getpid(),)"),
    "brackets": npy("'<f4'", "(" * 5000),
    "a key too many": npy("'<f4', 'x': 1", "(1,)", bytes(4)),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_wrong_npy_header_is_reported(name: str):
    with pytest.raises(StoreError, match=r"f\.npy: a damaged or truncated \.npy file"):
        read_npy(io.BytesIO(HEADERS[name]), "f.npy")


def npz_bomb(folder: Path) -> Path:
    np.savez_compressed(folder / "f.npz", good=GOOD, bomb=np.zeros((LARGE // 4, 1), np.float32), end=GOOD)
    return folder / "f.npz"


def npz_of_headers(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "f.npz", "w") as archive:
        for name, content in {"good": npy("'<f4'", "(1, 4)", bytes(16)), **HEADERS}.items():
            archive.writestr(f"{name}.npy", content)
        archive.writestr("../../../etc/x.npy", npy("'<f4'", "(1, 4)", bytes(16)))
        archive.writestr("/etc/y.npy", npy("'<f4'", "(1, 4)", bytes(16)))
    return folder / "f.npz"


def hdf5_bombs(folder: Path) -> Path:
    with h5py.File(folder / "f.h5", "w") as file:
        file["good"] = file["other"] = GOOD
        file.create_dataset("declared", shape=(1 << 40, 1024), dtype="f4", chunks=(1024, 1024))
        file.create_dataset("zeros", data=np.zeros((LARGE // 4, 1), np.float32), compression="gzip")
        file["texts"] = np.array([b"a" * 100], object).astype("S100")
        file["link"] = h5py.ExternalLink("/etc/hostname", "/x")
        file["loop"] = h5py.SoftLink("/loop")
        file["deep/self"] = h5py.SoftLink("/deep")
        layout = h5py.VirtualLayout(shape=(3, 4), dtype="f4")
        layout[:] = h5py.VirtualSource("other.h5", "x", shape=(3, 4))
        file.create_virtual_dataset("virtual", layout)
    return folder / "f.h5"


def tar_of_oddities(folder: Path) -> Path:
    with tarfile.open(folder / "f.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        content = io.BytesIO()
        np.save(content, GOOD)
        for name in ("good", "other"):
            entry = tarfile.TarInfo(f"{name}.vst.npy")
            entry.size = content.tell()
            archive.addfile(entry, io.BytesIO(content.getvalue()))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.BLKTYPE, tarfile.CHRTYPE):
            entry = tarfile.TarInfo(f"kind{ord(kind)}.vst.npy")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        entry = tarfile.TarInfo("sparse.vst.npy")
        entry.pax_headers = {
            "GNU.sparse.map": "0,1",
            "GNU.sparse.size": str(1 << 42),
            "GNU.sparse.numblocks": "1",
        }
        archive.addfile(entry)
        entry = tarfile.TarInfo("long.vst.npy")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"\x93NUM"))
    return folder / "f.tar"


@pytest.mark.parametrize(
    ("make", "sound", "failed"),
    [
        (npz_bomb, {"good", "end"}, {"bomb": "the limit is"}),
        (
            npz_of_headers,
            {"good", "../../../etc/x", "/etc/y"},
            dict.fromkeys(HEADERS, "a damaged or truncated"),
        ),
        (
            hdf5_bombs,
            {"good", "other"},
            {
                "declared": "the limit is",
                "zeros": "the limit is",
                "texts": "which is not numeric",
                "virtual": "in another file",
            },
        ),
        (tar_of_oddities, {"good", "other"}, {"sparse": "sparse file", "long": "a damaged or truncated"}),
    ],
)
def test_a_bad_array_fails_its_video_only(
    tmp_path: Path, make: Callable[[Path], Path], sound: set[str], failed: dict[str, str]
):
    path = make(tmp_path)
    with opened(path) as found:
        done = import_features(found, of_stream(found, "vst"), tmp_path / "out", grids={"vst": TimeGrid()})
    assert done.failed == len(failed)
    outcomes = {one.video_id: (one.kind, one.reason) for one in FeatureStore(tmp_path / "out").outcomes()}
    assert {name for name, (kind, _) in outcomes.items() if kind == "done"} == sound
    for name, reason in failed.items():
        assert outcomes[name][0] == "failed"
        assert reason in outcomes[name][1]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pkl", ".h5", ".tar"])
def test_a_broken_link_or_a_pipe_is_named(tmp_path: Path, suffix: str):
    store = store_of_two(tmp_path / "store")
    format = {".npy": "npy-folder", ".npz": "npz-folder", ".pkl": "finefs-folder", ".h5": "hdf5", ".tar": "webdataset"}
    export(store, tmp_path / "made", format[suffix], streams=("vst",))
    folder = tmp_path / "features"
    folder.mkdir()
    for file in (tmp_path / "made").rglob(f"*{suffix}"):
        file.rename(folder / file.name)
    (folder / f"broken{suffix}").symlink_to("gone")
    os.mkfifo(folder / f"pipe{suffix}")
    with opened(folder) as found:
        reasons = list(found.problems)
        for array in found.arrays:
            try:
                array.load()
            except StoreError as error:
                reasons.append(str(error))
    assert len(found.arrays) + len(found.problems) >= 3
    assert sum(f"broken{suffix}: cannot be read (No such file or directory)" in reason for reason in reasons) == 1
    assert sum(f"pipe{suffix}: is a pipe, a socket or a device" in reason for reason in reasons) == 1


def store_of_two(root: Path) -> FeatureStore:
    written(new_store(root), row("a"), row("b"))
    return FeatureStore(root)


def test_a_dict_with_bad_values_gives_the_others(tmp_path: Path):
    values = {"good": GOOD, "text": "x", 1.5: GOOD, "odd": [1, [2, 3]], "huge": 1 << 5000}
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(values))
    with opened(tmp_path / "f.pkl") as found:
        assert [problem.partition("key ")[2] for problem in found.problems] == [
            "1.5 is not a video id; keys must be strings, integers or tuples of them"
        ]
        arrays = {array.video_id: array for array in found.arrays}
        np.testing.assert_array_equal(arrays.pop("good").load(), GOOD)
        for array in arrays.values():
            with pytest.raises(StoreError, match=r"f\.pkl: "):
                array.load()


def test_a_damaged_file_among_others_is_a_problem(tmp_path: Path):
    np.savez(tmp_path / "vst.npz", a=GOOD, b=GOOD)
    np.savez(tmp_path / "zst.npz", a=GOOD, b=GOOD)
    (tmp_path / "ast.npz").write_bytes((tmp_path / "vst.npz").read_bytes()[:300])
    with opened(tmp_path, "npz") as found:
        assert {array.stream for array in found.arrays} == {"vst", "zst"}
        [problem] = found.problems
        assert "ast.npz: a damaged or truncated" in problem


def test_a_zip_whose_members_share_bytes_is_refused(tmp_path: Path):
    np.savez_compressed(tmp_path / "f.npz", a=np.random.default_rng(0).random((100, 100)), b=GOOD)
    content = (tmp_path / "f.npz").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        begin, num_members = archive.start_dir, len(archive.infolist())
    directory, end = content[begin:-22], content[-22:]
    more = directory.replace(b"a.npy", b"c.npy") + directory.replace(b"a.npy", b"d.npy")
    fields: list[Any] = list(struct.unpack("<4s4H2LH", end))
    fields[3] = fields[4] = 3 * num_members
    fields[5] += len(more)
    (tmp_path / "f.npz").write_bytes(content[:-22] + more + struct.pack("<4s4H2LH", *fields))
    with pytest.raises(StoreError, match="its members overlap"), opened(tmp_path / "f.npz"):
        pass


def test_a_file_that_takes_too_long_is_ended(tmp_path: Path):
    content = gzip.compress(bytes(1 << 20))
    with (tmp_path / "f.tar").open("wb") as file:
        head = tarfile.TarInfo("a.vst.npy")
        head.size = 1 << 38
        file.write(gzip.compress(head.tobuf()))
        for _ in range(2000):
            file.write(content)
    with (
        pytest.raises(StoreError, match=r"sent no answer within [\d.]+ s and was ended|a damaged or truncated tar"),
        opened(tmp_path / "f.tar", "webdataset", limits=ReadLimits(timeout_s=0.5)),
    ):
        pass


def test_a_file_that_takes_too_much_memory_is_refused(tmp_path: Path):
    np.save(tmp_path / "large.npy", np.zeros((SMALL_BYTES // 16, 4), np.float32))
    np.save(tmp_path / "small.npy", GOOD)
    # four times the file minus this leaves half of what the array needs, so that a few freed pages change nothing
    limits = ReadLimits(memory_bytes=-7 * SMALL_BYTES // 2)
    with opened(tmp_path, "npy-folder", limits=limits) as found:
        large, small = found.arrays
        with pytest.raises(StoreError, match="takes more memory than its size allows"):
            large.load()
        np.testing.assert_array_equal(small.load(), GOOD)


class Abort:
    """Crashes the process that unpickles it."""

    def __reduce__(self):
        return os.abort, ()


def test_a_file_that_crashes_its_reader_fails_alone(tmp_path: Path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Abort()))
    for name in ("b", "c"):
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(GOOD))
    with opened(tmp_path, trust=True) as found:
        crashing, *others = found.arrays
        with pytest.raises(StoreError, match=r"a\.pkl: the process that reads it crashed \(SIGABRT\)"):
            crashing.load()
        for array in others:
            np.testing.assert_array_equal(array.load(), GOOD)


def test_ids_that_no_parquet_file_can_hold_are_escaped(tmp_path: Path):
    (tmp_path / os.fsdecode(b"caf\xe9.npy")).write_bytes(npy("'<f4'", "(1, 4)", bytes(16)))
    with opened(tmp_path) as found:
        import_features(found, of_stream(found, "vst"), tmp_path / "out", grids={"vst": TimeGrid()})
    assert FeatureStore(tmp_path / "out").video_ids == ("caf\\udce9",)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has seccomp")
def test_the_reading_process_is_restricted(tmp_path: Path):
    np.save(tmp_path / "a.npy", GOOD)
    with opened(tmp_path):
        pids = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
        readers = [pid for pid in pids if b"reading_child" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        [status] = [Path(f"/proc/{pid}/status").read_text() for pid in readers]
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status
