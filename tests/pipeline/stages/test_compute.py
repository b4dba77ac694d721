"""Batches across videos, and the failure of single segments of a batch."""

from __future__ import annotations

import gc
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, BrokenBarrierError

import pytest
import torch
from fakes import stream, video

from arabesque.extractors.protocol import SegmentInput
from arabesque.manifests.errors import ArabesqueError
from arabesque.pipeline.items import Batch, SegmentFailure, SegmentFeature, SegmentTask
from arabesque.pipeline.planning.plan import plan_video
from arabesque.pipeline.stages import compute as networks
from arabesque.pipeline.stages.compute import Batcher, Forward, prepare

CPU = torch.device("cpu")
SECOND_GPU = torch.device("xpu", 1)  # PyTorch makes no stream of a CUDA device that is not there


def forward(batch):
    return Forward(CPU)(batch)


def task(of, video_id="a", index=0):
    plan, _ = plan_video(video(video_id, num_frames=40), [of], {})
    segment = SegmentInput(index, index * 0.4, (index + 1) * 0.4)
    return SegmentTask(plan, of, segment, prepared=segment)


def test_a_batch_takes_segments_of_different_videos():
    fake = stream(batch_size=3)
    batcher = Batcher()
    for video_id in "ab":
        assert batcher.take(task(fake, video_id)) == []
    (batch,) = batcher.take(task(fake, "c"))
    assert [item.plan.video.video_id for item in batch.tasks] == ["a", "b", "c"]
    assert batcher.take(is_last=True) == []


def test_streams_do_not_mix():
    batcher = Batcher()
    for name in ("one", "two"):
        assert batcher.take(task(stream(name))) == []
    assert [batch.stream.name for batch in batcher.take(is_last=True)] == ["one", "two"]


def test_an_old_batch_is_processed_unfilled(monkeypatch):
    monkeypatch.setattr(networks, "MAX_WAIT_S", 0.01)
    batcher = Batcher()
    assert batcher.take(task(stream("slow", batch_size=100))) == []
    time.sleep(0.02)
    assert [len(batch.tasks) for batch in batcher.take()] == [1]


def test_rows_come_back_in_order():
    fake = stream(batch_size=8)
    features = forward(Batch(fake, tuple(task(fake, index=index) for index in range(3)))).results
    assert [item.feature.tolist()[0] for item in features] == [0, 1, 2]
    assert fake.extractor.batches == [3]


def test_only_the_faulty_segment_fails():
    def row(segment):
        if segment.index == 2:
            raise ValueError("cannot be computed")
        return torch.zeros(2)

    fake = stream(row=row)
    results = forward(Batch(fake, tuple(task(fake, index=index) for index in range(5)))).results
    assert [isinstance(result, SegmentFailure) for result in results] == [False, False, True, False, False]
    assert results[2].reason == "fake failed at 0.80 s: ValueError: cannot be computed"
    assert not results[2].transient


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_batch_that_does_not_fit_is_halved_without_its_memory(error):
    """Memory of a failed network call is free before the halves run, and the size that fits is kept."""
    fake = stream(batch_size=16)
    original = fake.extractor.forward
    activations: list[weakref.ref[torch.Tensor]] = []
    sizes: list[int] = []

    def small_only(prepared):
        assert all(activation() is None for activation in activations), "a failed batch is still in memory"
        activation = torch.zeros(len(prepared))
        activations.append(weakref.ref(activation))
        sizes.append(len(prepared))
        if len(prepared) > 2:
            raise type(error)(str(error))
        return original(prepared)

    fake.extractor.forward = small_only
    gc.disable()  # memory must not wait for the garbage collector
    try:
        network = Forward(CPU)
        results = network(Batch(fake, tuple(task(fake, index=index) for index in range(16)))).results
        assert [result.index for result in results] == list(range(16))
        assert all(isinstance(result, SegmentFeature) for result in results)
        assert sizes[:3] == [16, 8, 4]
        assert sizes[3:] == [2] * 8
        sizes.clear()
        network(Batch(fake, tuple(task(fake, index=index) for index in range(16))))
        assert sizes == [2] * 8
    finally:
        gc.enable()


