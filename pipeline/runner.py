"""The stages of a run, in order. This is the only module that uses SPDL.

Read `stages_of` first: each of its lines is a file in `stages/` (``batch`` and ``network`` are in `stages.compute`).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from threading import Barrier
from typing import Any, Generic, TypeVar, cast

import torch
from spdl.pipeline import Pipeline, PipelineBuilder, PipelineFailure
from spdl.pipeline.defs import Aggregator

from ..manifests.errors import ArabesqueError
from .items import (
    EVENTS,
    Batch,
    BatchResult,
    ChunkFailure,
    DecodedChunk,
    Event,
    PreprocessedChunk,
    SegmentFailure,
    SegmentTask,
    VideoEnd,
    VideoSettled,
)
from .planning.plan import Progress
from .records import ClippedFile, FeatureRow, Source, VideoBoxes, VideoFile, grouped
from .run_context import RunContext
from .stages.assemble import SegmentBuilder
from .stages.collect import RowCollector
from .stages.compute import Batcher, Forward, prepare
from .stages.decode import VideoReader
from .stages.fetch import LocalCopy, Prefetcher
from .stages.preprocess import preprocess
from .stages.transfer import Transfer
from .stages.write import StoreSink
from .store.write_ahead_log import WriteAheadLog
from .streams import made_with
from .system.accelerators import device_name
from .system.process_resources import one_blas_thread, share_arenas
from .system.stage_timer import StageTimer

T = TypeVar("T")

FAILURE_PATIENCE_S = 1.0
"""Seconds to wait for further output after a stage has failed."""
SWITCH_INTERVAL_S = 0.0005
"""Seconds for which a thread keeps Python's lock in a run on a GPU while other threads wait for it."""
STOP_TIMEOUT_S = 5.0
"""Seconds that an interrupted run waits for its stages to stop."""
SELF_TIMED = frozenset({"decode"})
"""Stages that wait for other processes during a task, and therefore measure their busy time themselves."""


@dataclass(frozen=True)
class Stage(Generic[T]):
    """One stage: the types of items that it takes, and the callable that processes them. Other items pass it unchanged.

    The callable returns an item or yields several.
    """

    name: str
    takes: type[T] | tuple[type[T], ...]
    call: Callable[[T], object] | Batcher
    concurrency: int = 1
    """Number of threads."""
    torch_threads: int | None = None
    """CPU threads of PyTorch's operations in each thread of the stage; None: those of the process."""
    keeps_order: bool = False
    """Whether the order of items at the output is that at the input."""


