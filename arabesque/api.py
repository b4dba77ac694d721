"""The functions of the public API: extraction, scoring and comparison in one call each."""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, Unpack, overload

import torch

from arabesque.cli.scoring import score_raw_videos
from arabesque.extractors.table import require_available
from arabesque.manifests.errors import ExtractionError, InputError
from arabesque.manifests.recipes import Recipe, load_recipe
from arabesque.manifests.validation import suggestion
from arabesque.models.video_scores import ScoreReport
from arabesque.pipeline.decoding.decoders import BACKENDS
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.failure_budget import FailureBudget
from arabesque.pipeline.interop.feature_comparison import (
    DEFAULT_TOLERANCE,
    FeatureComparison,
    compare_features,
)
from arabesque.pipeline.items import Event
from arabesque.pipeline.machine import local_workers, options_for_machine
from arabesque.pipeline.memory_sizes import parse_bytes
from arabesque.pipeline.planning.discovery import Inputs, checked_id_prefix, required_videos
from arabesque.pipeline.planning.partition import parse_partition
from arabesque.pipeline.planning.selection import InputSelection, find_inputs
from arabesque.pipeline.progress import RunProgress
from arabesque.pipeline.store.files.storage import as_store_path
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.stream_features import StreamFeatures
from arabesque.pipeline.workers.coordinator import Executor

PROGRESS_S = 0.5
"""Time between two calls of ``on_progress``."""
Progress = Callable[[Event], None]
"""Called with each event of a run: an `Outcome` for each (video, stream), a `SegmentFeature` for each segment, …"""


class ExtractOptions(TypedDict, total=False):
    """Options of `extract`, which documents them."""

    start_s: float | None
    end_s: float | None
    frame_rate: float | None
    streams: Sequence[str] | None
    weights: str | None
    weights_manifest: str | Path | None
    device: str
    decoder: str
    decode_workers: int | None
    threads: int | None
    memory: str | None
    gpu_memory: str | None
    progress: Progress | None
    on_progress: Callable[[RunProgress], None] | None


class StoreOptions(ExtractOptions, total=False):
    """Options of `extract` with a feature store."""

    clips: str | Path | None
    retry_failed: bool
    max_failures: int | str | None
    float16: bool
    id_prefix: str
    replace_sources: bool
    workers: int | None
    executor: Executor | None
    partition: str | None


@overload
def extract(
    videos: str | Path, recipe: str | Path | Recipe = "starter", *, out: None = None, **options: Unpack[ExtractOptions]
) -> dict[str, StreamFeatures]: ...


@overload
def extract(
    videos: str | Path | Sequence[str | Path],
    recipe: str | Path | Recipe = "starter",
    *,
    out: str | Path,
    **options: Unpack[StoreOptions],
) -> FeatureStore: ...


