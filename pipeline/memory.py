"""``--memory``: an allowance that all processes of a worker keep within.

Beside its networks a worker holds windows of frames, segments on their way, batches, and decoders; how much, a few
numbers decide. What a stream needs for one segment is measured, on noise of 1920 × 1080 pixels; then
the numbers are turned down until everything fits at once, the ones that cost least speed first.

    decoding processes   `CHILD_BYTES` and `SlotSettings.memory_bytes` each, and their buffers, which are shared
    windows              preprocessed, `WINDOWS_ON_THE_WAY`, none larger than a buffer (`DecodeSlot.decode`)
    segments             unfinished ones of every video; finished ones in queues and in preparation
    batches              collected, `BATCHES_ON_THE_WAY`, and what the network needs for one

Not bounded: streams that need the whole track (`AudioNeed.needs_whole_track`) keep it, 6 MB for 100 s at 16 kHz.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..extractors.geometry import output_size
from ..extractors.protocol import SegmentInput
from ..manifests.errors import ManifestError
from .decoding.slots import SlotSettings
from .heap import give_back
from .proc import forget_peak, peak_bytes, resident_bytes
from .work import Stream

if TYPE_CHECKING:
    from .extraction import RunOptions

LARGEST_FRAME_PX = (1080, 1920)
COMMON_FPS = 25.0
REST_BYTES = 128 << 20
"""For the writer's open shards, sound, and what the C library keeps of freed memory."""
CHILD_BYTES = 96 << 20
"""A decoding process with its libraries before it opens a file; 80 MiB measured."""
WINDOWS_ON_THE_WAY = 4
"""In preprocessing, two in a queue, in the assembler."""
SEGMENTS_IN_QUEUES = 4
"""Two before preparation and two after it."""
BATCHES_ON_THE_WAY = 3
"""Two in a queue, one in its network."""
SMALLEST_BUFFER_BYTES = 8 << 20
"""Holds a frame of 1920 × 1080."""
SMALLEST_CHILD_BYTES = 256 << 20


@dataclass(frozen=True)
class Need:
    """What one segment of a stream takes, in bytes of host memory."""

    frames: int
    """As it is assembled."""
    prepare: int
    """While it is prepared, beyond what comes in and out."""
    prepared: int
    forward: int
    """While a network works on it."""


