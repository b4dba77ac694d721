"""Batches across videos, and who is to blame when one fails."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from fakes import stream, video

from arabesque.extractors.protocol import SegmentInput
from arabesque.manifests.errors import ArabesqueError
from arabesque.pipeline import networks
from arabesque.pipeline.networks import Batch, Batcher, forward, prepare
from arabesque.pipeline.planning import plan_video
from arabesque.pipeline.work import SegmentFailure, SegmentFeature, SegmentWork


def work(of, video_id="a", index=0):
    plan, _ = plan_video(video(video_id, num_frames=40), [of], {})
    segment = SegmentInput(index, index * 0.4, (index + 1) * 0.4)
    return SegmentWork(plan, of, segment, prepared=segment)


def test_a_batch_takes_segments_of_different_videos():
    fake = stream(batch_size=3)
    batcher = Batcher()
    assert batcher.accumulate(work(fake, "a")) is None
    assert batcher.accumulate(work(fake, "b")) is None
    (batch,) = batcher.accumulate(work(fake, "c")) or []
    assert [item.plan.video.video_id for item in batch.work] == ["a", "b", "c"]
    assert batcher.flush() is None


def test_streams_do_not_mix_and_strangers_pass():
    one, two = stream("one"), stream("two")
    batcher = Batcher()
    assert batcher.accumulate(work(one)) is None
    assert batcher.accumulate("stranger") == ["stranger"]
    assert batcher.accumulate(work(two)) is None
    assert [batch.stream.name for batch in batcher.flush() or []] == ["one", "two"]


def test_a_batch_that_waited_too_long_goes_on_unfilled(monkeypatch):
    monkeypatch.setattr(networks, "MAX_WAIT_S", 0.01)
    batcher = Batcher()
    batcher.accumulate(work(stream("slow", batch_size=100)))
    time.sleep(0.02)
    ready = batcher.accumulate("stranger")
    assert [type(item).__name__ for item in ready or []] == ["str", "Batch"]


def test_rows_come_back_in_order_and_strangers_pass():
    fake = stream(batch_size=8)
    batch = Batch(fake, tuple(work(fake, index=index) for index in range(3)))
    *features, stranger = forward([batch, "stranger"])
    assert [item.feature.tolist()[0] for item in features] == [0, 1, 2]
    assert stranger == "stranger"
    assert fake.extractor.batches == [3]


def test_the_segment_to_blame_fails_alone():
    def row(segment):
        if segment.index == 2:
            raise ValueError("cannot be computed")
        return torch.zeros(2)

    fake = stream(row=row)
    results = forward([Batch(fake, tuple(work(fake, index=index) for index in range(5)))])
    assert [isinstance(result, SegmentFailure) for result in results] == [False, False, True, False, False]
    assert results[2].reason == "fake failed at 0.80 s: ValueError: cannot be computed"
    assert not results[2].transient


def test_a_device_out_of_memory_halves_the_batch():
    fake = stream()
    original = fake.extractor.forward

    def small_only(prepared):
        if len(prepared) > 2:
            raise torch.OutOfMemoryError("too large")
        return original(prepared)

    fake.extractor.forward = small_only
    results = forward([Batch(fake, tuple(work(fake, index=index) for index in range(5)))])
    assert all(isinstance(result, SegmentFeature) for result in results)
    assert max(fake.extractor.batches) == 2


@pytest.mark.parametrize("is_lost", [True, False])
def test_only_a_device_that_is_lost_ends_the_run(monkeypatch, is_lost):
    def fail(*_):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(torch.cuda, "synchronize", fail if is_lost else lambda: None)
    fake = stream()
    fake.extractor.forward = fail
    batch = Batch(fake, (work(fake), work(fake, index=1)))
    if is_lost:
        with pytest.raises(ArabesqueError, match=r"the GPU cannot be used any more \(CUDA error: an .*, in fake"):
            forward([batch])
    else:
        assert all(isinstance(result, SegmentFailure) for result in forward([batch]))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (torch.tensor([1.0, float("nan")]), "not finite"),
        (torch.zeros(3), "a row of (3,)"),
    ],
)
def test_rows_that_break_the_promise_are_failures(row, complaint):
    fake = stream(row=lambda segment: row)
    (result,) = forward([Batch(fake, (work(fake),))])
    assert isinstance(result, SegmentFailure)
    assert complaint in result.reason


def test_none_is_a_segment_without_a_row():
    fake = stream(row=lambda segment: None)
    (result,) = forward([Batch(fake, (work(fake),))])
    assert isinstance(result, SegmentFeature)
    assert result.feature is None


def test_what_prepare_raises_is_its_segments_failure():
    fake = stream()

    def broken(segment):
        raise MemoryError("no room")

    fake.extractor.prepare = broken
    failure = prepare(work(fake))
    assert isinstance(failure, SegmentFailure)
    assert failure.transient


def test_prepare_lets_go_of_the_frames():
    item = work(stream())
    item = replace(item, segment=replace(item.segment, frames=torch.zeros(4, 3, 6, 8, dtype=torch.uint8)))
    prepared = prepare(item)
    assert prepared.segment.frames is None
    assert prepared.prepared.frames is not None
