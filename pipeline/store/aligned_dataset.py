"""Training samples: several streams of each video on one time grid, for a PyTorch ``DataLoader``.

dataset = AlignedDataset(FeatureStore("features/"), ["vst", "ast"], labels={"Ball_001": 14.2, ...})
loader = DataLoader(dataset, batch_size=32, shuffle=True, collate_fn=collate_padded)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .manifest import stream_entries
from .reader import FeatureStore
from .stream_features import StreamFeatures

if TYPE_CHECKING:
    import torch

_OWN_NAMES = {"video_id", "start_s", "end_s", "masks", "label", "valid", "num_segments"}
_TOUCHING_S = 1e-6  # intervals that share less than this only touch; grids consist of whole frames


class AlignedDataset:
    """Map-style PyTorch dataset: several streams of each video on one time grid.

    A sample, with T the segments of the reference stream:

        video_id        str
        <stream>        float32 [T, dim], or [T, time, dim] … of a stream whose segments have more than one row;
                        zeros where no row of the stream overlaps a segment
        masks           {stream: bool [T]}; False for these segments
        valid           bool [T]; False for segments that touch an excluded stretch
        start_s, end_s  float64 [T], the reference's grid
        label           float32, [] or [scores]; only with ``labels``

    Segments that touch an excluded stretch (``exclude = mask`` in a table of clips) are part of the grid; all streams
    are zeros there, and all masks are False.

    A stream that is ``empty`` for a video (no audio) is all zeros with an all-False mask. A video is left out if a
    stream is missing for another reason; `left_out` has the reason.

    Args:
        store: An open feature store.
        streams: Names of its streams.
        labels: Video id → score or scores; videos without a label are left out.
        reference: The stream whose segments are the time grid; by default the first one.
        in_memory: Read all features at once, in storage order. Otherwise a sample is read when it is accessed.

    Raises:
        ValueError: The store does not have these streams, or no video has all parts of a sample.

    Example:
        >>> import arabesque
        >>> from torch.utils.data import DataLoader
        >>> dataset = arabesque.AlignedDataset(arabesque.open_store("features"), ["motion", "rhythm"])
        >>> loader = DataLoader(dataset, batch_size=2, collate_fn=arabesque.collate_padded)
        >>> batch = next(iter(loader))
        >>> batch["video_id"]
        ['another', 'routine']
    """

    def __init__(
        self,
        store: FeatureStore,
        streams: Sequence[str],
        labels: Mapping[str, float | Sequence[float]] | None = None,
        reference: str | None = None,
        *,
        in_memory: bool = False,
    ) -> None:
        self.streams = tuple(streams)
        self.reference = self.streams[0] if reference is None else reference
        self._check_names(store)
        self.store = store
        self._labels = labels
        self._row_shapes = {name: entry.row_shape for name, entry in stream_entries(store.manifest).items()}
        self.left_out: dict[str, str] = {}
        """video_id → the reason why it has no sample, for each video that has features or a label."""
        self._empty = {(end.video_id, end.stream) for end in store.outcomes() if end.kind == "empty"}
        self.video_ids = self._complete_videos()
        self._loaded: dict[tuple[str, str], StreamFeatures] = {}
        if in_memory:
            wanted = set(self.video_ids)
            for stream in self.streams:
                found = (features for features in store.scan(stream) if features.video_id in wanted)
                self._loaded |= {(features.video_id, stream): features for features in found}

    def __len__(self) -> int:
        return len(self.video_ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        video_id = self.video_ids[index]
        return self._sample(video_id, {stream: self._read(video_id, stream) for stream in self._streams_of(video_id)})

    def read_together(self, video_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the samples of these videos, in their order. Videos of one shard are decoded together."""
        found: dict[str, dict[str, StreamFeatures]] = {video_id: {} for video_id in video_ids}
        for stream in self.streams:
            having = [video_id for video_id in video_ids if stream in self._streams_of(video_id)]
            for video_id, features in self.store.read_many(stream, having).items():
                found[video_id][stream] = features
        return [self._sample(video_id, features) for video_id, features in found.items()]

    def _sample(self, video_id: str, features: Mapping[str, StreamFeatures]) -> dict[str, Any]:
        import torch

        grid = features[self.reference].with_masked()
        sample: dict[str, Any] = {"video_id": video_id, "masks": {}}
        for stream in self.streams:
            if stream in features:
                values, mask = on_grid(features[stream], grid.start_s, grid.end_s, grid.present)
            else:
                values = np.zeros((len(grid.present), *self._row_shapes[stream]), np.float32)
                mask = np.zeros(len(grid.present), bool)
            sample[stream] = torch.as_tensor(values)
            sample["masks"][stream] = torch.as_tensor(mask)
        sample["valid"] = torch.as_tensor(grid.present)
        sample["start_s"], sample["end_s"] = torch.tensor(grid.start_s), torch.tensor(grid.end_s)
        if self._labels is not None:
            sample["label"] = torch.tensor(self._labels[video_id], dtype=torch.float32)
        return sample

    def _streams_of(self, video_id: str) -> list[str]:
        return [stream for stream in self.streams if (video_id, stream) not in self._empty]

    def _check_names(self, store: FeatureStore) -> None:
        if self.reference not in self.streams:
            raise ValueError(f"reference {self.reference!r} is not one of the streams {', '.join(self.streams)}")
        for stream in self.streams:
            if stream not in store.streams:
                raise ValueError(f"no stream {stream!r} in {store.path}; it has {', '.join(store.streams)}")
            if stream in _OWN_NAMES:
                raise ValueError(f"stream {stream!r} has the name of a sample's own field; rename it in the recipe")

    def _complete_videos(self) -> list[str]:
        labeled = self.store.video_ids if self._labels is None else self._labels
        for video_id in sorted({*self.store.video_ids, *labeled}):
            if video_id not in labeled:
                self.left_out[video_id] = "no label"
            elif reason := self._lack(video_id):
                self.left_out[video_id] = reason
        complete = [video_id for video_id in self.store.video_ids if video_id not in self.left_out]
        if not complete:
            reasons = "; ".join(f"{video_id}: {reason}" for video_id, reason in list(self.left_out.items())[:3])
            raise ValueError(f"no video of {self.store.path} has all streams ({reasons or 'no features yet'})")
        return complete

    def _lack(self, video_id: str) -> str:
        for stream in self.streams:
            empty = (video_id, stream) in self._empty
            if self.store.holds(video_id, stream) or (empty and stream != self.reference):
                continue
            if empty:
                return f"{stream} is empty"
            return f"{stream} is partial" if video_id in self.store.keys(stream) else f"no {stream} features"
        return ""

    def _read(self, video_id: str, stream: str) -> StreamFeatures:
        loaded = self._loaded.get((video_id, stream))
        if loaded is None:
            return self.store.read(video_id, stream)
        return replace(loaded, values=loaded.values.copy())  # a sample belongs to the caller


