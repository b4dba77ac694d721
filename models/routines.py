"""The routines of a data set in memory: read once, then cut into batches by index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .protocol import Protocol
from .scoring import SegmentBatch


@dataclass(frozen=True, eq=False)
class Placed:
    """One stream of one video on its segments."""

    values: NDArray[np.float32]
    """``[segments, dim]``"""
    present: NDArray[np.bool_] | None = None
    """``[segments]``: False where the stream says nothing of a segment; None where it does of all"""
    num_segments: int | None = None
    """Of a stream without any values on a grid of other streams"""

    @classmethod
    def absent(cls, num_segments: int) -> Self:
        return cls(np.zeros((0, 0), np.float32), None, num_segments)

    def __len__(self) -> int:
        return len(self.values) if self.num_segments is None else self.num_segments

    def without(self, index: int) -> Self:
        """The same as if this segment had never been; the ones after it close up."""
        if self.num_segments is not None:
            return self.absent(self.num_segments - 1)
        present = None if self.present is None else np.delete(self.present, index)
        return type(self)(np.delete(self.values, index, axis=0), present)


@dataclass(frozen=True, eq=False)
class Routines:
    """Features of all videos, padded once; subsets are index tensors, so that nothing is copied."""

    video_ids: tuple[str, ...]
    features: Mapping[str, Tensor]
    """stream → ``float32 [videos, segments, dim]``, zeros where there is nothing"""
    present: Mapping[str, Tensor]
    """stream → ``bool [videos, segments]``"""
    lengths: Mapping[str, Tensor]
    """stream → ``int64 [videos]``: where a routine ends, 0 where it has no such stream"""

    def __len__(self) -> int:
        return len(self.video_ids)

    @property
    def dims(self) -> dict[str, int]:
        return {stream: values.shape[-1] for stream, values in self.features.items()}

    def names(self, rows: Tensor) -> tuple[str, ...]:
        """The videos of these rows; `rows_of` is the way back."""
        return tuple(self.video_ids[row] for row in rows.tolist())

    def only(self, streams: Sequence[str]) -> Routines:
        """The same videos with fewer streams; nothing is copied."""
        parts = ({stream: part[stream] for stream in streams} for part in (self.features, self.present, self.lengths))
        return Routines(self.video_ids, *parts)

    def whole(self, rows: Tensor) -> SegmentBatch:
        """These videos from their first to their last segment, padded to the longest of them."""
        longest = {stream: max(1, int(lengths[rows].max())) for stream, lengths in self.lengths.items()}
        starts = {stream: torch.zeros(len(rows), dtype=torch.int64) for stream in self.features}
        return self._cut(rows, starts, longest)

    def crop(self, rows: Tensor, protocol: Protocol, generator: torch.Generator) -> SegmentBatch:
        """These videos as training sees them: a random run of ``protocol.crop`` segments of each.

        One draw places a video's run in all of its streams, so that streams of equal length stay aligned.
        """
        place = torch.rand(len(rows), generator=generator, dtype=torch.float64)
        starts: dict[str, Tensor] = {}
        sizes: dict[str, int] = {}
        for stream, lengths in self.lengths.items():
            wanted = protocol.crop_of(stream)
            sizes[stream] = wanted or max(1, int(lengths[rows].max()))
            spare = (lengths[rows] - sizes[stream]).clamp(min=0)
            starts[stream] = (place * (spare + 1)).floor().long()
        return self._cut(rows, starts, sizes)

    def equal_lengths(self, rows: Tensor, most: int = 32) -> Iterator[Tensor]:
        """The rows in groups whose routines are equally long in every stream: batches without padding."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for row in rows.tolist():
            groups.setdefault(tuple(int(lengths[row]) for lengths in self.lengths.values()), []).append(row)
        for members in groups.values():
            for first in range(0, len(members), most):
                yield torch.tensor(members[first : first + most])

    def like_lengths(self, rows: Tensor, most: int = 32) -> Iterator[Tensor]:
        """The rows in few groups whose routines are about equally long: batches with little padding."""
        by_length = sorted(rows.tolist(), key=lambda row: [int(lengths[row]) for lengths in self.lengths.values()])
        for first in range(0, len(by_length), most):
            yield torch.tensor(by_length[first : first + most])

    def _cut(self, rows: Tensor, starts: Mapping[str, Tensor], sizes: Mapping[str, int]) -> SegmentBatch:
        features: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        for stream, values in self.features.items():
            place = starts[stream][:, None] + torch.arange(sizes[stream])
            inside = place < values.shape[1]
            where = rows[:, None], place.clamp(max=values.shape[1] - 1)
            masks[stream] = self.present[stream][where] & inside
            cut = values[where]
            # a place past the tensor's end was clamped onto a segment, which is not there a second time
            features[stream] = cut if bool(inside.all()) else cut * inside.unsqueeze(-1)
        return SegmentBatch(features, masks)


def stack_routines(videos: Mapping[str, Mapping[str, Placed]], dims: Mapping[str, int]) -> Routines:
    """All videos' streams in one padded tensor per stream; a video may lack a stream."""
    video_ids = tuple(videos)
    features: dict[str, Tensor] = {}
    present: dict[str, Tensor] = {}
    lengths: dict[str, Tensor] = {}
    for stream, dim in dims.items():
        sizes = [len(videos[name][stream]) if stream in videos[name] else 0 for name in video_ids]
        padded = torch.zeros(len(video_ids), max([1, *sizes]), dim)
        there = torch.zeros(padded.shape[:2], dtype=torch.bool)
        for row, name in enumerate(video_ids):
            part = videos[name].get(stream)
            if part is not None and len(part.values):
                padded[row, : len(part)] = torch.from_numpy(part.values)
                there[row, : len(part)] = True if part.present is None else torch.from_numpy(part.present)
        features[stream], present[stream], lengths[stream] = padded, there, torch.tensor(sizes)
    return Routines(video_ids, features, present, lengths)


def rows_of(routines: Routines, video_ids: Sequence[str]) -> Tensor:
    """Where these videos stand; KeyError names one that is not there."""
    places = {name: row for row, name in enumerate(routines.video_ids)}
    return torch.tensor([places[name] for name in video_ids], dtype=torch.int64)
