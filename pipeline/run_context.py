"""Resources that the stages of one worker share during the whole run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from .decoding.decoder_pool import DecoderPool
from .items import Stream
from .options import RunOptions
from .planning.metadata_cache import MetadataCache, open_metadata_cache
from .planning.resume_index import ResumeIndex
from .planning.run_claims import OutcomeWatcher, RunClaims
from .records import Source
from .store.writer import StoreWriter
from .system.stage_timer import StageTimer


@dataclass(frozen=True, eq=False)
class RunContext:
    """The open resources of one worker: its networks, store, claims, decoders and caches."""

    streams: Sequence[Stream]
    """The streams to compute, with their networks loaded."""
    options: RunOptions
    """Options of the run, reduced to its memory limit."""
    writer: StoreWriter
    """Writes rows and outcomes; ``writer.store`` is the store. Used by one worker at a time."""
    resume_index: ResumeIndex
    """Outcomes that were in the store when the run began."""
    claims: RunClaims
    """The videos that other runs are processing."""
    decoder_pool: DecoderPool
    """Processes that decode the videos."""
    metadata_cache: MetadataCache
    """Digests and metadata of unchanged files."""
    timer: StageTimer
    """Measures the busy time of each stage."""


@contextmanager
def open_context(
    streams: Sequence[Stream],
    options: RunOptions,
    writer: StoreWriter,
    resume_index: ResumeIndex,
    outcome_watcher: OutcomeWatcher,
    timer: StageTimer,
    *,
    on_read: Callable[[Source], None] = lambda source: None,
) -> Generator[RunContext]:
    """Start decoders and open the metadata cache within the block.

    Args:
        streams: See `RunContext`.
        options: See `RunContext`.
        writer: See `RunContext`.
        resume_index: See `RunContext`.
        outcome_watcher: Opened before ``resume_index`` was read; see `RunClaims`.
        timer: See `RunContext`.
        on_read: Called when a file has been decoded.
    """
    digests = {stream.name: stream.settings_digest for stream in streams}
    claims = RunClaims(writer, resume_index, outcome_watcher, digests, options.replaces_sources, on_read)
    with (
        open_metadata_cache(options.decoder, enabled=options.remembers_files) as cache,
        closing(DecoderPool(options.num_decoders, options.decoder, options.decoder_settings)) as pool,
    ):
        yield RunContext(streams, options, writer, resume_index, claims, pool, cache, timer)
