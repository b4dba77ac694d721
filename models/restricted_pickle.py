"""Tensors out of a pickled network, without running anything that the pickle names.

PAMFN publishes whole modules (``torch.save(model)``). Reading one the usual way executes whatever classes and functions
it names. Here classes become inert shells that only keep what they are given, a few functions that rebuild tensors are
let through, and everything else is refused. To be handed to `torch.load` as its ``pickle_module``.
"""

from __future__ import annotations

import io
import pickle
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn
from torch._utils import _rebuild_parameter, _rebuild_tensor_v2

from ..manifests.errors import WeightsError

UnpicklingError = pickle.UnpicklingError
"""With `load`, `loads` and `Unpickler` what `torch.load` asks of a pickle module."""

_LET_THROUGH = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}
_STORAGES = {
    f"{kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Byte", "Bool")
}
_SHELLS = ("torch.nn.modules.", "models.")
_DEEPEST = 100
"""Modules within modules; the published ones go six deep."""


class Shell:
    """Stands in for an instance of any class; holds its state and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class Unpickler(pickle.Unpickler):
    """Finds shells, tensors and plain containers, and nothing else."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        found = _LET_THROUGH.get((module_name, global_name))
        if found is not None:
            return found
        if module_name == "torch" and global_name in _STORAGES:
            return getattr(torch, global_name)
        if module_name.startswith(_SHELLS):
            return type(global_name, (Shell,), {"__module__": module_name})
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, which a network has no use for")


def load(file: BinaryIO, **options: Any) -> Any:
    """What `torch.load` reads the header of an old file with: as much anybody's bytes as the rest."""
    return Unpickler(file, **options).load()


def loads(data: bytes, **options: Any) -> Any:
    return load(io.BytesIO(data), **options)


def read_pickled_network(path: Path) -> dict[str, Tensor]:
    """The state dict of a pickled ``nn.Module``; raises `WeightsError` for a file that names anything unusual."""
    if _is_torchscript(path):  # torch.load would hand it to torch.jit.load, past our unpickler
        raise WeightsError(f"{path}: holds a TorchScript program, not a pickled network; get it anew from its authors")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # files of old compare the classes' source code with what they carry
            root = torch.load(path, map_location="cpu", pickle_module=sys.modules[__name__], weights_only=False)
    except Exception as error:  # a forged pickle fails in whatever of torch it makes stumble
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(
            f"{path}: not a pickled network that is safe to read ({reason}); get it anew from its authors"
        ) from error
    if not isinstance(root, Shell):
        raise WeightsError(f"{path}: holds a {type(root).__name__}, not a pickled network")
    try:
        return dict(_tensors(root, "", ()))
    except (AttributeError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its modules are not built as a network's are ({error})") from error


def _tensors(shell: Shell, prefix: str, above: tuple[Shell, ...]) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers under the names that ``nn.Module.state_dict`` gives them."""
    if any(shell is other for other in above) or len(above) > _DEEPEST:
        raise ValueError(f"{prefix} does not end")
    for group in ("_parameters", "_buffers"):
        for name, value in getattr(shell, group, {}).items():
            if isinstance(value, Tensor):
                yield prefix + name, value.data if isinstance(value, nn.Parameter) else value
    for name, child in getattr(shell, "_modules", {}).items():
        if isinstance(child, Shell):
            yield from _tensors(child, f"{prefix}{name}.", (*above, shell))


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())
