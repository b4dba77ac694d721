"""Memory limit of a worker and its processes (``--memory``).

Besides its networks, a worker has chunks of frames, segments, batches and decoders in memory. Their sizes depend on a
few numbers. The memory of each stream for one segment is measured with noise of 1920 × 1080 pixels. The numbers are
then reduced until the sum fits, beginning with those that have the least effect on speed.

    decoder processes   `CHILD_BYTES` and `DecoderSettings.memory_bytes` each, and their shared buffers
    chunks              `CHUNKS_IN_FLIGHT` after preprocessing, each at most as large as a buffer
    segments            incomplete ones of every video; complete ones in queues and in preparation
    batches             incomplete ones, `BATCHES_IN_QUEUE`, and those in networks with their temporary memory

Not limited: streams that need the whole audio track (`AudioNeed.needs_whole_track`), 6 MB for 100 s at 16 kHz; and the
features of unfinished videos, which only maps make large (`plan.MAX_ROW_BYTES`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ..extractors.geometry import output_size
from ..extractors.protocol import SegmentInput
from ..manifests.errors import InputError
from .decoding.decoder_pool import DecoderSettings
from .items import Stream
from .options import RunOptions
from .system.process_resources import forget_peak, malloc_trim, peak_bytes, resident_bytes

LARGEST_FRAME_PX = (1080, 1920)
COMMON_FPS = 25.0
REST_BYTES = 128 << 20
"""Memory for the writer's open shards, audio, and freed memory that the C library retains."""
CHILD_BYTES = 96 << 20
"""Memory of a decoder process with its libraries before it opens a file; 80 MiB were measured."""
CHUNKS_IN_FLIGHT = 4
"""One chunk in preprocessing, two in a queue, one in the segment builder."""
SEGMENTS_IN_QUEUES = 4
"""Two segments before preparation and two after it."""
BATCHES_IN_QUEUE = 2
SMALLEST_BUFFER_BYTES = 8 << 20
"""Large enough for a frame of 1920 × 1080."""
_LOG = logging.getLogger(__name__)

SMALLEST_CHILD_BYTES = 256 << 20


@dataclass(frozen=True)
class Need:
    """Host memory of one segment of a stream, in bytes."""

    frames: int
    """Frames of the assembled segment."""
    prepare: int
    """Temporary memory of the preparation, without its input and result."""
    prepared: int
    """Result of the preparation."""
    forward: int
    """Temporary memory of the network."""