def on_grid(
    features: StreamFeatures,
    start_s: NDArray[np.float64],
    end_s: NDArray[np.float64],
    present: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Resample features to other intervals: each interval has the mean of overlapping rows, weighted by the overlap.

    Args:
        features: Features of one video and stream.
        start_s: float64 ``[intervals]``, in seconds.
        end_s: float64 ``[intervals]``, in seconds.
        present: bool ``[intervals]``: False for intervals that are masked; by default all are True.

    Returns:
        float32 ``[intervals, dim]``, with the inner axes of the features if they have any, and bool ``[intervals]``. If
        no row overlaps an interval, the values are zero and the mask is False. A row with exactly the same interval is
        returned unchanged; if all rows have the same intervals, the values may be the array of the features.
    """
    own = features.with_masked()
    if np.array_equal(start_s, own.start_s) and np.array_equal(end_s, own.end_s):
        return own.values.astype(np.float32, copy=False), own.present
    first = np.maximum(start_s[:, None], features.start_s)
    last = np.minimum(end_s[:, None], features.end_s)
    overlap_s = np.maximum(last - first, 0.0)
    if present is not None:
        overlap_s[~present] = 0.0
    overlap_s[overlap_s < _TOUCHING_S] = 0.0
    total_s = overlap_s.sum(axis=1, keepdims=True)
    weights = np.divide(overlap_s, total_s, out=np.zeros_like(overlap_s), where=total_s > 0)
    found = _few_of_many(weights, features.values.reshape(len(features), -1))
    return found.reshape(len(weights), *features.values.shape[1:]), total_s[:, 0] > 0


def _few_of_many(weights: NDArray[np.float64], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute ``weights @ values`` for sparse weights, without the many zeros of a dense matrix product."""
    most = int(np.count_nonzero(weights, axis=1).max(initial=0))
    largest = np.argsort(-weights, axis=1, kind="stable")[:, :most]
    shares = np.take_along_axis(weights, largest, axis=1)
    total = np.zeros((len(weights), values.shape[1]))
    for place in range(most):
        total += shares[:, place, None] * values[largest[:, place]]
    return total.astype(np.float32)


def collate_padded(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collate B samples into a batch. They are padded at the end to the longest one, with T segments.

    Args:
        samples: Samples of an `AlignedDataset`.

    Returns:
        A dictionary with these entries::

            video_id        list of B
            <stream>        float32 [B, T, dim] or with inner axes, zeros in the padding
            masks           {stream: bool [B, T]}, False in the padding
            start_s, end_s  float64 [B, T]
            valid           bool [B, T]: True for segments, False for padding and for segments that touch an excluded
                            stretch (the opposite of ``key_padding_mask``)
            num_segments    int64 [B]: segments without padding
            label           float32 [B] or [B, scores]; only if the samples have labels

    Example:
        >>> import arabesque
        >>> dataset = arabesque.AlignedDataset(arabesque.open_store("features"), ["motion"])
        >>> batch = arabesque.collate_padded([dataset[0], dataset[1]])
        >>> batch["valid"].shape == batch["motion"].shape[:2]
        True
    """
    import torch

    batch: dict[str, Any] = {"video_id": [sample["video_id"] for sample in samples]}
    for name in samples[0]:
        if name not in ("video_id", "masks", "label"):
            batch[name] = _padded([sample[name] for sample in samples])
    batch["masks"] = {name: _padded([sample["masks"][name] for sample in samples]) for name in samples[0]["masks"]}
    batch["num_segments"] = torch.tensor([len(sample["start_s"]) for sample in samples])
    if "label" in samples[0]:
        batch["label"] = torch.stack([sample["label"] for sample in samples])
    return batch


def _padded(sequences: Sequence[torch.Tensor]) -> torch.Tensor:
    """Like `pad_sequence`, but each value is written once, because the first write to new memory is slow."""
    from torch.nn.utils.rnn import pad_sequence

    if sequences[0].ndim == 1:
        return pad_sequence([*sequences], batch_first=True)
    longest = max(map(len, sequences))
    batch = sequences[0].new_empty(len(sequences), longest, *sequences[0].shape[1:])
    for row, sequence in zip(batch, sequences, strict=True):
        row[: len(sequence)] = sequence
        row[len(sequence) :] = 0
    return batch
