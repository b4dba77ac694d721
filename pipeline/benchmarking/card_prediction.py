"""Upper bound of the speed of a recipe on a GPU of another machine: a roofline model, and CPU time measured here.

Networks run on the meta device, whose tensors have shapes but no values. Floating-point operations, bytes of memory
traffic and launched operations are counted. The time of an operation is the longer one of its arithmetic and its memory
traffic, at the rates in the card's data sheet. The result is therefore an upper bound of the speed: a run cannot be
faster, but it may be much slower. The CPU time of decoding and `prepare` is measured on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ...extractors.geometry import apply_geometry
from ...manifests.errors import ArabesqueError
from ...manifests.streams import Precision
from ..decoding.planes import ColorSpace
from ..items import SegmentTask, Stream
from ..segment_inputs import read_segments
from ..stages.color import to_rgb
from .cards import Card
from .end_to_end import Bench
from .isolated_stages import isolated_decode, uncomputed
from .workload import Probed, plan_of, workload

META = torch.device("meta")
LAUNCH_S = 5e-6
"""CPU time to launch one operation in PyTorch. This is an assumption; 3 to 10 µs are usual."""
CHUNK_FRAMES = 32
"""Frames that are preprocessed together."""


@dataclass(frozen=True)
class Counts:
    """Work of the card for a batch, or for a chunk of frames."""

    flop: float = 0.0
    moved_bytes: float = 0.0
    launches: float = 0.0
    card_s: float = 0.0
    """Sum over operations of the time of arithmetic or of memory traffic, whichever is longer, in seconds."""

    def times(self, factor: float) -> Counts:
        """Return the counts multiplied by a factor."""
        return Counts(*(factor * getattr(self, each.name) for each in fields(self)))


class _Counter(TorchDispatchMode):
    def __init__(self, card: Card, precision: Precision) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self._bytes_per_s, self._per_s = card.bytes_per_s, card.operations_per_s(precision)
        self.counts = Counts()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket not in flop_registry:  # in inference mode, compound operations are not decomposed
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        if func.is_view or not any(isinstance(each, Tensor) and each.device == META for each in tree_leaves(result)):
            return result
        count: Callable[..., int] | None = flop_registry.get(func.overloadpacket)
        flop = count(*args, **kwargs, out_val=result) if count is not None else 0
        tensors = [each for each in tree_leaves((args, kwargs, result)) if isinstance(each, Tensor)]
        moved = sum(each.numel() * each.element_size() for each in tensors)
        card_s = max(flop / self._per_s, moved / self._bytes_per_s)
        before = self.counts
        self.counts = Counts(
            before.flop + flop, before.moved_bytes + moved, before.launches + 1, before.card_s + card_s
        )
        return result


@contextmanager
def _counting(card: Card, precision: Precision) -> Generator[_Counter]:
    with torch.inference_mode(), _Counter(card, precision) as counter:
        yield counter


@dataclass(frozen=True)
class StreamPrediction:
    """Cost of a stream. Times and counts are per second of video."""

    stream: str
    segments_per_video_s: float
    prepare_cpu_s: float
    """CPU time of `prepare` on this machine."""
    network: Counts
    tvl1_s: float
    """Time of TV-L1 on the card."""
    not_counted: str
    """Reason why the network's operations could not be counted; empty if they were."""


@dataclass(frozen=True)
class Prediction:
    """Bounds of a recipe on a card. Times and counts are per second of video."""

    recipe: str
    card: Card
    cores: int
    decode_cpu_s: float
    """CPU time of decoding on this machine."""
    preprocess: Counts
    streams: tuple[StreamPrediction, ...]

    @property
    def seconds(self) -> dict[str, float]:
        """Resource → seconds for which it is busy per second of video"""
        counts = [self.preprocess, *(each.network for each in self.streams)]
        return {
            "CPU cores": (self.decode_cpu_s + sum(each.prepare_cpu_s for each in self.streams)) / self.cores,
            "launches": LAUNCH_S * sum(each.launches for each in counts),
            "card": sum(each.card_s for each in counts) + sum(each.tvl1_s for each in self.streams),
        }

    @property
    def bound(self) -> str:
        """The resource that is busy for the longest time"""
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def most_video_s_per_s(self) -> float:
        """Upper bound of the speed of a run, in seconds of video per second"""
        return 1 / self.seconds[self.bound]

    def as_json(self) -> dict[str, Any]:
        """Return all values as JSON data."""
        return asdict(self) | {
            "seconds": self.seconds,
            "bound": self.bound,
            "most_video_s_per_s": self.most_video_s_per_s,
        }


