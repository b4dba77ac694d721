"""The routines of a data set in memory: read once, then cut into batches by index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .protocol import Protocol
from .scoring import SegmentBatch


@dataclass(frozen=True, eq=False)
class Routines:
    """Features of all videos, padded once; subsets are index tensors, so that nothing is copied."""

    video_ids: tuple[str, ...]
    features: Mapping[str, Tensor]
    """stream → ``float32 [videos, segments, dim]``, zeros where a routine has ended"""
    lengths: Mapping[str, Tensor]
    """stream → ``int64 [videos]``, 0 where a video has no such stream"""

    def __len__(self) -> int:
        return len(self.video_ids)

    @property
    def dims(self) -> dict[str, int]:
        return {stream: values.shape[-1] for stream, values in self.features.items()}

    def whole(self, rows: Tensor) -> SegmentBatch:
        """These videos from their first to their last segment, padded to the longest of them."""
        longest = {stream: max(1, int(lengths[rows].max())) for stream, lengths in self.lengths.items()}
        return self._cut(rows, dict.fromkeys(self.features), longest)

    def crop(self, rows: Tensor, protocol: Protocol, generator: torch.Generator) -> SegmentBatch:
        """These videos as training sees them: a random run of ``protocol.crop`` segments of each.

        One draw places a video's run in all of its streams, so that streams of equal length stay aligned.
        """
        place = torch.rand(len(rows), generator=generator, dtype=torch.float64)
        starts: dict[str, Tensor | None] = {}
        sizes: dict[str, int] = {}
        for stream, lengths in self.lengths.items():
            size = protocol.crop_of(stream)
            if size is None:
                sizes[stream], starts[stream] = max(1, int(lengths[rows].max())), None
            else:
                spare = (lengths[rows] - size).clamp(min=0)
                sizes[stream], starts[stream] = size, (place * (spare + 1)).floor().long()
        return self._cut(rows, starts, sizes)

    def equal_lengths(self, rows: Tensor, most: int = 32) -> Iterator[Tensor]:
        """The rows in groups whose routines are equally long in every stream: batches without padding."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for row in rows.tolist():
            groups.setdefault(tuple(int(lengths[row]) for lengths in self.lengths.values()), []).append(row)
        for members in groups.values():
            for first in range(0, len(members), most):
                yield torch.tensor(members[first : first + most])

    def _cut(self, rows: Tensor, starts: Mapping[str, Tensor | None], sizes: Mapping[str, int]) -> SegmentBatch:
        features: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        for stream, values in self.features.items():
            offset = torch.arange(sizes[stream])
            start = starts[stream]
            place = offset.expand(len(rows), -1) if start is None else start[:, None] + offset
            masks[stream] = place < self.lengths[stream][rows, None]
            last = values.shape[1] - 1
            cut = values[rows[:, None], place.clamp(max=last)]
            # a place past the tensor's end was clamped onto a real segment: padding is zero whatever lay there
            features[stream] = cut if bool(masks[stream].all()) else cut * masks[stream].unsqueeze(-1)
        return SegmentBatch(features, masks)


def stack_routines(videos: Mapping[str, Mapping[str, np.ndarray]], dims: Mapping[str, int]) -> Routines:
    """``{video_id: {stream: [segments, dim]}}`` in one padded tensor per stream; a stream may lack in a video."""
    video_ids = tuple(videos)
    features: dict[str, Tensor] = {}
    lengths: dict[str, Tensor] = {}
    for stream, dim in dims.items():
        sizes = [len(videos[name][stream]) if stream in videos[name] else 0 for name in video_ids]
        padded = torch.zeros(len(video_ids), max([1, *sizes]), dim)
        for row, (name, size) in enumerate(zip(video_ids, sizes, strict=True)):
            if size:
                padded[row, :size] = torch.from_numpy(np.asarray(videos[name][stream], dtype=np.float32))
        features[stream], lengths[stream] = padded, torch.tensor(sizes)
    return Routines(video_ids, features, lengths)


def rows_of(routines: Routines, video_ids: Sequence[str]) -> Tensor:
    """Where these videos stand; KeyError names one that is not there."""
    places = {name: row for row, name in enumerate(routines.video_ids)}
    return torch.tensor([places[name] for name in video_ids], dtype=torch.int64)
