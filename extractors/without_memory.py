"""Networks without weights in memory, to read dims and shapes in milliseconds for networks of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

Network = TypeVar("Network", bound=nn.Module)


class _EmptyOnMeta(TorchFunctionMode):
    """Creates parameters that have a shape and no memory. Tables that constructors compute are ordinary tensors."""

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is torch.empty:
            given["device"] = "meta"
        return func(*args, **given)


def without_memory(build: Callable[[], Network]) -> Network:
    """Build a network whose parameters are on PyTorch's meta device."""
    with _EmptyOnMeta():
        return build()
