"""Memory of a run is estimated, reduced to the limit, and the run is refused if the minimum does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeExtractor, probe, stream

from arabesque.extractors.protocol import AudioNeed, FrameNeed, SegmentInput
from arabesque.manifests.errors import InputError
from arabesque.manifests.streams import Geometry, Size
from arabesque.pipeline.decoding.decoder_pool import DecoderSettings
from arabesque.pipeline.memory_budget import MemoryPlan, Need, fit, in_gib, measure, within_memory
from arabesque.pipeline.memory_sizes import parse_bytes
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.system import process_resources
from arabesque.pipeline.system.process_resources import resident_bytes

MIB = 1 << 20
NEEDS = {
    "clips": Need(frames=5 * MIB, prepare=1 * MIB, prepared=5 * MIB, forward=300 * MIB),
    "sound": Need(frames=0, prepare=2 * MIB, prepared=1 * MIB, forward=40 * MIB),
}
WISHED = MemoryPlan(8, 8, DecoderSettings(), {"clips": 8, "sound": 16}, num_batches=2)
SQUARE = Geometry(steps=(Size(size_px=(100, 120)),))


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("4GiB", 4 << 30),
        ("4g", 4 << 30),
        ("4 GB", 4 * 10**9),
        ("1.5M", 3 << 19),
        ("800000", 800_000),
        ("2TiB", 2 << 40),
    ],
)
def test_amounts_of_memory_are_parsed(text, num_bytes):
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize("text", ["", "much", "4 apples", "-1G", "GiB", "1e9"])
def test_invalid_amounts_are_refused(text):
    with pytest.raises(ValueError, match="is not an amount of memory"):
        parse_bytes(text)


def test_plans_fit_the_limit_and_keep_the_minimum():
    plans = [fit(WISHED, NEEDS, size << 30, 1 << 30) for size in (64, 16, 8, 4, 3)]
    assert plans[0] == WISHED
    sizes = [plan.held_bytes(NEEDS) for plan in plans]
    assert sizes == sorted(sizes, reverse=True)
    assert all(size + (1 << 30) <= allowed << 30 for size, allowed in zip(sizes, (64, 16, 8, 4, 3), strict=True))
    last = plans[-1]
    assert last.num_decoders >= 1
    assert last.num_preparing >= 1
    assert min(last.batch_sizes.values()) >= 1
    assert last.decoding.buffer_bytes >= 1920 * 1080 * 3


def test_every_reduction_needs_at_most_as_much_memory():
    sizes = [plan.held_bytes(NEEDS) for plan in WISHED.smaller(NEEDS)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 10


def test_one_batch_at_a_time_comes_before_smaller_batches():
    steps = [(plan.num_batches, max(plan.batch_sizes.values())) for plan in WISHED.smaller(NEEDS)]
    assert steps.index((1, 16)) < next(place for place, (_, size) in enumerate(steps) if size < 16)
    assert (2, 8) not in steps


def test_a_limit_that_is_too_small_is_refused_with_the_minimum():
    with pytest.raises(InputError, match=r"it needs at least (\d\.\d\d) GiB, 1.00 GiB of it") as refusal:
        fit(WISHED, NEEDS, 1 << 30, 1 << 30)
    enough = float(str(refusal.value).split("it needs at least ")[1].split()[0])
    assert fit(WISHED, NEEDS, int(enough * 2**30), 1 << 30).num_decoders == 1


class Greedy(FakeExtractor):
    """Takes 40 MiB to prepare a segment, of which 10 remain, and 90 MiB to compute a row."""

    def prepare(self, segment: SegmentInput) -> Any:
        room = np.ones(40 * MIB, np.uint8)
        return room[: 10 * MIB].copy()

    def forward(self, prepared: Sequence[Any]) -> list[torch.Tensor | None]:
        return [torch.ones(90 * MIB, dtype=torch.uint8)[:2].float() for _ in prepared]


def greedy(**facts):
    fake = stream("greedy", length=5, frames=FrameNeed(SQUARE, next_frame=True), **facts)
    return replace(fake, extractor=Greedy(frames=fake.extractor.frames, batch_size=8))


def test_the_memory_of_a_segment_is_measured():
    need = measure(greedy(), torch.device("cpu"))
    assert need.frames == 6 * 3 * 100 * 120
    assert need.prepared == 10 * MIB
    assert 35 * MIB <= need.prepare <= 50 * MIB  # the kernel counts in steps of some pages a thread
    assert 85 * MIB <= need.forward <= 100 * MIB


def test_audio_is_measured_too():
    ear = stream("ear", length=25, frames=None, audio=AudioNeed(16000))
    assert measure(ear, torch.device("cpu")).frames == 4 * 16000


def test_a_run_is_reduced_to_its_memory_limit():
    streams = [greedy()]
    options = RunOptions(num_decoders=6, num_cpu_threads=4)
    assert within_memory(options, streams) is options
    allowed = (resident_bytes() or 0) + (1600 << 20)
    less = within_memory(replace(options, memory_bytes=allowed), streams)
    assert less.num_decoders < 6
    assert less.decoder_settings.max_frame_bytes == less.decoder_settings.buffer_bytes
    assert streams[0].extractor.batch_size < 8
    with pytest.raises(InputError, match=f"--memory {in_gib(1 << 20)} is too little"):
        within_memory(replace(options, memory_bytes=1 << 20), streams)


def test_a_system_without_process_memory_cannot_limit_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(process_resources, "PROC", tmp_path)
    with pytest.raises(InputError, match="--memory: this system does not report"):
        within_memory(RunOptions(memory_bytes=1 << 40), [greedy()])


def test_a_frame_that_exceeds_the_memory_limit_fails_for_this_run(tmp_path):
    from arabesque.manifests.errors import TransientDecodeError
    from arabesque.pipeline.decoding.decoder_pool import DecoderProcess

    with DecoderProcess(settings=DecoderSettings(buffer_bytes=8 * MIB, max_frame_bytes=8 * MIB)) as slot:
        wide = probe(width_px=3840, height_px=2160)
        with pytest.raises(TransientDecodeError, match="takes 23 MiB, more than the 8 that --memory leaves"):
            next(slot.decode(tmp_path / "a.mp4", wide, np.arange(3)))