def test_one_segment_that_does_not_fit_may_be_tried_again():
    fake = stream()

    def too_large(prepared):
        raise torch.OutOfMemoryError("too large")

    fake.extractor.forward = too_large
    (result,) = forward(Batch(fake, (task(fake),))).results
    assert isinstance(result, SegmentFailure)
    assert result.transient


def fail(*_):
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")


def on_second_gpu(monkeypatch, *, is_lost):
    """A simulated GPU, of which only the state after an error is queried."""

    def synchronize(device):
        assert device == SECOND_GPU
        if is_lost:
            fail()

    monkeypatch.setattr(torch.accelerator, "synchronize", synchronize)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)


@pytest.mark.parametrize("is_lost", [True, False])
def test_only_a_failed_device_ends_the_run(monkeypatch, is_lost):
    on_second_gpu(monkeypatch, is_lost=is_lost)
    fake = stream()
    fake.extractor.forward = fail
    batch = Batch(fake, (task(fake), task(fake, index=1)))
    network = Forward(SECOND_GPU)
    if is_lost:
        with pytest.raises(ArabesqueError, match=r"the GPU has failed \(CUDA error: an .*, in fake"):
            network(batch)
    else:
        assert all(isinstance(result, SegmentFailure) for result in network(batch).results)


class OnGpu(torch.Tensor):
    """A tensor that reports a GPU as its device."""

    device = SECOND_GPU


def test_a_gpu_that_fails_in_prepare_ends_the_run(monkeypatch):
    on_second_gpu(monkeypatch, is_lost=True)
    fake = stream()
    fake.extractor.prepare = fail
    item = task(fake)
    frames = torch.zeros(4, 3, 6, 8, dtype=torch.uint8).as_subclass(OnGpu)
    with pytest.raises(ArabesqueError, match="the GPU has failed"):
        prepare(replace(item, segment=replace(item.segment, frames=frames)))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (torch.tensor([1.0, float("nan")]), "not finite"),
        (torch.zeros(3), "a row of (3,)"),
    ],
)
def test_rows_with_wrong_values_or_shape_are_failures(row, problem):
    fake = stream(row=lambda segment: row)
    (result,) = forward(Batch(fake, (task(fake),))).results
    assert isinstance(result, SegmentFailure)
    assert problem in result.reason


def test_an_extractor_may_return_none_for_a_segment():
    fake = stream(row=lambda segment: None)
    (result,) = forward(Batch(fake, (task(fake),))).results
    assert isinstance(result, SegmentFeature)
    assert result.feature is None


def test_an_exception_in_prepare_becomes_the_failure_of_its_segment():
    fake = stream()

    def broken(segment):
        raise MemoryError("no memory")

    fake.extractor.prepare = broken
    failure = prepare(task(fake))
    assert isinstance(failure, SegmentFailure)
    assert failure.transient


def test_prepare_releases_the_frames():
    item = task(stream())
    item = replace(item, segment=replace(item.segment, frames=torch.zeros(4, 3, 6, 8, dtype=torch.uint8)))
    prepared = prepare(item)
    assert prepared.segment.frames is None
    assert prepared.prepared.frames is not None


class Meeting:
    """An extractor whose batches wait for each other in `forward`, and record whether they ran concurrently."""

    def __init__(self, extractor, *, patience_s, **attributes):
        self._extractor = extractor
        self._together = Barrier(2)
        self._patience_s = patience_s
        self.met = []
        vars(self).update(attributes)

    def __getattr__(self, name):
        return getattr(self._extractor, name)

    def forward(self, prepared):
        try:
            self._together.wait(self._patience_s)
            self.met.append(True)
        except BrokenBarrierError:
            self.met.append(False)
        return self._extractor.forward(prepared)


@pytest.mark.parametrize(("attributes", "patience_s"), [({"forwards_concurrently": True}, 60), ({}, 0.2)])
def test_batches_of_a_stream_compute_together_only_if_its_extractor_allows_it(attributes, patience_s):
    fake = stream()
    meeting = Meeting(fake.extractor, patience_s=patience_s, **attributes)
    fake = replace(fake, extractor=meeting)
    network = Forward(CPU)
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(network, [Batch(fake, (task(fake, index=index),)) for index in range(2)]))
    assert meeting.met == 2 * [bool(attributes)]
    assert [type(result.results[0]) for result in results] == 2 * [SegmentFeature]
