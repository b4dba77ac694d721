"""Prepare, batch and network stages: segments are prepared on the CPU, then computed in full batches across videos."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...extractors.device_copies import download
from ...extractors.protocol import Extractor, Shared, shape_of
from ...manifests.errors import ArabesqueError
from ..items import Batch, BatchResult, SegmentFailure, SegmentFeature, SegmentTask, Stream
from ..system.accelerators import await_inputs, first_line, is_out_of_memory, on_device, release_memory, require_device

MAX_WAIT_S = 10.0
"""Time after which a batch is processed although it is not full, so that rare segments do not delay a finished
video."""


def prepare(item: SegmentTask) -> SegmentTask | SegmentFailure:
    """Run `Extractor.prepare` on one segment. An exception becomes the segment's failure.

    Raises:
        ArabesqueError: The device has failed.
    """
    began = time.perf_counter()
    inputs = item.segment
    device = inputs.frames.device if inputs.frames is not None else torch.device("cpu")
    try:
        prepared = on_device(device, item.stream.name, partial(item.stream.extractor.prepare, inputs))
    except ArabesqueError:
        raise
    except Exception as error:
        return _failure(item, error)
    # `prepared` has everything that the network needs, so that frames and waveform can be freed
    released = replace(inputs, frames=None, waveform=None, shared=Shared())
    return replace(item, segment=released, prepared=prepared, compute_s=time.perf_counter() - began)


@dataclass(eq=False)
class Batcher:
    """Collects the segments of each stream until a batch is full, is older than `MAX_WAIT_S`, or the input ends."""

    waiting: dict[str, list[SegmentTask]] = field(default_factory=dict[str, list[SegmentTask]], init=False)
    """Stream → its segments."""
    since_s: dict[str, float] = field(default_factory=dict[str, float], init=False)
    """Stream → time of its first waiting segment, by `time.monotonic`."""

    def take(self, task: SegmentTask | None = None, *, is_last: bool = False) -> list[Batch]:
        """Add a segment, if there is one. Return the batches that are full or overdue, or all with ``is_last``."""
        if task is not None:
            self.since_s.setdefault(task.stream.name, time.monotonic())
            self.waiting.setdefault(task.stream.name, []).append(task)
        overdue_s = time.monotonic() - MAX_WAIT_S
        ready = [
            name
            for name, tasks in self.waiting.items()
            if is_last or len(tasks) >= tasks[0].stream.extractor.batch_size or self.since_s[name] < overdue_s
        ]
        for name in ready:
            del self.since_s[name]
        return [Batch(tasks[0].stream, tuple(tasks)) for tasks in map(self.waiting.pop, ready)]


@dataclass(eq=False)
class Forward:
    """Runs the networks. A batch that fails is halved until only the faulty segment fails.

    If the device runs out of memory, the memory of the failed batch is released first, and later batches of the stream
    have at most the size that fits.

    It may be called from several threads. Batches of one stream are then processed one after the other, unless its
    extractor has ``forwards_concurrently``.
    """

    device: torch.device
    """The device of the networks."""
    fits: dict[str, int] = field(default_factory=dict[str, int], init=False)
    """Stream → largest size of a batch that fits, after one did not fit."""
    turns: dict[str, Lock] = field(default_factory=dict[str, Lock], init=False)
    """Stream → lock that is held while one of its batches is in the network."""

    def __call__(self, batch: Batch) -> BatchResult:
        """Return one result for each segment of the batch, in its order.

        Raises:
            ArabesqueError: The device has failed.
        """
        stream = batch.stream
        remaining = deque([batch.tasks])
        results: list[SegmentFeature | SegmentFailure] = []
        while remaining:
            tasks = remaining.popleft()
            most = self.fits.get(stream.name, len(tasks))
            if len(tasks) > most:
                remaining.appendleft(tasks[most:])
                tasks = tasks[:most]
            found = self._features(stream, tasks)
            if not isinstance(found, Exception):
                results += found
                continue
            release_memory(self.device, found)
            if len(tasks) == 1:
                results.append(_failure(tasks[0], found))
                continue
            middle = len(tasks) // 2
            if is_out_of_memory(found):
                self.fits[stream.name] = min(middle, self.fits.get(stream.name, middle))
            remaining.extendleft((tasks[middle:], tasks[:middle]))
        return BatchResult(tuple(results))

    def _features(self, stream: Stream, tasks: Sequence[SegmentTask]) -> list[SegmentFeature] | Exception:
        """Return the features of a batch, or the exception of its network."""
        is_concurrent = getattr(stream.extractor, "forwards_concurrently", False)
        with nullcontext() if is_concurrent else self.turns.setdefault(stream.name, Lock()):
            began = time.perf_counter()
            try:
                await_inputs(self.device)
                rows = _checked_rows(stream.extractor, [item.prepared for item in tasks])
            except Exception as error:
                require_device(self.device, error, stream.name)
                return error
            share_s = (time.perf_counter() - began) / len(tasks)
        return [
            SegmentFeature(
                task.plan,
                stream,
                task.segment.index,
                task.segment.start_s,
                task.segment.end_s,
                row,
                task.compute_s + share_s,
            )
            for task, row in zip(tasks, rows, strict=True)
        ]


def _checked_rows(extractor: Extractor, prepared: list[Any]) -> list[NDArray[np.float32] | None]:
    """Return the extractor's rows on the CPU. Their number, shape and values are checked."""
    with torch.inference_mode():
        rows = extractor.forward(prepared)
    found = iter(download([row for row in rows if row is not None]))
    features = [None if row is None else next(found).float().numpy() for row in rows]
    if len(features) != len(prepared):
        raise RuntimeError(f"{type(extractor).__name__} returned {len(features)} rows for {len(prepared)} segments")
    has_parts = hasattr(extractor, "start_video")
    for feature in features:
        if has_parts and (feature is None or feature.ndim != 1):
            raise RuntimeError(f"{type(extractor).__name__} returned {feature} instead of a part of a segment")
        if not has_parts and feature is not None and feature.shape != (shape := shape_of(extractor)):
            raise RuntimeError(f"{type(extractor).__name__} returned a row of {feature.shape}, not {shape}")
        if feature is not None and not np.isfinite(feature).all():
            raise RuntimeError(f"{type(extractor).__name__} returned values that are not finite")
    return features


def _failure(item: SegmentTask, error: Exception) -> SegmentFailure:
    where = f"{item.stream.name} failed at {item.segment.start_s:.2f} s"
    reason = f"{where}: {type(error).__name__}: {first_line(error)}"
    transient = is_out_of_memory(error) or isinstance(error, OSError)
    return SegmentFailure(item.plan, item.stream, item.segment.index, reason, transient)
