"""A run, stage by stage. Read this page first: every other file of the room is one line of `stages_of`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from spdl.pipeline import Pipeline, PipelineBuilder, PipelineFailure, StageInfo, TaskHook
from spdl.pipeline.defs import Aggregator

from ..manifests.errors import ArabesqueError
from .assembling import Assembler
from .blas_threads import one_blas_thread
from .collecting import Collector
from .decoding.slots import SlotPool
from .geometries import preprocess
from .heap import share_arenas
from .ledger import Ledger
from .networks import Batcher, forward, prepare
from .planning import Progress
from .reading import VideoReader
from .records import FeatureRow, Outcome, VideoFile, one_line
from .sharing import SharedWork
from .spooling import Spool
from .stage_clock import StageClock
from .store.writer import StoreWriter
from .transfer import Transfer
from .work import Awaiting, Notice, SegmentFeature, Stream, VideoSettled, WorkDone

Event = Outcome | SegmentFeature | VideoSettled | Awaiting | WorkDone | Notice
"""What a run tells of: each once it is in the writer's hands."""

FAILURE_PATIENCE_S = 1.0
"""How long a run whose stage has failed goes on without a sign of life."""
STOP_TIMEOUT_S = 5.0
"""How long an interrupted run waits for a stage in the middle of its work before it leaves without it."""


@dataclass(frozen=True)
class Concurrency:
    """How many threads each stage may use; networks always run one batch at a time."""

    decode: int
    preprocess: int
    prepare: int


@dataclass(frozen=True)
class Stage:
    """A line of `stages_of`: what is called with each item, and by how many threads at once."""

    name: str
    call: Callable[[Any], Any] | Aggregator
    concurrency: int = 1
    keeps_order: bool = False


def run_stages(
    videos: Iterable[VideoFile],
    streams: Sequence[Stream],
    *,
    spool: Spool,
    slots: SlotPool,
    writer: StoreWriter,
    ledger: Ledger,
    progress: Progress,
    shared: SharedWork,
    provenance: dict[str, str],
    device: torch.device,
    concurrency: Concurrency,
    clock: StageClock,
) -> Generator[Event, None, None]:
    """Brings every (video, stream) that no other run has in hand to an outcome and tells of it as it goes.

    Raises `ArabesqueError` where the run itself fails; what is finished by then is in the writer's hands.
    """
    share_arenas()
    reader = VideoReader(slots, streams, ledger, progress, shared, clock)
    collector = Collector(provenance)
    recorder = Recorder(writer)
    watch = FailureWatch(slots.close)
    stages = stages_of(reader, collector, recorder, device, concurrency)
    pipeline = connect(spool.ahead(videos, shared), stages, lambda info: [*clock.hooks(info), watch])
    try:
        with one_blas_thread():
            yield from outputs_of(pipeline, watch)
        pipeline.stop()
    except BaseException as error:
        recorder.stop()
        slots.close()  # a thread that waits for its decoder would wait for ever
        spool.close()
        try:
            writer.flush()  # before the stages end: what is finished must not wait for what is not
        finally:
            with suppress(TimeoutError, PipelineFailure):  # a network in the middle of a batch cannot be stopped
                pipeline.stop(timeout=STOP_TIMEOUT_S)
        if isinstance(error, PipelineFailure):
            raise root_cause(error) from error
        raise
    if collector.unsettled:
        raise ArabesqueError(f"the run lost track of {', '.join(collector.unsettled)}; run again to finish them")


def stages_of(
    reader: VideoReader, collector: Collector, recorder: Recorder, device: torch.device, concurrency: Concurrency
) -> list[Stage]:
    """All stages of a run, in their order. Some keep what is on its way: make them anew for every run."""
    return [
        Stage("decode", reader, concurrency.decode),
        Stage("transfer", Transfer(device)),
        Stage("preprocess", preprocess, concurrency.preprocess, keeps_order=True),
        Stage("assemble", Assembler()),
        Stage("prepare", prepare, concurrency.prepare),
        Stage("batch", Batcher()),
        Stage("network", forward),
        Stage("collect", collector),
        Stage("write", recorder),
    ]


def connect(
    source: Iterable[Any], stages: Sequence[Stage], hooks: Callable[[StageInfo], list[TaskHook]]
) -> Pipeline[Any]:
    """The engine's pipeline of these stages; what the last one gives comes out of it, in bounded queues all the way."""
    builder = PipelineBuilder().add_source(source)
    for stage in stages:
        if isinstance(stage.call, Aggregator):
            builder.aggregate(stage.call)
        else:
            order = "input" if stage.keeps_order else "completion"
            builder.pipe(stage.call, name=stage.name, concurrency=stage.concurrency, output_order=order)
    return builder.add_sink(buffer_size=64).build(
        num_threads=sum(stage.concurrency for stage in stages) + 2,
        max_failures=0,  # a stage turns what a video does to it into outcomes; anything else must stop the run
        task_hook_factory=hooks,
    )


class Recorder:
    """The writing stage: hands what is finished to the store, and tells the caller of it."""

    def __init__(self, writer: StoreWriter) -> None:
        self._writer = writer
        self._is_stopped = False

    def stop(self) -> None:
        """Takes note of nothing any more: what the stages say of a run that is being torn down is not about videos."""
        self._is_stopped = True

    def __call__(self, item: FeatureRow | Event) -> Event | None:
        if self._is_stopped:
            return None
        if isinstance(item, FeatureRow):
            self._writer.add(item)
            return None
        if isinstance(item, Outcome):
            item = replace(item, reason=one_line(item.reason))  # files may have any name
            self._writer.add_outcome(item)
        elif isinstance(item, SegmentFeature):
            key = item.plan.streams[item.stream.name].key
            self._writer.add_progress(key, item.index, item.start_s, item.end_s, item.feature)
        return item


class FailureWatch(TaskHook):
    """Calls ``on_failure`` when a stage raises: one that waits for a window to be given back would wait for ever.

    One for all stages; `error` is what was raised first.
    """

    def __init__(self, on_failure: Callable[[], None]) -> None:
        self._on_failure = on_failure
        self.error: Exception | None = None

    @asynccontextmanager
    async def task_hook(self, input_item: Any = None) -> AsyncIterator[None]:
        try:
            yield
        except StopAsyncIteration:  # how a stage that yields several items says that it has no more
            raise
        except Exception as error:
            self.error = self.error or error
            self._on_failure()
            raise


def outputs_of(pipeline: Pipeline[Any], watch: FailureWatch) -> Iterator[Any]:
    """What the stages give; what one of them raised, once nothing more comes.

    The engine raises it, too, but not always: two stages that end at once may wait for each other (spdl-core 0.8.0).
    """
    items = pipeline.get_iterator(timeout=FAILURE_PATIENCE_S)
    while True:
        try:
            yield next(items)
        except StopIteration:
            return
        except TimeoutError:
            if watch.error is not None:
                raise watch.error from None


def root_cause(failure: BaseException) -> BaseException:
    """What a stage raised first, out of the engine's groups and chains; ours before what it explains."""
    while not isinstance(failure, ArabesqueError):
        if isinstance(failure, BaseExceptionGroup):
            failure = max(failure.exceptions, key=lambda error: isinstance(root_cause(error), ArabesqueError))
        elif failure.__cause__ is not None:
            failure = failure.__cause__
        else:
            break
    return failure