def stages_of(context: RunContext, progress: Progress, collector: RowCollector, sink: StoreSink) -> list[Stage[Any]]:
    """Return the stages of a run, in order. Create new ones for every run, because some hold items between calls."""
    threads = context.options.concurrency
    # TF32 is allowed or not for the whole process, so that streams that differ in this cannot compute at the same time
    mixes_tf32 = len({stream.spec.precision == "tf32" for stream in context.streams}) > 1
    networks = 1 if mixes_tf32 else threads.network
    network_threads = max(1, torch.get_num_threads() // networks)
    return [
        Stage("decode", (VideoFile, ClippedFile, LocalCopy), VideoReader(context, progress), threads.decode),
        Stage("transfer", DecodedChunk, Transfer(context.options.device)),
        Stage("preprocess", DecodedChunk, preprocess, threads.preprocess, keeps_order=True),
        Stage("assemble", (PreprocessedChunk, ChunkFailure, VideoEnd), SegmentBuilder()),
        Stage("prepare", SegmentTask, prepare, threads.prepare),
        Stage("batch", SegmentTask, Batcher()),
        Stage("network", Batch, Forward(context.options.device), networks, torch_threads=network_threads),
        Stage("collect", (BatchResult, SegmentFailure, VideoEnd), collector),
        Stage("write", (FeatureRow, VideoBoxes, *EVENTS), sink),
    ]


def process_videos(context: RunContext, videos: Iterable[Source]) -> Generator[Event, None, None]:
    """Process every (video, stream) until it has an outcome: unclaimed videos first, then those whose run has died.

    Args:
        context: The worker's resources.
        videos: Videos with at least one remaining stream, clips of one file together (`grouped`). The next one is
            requested when the pipeline can accept it.

    Yields:
        Events, each after the writer has accepted it.

    Raises:
        ArabesqueError: The run itself fails. All rows that are finished by then have been passed to the writer.
    """
    while videos:
        with closing(_run_stages(context, videos)) as events:
            for event in events:
                if isinstance(event, VideoSettled):
                    context.writer.end_reading(event.video_id)
                yield event
        remaining = list[VideoFile]()
        for item in context.claims.remaining():
            if isinstance(item, VideoFile):
                remaining.append(item)
            else:
                yield item
        videos = grouped(remaining)


def _run_stages(context: RunContext, videos: Iterable[Source]) -> Generator[Event, None, None]:
    share_arenas()
    device, decoder_pool, writer = context.options.device, context.decoder_pool, context.writer
    made = made_with(context.options.decoder, [stream.spec.extractor for stream in context.streams])
    if context.options.engine == "compile":
        graphs = ", CUDA graphs" if device.type == "cuda" else ""
        made["engine"] = f"torch.compile {torch.__version__}{graphs}"
    elif context.options.engine != "torch" and device.type == "cpu":
        made["engine"] = f"{context.options.engine} {version(context.options.engine)}"
    collector = RowCollector(made | {"device": device_name(device)})
    sink = StoreSink(writer)
    watch = StageWatch(context.timer, decoder_pool.close)
    with closing(Prefetcher(context.options.prefetch_bytes)) as prefetcher:
        stages = stages_of(context, WriteAheadLog(writer.store), collector, sink)
        source = prefetcher.ahead(videos, context.claims.is_free)
        with open_pipeline(source, stages, watch) as pipeline:
            try:
                with one_blas_thread(), short_waits(device):
                    yield from outputs_of(pipeline, watch)
                pipeline.stop()
            except BaseException as error:
                sink.is_stopped = True
                decoder_pool.close()  # this unblocks threads that wait for a decoder
                prefetcher.close()
                try:
                    writer.flush()  # before waiting for the stages to stop
                finally:
                    with suppress(TimeoutError, PipelineFailure):  # a batch in its network cannot be interrupted
                        pipeline.stop(timeout=STOP_TIMEOUT_S)
                if isinstance(error, PipelineFailure):
                    raise root_cause(error) from error
                raise
    if collector.videos:
        unfinished = ", ".join(sorted(plan.video.video_id for plan in collector.videos))
        raise ArabesqueError(f"the run ended without outcomes of {unfinished}; run the same command again")


@contextmanager
def short_waits(device: torch.device) -> Generator[None]:
    """Let threads that have waited for a device continue soon, even if another thread computes in Python.

    With such a thread, a wait of 0.2 ms takes 0.9 ms, and 5.4 ms with Python's default interval of 5 ms
    (``benchmarks/waiting_threads.py``).
    """
    before = sys.getswitchinterval()
    if device.type != "cpu":
        sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def open_pipeline(source: Iterable[Any], stages: Sequence[Stage[Any]], watch: StageWatch) -> Generator[Pipeline[Any]]:
    """Connect stages by bounded queues. The pipeline yields the output of the last stage.

    The threads of stages with `Stage.torch_threads` end after the block, each one when it has finished its task.
    """
    builder = PipelineBuilder[Any, Any]().add_source(source)
    with ExitStack() as ends:
        for stage in stages:
            watch.timer.add(stage.name, 0.0)  # reports list the stages in their order
            if isinstance(stage.call, Batcher):
                builder.aggregate(_Batches(stage, stage.call, watch)).disaggregate()
                continue
            own = None
            if stage.torch_threads is not None:
                own = _own_threads(stage.concurrency, stage.torch_threads)
                ends.callback(own.shutdown, wait=False, cancel_futures=True)
            order = "input" if stage.keeps_order else "completion"
            task = _task_of(stage, stage.call, watch)
            builder.pipe(task, executor=own, name=stage.name, concurrency=stage.concurrency, output_order=order)
        yield builder.add_sink(buffer_size=64).build(
            num_threads=sum(stage.concurrency for stage in stages) + 2,
            max_failures=0,  # stages turn errors of videos into outcomes; any other error must stop the run
            task_hook_factory=lambda info: [],  # SPDL's hooks would log the time of each stage
        )


def _own_threads(count: int, torch_threads: int) -> ThreadPoolExecutor:
    """Return a pool of threads in which PyTorch's operations use a given number of CPU threads.

    PyTorch has a separate number for each thread. Setting it also sets the number for threads that have not used
    PyTorch yet. That number is therefore restored when all threads of the pool have started.
    """
    before = torch.get_num_threads()
    have_started = Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # a thread's first call sets its number to that of the process
        torch.set_num_threads(torch_threads)
        have_started.wait()

    threads = ThreadPoolExecutor(count, thread_name_prefix="network", initializer=start)
    for _ in range(count):
        threads.submit(int)
    have_started.wait()
    torch.set_num_threads(before)
    return threads


@dataclass
class StageWatch:
    """Busy time of all stages, and their first failure."""

    timer: StageTimer = field(default_factory=StageTimer)
    on_failure: Callable[[], None] = lambda: None
    """Called when a stage raises, to unblock stages that wait for a decoder buffer."""
    error: Exception | None = None
    """The first exception."""

    @contextmanager
    def task(self, stage: str) -> Generator[None]:
        """Measure the time of a block in which a stage processes an item, and record its failure."""
        try:
            with nullcontext() if stage in SELF_TIMED else self.timer.busy(stage):
                yield
        except Exception as error:
            self.error = self.error or error
            self.on_failure()
            raise


def _task_of(stage: Stage[Any], call: Callable[[Any], Any], watch: StageWatch) -> Callable[[Any], Any]:
    """Return a callable for SPDL that passes on the items that a stage does not take."""

    def task(item: Any) -> Any:
        if not isinstance(item, stage.takes):
            return item
        with watch.task(stage.name):
            return call(item)

    def task_of_several(item: Any) -> Iterator[Any]:
        if not isinstance(item, stage.takes):
            yield item
            return
        with closing(call(item)) as results:
            while True:
                with watch.task(stage.name):
                    result = next(results, _NO_MORE)
                if result is _NO_MORE:
                    return
                yield result

    function = call if inspect.isfunction(call) else type(call).__call__
    return task_of_several if inspect.isgeneratorfunction(function) else task


_NO_MORE = object()


@dataclass
class _Batches(Aggregator):
    """Collects batches for SPDL. An item that passes unchanged may also be followed by overdue batches."""

    stage: Stage[Any]
    batcher: Batcher
    watch: StageWatch

    def accumulate(self, item: Any) -> list[Any] | None:
        with self.watch.task(self.stage.name):
            if isinstance(item, self.stage.takes):
                return self.batcher.take(item) or None
            return [item, *self.batcher.take()]

    def flush(self) -> list[Batch] | None:
        return self.batcher.take(is_last=True) or None


def outputs_of(pipeline: Pipeline[Any], watch: StageWatch) -> Iterator[Any]:
    """Yield the output of a pipeline. After a stage has failed and output has stopped, its exception is raised.

    SPDL also raises it, but not always: two stages that end at the same time may block each other (spdl-core 0.8.0).
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
    """Return the original exception of a stage from SPDL's groups and chains; an `ArabesqueError` takes precedence."""
    while not isinstance(failure, ArabesqueError):
        if isinstance(failure, BaseExceptionGroup):
            parts = cast("BaseExceptionGroup[BaseException]", failure).exceptions
            failure = max(parts, key=lambda error: isinstance(root_cause(error), ArabesqueError))
        elif failure.__cause__ is not None:
            failure = failure.__cause__
        else:
            break
    return failure
