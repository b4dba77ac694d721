"""Decode stage: identifies a file, reads its metadata, plans it, and decodes its frames and audio in chunks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...extractors.geometry import output_size
from ...manifests.errors import DecodeError, StoreError, TransientDecodeError
from ..decoding.audio_reader import AudioChunk
from ..decoding.decoder_pool import DecoderProcess, FrameChunk, Holes
from ..decoding.decoders import IndexMismatch
from ..decoding.frame_folders import WatchedFolder, read_folder_content
from ..decoding.source_files import FileChangedError, WatchedFile, read_content
from ..digests import row_key
from ..items import (
    DecodedChunk,
    Notice,
    Stream,
    VideoEnd,
    VideoOpened,
    VideoPlan,
    VideoSettled,
    VideoTraits,
    shared_settings,
)
from ..planning.clips import Clip, clip_of, spans_of
from ..planning.holes import gap_holes
from ..planning.metadata_cache import MetadataCache
from ..planning.plan import Progress, plan_video
from ..planning.run_claims import Claim
from ..planning.traits import traits_of
from ..records import AudioTrack, Hole, Outcome, Source, VideoFile, VideoMetadata, VideoRecord, state_of
from ..run_context import RunContext
from .fetch import LocalCopy

_LOG = logging.getLogger(__name__)

END_TOLERANCE_FRAMES = 1.5
"""Frames by which a header's duration may exceed the packets without being a truncation, because headers round."""


DecodeItem = Outcome | Notice | VideoTraits | VideoOpened | DecodedChunk | VideoEnd


class _Identity(NamedTuple):
    size_bytes: int
    modified_ns: int
    digest: str
    """Digest of the whole file."""
    never_written: str
    """Reason why the file cannot be a video; empty if it may be one, or if an earlier run read it."""


