"""Networks without numbers: dims and shapes of a network in milliseconds, whatever its size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

Network = TypeVar("Network", bound=nn.Module)


class _EmptyOnMeta(TorchFunctionMode):
    """Parameters have shapes and no memory; the small tables that networks compute while they are built have both."""

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
