"""Which videos train and which are held out, decided by their ids and a seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def shuffled(video_ids: Sequence[str], seed: int) -> list[str]:
    """An order that depends on each id and the seed, not on the order given; adding a video moves no two others."""
    return sorted(video_ids, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def folds(video_ids: Sequence[str], num_folds: int, seed: int) -> list[list[str]]:
    """Every video in exactly one fold; sizes differ by one at most."""
    order = shuffled(video_ids, seed)
    if not 2 <= num_folds <= len(order):
        raise ValueError(f"{num_folds} folds of {len(order)} videos; there must be 2 or more, each with a video in it")
    return [order[first::num_folds] for first in range(num_folds)]


def hold_out(video_ids: Sequence[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """``(training, held out)``; the latter has at least two videos, since one has no rank."""
    order = shuffled(video_ids, seed)
    count = max(2, round(fraction * len(order)))
    return order[count:], order[:count]