@dataclass(frozen=True, eq=False)
class VideoReader:
    """Decodes one file per call. Call it from as many threads as the pool has decoders."""

    context: RunContext
    progress: Progress

    def __call__(self, item: Source | LocalCopy) -> Iterator[DecodeItem | VideoSettled]:
        """Yield outcomes that need no decoding, then the chunks in order, then the end marker of each video.

        Yields nothing for a video that another run has claimed, and only `VideoSettled` for a video that another run
        has completed. A file that cannot be read results in an outcome, not in an exception.
        """
        source = item.origin if isinstance(item, LocalCopy) else item
        try:
            claimed, have_end = dict[str, VideoFile](), set[str]()
            for file in source.videos:
                claim = self.context.claims.claim(file)
                if claim is Claim.GRANTED:
                    claimed[file.video_id] = file
                elif claim is Claim.ALREADY_DONE:
                    yield VideoSettled(file.video_id)
            if claimed:
                for found in self._read(item, list(claimed.values())):
                    if isinstance(found, VideoEnd) and not found.abandoned:
                        have_end.add(found.plan.video.video_id)
                    if isinstance(found, Outcome):
                        file = claimed[found.video_id]
                        found = replace(found, source=file.source, input_root=file.input_root)
                    yield item.with_original_path(found) if isinstance(item, LocalCopy) else found
            yield from (VideoSettled(video_id) for video_id in claimed if video_id not in have_end)
        finally:
            if isinstance(item, LocalCopy):
                item.drop()
            self.context.claims.has_read(source)

    def _read(self, item: Source | LocalCopy, files: Sequence[VideoFile]) -> Iterator[DecodeItem]:
        """Read the claimed videos of a file, from its local copy if it is remote."""
        if isinstance(item, LocalCopy):
            try:
                path = item.wait()
            except (StoreError, OSError) as error:
                yield from self._failures(files, str(error))
                return
            except MemoryError as error:
                yield from self._failures(files, f"{item.origin.path}: out of memory while it was fetched: {error}")
                return
            files = [file.at(path) for file in files]
        path, is_folder = files[0].local_path, files[0].frame_rate is not None
        with ExitStack() as stack:
            try:
                try:
                    with self.context.timer.busy("decode"):
                        watched = stack.enter_context(closing(WatchedFolder(path) if is_folder else WatchedFile(path)))
                        identity = self._identify(files, watched)
                        watched.check()
                except OSError as error:
                    what = f"cannot be read ({error.strerror or error}); check the path and its permissions"
                    yield from self._failures(files, f"{path}: {what}")
                    return
                yield from self._read_identified(files, identity, watched)
            except FileChangedError:
                yield from self._failures(files, _changed(path))
            except MemoryError as error:
                what = f"out of memory while the file was read or planned: {error}"
                yield from self._failures(files, f"{path}: {what}")

    def _read_identified(
        self, files: Sequence[VideoFile], identity: _Identity, watched: WatchedFile | WatchedFolder
    ) -> Iterator[DecodeItem]:
        path, pending = files[0].local_path, list[tuple[VideoFile, list[Stream]]]()
        for file in files:
            digest = identity.digest + file.fragment
            self.context.claims.refuse_other_source(file, digest)
            remaining = self._remaining(file, digest)
            done = {stream.name for stream in self.context.streams} - {stream.name for stream in remaining}
            yield from self.context.resume_index.unwritten_outcomes(
                file, sorted(done), identity.size_bytes, identity.modified_ns
            )
            if remaining:
                pending.append((file, remaining))
        if not pending:
            return
        if identity.never_written:
            error = DecodeError(f"{path}: {identity.never_written}")
            for file, streams in pending:
                yield from self._undecodable(file, streams, identity, error)
            return
        cache, audio_track = self.context.metadata_cache, shared_settings(self.context.streams).audio_track
        with self.context.decoder_pool.decoder() as decoder:
            for thorough in (False, True):
                try:
                    with self.context.timer.busy("decode"):
                        metadata = read_metadata(
                            decoder, cache, path, audio_track, thorough=thorough, frame_rate=files[0].frame_rate
                        )
                except DecodeError as error:
                    watched.check()
                    for file, streams in pending:
                        yield from self._undecodable(file, streams, identity, error)
                    return
                watched.check()
                plans, ended = list[_ClipPlan](), set[str]()
                for file, streams in pending:
                    if traits := traits_of(metadata):
                        yield VideoTraits(file.video_id, traits)
                    try:
                        clip = clip_of(file, metadata)
                    except DecodeError as error:
                        yield from self._undecodable(file, streams, identity, error)
                        continue
                    plan, outcomes = self._plan(clip, streams, identity)
                    yield from (_failed_if_truncated(outcome, clip.metadata) for outcome in outcomes)
                    if plan.streams:
                        segments = {name: len(stream.todo) for name, stream in plan.streams.items()}
                        yield VideoOpened(file.video_id, clip.metadata.end_s, segments)
                        plans.append(_ClipPlan(clip, plan))
                try:
                    if plans:
                        for found in self._decode(decoder, metadata, plans, watched, last_try=thorough):
                            if isinstance(found, VideoEnd) and not found.abandoned:
                                ended.add(found.plan.video.video_id)
                            yield found
                    return
                except IndexMismatch:  # packets and frames do not correspond: decode the file to index it
                    is_open = {each.plan.video.video_id for each in plans} - ended
                    pending = [(file, streams) for file, streams in pending if file.video_id in is_open]

    def _plan(self, clip: Clip, streams: Sequence[Stream], identity: _Identity) -> tuple[VideoPlan, list[Outcome]]:
        file = clip.file
        video = VideoRecord(
            file.video_id,
            file.local_path,
            identity.size_bytes,
            identity.modified_ns,
            identity.digest + file.fragment,
            clip.metadata,
            source=file.source,
            input_root=file.input_root,
            offset_s=clip.offset_s,
        )
        has_limit = self.context.decoder_pool.has_memory_limit
        return plan_video(video, streams, self.progress, limited_memory=has_limit)

    def _remaining(self, file: VideoFile, digest: str) -> list[Stream]:
        index, video_id = self.context.resume_index, file.video_id
        return [
            stream
            for stream in self.context.streams
            if not index.is_done(video_id, stream.name, row_key(digest, stream.settings_digest))
        ]

    def _decode(
        self,
        decoder: DecoderProcess,
        metadata: VideoMetadata,
        clips: Sequence[_ClipPlan],
        watched: WatchedFile | WatchedFolder,
        *,
        last_try: bool,
    ) -> Iterator[DecodedChunk | VideoEnd]:
        """Decode all clips in one pass. Yield their chunks, and the end marker of each clip after its last frame.

        If the plans are abandoned, `IndexMismatch` is raised unless ``last_try``. The file is checked after each chunk,
        so that all frames that are passed on belong to the hashed bytes.
        """
        path = clips[0].plan.video.path
        began = time.perf_counter()
        is_whole = not any(each.clip.file.is_clip for each in clips)
        audio_until_s = [each.plan.audio_until_s for each in clips]
        spans = [] if is_whole else spans_of([each.clip for each in clips], audio_until_s)
        items = decoder.decode(
            path,
            metadata,
            np.unique(np.concatenate([each.plan.wanted + each.clip.first for each in clips])),
            audio_until_s=audio_until_s[0] if is_whole else None,
            bytes_later=max(preprocessed_bytes(each.plan) for each in clips),
            deinterlace=shared_settings(self.context.streams).deinterlace,
            spans=[span for span, _ in spans],
        )
        # the clips of each span; a whole file is one span
        waiting = [[clips[number] for number in numbers] for _, numbers in spans] or [list(clips)]
        holes, audio_holes, error = list[Hole](), tuple[Hole, ...](), ""
        transient, is_checked = False, True
        try:
            try:
                for item in items:
                    if isinstance(item, Holes):
                        holes, audio_holes = [*holes, *item.frames], (*audio_holes, *item.audio)
                        if item.ends_span and len(waiting) > 1:
                            watched.check()
                            for each in waiting.pop(0):
                                yield each.end(holes, audio_holes, began)
                        continue
                    try:
                        watched.check()
                    except FileChangedError:
                        item.release()
                        raise
                    self.context.timer.add("decode", item.decode_s)
                    if is_whole:
                        clips[0].note(item.indices, item.on_cpu)
                        is_checked = is_checked and not item.by_card
                        yield DecodedChunk(clips[0].plan, item)
                    else:
                        yield from _parts(item, metadata.audio, waiting[0])
            except DecodeError:
                watched.check()
                raise
            watched.check()
            if is_whole and is_checked and not holes and isinstance(watched, WatchedFile):
                self._keep_checked(path, watched, metadata, clips[0].reached)
        except FileChangedError:
            error, transient = _changed(path), True
        except TransientDecodeError as lost:
            error, transient = str(lost), True
        except MemoryError as lost:
            error, transient = f"{path}: out of memory while the video was decoded: {lost}", True
        except DecodeError as lost:
            if isinstance(lost, IndexMismatch) and not last_try:
                for each in chain.from_iterable(waiting):
                    yield replace(each.end(holes, audio_holes, began), abandoned=True)
                raise
            for each in chain.from_iterable(waiting):
                each.rest_is_lost(str(lost))
        for each in chain.from_iterable(waiting):
            yield replace(each.end(holes, audio_holes, began), error=error, transient=transient)

    def _keep_checked(self, path: Path, watched: WatchedFile, metadata: VideoMetadata, num_frames: int) -> None:
        """Store how many frames the CPU has decoded without damage, so that later runs may use a card for them."""
        if num_frames > metadata.checked_frames:
            checked = replace(metadata, checked_frames=num_frames)
            self.context.metadata_cache.keep(
                path, watched.state, checked, shared_settings(self.context.streams).audio_track
            )

    def _identify(self, files: Sequence[VideoFile], watched: WatchedFile | WatchedFolder) -> _Identity:
        """Return the file's size, time and digest. The file is read only if no earlier run has read it.

        A file with the size and modification time that the store has recorded is not read if all streams of its videos
        are done. A file that is decoded is always hashed, or found in the cache with the same change time, because
        programs can set the modification time.
        """
        state, path = watched.state, files[0].local_path
        known = [(file, self.context.resume_index.known_digest(file)) for file in files]
        if all(digest and not self._remaining(file, digest) for file, digest in known):
            return _Identity(state.size_bytes, state.modified_ns, known[0][1].partition("#")[0], "")
        if isinstance(watched, WatchedFolder):
            return _Identity(state.size_bytes, state.modified_ns, read_folder_content(path).digest, "")
        cache = self.context.metadata_cache
        content = cache.content(path)
        if content is None:
            content = read_content(watched.descriptor)
            cache.keep(path, state, content)
        return _Identity(state.size_bytes, state.modified_ns, content.digest, content.never_written)

    def _failures(self, files: Sequence[VideoFile], reason: str) -> Iterator[Outcome | Notice]:
        """Yield the outcomes of videos whose file cannot be read. Final outcomes of earlier runs are kept."""
        for file in files:
            kept: list[str] = []
            for stream in self.context.streams:
                if self.context.resume_index.has_final_outcome(file.video_id, stream.name, stream.settings_digest):
                    kept.append(stream.name)
                else:
                    yield Outcome(file.video_id, stream.name, "failed", reason, transient=True)
            if kept:
                yield Notice(f"{reason}; the stored outcomes of {', '.join(kept)} are kept")

    def _undecodable(
        self, file: VideoFile, streams: Sequence[Stream], identity: _Identity, error: DecodeError
    ) -> Iterator[Outcome]:
        for stream in streams:
            yield Outcome(
                file.video_id,
                stream.name,
                "failed",
                str(error),
                transient=isinstance(error, TransientDecodeError),
                key=row_key(identity.digest + file.fragment, stream.settings_digest),
                content_digest=identity.digest + file.fragment,
                settings_digest=stream.settings_digest,
                size_bytes=identity.size_bytes,
                modified_ns=identity.modified_ns,
            )


