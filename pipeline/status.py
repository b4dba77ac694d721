"""Status of a store: outcomes of each stream, and inputs without an outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ..manifests.errors import InputError, StoreError
from .planning.discovery import Inputs, find_videos
from .planning.resume_index import ResumeIndex
from .planning.sources import of_other_size
from .records import Outcome, OutcomeKind, VideoFile
from .store.files.storage import StorePath, as_store_path
from .store.outcomes import OutcomeTable
from .store.reader import FeatureStore
from .store.store import Store

LEAST_PERSON_SHARE = 0.8
"""Minimal share of frames with an athlete. Videos with a lower share are reported."""


@dataclass(frozen=True)
class StreamStatus:
    """Number of outcomes of a stream by kind, and number of its segments."""

    counts: Mapping[OutcomeKind, int]
    segments: int


@dataclass(frozen=True)
class InputStatus:
    """Status of inputs in a store."""

    folder: str
    """Folder of the inputs; empty for several folders."""
    num_videos: int
    streams: Mapping[str, StreamStatus]
    left: Mapping[str, int]
    """Stream → number of inputs without an outcome, including ``namesakes``."""
    namesakes: tuple[VideoFile, ...]
    """Inputs whose id belongs to another source file in the store."""
    troubles: tuple[Outcome, ...]
    """Outcomes of kind ``failed`` or ``partial``, sorted by video and stream."""
    empties: tuple[Outcome, ...]
    unseen: tuple[Outcome, ...]
    """Same as in `StoreStatus`, for these inputs."""


@dataclass(frozen=True)
class StoreStatus:
    """Outcome counts of each stream of a store, and all outcomes that are not done."""

    recipe: str
    num_videos: int
    streams: Mapping[str, StreamStatus]
    troubles: tuple[Outcome, ...]
    """Outcomes of kind ``failed`` or ``partial``, sorted by video and stream."""
    empties: tuple[Outcome, ...]
    unseen: tuple[Outcome, ...]
    """Outcomes of streams that crop people, with an athlete in less than `LEAST_PERSON_SHARE` of the frames, sorted by
    this share."""
    inputs: InputStatus | None
    """Status of the given inputs, or of the inputs of the latest run; None if that run had several input folders."""


def read_status(place: Store | StorePath, inputs: Inputs | None = None) -> StoreStatus:
    """Read the status of a store and of inputs.

    Args:
        place: The store, or its folder or URL.
        inputs: The inputs; by default those of the latest run. If their folder does not exist any more, the number of
            videos that this run recorded is used.
    """
    store = FeatureStore(place, partial=True)
    facts = store.manifest.get("inputs", {})
    folder, num_videos = str(facts.get("folder", "")), int(facts.get("videos", 0))
    given = inputs is not None
    if inputs is None and folder:
        with suppress(FileNotFoundError, StoreError, InputError):
            inputs = find_videos(as_store_path(folder), id_prefix=str(facts.get("id_prefix", "")))
    outcomes = store.outcome_table
    every = np.ones(len(outcomes), bool)
    if inputs is not None:
        ids = {video.video_id for video in inputs.videos} | set(inputs.clashes)
        namesakes = of_other_size(inputs.videos, ResumeIndex(outcomes), folder)
        others = {file.video_id for file in namesakes}
        mine = outcomes.are("video_id", *(ids - others))
        input_status = _input_status(store, mine, len(ids), _folder_of(inputs) if given else folder, namesakes)
    else:
        from_there = outcomes.are("input_root", folder)
        input_status = _input_status(store, from_there if from_there.any() else every, num_videos, folder, ())
    return StoreStatus(
        recipe=str(store.manifest["recipe"]["name"]),
        num_videos=len(np.unique(outcomes.codes("video_id"))),
        streams={name: _stream_status(outcomes, outcomes.are("stream", name)) for name in store.streams},
        troubles=tuple(outcomes.outcomes(outcomes.are("kind", "failed", "partial"))),
        empties=tuple(outcomes.outcomes(outcomes.are("kind", "empty"))),
        unseen=_unseen(outcomes, every),
        inputs=input_status if given or folder else None,
    )


def _input_status(
    store: FeatureStore, mine: NDArray[np.bool_], num_videos: int, folder: str, namesakes: Sequence[VideoFile]
) -> InputStatus:
    outcomes = store.outcome_table
    of_streams = {name: mine & outcomes.are("stream", name) for name in store.streams}
    return InputStatus(
        folder=folder,
        num_videos=num_videos,
        streams={name: _stream_status(outcomes, chosen) for name, chosen in of_streams.items()},
        left={name: max(0, num_videos - int(np.sum(chosen))) for name, chosen in of_streams.items()},
        namesakes=tuple(namesakes),
        troubles=tuple(outcomes.outcomes(mine & outcomes.are("kind", "failed", "partial"))),
        empties=tuple(outcomes.outcomes(mine & outcomes.are("kind", "empty"))),
        unseen=_unseen(outcomes, mine),
    )


def _unseen(outcomes: OutcomeTable, mine: NDArray[np.bool_]) -> tuple[Outcome, ...]:
    seen, found = outcomes.numbers("frames_seen"), outcomes.numbers("frames_with_person")
    few = outcomes.outcomes(mine & (seen > 0) & (found < LEAST_PERSON_SHARE * seen))
    return tuple(sorted(few, key=lambda one: (one.person_share or 0.0, one.video_id, one.stream)))


def _stream_status(outcomes: OutcomeTable, mine: NDArray[np.bool_]) -> StreamStatus:
    counts = {kind: int(np.sum(mine & outcomes.are("kind", kind))) for kind in get_args(OutcomeKind)}
    return StreamStatus(
        counts={kind: count for kind, count in counts.items() if count},
        segments=int(np.sum(outcomes.numbers("segments")[mine])),
    )


def _folder_of(inputs: Inputs) -> str:
    roots = {video.input_root for video in inputs.videos}
    return roots.pop() if len(roots) == 1 else ""
