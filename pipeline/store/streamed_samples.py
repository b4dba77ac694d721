"""Training samples from a store larger than memory: read in storage order, shuffled on the way, split among ranks.

samples = AlignedSamples(FeatureStore("features/"), ["vst", "ast"], labels=scores)
streamed = StreamedSamples(samples, seed=0, rank=rank, num_ranks=world_size)
loader = DataLoader(streamed, batch_size=32, num_workers=4, collate_fn=collate_padded)
for epoch in range(epochs):
    streamed.epoch = epoch
    for batch in loader: ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import IterableDataset

from .aligned_samples import AlignedSamples

T = TypeVar("T")

RUN_OF_VIDEOS = 16
"""Neighbours in storage that are read at once."""


class StreamedSamples(IterableDataset[dict[str, Any]]):
    """Every sample of `AlignedSamples` once an epoch, a bounded number of them in memory at a time.

    Runs of neighbouring videos are read in random order, and samples are drawn from ``mixed`` that wait. The order
    follows from ``(seed, epoch)`` alone; set ``epoch`` before each pass, with no persistent workers. Ranks share out
    the videos; with ``even`` each gives equally many, as data-parallel training needs, and up to ``num_ranks - 1``
    videos, others in each epoch, sit out. The workers of a ``DataLoader`` share out a rank's videos.
    """

    def __init__(
        self,
        samples: AlignedSamples,
        *,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        even: bool = False,
        mixed: int = 256,
    ) -> None:
        if not 0 <= rank < num_ranks:
            raise ValueError(f"rank {rank} is none of {num_ranks} ranks, which count from 0")
        self.samples = samples
        self.epoch = 0
        self._shuffle = shuffle
        self._seed = seed
        self._rank = rank
        self._num_ranks = num_ranks
        self._even = even
        self._mixed = max(mixed, 1)
        whole = set(samples.video_ids)
        stored = [video_id for video_id in samples.store.stored_order(samples.reference) if video_id in whole]
        self._runs = [stored[first : first + RUN_OF_VIDEOS] for first in range(0, len(stored), RUN_OF_VIDEOS)]

    def __len__(self) -> int:
        first, end = self._share()
        return end - first

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = torch.utils.data.get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        generator = np.random.default_rng((self._seed, self.epoch))
        first, end = self._share()
        mine = _split(self._in_order(generator)[first:end], number, count)
        read = (
            sample
            for start in range(0, len(mine), RUN_OF_VIDEOS)
            for sample in self.samples.read_together(mine[start : start + RUN_OF_VIDEOS])
        )
        yield from _mix(read, self._mixed, generator) if self._shuffle else read

    def _in_order(self, generator: np.random.Generator) -> list[str]:
        """All videos, neighbours in storage side by side."""
        order = generator.permutation(len(self._runs)) if self._shuffle else range(len(self._runs))
        return [video_id for place in order for video_id in self._runs[place]]

    def _share(self) -> tuple[int, int]:
        """Where this rank's videos begin and end."""
        total = sum(map(len, self._runs))
        if self._even:
            size = total // self._num_ranks
            return self._rank * size, (self._rank + 1) * size
        return self._rank * total // self._num_ranks, (self._rank + 1) * total // self._num_ranks


def _mix(samples: Iterable[T], most: int, generator: np.random.Generator) -> Iterator[T]:
    """Each sample gives way to a random one of the ``most`` that came before it."""
    waiting: list[T] = []
    for sample in samples:
        if len(waiting) < most:
            waiting.append(sample)
            continue
        place = int(generator.integers(most))
        yield waiting[place]
        waiting[place] = sample
    generator.shuffle(waiting)  # type: ignore[arg-type]
    yield from waiting


def _split(video_ids: list[str], part: int, parts: int) -> list[str]:
    return video_ids[part * len(video_ids) // parts : (part + 1) * len(video_ids) // parts]
