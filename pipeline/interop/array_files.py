"""Arrays from untrusted ``.npy`` data, pickles and torch files. Damaged or disallowed files raise StoreError."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import StoreError
from ...manifests.untrusted_npy import read_data, read_header, remaining_bytes
from ...manifests.untrusted_pickles import ForeignPickle, plain
from ...manifests.untrusted_torch import is_torch, read_torch
from ...manifests.untrusted_torch import read_pickle as read_untrusted


def read_pickle(handle: BinaryIO, name: str, *, trust: bool = False) -> Any:
    """Return the pickled object or torch file at the position of the handle, with tensors as NumPy arrays.

    Args:
        handle: A seekable file.
        name: Name of the file for error messages.
        trust: Unpickle with the standard library, which executes code of the file.

    Raises:
        StoreError: The pickle is damaged, or is not trusted and contains more than arrays and plain containers.
    """
    return built(unpickled(handle, name, trust=trust), name)


def unpickled(handle: BinaryIO, name: str, *, trust: bool = False) -> Any:
    """Like `read_pickle`, but with arrays and tensors as records for `built`. The handle must stay open until then."""
    try:
        if trust:
            return _without_torch(_load_trusted(handle))
        if is_torch(handle):
            return read_torch(handle)
        return read_untrusted(handle, handle.tell() + remaining_bytes(handle))
    except ForeignPickle as error:
        raise StoreError(
            f"{name}: {error}, which is not part of an array; if you trust its author, give --trust, which "
            "executes code of the file with your permissions"
        ) from error
    except Exception as error:
        raise damaged(name, "pickle", error) from error


def built(value: Any, name: str) -> Any:
    """Return a value of `unpickled` in which the records are NumPy arrays."""
    try:
        return plain(value)
    except Exception as error:
        raise damaged(name, "pickle", error) from error


def read_npy(handle: BinaryIO, name: str, *, stored_bytes: int | None = None, trust: bool = False) -> Any:
    """Return the array of an ``.npy`` file, or the pickled object in it (``np.save`` of a dict) as `unpickled` does.

    ``stored_bytes``: compressed size of the data; by default the bytes from the position of the handle to the end.
    """
    try:
        header = read_header(handle)
        if not header.dtype.hasobject:
            return read_data(handle, header, remaining_bytes(handle) if stored_bytes is None else stored_bytes)
    except MemoryError:
        raise
    except Exception as error:
        raise damaged(name, ".npy file", error) from error
    return unpickled(handle, name, trust=trust)


def damaged(name: str, kind: str, error: Exception) -> StoreError:
    """Return the StoreError for a file whose reading failed with ``error``."""
    if isinstance(error, MemoryError):
        return StoreError(
            f"{name}: takes more memory than its size allows; if it is valid, split it into several files"
        )
    if isinstance(error, OSError) and error.errno:
        return StoreError(f"{name}: cannot be read ({os.strerror(error.errno)}); check the path and its permissions")
    first_line = str(error).partition("\n")[0]
    return StoreError(f"{name}: a damaged or truncated {kind} ({type(error).__name__}: {first_line}); get it again")


def _load_trusted(handle: BinaryIO) -> Any:
    if not is_torch(handle):
        return pickle.load(handle, encoding="latin1")  # noqa: S301 - the user trusts the file
    import torch

    return torch.load(handle, map_location="cpu", weights_only=False)


def _without_torch(value: Any) -> Any:
    """Return the value with tensors as arrays."""
    if isinstance(value, Mapping):
        return {key: _without_torch(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        items = [_without_torch(item) for item in cast("list[Any]", value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, np.ndarray):
        array = cast("NDArray[Any]", value)
        if array.dtype != object:
            return array
        boxed = np.empty(array.shape, object)
        for index in np.ndindex(array.shape):
            boxed[index] = _without_torch(array[index])
        return boxed
    return _array_of(value) if type(value).__module__.startswith("torch") else value


def _array_of(tensor: Any) -> NDArray[Any]:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise pickle.UnpicklingError(f"a {type(tensor).__name__} where an array is expected")
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
