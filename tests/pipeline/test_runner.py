"""Behavior of a run if the pipeline engine fails or blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from threading import Barrier
from unittest.mock import MagicMock

import pytest
import torch
from fakes import stream, video

from arabesque.extractors.protocol import SegmentInput
from arabesque.manifests.errors import StoreError
from arabesque.pipeline.items import SegmentTask, VideoEnd
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.planning.plan import plan_video
from arabesque.pipeline.runner import Stage, StageWatch, open_pipeline, outputs_of, stages_of
from arabesque.pipeline.stages.collect import RowCollector
from arabesque.pipeline.stages.compute import Batcher


class Stuck:
    """A pipeline that yields one item and then blocks, while a stage fails."""

    def __init__(self, watch: StageWatch) -> None:
        self._watch = watch
        self._num_reads = 0

    def get_iterator(self, timeout: float) -> Iterator[str]:
        return self

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._num_reads += 1
        if self._num_reads == 1:
            return "item"
        if self._num_reads == 4:
            self._watch.error = StoreError("the disk is full")
        raise TimeoutError


def test_a_failed_stage_is_reported_if_the_pipeline_does_not_end():
    watch = StageWatch()
    items = outputs_of(Stuck(watch), watch)
    assert next(items) == "item"
    with pytest.raises(StoreError, match="the disk is full"):
        next(items)


def outputs(items, *stages):
    with open_pipeline(items, stages, StageWatch()) as pipeline, pipeline.auto_stop():
        return list(pipeline)


def test_items_that_a_stage_does_not_take_pass_it():
    def halves(number):
        yield number / 2
        yield number / 2

    double = Stage("double", (int, bytes), lambda item: 2 * item)
    assert outputs([1, "text", b"x", None, 2.0], double) == [2, "text", b"xx", 2.0]
    assert outputs([1, "text", [3], 2], Stage("split", int, halves)) == [0.5, 0.5, "text", [3], 1.0, 1.0]


def test_batches_come_one_by_one_and_other_items_do_not_wait_for_them():
    fake = stream(batch_size=2)
    plan, _ = plan_video(video("a", num_frames=40), [fake], {})
    segments = [SegmentTask(plan, fake, SegmentInput(index, index * 0.4, index * 0.4 + 0.4)) for index in range(3)]
    end = VideoEnd(plan, frames_delivered=40, decode_s=0.0)
    first, second, third = outputs([segments[0], end, *segments[1:]], Stage("batch", SegmentTask, Batcher()))
    assert first is end
    assert [[task.segment.index for task in batch.tasks] for batch in (second, third)] == [[0, 1], [2]]


def test_a_stage_can_have_its_own_number_of_threads_of_pytorch():
    before = torch.get_num_threads()
    ours, others = [], []
    together = Barrier(2)

    def note(number):
        together.wait(60)  # both threads of the stage are needed
        ours.append(torch.get_num_threads())
        return number

    def note_others(number):
        others.append(torch.get_num_threads())
        return number

    stages = (Stage("network", int, note, 2, torch_threads=3), Stage("other", int, note_others))
    assert sorted(outputs(range(4), *stages)) == [0, 1, 2, 3]
    assert ours == 4 * [3]
    assert others == 4 * [before]
    assert torch.get_num_threads() == before


def networks_of(options, *precisions):
    fakes = [stream(kind) for kind in precisions]
    streams = [
        replace(fake, spec=fake.spec.model_copy(update={"precision": kind}))
        for fake, kind in zip(fakes, precisions, strict=True)
    ]
    context = MagicMock(options=options, streams=streams)
    found = {stage.name: stage for stage in stages_of(context, {}, RowCollector({}), MagicMock())}
    return found["network"].concurrency


def test_two_batches_may_be_in_networks_at_a_time():
    options = RunOptions(num_cpu_threads=4, num_batches=2)
    assert networks_of(options, "float32", "bfloat16") == 2
    assert networks_of(replace(options, num_cpu_threads=1), "float32") == 1
    assert networks_of(replace(options, num_batches=None), "float32") == 1
    assert networks_of(replace(options, engine="openvino"), "float32") == 1
    assert RunOptions(device=torch.device("cuda"), num_cpu_threads=1).concurrency.network == 2
    assert networks_of(options, "float32", "tf32") == 1  # the switch belongs to the process