def extract(
    videos: str | Path | Sequence[str | Path],
    recipe: str | Path | Recipe = "starter",
    *,
    out: str | Path | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    frame_rate: float | None = None,
    clips: str | Path | None = None,
    streams: Sequence[str] | None = None,
    weights: str | None = None,
    weights_manifest: str | Path | None = None,
    device: str = "auto",
    decoder: str = "pyav",
    decode_workers: int | None = None,
    threads: int | None = None,
    memory: str | None = None,
    gpu_memory: str | None = None,
    progress: Progress | None = None,
    on_progress: Callable[[RunProgress], None] | None = None,
    retry_failed: bool = False,
    max_failures: int | str | None = None,
    float16: bool = False,
    id_prefix: str = "",
    replace_sources: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    partition: str | None = None,
) -> dict[str, StreamFeatures] | FeatureStore:
    """Extract the features of one video, or of many into a feature store.

    Without ``out``, the features of one video are returned and not stored. With ``out``, the features of all videos are
    written to a feature store; the same call resumes an interrupted one.

    Args:
        videos: A video, a folder that is searched recursively, several of both, or their URLs.
        recipe: A recipe's name, the path of a recipe's ``.toml`` file, or a `Recipe`.
        out: The feature store: a new folder or URL, or one to continue.
        start_s: Extract one video from this time on. Earlier frames are skipped, and times begin at 0. The id in a
            store is that of the video with the times, e.g. ``routine_12.5-20``.
        end_s: Extract one video up to this time.
        frame_rate: Read folders of ``.jpg`` or ``.png`` images as videos with this number of frames per second.
        clips: Table of clips, in the form of `arabesque extract --clips`; ``videos`` is then the folder of its paths,
            or an empty list.
        streams: Streams of the recipe; by default all.
        weights: ``random:SEED`` for random weights, for tests only; by default the recipe's checkpoints.
        weights_manifest: A file of checkpoints of your own that the recipe names, in the form of
            ``manifests/weights.toml``. A `Recipe` already has them, see `load_recipe`.
        device: Device for networks: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        decoder: ``pyav``, ``decord`` or ``nvdec``.
        decode_workers: Number of decoder processes, one video each; by default it depends on the number of cores.
        threads: CPU threads for networks; by default all usable cores.
        memory: Memory limit for all processes, e.g. ``4GiB``.
        gpu_memory: Memory limit on each GPU, e.g. ``20GiB``; workers on one GPU share it.
        progress: Called with each event of the run.
        on_progress: Called about twice a second with the state of the run: seconds of video done and in total, speed,
            remaining time. For tqdm: ``bar = tqdm(unit="s")`` and ``on_progress=lambda now: (setattr(bar, "total",
            now.total_video_s), bar.update(now.video_s - bar.n))``.
        retry_failed: Also extract videos whose outcome is failed or partial.
        max_failures: Stop if more videos fail: a number, or a share such as ``5%``.
        float16: Store features as float16.
        id_prefix: Prefix of every video id: ``id_prefix/…``.
        replace_sources: Replace stored features whose video id now belongs to another file.
        workers: Number of processes on this machine; by default one for each GPU.
        executor: Executor of other workers, e.g. those of a Ray cluster; cannot be combined with ``workers``.
        partition: ``3/16`` extracts the third of sixteen parts of the videos.

    Returns:
        Without ``out``: stream → features. Streams for which the video has no input, e.g. no audio track, are left out.
        A damaged video has the features of its decodable part, with ``holes``. With ``out``: the store.

    Raises:
        ExtractionError: A stream of the single video failed.
        ConfigError: A recipe is wrong.
        InputError: A path or option is wrong.
        WeightsError: A checkpoint is missing.
        StoreError: The store is damaged or cannot be written.

    Example:
        >>> import arabesque
        >>> features = arabesque.extract("routine.mp4", recipe="starter")
        >>> sorted(features)
        ['motion', 'rhythm']
        >>> store = arabesque.extract("videos", recipe="starter", out="features", streams=["motion"])
        >>> store.video_ids
        ('another', 'routine')
    """
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), weights_manifest=weights_manifest)
    _check_streams(chosen, streams)
    if decoder not in BACKENDS:
        raise InputError(f"decoder {decoder!r} is not known; give {' or '.join(BACKENDS)}")
    if executor is not None and workers is not None:
        raise InputError("workers: cannot be combined with executor; leave out one of them")
    roots = [videos] if isinstance(videos, str | Path) else list(videos)
    inputs = find_inputs(InputSelection(tuple(roots), id_prefix=id_prefix, frame_rate=frame_rate, clips=clips))
    if start_s is not None or end_s is not None:
        inputs = _clipped(inputs, start_s, end_s)
    if out is None and len(inputs.videos) != 1:
        raise InputError(f"{videos}: contains {len(inputs.videos)} videos; give a feature store with out=")
    with _torch_threads(), tempfile.TemporaryDirectory(prefix="arabesque-extract-") as temporary:
        options = replace(
            options_for_machine(device, decoder=decoder, decode_workers=decode_workers, threads=threads),
            retry_failed=retry_failed,
            float16=float16,
            replaces_sources=replace_sources,
            memory_bytes=None if memory is None else parse_bytes(memory),
            gpu_memory_bytes=None if gpu_memory is None else parse_bytes(gpu_memory),
            max_failures=None if max_failures is None else FailureBudget(str(max_failures)),
        )
        if out is not None and executor is None:
            options, executor = local_workers(
                options, device, workers=workers, decode_workers=decode_workers, threads=threads
            )
        run = Extraction(
            roots,
            chosen,
            Path(temporary) / "features" if out is None else out,
            streams=streams,
            weights=weights,
            options=options,
            executor=executor,
            partition=None if partition is None else parse_partition(partition),
            id_prefix=id_prefix,
            inputs=inputs,
        )
        _execute(run, progress, on_progress)
        if out is not None:
            return FeatureStore(out)
        return _features_of_one(FeatureStore(run.out, partial=True), inputs.videos[0].video_id)