@dataclass(eq=False)
class _ClipPlan:
    """A clip that is being decoded, or a whole video."""

    clip: Clip
    plan: VideoPlan
    reached: int = 0
    """Index in the clip after the latest frame."""
    lost: list[Hole] = field(default_factory=list[Hole])
    """The remaining part of the clip, if decoding ended before the clip did."""
    on_cpu: str = ""
    """See `FrameChunk`."""

    def note(self, indices: NDArray[np.int64], on_cpu: str) -> None:
        """Record the indices of received frames."""
        if len(indices):
            self.reached = int(indices[-1]) + 1
            if on_cpu and not self.on_cpu:
                _LOG.info("%s: decoded on the CPU: %s", self.plan.video.video_id, on_cpu)
            self.on_cpu = self.on_cpu or on_cpu

    def rest_is_lost(self, reason: str) -> None:
        """Mark the part after the last frame as lost."""
        metadata = self.plan.video.metadata
        times_s, end_s = metadata.frame_times_s, max(metadata.end_s, metadata.declared_end_s or 0.0)
        rest_s = float(times_s[self.reached]) if self.reached < metadata.num_frames else metadata.end_s
        self.lost = [Hole(rest_s, end_s, reason)]

    def end(self, holes: Sequence[Hole], audio_holes: Sequence[Hole], began: float) -> VideoEnd:
        """Return the end marker.

        Args:
            holes: Holes in the frames of the file.
            audio_holes: Holes in its audio.
            began: Start of decoding, by `time.perf_counter`.
        """
        metadata = self.plan.video.metadata
        mine = [*self.clip.holes(holes), *self.lost]
        if (missing_end := truncation(metadata)) is not None:
            mine.append(missing_end)
        times_s = metadata.frame_times_s[: self.reached]
        num_lost = sum(int(np.count_nonzero((times_s >= hole.start_s) & (times_s < hole.end_s))) for hole in mine)
        return VideoEnd(
            self.plan,
            frames_delivered=self.reached - num_lost,
            decode_s=time.perf_counter() - began,
            holes=(*mine, *gap_holes(metadata)),
            audio_holes=self.clip.holes(audio_holes),
            decoded_on_cpu=self.on_cpu,
        )


