"""Training samples from a store larger than memory: read in storage order, shuffled in a buffer, split among ranks.

samples = AlignedDataset(FeatureStore("features/"), ["vst", "ast"], labels=scores)
streamed = StreamingDataset(samples, seed=0, rank=rank, world_size=world_size)
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

from .aligned_dataset import AlignedDataset

T = TypeVar("T")

RUN_OF_VIDEOS = 16
"""Number of videos that are adjacent in storage and read together."""


class StreamingDataset(IterableDataset[dict[str, Any]]):
    """Iterable PyTorch dataset for stores larger than memory: each epoch has each sample of a dataset once.

    Blocks of videos that are stored together are read in random order into a shuffle buffer. The order depends only on
    ``(seed, epoch)``; set ``epoch`` before each pass, and do not use persistent workers. The workers of a
    ``DataLoader`` divide the videos of a rank.

    Args:
        samples: The samples.
        shuffle: Shuffle the samples; otherwise they are in storage order.
        seed: Seed of the order, together with ``epoch``.
        rank: Number of this process, from 0.
        world_size: Number of processes that divide the videos.
        drop_last: Give every rank the same number of samples, as data-parallel training needs. Up to ``world_size - 1``
            videos, different ones in each epoch, are left out.
        shuffle_buffer: Samples in the shuffle buffer.

    Raises:
        ValueError: ``rank`` is not between 0 and ``world_size - 1``.

    Example:
        >>> import arabesque
        >>> dataset = arabesque.AlignedDataset(arabesque.open_store("features"), ["motion"])
        >>> streaming = arabesque.StreamingDataset(dataset, seed=0)
        >>> streaming.epoch = 1
        >>> sorted(sample["video_id"] for sample in streaming)
        ['another', 'routine']
    """

    def __init__(
        self,
        samples: AlignedDataset,
        *,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        shuffle_buffer: int = 256,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not between 0 and {world_size - 1}")
        self.samples = samples
        self.epoch = 0
        self._shuffle = shuffle
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._drop_last = drop_last
        self._shuffle_buffer = max(shuffle_buffer, 1)
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
        yield from _mix(read, self._shuffle_buffer, generator) if self._shuffle else read

    def _in_order(self, generator: np.random.Generator) -> list[str]:
        """Return all videos; videos that are adjacent in storage stay adjacent."""
        order = generator.permutation(len(self._runs)) if self._shuffle else range(len(self._runs))
        return [video_id for place in order for video_id in self._runs[place]]

    def _share(self) -> tuple[int, int]:
        """Return the start and end of this rank's videos."""
        total = sum(map(len, self._runs))
        if self._drop_last:
            size = total // self._world_size
            return self._rank * size, (self._rank + 1) * size
        return self._rank * total // self._world_size, (self._rank + 1) * total // self._world_size


def _mix(samples: Iterable[T], most: int, generator: np.random.Generator) -> Iterator[T]:
    """Replace a random one of ``most`` buffered samples by each new sample, and yield the replaced one."""
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
