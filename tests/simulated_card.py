"""A simulated accelerator: its tensors report the device ``card:0`` and are computed on the CPU.

An operation that mixes tensors of the host and of the device raises an error, as on a GPU. Operations for which the
host would wait for the device are counted by their place in the code (`WAITS`), and all operations are counted, too
(`LAUNCHES`). Random numbers are those of the CPU's generator, so that results can be compared with the CPU's. The
device is registered with PyTorch for the rest of the process, so that the autograd engine runs on it: import this
module in a separate process. It does not replace tests on a GPU: kernels, streams and memory are not simulated.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

ROOT = Path(__file__).parents[1]
PACKAGES = ROOT / "arabesque"
WAITS: Counter[tuple[str, str, str]] = Counter()
"""(thread, kind, ``file:line`` of our code) → number of waits of the host for the device."""
LAUNCHES: Counter[tuple[str, str]] = Counter()
"""(thread, operation) → number of calls; views are not counted."""
_LOCK = threading.Lock()
SYNCHRONIZING = ("nonzero", "nms", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave")
"""Operations whose output shape depends on values, or which read values on the host."""
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
COPIES = ("_to_copy", "to", "copy_")


class _CardModule(_DummyBackendModule):
    """The functions that PyTorch requires of the module ``torch.card``."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.zeros(1)

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        pass

    def manual_seed_all(self, seed: int) -> None:
        pass


_setup_privateuseone_for_python_backend("card", _CardModule())
_AUTOCAST = torch.library.Library("_", "IMPL")
_AUTOCAST.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")  # autocast leaves the types as they are
CARD = torch.device("card", 0)


class CardTensor(Tensor):
    """A tensor whose device is the card; ``on_cpu`` has its values on the CPU."""

    on_cpu: Tensor
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> CardTensor:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        return Tensor._make_wrapper_subclass(cls, inner.size(), **layout, device=CARD)

    def __init__(self, inner: Tensor) -> None:
        self.on_cpu = inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        _wait("tolist")
        return self.on_cpu.tolist()

    def untyped_storage(self) -> Any:
        return self.on_cpu.untyped_storage()

    def data_ptr(self) -> int:
        return self.on_cpu.data_ptr()

    def record_stream(self, s: Any) -> None:
        """Do nothing: memory is freed as on the CPU."""

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert card:0 device type tensor to numpy. Use Tensor.cpu() first")


class _CardMode(TorchDispatchMode):
    """Make tensors of ``device="card"`` tensors of the card."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _pinned(tensor: Tensor) -> Tensor:
    """Replace `Tensor.pin_memory`: the memory is unchanged, and marked as page-locked."""
    copy: Any = tensor.clone()
    copy.is_page_locked = True
    return copy


@contextmanager
def simulated_card() -> Iterator[torch.device]:
    """Compute tensors of the card within the block, in this thread and in threads that start there."""
    run = threading.Thread.run

    def run_on_card(thread: threading.Thread) -> None:
        with _CardMode():
            run(thread)

    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # `Module.to` then makes new parameters
    lifts_on_cpu = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(…, device="card")` then copies through the mode
    try:
        # tensors of a subclass count versions, which inference mode does not
        with (
            mock.patch.object(torch, "inference_mode", torch.no_grad),
            mock.patch.object(threading.Thread, "run", run_on_card),
            mock.patch.object(Tensor, "pin_memory", _pinned),
            mock.patch.object(torch.accelerator, "synchronize"),
            mock.patch.object(torch.accelerator, "empty_cache"),
            _CardMode(),
        ):
            yield CARD
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
        torch._C._set_only_lift_cpu_tensors(lifts_on_cpu)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU; the results are on the card if a tensor of the card or its device is given."""
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    of_card = [each for each in tensors if isinstance(each, CardTensor)]
    of_host = [each for each in tensors if not isinstance(each, CardTensor)]
    device = None if kwargs.get("device") is None else torch.device(kwargs["device"])
    name = func.overloadpacket.__name__
    _count(name, func, args, kwargs, of_card, of_host, device)
    if of_card and name not in (*INDEXING, *COPIES) and any(each.dim() for each in of_host):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got card:0 and cpu")
    inner_args, inner_kwargs = tree_map(_inner, args), tree_map(_inner, kwargs)
    if device is not None:
        inner_kwargs["device"] = torch.device("cpu")
    inner_kwargs.pop("pin_memory", None)
    result = func(*inner_args, **inner_kwargs)
    if name == "_to_copy" and device is not None and result is inner_args[0]:
        result = result.clone()
    to_card = device.type == "card" if device is not None else bool(of_card)
    if name == "copy_":
        to_card = isinstance(args[0], CardTensor)
    written = _written(func, args, kwargs)

    def outer(value: Any) -> Any:
        if not isinstance(value, Tensor) or isinstance(value, CardTensor):
            return value
        for given in written:
            if value is _inner(given):
                return given
        return CardTensor(value) if to_card else value

    return tree_map(outer, result)


def _count(
    name: str,
    func: Any,
    args: Any,
    kwargs: dict[str, Any],
    of_card: list[CardTensor],
    of_host: list[Tensor],
    device: torch.device | None,
) -> None:
    """Count an operation, and the wait if the host would have to wait for it."""
    if not of_card and (device is None or device.type != "card"):
        return
    if not func.is_view:
        with _LOCK:
            LAUNCHES[threading.current_thread().name, name] += 1
    if name in COPIES:
        is_asynchronous = kwargs.get("non_blocking", False) or (name == "copy_" and len(args) > 2 and args[2])
        upload = bool(of_host) and (isinstance(args[0], CardTensor) if name == "copy_" else device is not None)
        download = bool(of_card) and (
            not isinstance(args[0], CardTensor) if name == "copy_" else device is not None and device.type == "cpu"
        )
        if upload and not (is_asynchronous and all(hasattr(each, "is_page_locked") for each in of_host)):
            _wait("copy to the device")
        if download and not is_asynchronous:
            _wait("copy to the host")
    elif name == "_local_scalar_dense":
        _wait("item")
    elif name in SYNCHRONIZING:
        _wait(name)
    elif name in INDEXING:
        indices = [each for each in args[1] if each is not None]
        if any(not isinstance(each, CardTensor) for each in indices):
            _wait("index from the host")
        if any(each.dtype in (torch.bool, torch.uint8) for each in indices):
            _wait("index by a mask")


def _wait(kind: str) -> None:
    """Count a wait at the innermost line of our packages."""
    frame: Any = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(f"{PACKAGES}/"):
        frame = frame.f_back
    where = "?" if frame is None else f"{Path(frame.f_code.co_filename).relative_to(PACKAGES)}:{frame.f_lineno}"
    with _LOCK:
        WAITS[threading.current_thread().name, kind, where] += 1


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the arguments that an in-place operation changes and returns."""
    found: list[Tensor] = []
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[index] if index < len(args) else kwargs.get(argument.name)
        found += [each for each in tree_flatten(value)[0] if isinstance(each, Tensor)]
    return found


def _inner(value: Any) -> Any:
    return value.on_cpu if isinstance(value, CardTensor) else value
