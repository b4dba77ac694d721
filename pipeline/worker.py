"""One worker of a run: networks, decoders and a writer in one process, which bring videos to their outcomes."""

from __future__ import annotations

import platform
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch

from ..extractors.checkpoints import Weights
from ..extractors.table import build, extractor_class
from ..manifests.errors import WeightsError
from ..manifests.recipes import Recipe
from ..manifests.streams import StreamSpec
from .decoding.slots import SlotPool
from .keys import settings_digest
from .ledger import Ledger
from .records import VideoFile
from .runner import Event, run_stages
from .sharing import SharedWork
from .spooling import Spool
from .stage_clock import StageClock
from .store.folders import Root
from .store.progress_journal import read_progress
from .store.writer import StoreWriter
from .weights.cache import resolve_weights
from .work import Stream, VideoSettled

if TYPE_CHECKING:
    from .extraction import RunOptions


@dataclass(frozen=True)
class Job:
    """What every worker of a run must know; it travels to other processes and machines."""

    out: Root
    recipe: Recipe
    """Resolved: nothing is left to the worker's defaults."""
    streams: tuple[str, ...]
    weights: str | None
    """As `Extraction` was given them; each machine finds the checkpoints in its own cache."""
    settings_digests: Mapping[str, str]
    """Stream → digest. A worker that comes to another one, as its checkpoint differs, must not work."""
    options: RunOptions


class Worker:
    """Takes videos from a source and tells of what becomes of them. One at a time for a `StoreWriter`."""

    def __init__(
        self,
        job: Job,
        streams: list[Stream],
        *,
        slots: SlotPool,
        writer: StoreWriter,
        ledger: Ledger,
        shared: SharedWork,
        clock: StageClock,
    ) -> None:
        self._job = job
        self._streams = streams
        self._slots = slots
        self._writer = writer
        self._ledger = ledger
        self._shared = shared
        self._clock = clock

    def carry_out(self, videos: Iterable[VideoFile]) -> Generator[Event, None, None]:
        """First what no other run has in hand, then what the others left behind.

        Each of ``videos`` is asked for when there is room for it.
        """
        todo = videos
        while todo:
            with closing(self._round(todo)) as events:
                for event in events:
                    if isinstance(event, VideoSettled):
                        self._shared.settle(event.video_id)
                    yield event
            left = list[VideoFile]()
            for item in self._shared.left():
                if isinstance(item, VideoFile):
                    left.append(item)
                else:
                    yield item
            todo = left

    def _round(self, videos: Iterable[VideoFile]) -> Generator[Event, None, None]:
        options = self._job.options
        with Spool(options.spool_bytes) as spool:
            yield from run_stages(
                videos,
                self._streams,
                spool=spool,
                slots=self._slots,
                writer=self._writer,
                ledger=self._ledger,
                progress=read_progress(self._job.out),
                shared=self._shared,
                provenance=made_with(options.decoder) | {"device": _device_name(options.device)},
                device=options.device,
                concurrency=options.concurrency,
                clock=self._clock,
            )


def build_streams(
    specs: Mapping[str, StreamSpec],
    weights: Mapping[str, Mapping[str, Weights]],
    settings_digests: Mapping[str, str],
    device: torch.device,
) -> list[Stream]:
    """The networks of every stream, ready to run."""
    return [
        Stream(
            name=name,
            spec=spec,
            extractor=build(spec, weights[name], device),
            settings_digest=settings_digests[name],
            weight_digests=weight_digests(weights[name]),
        )
        for name, spec in specs.items()
    ]


def chosen_weights(recipe: str, specs: Mapping[str, StreamSpec], override: str | None) -> dict[str, dict[str, Weights]]:
    """Stream → role → checkpoint; `WeightsError` names the first that is missing and how to get them all."""
    try:
        return {name: resolve_weights(spec.weights, override) for name, spec in specs.items()}
    except WeightsError as error:
        hint = f"`arabesque weights fetch --recipe {recipe}` gets all that this recipe needs"
        raise WeightsError(f"{error}; {hint}") from error


def digests_of_settings(
    specs: Mapping[str, StreamSpec], weights: Mapping[str, Mapping[str, Weights]]
) -> dict[str, str]:
    """Stream → the digest of all that a row's key covers, the video's content aside."""
    return {
        name: settings_digest(spec, weight_digests(weights[name]), extractor_class(spec.extractor).version)
        for name, spec in specs.items()
    }


def weight_digests(weights: Mapping[str, Weights]) -> dict[str, str]:
    """Role → digest of its checkpoint."""
    return {role: source.digest for role, source in weights.items()}


def made_with(decoder: str) -> dict[str, str]:
    """Versions that a row's key does not cover."""
    packages = ("arabesque", "torch", "torchvision", "numpy", "av")
    return {name: version(name) for name in packages} | {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "decoder": decoder,
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