def _parts(chunk: FrameChunk, track: AudioTrack | None, clips: Sequence[_ClipPlan]) -> Iterator[DecodedChunk]:
    """Divide a chunk among the clips of its span, which may overlap. Its memory is released with its last part."""
    parts: list[tuple[_ClipPlan, NDArray[np.int64], NDArray[np.uint8], AudioChunk | None]] = []
    for each in clips:
        clip = each.clip
        lo, hi = np.searchsorted(chunk.indices, [clip.first, clip.last])
        audio = None
        if chunk.audio is not None and track is not None:
            audio = _audio_part(chunk.audio, track, *clip.audio_span(each.plan.audio_until_s))
        if lo < hi or audio is not None:
            parts.append((each, chunk.indices[lo:hi] - clip.first, chunk.frames[lo:hi], audio))
    if not parts:
        chunk.release()
    release = _after(len(parts), chunk.release)
    for each, indices, frames, audio in parts:
        each.note(indices, chunk.on_cpu)
        decode_s, released = chunk.decode_s / len(parts), _once(release)
        part = replace(chunk, indices=indices, frames=frames, audio=audio, decode_s=decode_s, release=released)
        yield DecodedChunk(each.plan, part)


def _audio_part(audio: AudioChunk, track: AudioTrack, from_s: float, until_s: float) -> AudioChunk | None:
    """Return the samples of a chunk between two times of the file, with times of the file; None if there are none."""
    position = round((audio.start_s - track.start_s) * track.rate_hz)
    first, last = (round((time_s - track.start_s) * track.rate_hz) for time_s in (from_s, until_s))
    lo = min(max(0, first - position), audio.samples.shape[1])
    hi = min(max(0, last - position), audio.samples.shape[1])
    if lo >= hi:
        return None
    start_s = track.start_s + (position + lo) / track.rate_hz
    return AudioChunk(start_s, audio.rate_hz, audio.samples[:, lo:hi], audio.last or position + hi >= last)


