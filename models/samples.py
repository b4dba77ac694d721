"""The videos of a data set in memory, padded to one tensor per stream, and batches of these videos."""

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
class StreamSegments:
    """Segments of one stream of one video."""

    values: NDArray[np.float32]
    """``[segments, dim]``"""
    present: NDArray[np.bool_] | None = None
    """``[segments]``: False for segments without a value; None if all have values"""
    num_segments: int | None = None
    """Number of segments of a missing stream on the time grid of other streams"""

    @classmethod
    def absent(cls, num_segments: int) -> Self:
        """Return a missing stream on a time grid of this length."""
        return cls(np.zeros((0, 0), np.float32), None, num_segments)

    def __len__(self) -> int:
        return len(self.values) if self.num_segments is None else self.num_segments

    def without(self, index: int) -> Self:
        """Return a copy without segment ``index``."""
        if self.num_segments is not None:
            return self.absent(self.num_segments - 1)
        present = None if self.present is None else np.delete(self.present, index)
        return type(self)(np.delete(self.values, index, axis=0), present)


@dataclass(frozen=True, eq=False)
class Samples:
    """Padded features of all videos. Subsets are index tensors, which avoids copies."""

    video_ids: tuple[str, ...]
    features: Mapping[str, Tensor]
    """stream → ``float32 [videos, segments, dim]``, zeros for padding"""
    present: Mapping[str, Tensor]
    """stream → ``bool [videos, segments]``"""
    lengths: Mapping[str, Tensor]
    """stream → ``int64 [videos]``: number of segments, 0 for a missing stream; always on the CPU"""

    def __len__(self) -> int:
        return len(self.video_ids)

    @property
    def device(self) -> torch.device:
        """Device of the features, on which batches are cut and networks run"""
        return next(iter(self.features.values())).device

    def to(self, device: torch.device | str) -> Samples:
        """Return the same videos with their features on this device."""
        features, present = (
            {stream: values.to(device) for stream, values in part.items()} for part in (self.features, self.present)
        )
        return Samples(self.video_ids, features, present, self.lengths)

    @property
    def dims(self) -> dict[str, int]:
        """Stream → feature dim."""
        return {stream: values.shape[-1] for stream, values in self.features.items()}

    def names(self, rows: Tensor) -> tuple[str, ...]:
        """Return the ids of the videos of these rows, the inverse of `rows_of`."""
        return tuple(self.video_ids[row] for row in _indices(rows))

    def only(self, streams: Sequence[str]) -> Samples:
        """Return the same videos with only these streams, without a copy."""
        parts = ({stream: part[stream] for stream in streams} for part in (self.features, self.present, self.lengths))
        return Samples(self.video_ids, *parts)

    def whole(self, rows: Tensor) -> SegmentBatch:
        """Return a batch of whole videos, padded to the longest."""
        longest = {stream: max(1, int(lengths[rows].max())) for stream, lengths in self.lengths.items()}
        starts = {stream: torch.zeros(len(rows), dtype=torch.int64) for stream in self.features}
        return self._cut(rows, starts, longest)

    def crop(self, rows: Tensor, protocol: Protocol, generator: torch.Generator) -> SegmentBatch:
        """Return a training batch: ``protocol.crop`` consecutive segments of each video at a random position.

        The relative position is the same in all streams of a video, so that streams of equal length stay aligned.
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
        """Yield groups of rows with equal lengths in every stream, for batches without padding."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for row in _indices(rows):
            groups.setdefault(tuple(int(lengths[row]) for lengths in self.lengths.values()), []).append(row)
        for members in groups.values():
            for first in range(0, len(members), most):
                yield torch.tensor(members[first : first + most])

    def like_lengths(self, rows: Tensor, most: int = 32) -> Iterator[Tensor]:
        """Yield groups of rows with similar lengths, for few batches with little padding."""
        by_length = sorted(_indices(rows), key=lambda row: [int(lengths[row]) for lengths in self.lengths.values()])
        for first in range(0, len(by_length), most):
            yield torch.tensor(by_length[first : first + most])

    def _cut(self, rows: Tensor, starts: Mapping[str, Tensor], sizes: Mapping[str, int]) -> SegmentBatch:
        features: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        row = rows[:, None].to(self.device)
        for stream, values in self.features.items():
            place = starts[stream][:, None] + torch.arange(sizes[stream])
            inside = place < values.shape[1]
            where = row, place.clamp(max=values.shape[1] - 1).to(self.device)
            cut, there = values[where], self.present[stream][where]
            if not bool(inside.all()):
                # indices beyond the end were clamped to the last segment, which must not be repeated
                inside = inside.to(self.device)
                cut, there = cut * inside.unsqueeze(-1), there & inside
            features[stream], masks[stream] = cut, there
        return SegmentBatch(features, masks)


def stack_samples(videos: Mapping[str, Mapping[str, StreamSegments]], dims: Mapping[str, int]) -> Samples:
    """Stack videos to one padded tensor per stream.

    Args:
        videos: video_id → stream → segments. Streams may be missing.
        dims: Stream → feature dim.
    """
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
                padded[row, : len(part)] = torch.as_tensor(part.values)
                there[row, : len(part)] = True if part.present is None else torch.as_tensor(part.present)
        features[stream], present[stream], lengths[stream] = padded, there, torch.tensor(sizes)
    return Samples(video_ids, features, present, lengths)


def rows_of(samples: Samples, video_ids: Sequence[str]) -> Tensor:
    """Return the rows of these videos.

    Raises:
        KeyError: A video is not among the samples.
    """
    places = {name: row for row, name in enumerate(samples.video_ids)}
    return torch.tensor([places[name] for name in video_ids], dtype=torch.int64)


def _indices(rows: Tensor) -> list[int]:
    return rows.cpu().numpy().tolist()
