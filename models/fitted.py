"""Modules whose buffers get their shapes when they are fitted or loaded from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Fitted(nn.Module):
    """Base of modules without gradient descent. `solve` and `load_state_dict` replace the buffers, with any shapes."""

    def empty_buffers(self, **dims: int) -> None:
        """Register float64 buffers without elements: name → number of dimensions."""
        for name, count in dims.items():
            self.register_buffer(name, torch.zeros((0,) * count, dtype=torch.float64))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name, buffer in list(self._buffers.items()):
            saved = state_dict.get(f"{prefix}{name}")
            if buffer is not None and isinstance(saved, Tensor) and saved.dim() == buffer.dim():
                self._buffers[name] = torch.empty_like(saved)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # pyright: ignore[reportUnknownMemberType]