def score(
    videos: str | Path | Sequence[str | Path],
    model: str | Path,
    *,
    store: str | Path | None = None,
    partial: bool = False,
    id_prefix: str = "",
    replace_sources: bool = False,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> ScoreReport:
    """Score videos with a trained model; missing features are extracted with the recipe of its training.

    Args:
        videos: A video, a folder that is searched recursively, several of both, or their URLs.
        model: The folder that ``arabesque train`` wrote.
        store: The feature store that is read and completed; by default ``features`` in the model's folder.
        partial: Also score partial videos.
        id_prefix: Prefix of every video id: ``id_prefix/…``.
        replace_sources: Replace stored features whose video id now belongs to another file.
        device: Device for networks: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads for networks; by default all usable cores.
        progress: Called with each event of the extraction.

    Returns:
        Scores by video, with the effect of every segment, and the reason for each video without a score.

    Raises:
        WeightsError: The model is damaged, or the store has features with other settings.
        InputError: A path is wrong, or the model was trained on imported features.

    Example:
        >>> import arabesque
        >>> report = arabesque.score("routine.mp4", model="model", store="features")
        >>> report
        ScoreReport(context-attention, score: 1 scored, 0 not scored)
        >>> 0 <= report["routine"].score <= 10
        True
        >>> best = report["routine"].foremost(1)[0]
        >>> best.start_s < best.end_s
        True
    """
    roots = [as_store_path(each) for each in ([videos] if isinstance(videos, str | Path) else videos)]
    inputs = required_videos(roots, checked_id_prefix(id_prefix) if id_prefix else "")
    with _torch_threads():
        return score_raw_videos(
            inputs,
            roots,
            Path(model),
            store=None if store is None else as_store_path(store),
            partial=partial,
            id_prefix=id_prefix,
            replace_sources=replace_sources,
            device=device,
            threads=threads,
            execute=lambda run: _execute(run, progress),
            on_warning=lambda text: warnings.warn(text, stacklevel=2),
        )


def compare(
    a: str | Path,
    b: str | Path,
    *,
    stream: str | None = None,
    names: Mapping[str, str] | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    common: bool = False,
    format_a: str | None = None,
    format_b: str | None = None,
    trust: bool = False,
    published: str | None = None,
) -> FeatureComparison:
    """Compare two sets of features, and explain the differences.

    Args:
        a: A feature store, or a file or folder of features in a supported format.
        b: The other set of features.
        stream: Compare only this stream. Names the stream if the files do not.
        names: Stream → its label in the files, if that is unusual.
        tolerance: Largest relative error (difference ÷ largest value) that counts as the same.
        common: Ignore videos that only one side has.
        format_a: Format of A, such as ``npy-folder``; by default it is detected.
        format_b: Format of B.
        trust: Execute the code that pickles name; only for files from a source that you trust.
        published: Name of the released features in ``b``, e.g. ``actionformer-i3d``, or of a recipe; see
            `docs/interop.md`.

    Returns:
        A result for each video and stream; ``same`` summarizes them.

    Raises:
        StoreError: A file is damaged or not trusted.
        InputError: A path does not exist, or ``a`` and ``b`` have no video and stream in common.
        ConfigError: ``published`` is not known.

    Example:
        >>> import arabesque
        >>> result = arabesque.compare("features", "features")
        >>> result
        FeatureComparison(same: 0 of 4 differ, 0 on one side only)
        >>> result.same
        True
    """
    return compare_features(
        a,
        b,
        stream=stream,
        names=names,
        tolerance=tolerance,
        common=common,
        format_a=format_a,
        format_b=format_b,
        trust=trust,
        published=published,
    )


def open_store(path: str | Path, *, partial: bool = False) -> FeatureStore:
    """Open a feature store for reading.

    Args:
        path: The store's folder or URL.
        partial: Also return the rows of partial videos.

    Raises:
        StoreError: The path is not a feature store, or the store is damaged.

    Example:
        >>> import arabesque
        >>> store = arabesque.open_store("features")
        >>> store["routine"]["motion"]
        StreamFeatures('routine', 'motion': 1 segment × 222 features, 0.0 to 3.0 s, done)
    """
    return FeatureStore(path, partial=partial)


def _clipped(inputs: Inputs, start_s: float | None, end_s: float | None) -> Inputs:
    """Return the inputs with a part of their only video."""
    if len(inputs.videos) != 1 or inputs.clashes or inputs.columns is not None:
        raise InputError("start_s and end_s: are times in one video; give one video, or the table of clips with clips=")
    if not 0 <= (start_s or 0.0) < (float("inf") if end_s is None else end_s):
        raise InputError(f"end_s ({end_s}) is not after start_s ({start_s or 0}), or start_s is negative; correct them")
    clip = replace(inputs.videos[0], start_s=start_s, end_s=end_s)
    times = clip.fragment.removeprefix("#t=").replace(",", "-") + ("-end" if end_s is None else "")
    return replace(inputs, videos=(replace(clip, video_id=f"{clip.video_id}_{times}"),), is_selection=True)


def _check_streams(recipe: Recipe, streams: Sequence[str] | None) -> None:
    for name in streams or recipe.streams:
        if name not in recipe.streams:
            hint = suggestion(name, recipe.streams)
            known = ", ".join(recipe.streams)
            raise InputError(f"recipe {recipe.name} has no stream {name!r}{hint}; it has {known}")
        require_available(recipe.streams[name])


def _execute(
    run: Extraction, progress: Progress | None, on_progress: Callable[[RunProgress], None] | None = None
) -> None:
    tracker, called_s = run.tracker(), -math.inf
    for event in run:
        tracker.add(event)
        if progress is not None:
            progress(event)
        if on_progress is not None and time.monotonic() - called_s >= PROGRESS_S:
            called_s = time.monotonic()
            on_progress(tracker.now)
    if on_progress is not None:
        on_progress(tracker.now)


def _features_of_one(store: FeatureStore, video_id: str) -> dict[str, StreamFeatures]:
    failed = [one for one in store.outcomes() if one.kind == "failed"]
    if failed:
        raise ExtractionError("; ".join(f"{one.video_id}, stream {one.stream}: {one.reason}" for one in failed))
    return dict(store[video_id]) if video_id in store else {}


@contextmanager
def _torch_threads() -> Generator[None, None, None]:
    """Restore torch's number of threads when the block ends."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
