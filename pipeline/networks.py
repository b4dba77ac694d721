"""The two computing stages: `prepare` on CPU threads, then `forward` on full batches of segments of any videos."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from spdl.pipeline.defs import Aggregator

from ..extractors.protocol import Extractor, Shared
from ..manifests.errors import ArabesqueError
from .work import Passing, SegmentFailure, SegmentFeature, SegmentWork, Stream

MAX_WAIT_S = 10.0
"""A batch that has waited this long goes on unfilled: rare segments must not hold a finished video back."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Segments of one stream that go through its network together, and strangers that travel along."""

    stream: Stream
    work: tuple[SegmentWork, ...]


def prepare(item: SegmentWork | Passing) -> SegmentWork | SegmentFailure | Passing:
    """One segment through `Extractor.prepare`; what it raises becomes that segment's failure."""
    if not isinstance(item, SegmentWork):
        return item
    began = time.perf_counter()
    try:
        prepared = item.stream.extractor.prepare(item.segment)
    except Exception as error:
        return _failure(item, error)
    # the frames are in `prepared` as far as they are needed: the rest may be freed now
    bare = replace(item.segment, frames=None, waveform=None, shared=Shared())
    return replace(item, segment=bare, prepared=prepared, compute_s=time.perf_counter() - began)


class Batcher(Aggregator):
    """Collects segments of each stream until its extractor's batch is full, has waited long, or nothing more comes."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[SegmentWork]] = {}
        self._since: dict[str, float] = {}

    def accumulate(self, item: SegmentWork | Passing) -> list[Batch | Passing] | None:
        ready: list[Batch | Passing] = []
        if isinstance(item, SegmentWork):
            name = item.stream.name
            self._since.setdefault(name, time.monotonic())
            self._waiting.setdefault(name, []).append(item)
        else:
            ready.append(item)
        now = time.monotonic()
        full = [name for name, work in self._waiting.items() if len(work) >= work[0].stream.extractor.batch_size]
        overdue = [name for name, since in self._since.items() if now - since > MAX_WAIT_S]
        ready.extend(self._take(name) for name in dict.fromkeys(full + overdue))
        return ready or None

    def flush(self) -> list[Batch | Passing] | None:
        return [self._take(name) for name in list(self._waiting)] or None

    def _take(self, name: str) -> Batch:
        del self._since[name]
        work = self._waiting.pop(name)
        return Batch(work[0].stream, tuple(work))


def forward(items: Sequence[Batch | Passing]) -> list[SegmentFeature | SegmentFailure | Passing]:
    """Every batch through its network; a batch that fails is halved until the segment to blame stands alone.

    Halving is also what a device that ran out of memory needs.
    """
    results: list[SegmentFeature | SegmentFailure | Passing] = []
    for item in items:
        results.extend(_forward_batch(item.stream, item.work) if isinstance(item, Batch) else [item])
    return results


def _forward_batch(stream: Stream, work: Sequence[SegmentWork]) -> list[SegmentFeature | SegmentFailure]:
    began = time.perf_counter()
    try:
        rows = _checked_rows(stream.extractor, [item.prepared for item in work])
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
        elif isinstance(error, torch.AcceleratorError):
            _refuse_lost_device(stream, error)
        if len(work) == 1:
            return [_failure(work[0], error)]
        middle = len(work) // 2
        return _forward_batch(stream, work[:middle]) + _forward_batch(stream, work[middle:])
    share_s = (time.perf_counter() - began) / len(work)
    return [_finished(item, row, share_s) for item, row in zip(work, rows, strict=True)]


def _refuse_lost_device(stream: Stream, error: torch.AcceleratorError) -> None:
    """After some errors every later kernel fails, too, until the process ends: no video is to blame for that."""
    try:
        torch.cuda.synchronize()
    except torch.AcceleratorError:
        raise ArabesqueError(
            f"the GPU cannot be used any more ({_first_line(error)}, in {stream.name}); run again to go on"
        ) from error


def _finished(item: SegmentWork, row: NDArray[np.float32] | None, forward_s: float) -> SegmentFeature:
    segment = item.segment
    return SegmentFeature(
        item.plan, item.stream, segment.index, segment.start_s, segment.end_s, row, item.compute_s + forward_s
    )


def _checked_rows(extractor: Extractor, prepared: list[Any]) -> list[NDArray[np.float32] | None]:
    """What `forward` gives, on the CPU, held to what the protocol promises."""
    with torch.inference_mode():
        rows = extractor.forward(prepared)
    features = [None if row is None else row.to("cpu", torch.float32).numpy() for row in rows]
    if len(features) != len(prepared):
        raise RuntimeError(f"{type(extractor).__name__} gave {len(features)} rows for {len(prepared)} segments")
    for feature in features:
        if feature is not None and feature.shape != (extractor.dim,):
            raise RuntimeError(f"{type(extractor).__name__} gave a row of {feature.shape}, not ({extractor.dim},)")
        if feature is not None and not np.isfinite(feature).all():
            raise RuntimeError(f"{type(extractor).__name__} gave numbers that are not finite")
    return features


def _failure(item: SegmentWork, error: Exception) -> SegmentFailure:
    where = f"{item.stream.name} failed at {item.segment.start_s:.2f} s"
    reason = f"{where}: {type(error).__name__}: {_first_line(error)}"
    transient = isinstance(error, torch.OutOfMemoryError | MemoryError | OSError)
    return SegmentFailure(item.plan, item.stream, item.segment.index, reason, transient)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