def _after(count: int, act: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls ``act`` at the last of ``count`` calls. Thread-safe."""
    lock, left = threading.Lock(), count

    def call() -> None:
        nonlocal left
        with lock:
            left -= 1
            is_last = left == 0
        if is_last:
            act()

    return call


def _once(act: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls ``act`` only at its first call."""
    pending = [act]

    def call() -> None:
        if pending:
            pending.pop()()

    return call


def read_metadata(
    decoder: DecoderProcess,
    cache: MetadataCache,
    path: Path,
    audio_track: int | str = "best",
    *,
    thorough: bool = False,
    frame_rate: float | None = None,
) -> VideoMetadata:
    """Return a file's metadata from the cache, or read and store it. With ``thorough`` it is always read.

    Raises:
        DecodeError: The file cannot be decoded.
    """
    if frame_rate is not None:
        return decoder.probe(path, frame_rate=frame_rate)
    known = None if thorough else cache.probe(path, audio_track)
    if known is not None:
        return known
    before = state_of(path)
    metadata = decoder.probe(path, thorough, audio_track)
    cache.keep(path, before, metadata, audio_track)
    return metadata


def truncation(metadata: VideoMetadata) -> Hole | None:
    """Return the missing part of a truncated file, or another recording in it; None if neither exists."""
    if (
        metadata.declared_end_s is None
        or metadata.declared_end_s - metadata.end_s <= END_TOLERANCE_FRAMES / metadata.fps
    ):
        return None
    if metadata.has_other_recording:
        other_s = metadata.declared_end_s - metadata.end_s
        reason = (
            f"the file also contains another recording, of about {other_s:.1f} s, in separate tracks, which is not "
            "read; split the file (ffmpeg -i IN -map 0:v:1 -map 0:a:1? -c copy OUT.ts writes the second recording)"
        )
        return Hole(metadata.end_s, metadata.declared_end_s, reason)
    reason = (
        f"the file is truncated: its header states {metadata.declared_end_s:.2f} s, "
        f"its frames end at {metadata.end_s:.2f} s; get the whole file and run again"
    )
    return Hole(metadata.end_s, metadata.declared_end_s, reason)


def _changed(path: object) -> str:
    return f"{path}: changed while it was read; run again when no program writes to it"


def preprocessed_bytes(plan: VideoPlan) -> int:
    """Return the bytes of one frame in all geometries of a plan, which may be more than those of the original frame."""
    metadata = plan.video.metadata
    sizes = (
        (geometry, output_size(metadata.height_px, metadata.width_px, geometry)) for geometry in plan.frames_by_geometry
    )
    return sum((1 if geometry.gray else 3) * height * width for geometry, (height, width) in sizes)


def _failed_if_truncated(outcome: Outcome, metadata: VideoMetadata) -> Outcome:
    """Return a failed outcome for an empty one of a truncated file, because the missing part may have content."""
    missing_end = truncation(metadata)
    if missing_end is None or (metadata.audio is None and "audio" in outcome.reason):
        return outcome
    return replace(outcome, kind="failed", reason=missing_end.reason)
