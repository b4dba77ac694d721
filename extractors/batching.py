"""Items of different shapes in one call of `forward`: those that are alike run together, rows come back in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def rows_by_shape(items: Sequence[Tensor], compute: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """One float32 row for each item; ``compute`` turns a stack ``[n, ...]`` of like items into ``[n, dim]``."""
    positions: dict[tuple[torch.Size, torch.dtype], list[int]] = {}
    for position, item in enumerate(items):
        positions.setdefault((item.shape, item.dtype), []).append(position)
    rows: dict[int, Tensor] = {}
    for together in positions.values():
        batch = torch.stack([items[position] for position in together])
        rows.update(zip(together, compute(batch).float(), strict=True))
    return [rows[position] for position in range(len(items))]
