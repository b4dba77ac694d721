"""What a run does where its engine does not do what it should."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes import stream, video

from arabesque.extractors.protocol import SegmentInput
from arabesque.manifests.errors import StoreError
from arabesque.pipeline.items import SegmentTask, VideoEnd
from arabesque.pipeline.planning.plan import plan_video
from arabesque.pipeline.runner import FailureWatch, Stage, build_pipeline, outputs_of
from arabesque.pipeline.stages.compute import Batcher
from arabesque.pipeline.system.stage_timer import StageTimer


class Stuck:
    """A pipeline that yields one item and then blocks, while a stage fails."""

    def __init__(self, watch: FailureWatch) -> None:
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


def test_a_failed_stage_is_told_where_the_engine_gives_no_end():
    watch = FailureWatch()
    items = outputs_of(Stuck(watch), watch)
    assert next(items) == "item"
    with pytest.raises(StoreError, match="the disk is full"):
        next(items)


def outputs(items, *stages):
    pipeline = build_pipeline(items, stages, FailureWatch(), StageTimer())
    with pipeline.auto_stop():
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
