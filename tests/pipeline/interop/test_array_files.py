from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from arabesque.manifests.errors import StoreError
from arabesque.pipeline.interop.array_files import built, read_npy, read_pickle

ARRAYS = {
    "float16": np.arange(6, dtype=np.float16).reshape(2, 3),
    "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big-endian": np.arange(6, dtype=">f4").reshape(2, 3),
    "every other row": np.arange(12, dtype=np.int64).reshape(4, 3)[::2],
    "no rows": np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays_come_back_in_type_and_shape(array, protocol):
    found = read_pickle(io.BytesIO(pickle.dumps({"a": [array]}, protocol)), "x")["a"][0]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tensors_scalars_and_containers(protocol):
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3).T
    value = OrderedDict(
        a=(tensor, torch.nn.Parameter(tensor)), b={np.str_("name"): np.float32(0.5)}, c=tensor.bfloat16()
    )
    found = read_pickle(io.BytesIO(pickle.dumps(value, protocol)), "x")
    for one in found["a"]:
        np.testing.assert_array_equal(one, tensor.numpy())
    assert found["b"] == {"name": 0.5}
    assert found["c"].dtype == np.float32


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_are_read(zipped):
    handle = io.BytesIO()
    torch.save({"1": torch.eye(2)}, handle, _use_new_zipfile_serialization=zipped)
    handle.seek(0)
    np.testing.assert_array_equal(read_pickle(handle, "x")["1"], np.eye(2))


def test_an_npy_file_holds_an_array_or_a_dict(tmp_path: Path):
    np.save(tmp_path / "array.npy", np.eye(2, dtype=np.float16))
    np.save(tmp_path / "dict.npy", {"Ball_001": np.eye(2)}, allow_pickle=True)
    with (tmp_path / "array.npy").open("rb") as handle:
        assert read_npy(handle, "array.npy").dtype == np.float16
    with (tmp_path / "dict.npy").open("rb") as handle:
        np.testing.assert_array_equal(built(read_npy(handle, "dict.npy"), "").item()["Ball_001"], np.eye(2))


class Malice:
    """Creates a folder when it is unpickled by `pickle`."""

    def __init__(self, trap: Path) -> None:
        self.trap = str(trap)

    def __reduce__(self):
        return os.mkdir, (self.trap,)


WAYS = {
    "pickle": lambda value, handle: pickle.dump({"Ball_001": value}, handle),
    "torch": lambda value, handle: torch.save(value, handle),
    "old torch": lambda value, handle: torch.save(value, handle, _use_new_zipfile_serialization=False),
    "npy": lambda value, handle: np.save(handle, np.array({"Ball_001": value}), allow_pickle=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_that_a_file_names_is_run_unless_it_is_trusted(way: str, tmp_path: Path):
    trap = tmp_path / "trap"
    handle = io.BytesIO()
    WAYS[way](Malice(trap), handle)
    read = read_npy if way == "npy" else read_pickle
    handle.seek(0)
    with pytest.raises(StoreError, match=r"evil: .*names posix\.mkdir, .*--trust"):
        read(handle, "evil")
    assert not trap.exists()
    handle.seek(0)
    read(handle, "evil", trust=True)
    assert trap.is_dir()  # so the file above was a real one


@pytest.mark.parametrize("function", [eval, getattr, pickle.loads, np.load, torch.load, io.open])
def test_only_functions_that_rebuild_arrays_are_accepted(function):
    class Call:
        def __reduce__(self):
            return function, ("x", "y")

    with pytest.raises(StoreError, match=r"--trust"):
        read_pickle(io.BytesIO(pickle.dumps(Call())), "evil")


def test_a_storage_inside_a_tensor_cannot_execute_code(tmp_path: Path):
    """``torch.storage._load_from_bytes`` unpickles its argument; ours must not trust that either."""
    trap, inner = tmp_path / "trap", io.BytesIO()
    torch.save(Malice(trap), inner, _use_new_zipfile_serialization=False)

    class Storage:
        def __reduce__(self):
            from torch.storage import _load_from_bytes

            return _load_from_bytes, (inner.getvalue(),)

    with pytest.raises(StoreError):
        read_pickle(io.BytesIO(pickle.dumps(Storage())), "evil")
    assert not trap.exists()


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("value", [np.zeros(1, np.int64), np.int64(0)], ids=["array", "scalar"])
def test_a_pickled_type_cannot_make_pointers_of_bytes(value: object, protocol: int):
    """Eight bytes with the type of an object would be a pointer that the file chooses."""
    forged = pickle.dumps(value, protocol).replace(b"i8", b"O8")
    assert b"O8" in forged
    with pytest.raises(StoreError, match="damaged"):
        read_pickle(io.BytesIO(forged), "evil")


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"<html>quota exceeded</html>", b"\x80\x04K\x01"])
def test_an_incomplete_pickle_is_reported(content: bytes):
    with pytest.raises(StoreError, match=r"page\.pkl: a damaged or truncated pickle"):
        read_pickle(io.BytesIO(content), "page.pkl")


def test_a_truncated_npy_file_is_reported(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    whole = (tmp_path / "a.npy").read_bytes()
    for length in (3, 60, len(whole) - 1):
        with pytest.raises(StoreError, match=r"a\.npy: a damaged or truncated \.npy file"):
            read_npy(io.BytesIO(whole[:length]), "a.npy")