@dataclass(frozen=True)
class MemoryPlan:
    """The numbers that decide what a worker holds."""

    num_decoders: int
    num_preparing: int
    slots: SlotSettings
    batch_sizes: Mapping[str, int]

    def held_bytes(self, needs: Mapping[str, Need]) -> int:
        """At most, beside what the process holds already."""
        window = self.slots.buffer_bytes
        decoders = self.num_decoders * (CHILD_BYTES + self.slots.memory_bytes + self.slots.num_buffers * window)
        segment = max((need.frames + need.prepared for need in needs.values()), default=0)
        unfinished = (self.num_decoders + 1) * sum(need.frames for need in needs.values())
        preparing = self.num_preparing * max((need.prepare for need in needs.values()), default=0)
        batches = [size * needs[name].prepared for name, size in self.batch_sizes.items()]
        network = max((size * needs[name].forward for name, size in self.batch_sizes.items()), default=0)
        return (
            REST_BYTES
            + decoders
            + WINDOWS_ON_THE_WAY * window
            + unfinished
            + (SEGMENTS_IN_QUEUES + self.num_preparing) * segment
            + preparing
            + sum(batches)
            + BATCHES_ON_THE_WAY * max(batches, default=0)
            + network
        )

    def smaller(self, needs: Mapping[str, Need]) -> Iterator[MemoryPlan]:
        """This one, then ever smaller ones, down to the smallest that works at all."""
        plan = self
        yield plan
        for allowance_bytes in (1 << 30, 512 << 20):
            yield (plan := plan._with_slots(memory_bytes=min(plan.slots.memory_bytes, allowance_bytes)))
        yield (plan := plan._with_slots(buffer_bytes=min(plan.slots.buffer_bytes, 24 << 20)))
        while largest := plan._largest_batch(needs, above=4):
            yield (plan := plan._with_half_a_batch(largest))
        while plan.num_decoders > 1:
            yield (plan := replace(plan, num_decoders=plan.num_decoders - 1))
        while largest := plan._largest_batch(needs, above=1):
            yield (plan := plan._with_half_a_batch(largest))
        while plan.num_preparing > 1:
            yield (plan := replace(plan, num_preparing=plan.num_preparing - 1))
        yield (plan := plan._with_slots(memory_bytes=min(plan.slots.memory_bytes, SMALLEST_CHILD_BYTES)))
        yield plan._with_slots(buffer_bytes=min(plan.slots.buffer_bytes, SMALLEST_BUFFER_BYTES), num_buffers=2)

    def _largest_batch(self, needs: Mapping[str, Need], above: int) -> str | None:
        """The stream whose batch takes most."""
        sizes = {
            name: size * (needs[name].forward + needs[name].prepared)
            for name, size in self.batch_sizes.items()
            if size > above
        }
        return max(sizes, key=lambda name: sizes[name], default=None)

    def _with_half_a_batch(self, stream: str) -> MemoryPlan:
        return replace(self, batch_sizes={**self.batch_sizes, stream: self.batch_sizes[stream] // 2})

    def _with_slots(self, **numbers: int) -> MemoryPlan:
        return replace(self, slots=replace(self.slots, **numbers))


def fit(wished: MemoryPlan, needs: Mapping[str, Need], allowance_bytes: int, resident_bytes: int) -> MemoryPlan:
    """The largest plan that fits; `ManifestError` with the number it takes where none does."""
    plan = wished
    for plan in wished.smaller(needs):
        if resident_bytes + plan.held_bytes(needs) <= allowance_bytes:
            return plan
    needed = resident_bytes + plan.held_bytes(needs)
    raise ManifestError(
        f"--memory {in_gib(allowance_bytes)} is too little for this recipe: it takes {in_gib(needed)} at least, "
        f"{in_gib(resident_bytes)} of it for its networks and libraries; "
        "allow more, or extract fewer streams at once (--stream)"
    )


def within_memory(options: RunOptions, streams: Sequence[Stream]) -> RunOptions:
    """``options`` turned down, and the streams' batches with them, to what ``options.memory_bytes`` allows.

    Tries every network once. Without an allowance nothing changes.
    """
    if options.memory_bytes is None:
        return options
    needs = {stream.name: measure(stream, options.device) for stream in streams}
    wished = MemoryPlan(
        options.num_decoders,
        options.num_cpu_threads,
        options.slot_settings,
        {stream.name: stream.extractor.batch_size for stream in streams},
    )
    plan = fit(wished, needs, options.memory_bytes, _known(resident_bytes()))
    for stream in streams:
        stream.extractor.batch_size = plan.batch_sizes[stream.name]
    slots = replace(plan.slots, max_frame_bytes=plan.slots.buffer_bytes)
    return replace(options, num_decoders=plan.num_decoders, num_cpu_threads=plan.num_preparing, decoding=slots)


def measure(stream: Stream, device: torch.device) -> Need:
    """Brings one segment of noise through the extractor."""
    segment = _some_segment(stream, device)
    frames = _size_bytes(segment)
    with _Peak() as prepare:
        prepared = stream.extractor.prepare(segment)
    kept = _size_bytes(prepared)
    with _Peak() as forward, torch.inference_mode():
        stream.extractor.forward([prepared])
    return Need(frames, prepare.transient_bytes, kept, forward.transient_bytes)


class _Peak:
    """How much more memory the block took than what it left behind. Linux lets a process forget its peak."""

    transient_bytes = 0

    def __enter__(self) -> _Peak:
        give_back()
        _known(peak_bytes() if forget_peak() else None)
        return self

    def __exit__(self, *exception: object) -> None:
        highest = _known(peak_bytes())
        give_back()
        self.transient_bytes = max(0, highest - _known(resident_bytes()))


def _known(num_bytes: int | None) -> int:
    if num_bytes is None:
        raise ManifestError("--memory: this system does not tell what a process takes; leave it out")
    return num_bytes


def _some_segment(stream: Stream, device: torch.device) -> SegmentInput:
    """Of as many frames and as much sound as a segment of a video of `COMMON_FPS` has."""
    need, sampling = stream.extractor.frames, stream.spec.sampling
    assert sampling is not None
    fps = COMMON_FPS if sampling.fps == "native" else sampling.fps
    length_s = sampling.frames_per_segment / fps
    segment = SegmentInput(0, 0.0, length_s)
    random = torch.Generator().manual_seed(0)
    if need is not None:
        num_frames = sampling.frames_per_segment + need.next_frame
        shape = (num_frames, 1 if need.geometry.gray else 3, *output_size(*LARGEST_FRAME_PX, need.geometry))
        segment = replace(
            segment,
            frames=torch.randint(0, 256, shape, dtype=torch.uint8, generator=random).to(device),
            frame_times_s=tuple(np.linspace(0, length_s, num_frames).tolist()),
            has_next_frame=need.next_frame,
        )
    if stream.extractor.audio is not None:
        num_samples = round(length_s * stream.extractor.audio.rate_hz)
        segment = replace(segment, waveform=torch.rand(num_samples, generator=random) - 0.5)
    return segment


def _size_bytes(item: Any) -> int:
    """Of all arrays and tensors on the host that an item holds."""
    if isinstance(item, torch.Tensor):
        return item.numel() * item.element_size() if item.device.type == "cpu" else 0
    if isinstance(item, np.ndarray):
        return item.nbytes
    if isinstance(item, Mapping):
        return sum(map(_size_bytes, item.values()))
    if isinstance(item, list | tuple):
        return sum(map(_size_bytes, item))
    return sum(map(_size_bytes, vars(item).values())) if hasattr(item, "__dict__") else 0


_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_bytes(text: str) -> int:
    """``4GiB`` and ``4G`` are units of 1024, ``4GB`` of 1000. Raises `ValueError` for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(iB|B)?\s*", text, re.IGNORECASE)
    if found is None:
        raise ValueError(f"{text!r} is no amount of memory, such as 4GiB or 800M")
    base = 1000 if (found[3] or "").upper() == "B" and found[2] else 1024
    return int(float(found[1]) * base ** _UNITS[found[2].upper()])


def in_gib(num_bytes: int) -> str:
    """Rounded up: what is said to be enough must be."""
    return f"{math.ceil(num_bytes / 2**30 * 100) / 100:.2f} GiB"