@dataclass(frozen=True)
class MemoryPlan:
    """The numbers that determine the memory of a worker."""

    num_decoders: int
    num_preparing: int
    decoding: DecoderSettings
    batch_sizes: Mapping[str, int]
    num_batches: int = 1
    """Batches that networks process at the same time."""

    def held_bytes(self, needs: Mapping[str, Need]) -> int:
        """Return the maximum memory in addition to the current memory of the process."""
        chunk = self.decoding.buffer_bytes
        decoders = self.num_decoders * (CHILD_BYTES + self.decoding.memory_bytes + self.decoding.num_buffers * chunk)
        segment = max((need.frames + need.prepared for need in needs.values()), default=0)
        unfinished = (self.num_decoders + 1) * sum(need.frames for need in needs.values())
        preparing = self.num_preparing * max((need.prepare for need in needs.values()), default=0)
        batches = [size * needs[name].prepared for name, size in self.batch_sizes.items()]
        network = max((size * needs[name].forward for name, size in self.batch_sizes.items()), default=0)
        return (
            REST_BYTES
            + decoders
            + CHUNKS_IN_FLIGHT * chunk
            + unfinished
            + (SEGMENTS_IN_QUEUES + self.num_preparing) * segment
            + preparing
            + sum(batches)
            + (BATCHES_IN_QUEUE + self.num_batches) * max(batches, default=0)
            + self.num_batches * network
        )

    def smaller(self, needs: Mapping[str, Need]) -> Iterator[MemoryPlan]:
        """Yield this plan and then smaller ones, down to the smallest that works."""
        plan = self
        yield plan
        for allowance_bytes in (1 << 30, 512 << 20):
            yield (plan := plan._with_decoding(memory_bytes=min(plan.decoding.memory_bytes, allowance_bytes)))
        yield (plan := plan._with_decoding(buffer_bytes=min(plan.decoding.buffer_bytes, 24 << 20)))
        yield (plan := replace(plan, num_batches=1))
        while largest := plan._largest_batch(needs, above=4):
            yield (plan := plan._with_half_a_batch(largest))
        while plan.num_decoders > 1:
            yield (plan := replace(plan, num_decoders=plan.num_decoders - 1))
        while largest := plan._largest_batch(needs, above=1):
            yield (plan := plan._with_half_a_batch(largest))
        while plan.num_preparing > 1:
            yield (plan := replace(plan, num_preparing=plan.num_preparing - 1))
        yield (plan := plan._with_decoding(memory_bytes=min(plan.decoding.memory_bytes, SMALLEST_CHILD_BYTES)))
        yield plan._with_decoding(buffer_bytes=min(plan.decoding.buffer_bytes, SMALLEST_BUFFER_BYTES), num_buffers=2)

    def _largest_batch(self, needs: Mapping[str, Need], above: int) -> str | None:
        """Return the stream whose batch takes the most memory."""
        sizes = {
            name: size * (needs[name].forward + needs[name].prepared)
            for name, size in self.batch_sizes.items()
            if size > above
        }
        return max(sizes, key=lambda name: sizes[name], default=None)

    def _with_half_a_batch(self, stream: str) -> MemoryPlan:
        return replace(self, batch_sizes={**self.batch_sizes, stream: self.batch_sizes[stream] // 2})

    def _with_decoding(self, **numbers: int) -> MemoryPlan:
        return replace(self, decoding=replace(self.decoding, **numbers))


def fit(requested: MemoryPlan, needs: Mapping[str, Need], allowance_bytes: int, resident_bytes: int) -> MemoryPlan:
    """Return the largest plan that fits; raise `InputError` with the required memory if there is none."""
    plan = requested
    for plan in requested.smaller(needs):
        if resident_bytes + plan.held_bytes(needs) <= allowance_bytes:
            return plan
    needed = resident_bytes + plan.held_bytes(needs)
    raise InputError(
        f"--memory {in_gib(allowance_bytes)} is too little for this recipe: it needs at least {in_gib(needed)}, "
        f"{in_gib(resident_bytes)} of it for its networks and libraries; "
        "allow more, or extract fewer streams at once (--stream)"
    )


def within_memory(options: RunOptions, streams: Sequence[Stream]) -> RunOptions:
    """Reduce options and the streams' batch sizes so that the run fits in ``options.memory_bytes``.

    Every network is run once. Without a limit nothing changes.

    Raises:
        InputError: The limit is too small.
    """
    if options.memory_bytes is None:
        return options
    needs = {stream.name: measure(stream, options.device) for stream in streams}
    requested = MemoryPlan(
        options.num_decoders,
        options.num_cpu_threads,
        options.decoder_settings,
        {stream.name: stream.extractor.batch_size for stream in streams},
        options.concurrency.network,
    )
    plan = fit(requested, needs, options.memory_bytes, _known(resident_bytes()))
    if plan != requested:
        _LOG.info(
            "--memory: %d decoder processes, %d threads, batch sizes %s, %d at a time",
            plan.num_decoders,
            plan.num_preparing,
            plan.batch_sizes,
            plan.num_batches,
        )
    for stream in streams:
        stream.extractor.batch_size = plan.batch_sizes[stream.name]
    decoding = replace(plan.decoding, max_frame_bytes=plan.decoding.buffer_bytes)
    return replace(
        options,
        num_decoders=plan.num_decoders,
        num_cpu_threads=plan.num_preparing,
        num_batches=plan.num_batches,
        decoding=decoding,
    )


def measure(stream: Stream, device: torch.device) -> Need:
    """Measure the memory of a stream with one segment of noise."""
    segment = _noise_segment(stream, device)
    frames = _size_bytes(segment)
    with _Peak() as prepare:
        prepared = stream.extractor.prepare(segment)
    kept = _size_bytes(prepared)
    with _Peak() as forward, torch.inference_mode():
        stream.extractor.forward([prepared])
    return Need(frames, prepare.transient_bytes, kept, forward.transient_bytes)


class _Peak:
    """Measurement of the peak memory of a block above its memory at the end. Linux can reset the peak of a process."""

    transient_bytes = 0

    def __enter__(self) -> _Peak:
        malloc_trim()
        _known(peak_bytes() if forget_peak() else None)
        return self

    def __exit__(self, *exception: object) -> None:
        highest = _known(peak_bytes())
        malloc_trim()
        self.transient_bytes = max(0, highest - _known(resident_bytes()))


def _known(num_bytes: int | None) -> int:
    if num_bytes is None:
        raise InputError("--memory: this system does not report the memory of a process; leave out the option")
    return num_bytes


def _noise_segment(stream: Stream, device: torch.device) -> SegmentInput:
    """Return a segment of noise with the frames and audio of a video with `COMMON_FPS`."""
    need, sampling = stream.extractor.frames, stream.spec.sampling
    assert sampling is not None
    fps = COMMON_FPS if sampling.fps == "native" else sampling.fps
    length_s = sampling.frames_per_segment / fps
    segment = SegmentInput(0, 0.0, length_s)
    random = torch.Generator().manual_seed(0)
    if need is not None:
        num_frames = sampling.frames_per_segment + need.next_frame
        shape = (num_frames, 1 if need.geometry.gray else 3, *output_size(*LARGEST_FRAME_PX, need.geometry))
        dtype = torch.float32 if need.geometry.resize_arithmetic == "float" else torch.uint8
        segment = replace(
            segment,
            frames=torch.randint(0, 256, shape, dtype=dtype, generator=random).to(device),
            frame_times_s=tuple(np.linspace(0, length_s, num_frames).tolist()),
            has_next_frame=need.next_frame,
        )
    if stream.extractor.audio is not None:
        num_samples = round(length_s * stream.extractor.audio.rate_hz)
        segment = replace(segment, waveform=torch.rand(num_samples, generator=random) - 0.5)
    return segment


def _size_bytes(item: Any) -> int:
    """Return the bytes of all arrays and host tensors in an item."""
    if isinstance(item, torch.Tensor):
        return item.numel() * item.element_size() if item.device.type == "cpu" else 0
    if isinstance(item, np.ndarray):
        return cast("NDArray[Any]", item).nbytes
    if isinstance(item, Mapping):
        return sum(map(_size_bytes, cast("Mapping[Any, Any]", item).values()))
    if isinstance(item, list | tuple):
        return sum(map(_size_bytes, cast("Sequence[Any]", item)))
    return sum(map(_size_bytes, cast("dict[str, Any]", vars(item)).values())) if hasattr(item, "__dict__") else 0


def in_gib(num_bytes: int) -> str:
    """Format bytes as GiB, rounded up, so that the stated memory suffices."""
    return f"{math.ceil(num_bytes / 2**30 * 100) / 100:.2f} GiB"
