"""Arrays out of pickles without running anything that the pickle names.

Feature files of the field are pickles (``np.save`` of a dict, ``pickle.dump`` of a tensor), and reading a pickle the
usual way runs whatever it names. Here a pickle may name NumPy arrays and scalars, torch tensors and plain containers.
What it says of arrays is kept by inert records and built by us afterwards, from shape, type and bytes alone: NumPy's
own reading of a pickled ``dtype`` believes flags that can make it follow pointers.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import StoreError

_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_PLAIN_TYPE = re.compile(r"[biufSU]\d+|O\d*")


class ForeignPickle(pickle.UnpicklingError):
    """The pickle names something that has no place among arrays."""


def read_pickle(handle: BinaryIO, name: str, *, trust: bool = False) -> Any:
    """The pickled object that begins here, or torch's file; arrays and tensors come as NumPy arrays, on the CPU.

    StoreError where it is damaged, or names more than arrays and plain containers and is not trusted.
    """
    begin = handle.tell()
    head = handle.read(len(_TORCH_LEGACY))
    handle.seek(begin)
    try:
        if head.startswith(b"PK\x03\x04") or head == _TORCH_LEGACY:
            return plain(_read_torch(handle, trust=trust))
        return plain(_read(handle, trust=trust))
    except ForeignPickle as error:
        raise StoreError(
            f"{name}: {error}, and reading a pickle runs what it names, with your rights; only if you know who made "
            "this file, read it with --trust"
        ) from error
    except Exception as error:
        raise StoreError(f"{name}: a damaged or cut pickle ({_first_line(error)}); get it anew") from error


def read_npy(handle: BinaryIO, name: str, *, trust: bool = False) -> Any:
    """An ``.npy`` file: its array, or what was pickled into it (``np.save`` of a dict gives a 0-d object array)."""
    try:
        version = np.lib.format.read_magic(handle)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        _, _, dtype = read_header(handle)
        if not dtype.hasobject:
            handle.seek(0)
            return np.lib.format.read_array(handle, allow_pickle=False)
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise StoreError(f"{name}: a damaged or cut .npy file ({_first_line(error)}); get it anew") from error
    return read_pickle(handle, name, trust=trust)


def plain(value: Any) -> Any:
    """The value with every array in it built: records of arrays and torch tensors become NumPy arrays."""
    if isinstance(value, _Array):
        return value.build()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value] if isinstance(value, list) else tuple(map(plain, value))
    if isinstance(value, np.ndarray) and value.dtype == object:
        return _objects(value.shape, value.ravel().tolist())
    return _numpy_of(value) if type(value).__module__.startswith("torch") else value


class _Dtype:
    """``numpy.dtype(name)``; of the state that follows only the byte order is believed."""

    def __init__(self, name: str = "", *_: object) -> None:
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def build(self) -> np.dtype[Any]:
        if not isinstance(self.name, str) or not _PLAIN_TYPE.fullmatch(self.name):
            raise pickle.UnpicklingError(f"numbers of type {self.name!r}")
        return np.dtype(self.name).newbyteorder(self.order)  # type: ignore[arg-type]


class _Array:
    """``numpy.ndarray``, as its pickled state describes it."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def build(self) -> NDArray[Any]:
        shape, dtype, is_fortran, content = self.state[-4:]
        kind = dtype.build()
        if kind.hasobject:
            return _objects(shape, [plain(item) for item in content])
        return _from_bytes(content, kind, shape, "F" if is_fortran else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, content: bytes | str) -> Any:
    return _from_bytes(content, dtype.build(), (), "C").item()


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str, *_: object) -> NDArray[Any]:
    return _from_bytes(content, dtype.build(), shape, order)


def _from_bytes(content: bytes | str, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    """NumPy refuses to take bytes for objects here."""
    raw = content.encode("latin-1") if isinstance(content, str) else content  # Python 2 wrote bytes as text
    return np.frombuffer(raw, dtype).reshape(shape, order=order)


def _objects(shape: tuple[int, ...], items: list[Any]) -> NDArray[Any]:
    array = np.empty(len(items), object)
    array[:] = [None] * len(items)  # one by one: NumPy would take a list of equal lists apart
    for place, item in enumerate(items):
        array[place] = plain(item)
    return array.reshape(shape)


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding!r}")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    """Protocol 2 writes empty bytes as a call without arguments; one with a number would take memory."""
    return b""


def _storage(content: bytes) -> Any:
    import torch

    return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> NDArray[Any]:
    import torch
    from torch._utils import _rebuild_tensor_v2

    if not isinstance(storage, torch.storage.TypedStorage):
        raise pickle.UnpicklingError("a tensor without its numbers")
    return _numpy_of(_rebuild_tensor_v2(storage, offset, size, stride, False, OrderedDict()))


def _parameter(tensor: NDArray[Any], *_: object) -> NDArray[Any]:
    return tensor


def _numpy_of(tensor: Any) -> NDArray[Any]:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise pickle.UnpicklingError(f"a {type(tensor).__name__} where an array should be")
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,
    ("__builtin__", "bytes"): _no_bytes,
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    **{(module, kind.__name__): kind for module in ("builtins", "__builtin__") for kind in (set, frozenset)},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in _ADMITTED:
            raise ForeignPickle(f"its pickle names {module_name}.{global_name}")
        return _ADMITTED[module_name, global_name]


def _read(handle: BinaryIO, *, trust: bool) -> Any:
    if trust:
        return pickle.load(handle, encoding="latin1")  # noqa: S301 - the user vouches for the file
    return _Unpickler(handle, encoding="latin1").load()


def _read_torch(handle: BinaryIO, *, trust: bool) -> Any:
    """What `torch.save` wrote; torch has a restricted unpickler of its own."""
    import torch

    try:
        return torch.load(handle, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise ForeignPickle(f"it names {found[1]}" if found else "it holds more than tensors") from error


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