def predict(bench: Bench, videos: Probed, card: Card, cores: int, measure_s: float) -> Prediction:
    """Predict the bounds of a run on a card.

    Args:
        bench: The run. The networks of its streams are on the meta device, and its decoders deliver planes as for a
            GPU.
        videos: Videos to measure decoding and `prepare` on.
        card: The card.
        cores: CPU cores of the machine with the card.
        measure_s: Approximate duration of the measurement of decoding.

    Raises:
        ArabesqueError: A video cannot be processed, or no stream has segments.
    """
    work = workload(videos, bench.streams)
    decoded = isolated_decode(bench, videos, measure_s)
    if decoded.one_pass.cpu_s is None:
        raise ArabesqueError("--predict: this system does not report the CPU time of other processes; use Linux")
    tasks: dict[str, SegmentTask] = {}
    for file, _ in videos:
        missing = [stream for stream in bench.streams if stream.name not in tasks and work.segments[stream.name]]
        for item in read_segments(file.local_path, missing, _middle, torch.device("cpu")) if missing else ():
            if isinstance(item, SegmentTask):
                tasks[item.stream.name] = item
    for task in uncomputed([*tasks.values()]):
        task.stream.extractor.prepare(task.segment)  # without measurement: the first call compiles code
    return Prediction(
        recipe=bench.run.recipe.name,
        card=card,
        cores=cores,
        decode_cpu_s=decoded.one_pass.cpu_s / decoded.units,
        preprocess=_preprocess(bench.streams, videos, card).times(work.per_video_s("frames") / CHUNK_FRAMES),
        streams=tuple(
            _stream(task, work.per_video_s("segments", task.stream.name), card)
            for task in uncomputed([tasks[stream.name] for stream in bench.streams if stream.name in tasks])
        ),
    )


def _middle(stream: Stream, num_segments: int) -> list[int]:
    return [num_segments // 2] if num_segments else []


def _preprocess(streams: Sequence[Stream], videos: Probed, card: Card) -> Counts:
    """Count the operations that convert the color of a chunk of the first video and apply the geometries."""
    file, metadata = videos[0]
    geometries = plan_of(file, metadata, streams).frames_by_geometry
    if not geometries:
        return Counts()
    height, width = metadata.height_px - metadata.height_px % 2, metadata.width_px - metadata.width_px % 2
    with _counting(card, "float32") as counter:
        planes = torch.empty((CHUNK_FRAMES, height * 3 // 2, width), dtype=torch.uint8, device=META)
        pictures = to_rgb(planes, ColorSpace("bt709", full_range=False))
        for geometry in geometries:
            apply_geometry(pictures, geometry)
    return counter.counts


def _stream(task: SegmentTask, segments_per_video_s: float, card: Card) -> StreamPrediction:
    extractor, precision = task.stream.extractor, task.stream.spec.precision
    began = time.process_time()
    prepared = extractor.prepare(task.segment)
    prepare_s = time.process_time() - began
    counts, reason = Counts(), ""
    try:
        with _counting(card, precision) as counter:
            extractor.forward([_on_meta(prepared)] * extractor.batch_size)
        counts = counter.counts.times(segments_per_video_s / extractor.batch_size)
    except (RuntimeError, NotImplementedError, TypeError) as error:  # the control flow of the network depends on values
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    flow: Any = task.stream.spec.settings.get("flow")
    tvl1_s = 0.0
    if (
        isinstance(flow, dict)
        and cast("dict[str, object]", flow).get("method") == "tvl1"
        and task.segment.frames is not None
    ):
        frames = task.segment.frames
        size = frames.shape[-2] * frames.shape[-1] / (256 * 341)
        tvl1_s = segments_per_video_s * (len(frames) - 1) * size / card.tvl1_pairs_per_s
    return StreamPrediction(
        task.stream.name, segments_per_video_s, segments_per_video_s * prepare_s, counts, tvl1_s, reason
    )


def _on_meta(item: Any) -> Any:
    """Return the output of `prepare` with its tensors on the meta device."""
    if isinstance(item, Tensor):
        return item.to(META)
    if is_dataclass(item) and not isinstance(item, type):
        tensors = {each.name: getattr(item, each.name) for each in fields(item)}
        return replace(item, **{name: value.to(META) for name, value in tensors.items() if isinstance(value, Tensor)})
    return item
