"""The decoding stage: everything of one video, from its bytes to its last window, or the reason why not."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..extractors.geometry import output_size
from ..manifests.errors import DecodeError, StoreError, TransientDecodeError
from .decoding.decoders import IndexMismatch, SoundBroken
from .decoding.probing import read_content
from .decoding.slots import DecodeSlot, SlotPool
from .keys import row_key
from .ledger import Ledger
from .planning import Progress, plan_video
from .records import Outcome, Probe, VideoFile, VideoRecord, state_of
from .sharing import SharedWork
from .spooling import SpooledVideo
from .stage_clock import StageClock
from .transfer import DecodedWindow
from .work import Notice, Stream, VideoEnd, VideoPlan, VideoSettled

END_TOLERANCE_FRAMES = 1.5
"""A container may promise this much more than its packets hold before we call it cut short: headers round."""


class _Identity(NamedTuple):
    size_bytes: int
    modified_ns: int
    digest: str
    never_written: str
    """Why the file is no video yet; empty where it may be one, and where an earlier run read it."""


class VideoReader:
    """Called with one file at a time, from as many threads as there are slots."""

    def __init__(
        self,
        slots: SlotPool,
        streams: Sequence[Stream],
        ledger: Ledger,
        progress: Progress,
        shared: SharedWork,
        clock: StageClock,
    ) -> None:
        self._shared = shared
        self._slots = slots
        self._streams = streams
        self._ledger = ledger
        self._progress = progress
        self._clock = clock

    def __call__(
        self, video: VideoFile | SpooledVideo
    ) -> Iterator[Outcome | Notice | DecodedWindow | VideoEnd | VideoSettled]:
        """Outcomes that need no decoding, then windows in their order, then the end. Never raises for a bad file.

        Nothing of a video that another run has in hand, and the end alone of one that another run has ended.
        """
        file = video if isinstance(video, VideoFile) else video.origin
        try:
            taken, has_end = self._shared.take(file), False
            if taken:
                for item in self._read(file) if isinstance(video, VideoFile) else self._read_copy(video):
                    has_end = has_end or (isinstance(item, VideoEnd) and not item.abandoned)
                    yield item
            elif isinstance(video, SpooledVideo):
                video.drop()
            if taken is not False and not has_end:
                yield VideoSettled(file.video_id)
        finally:
            self._shared.has_read(file)

    def _read_copy(self, video: SpooledVideo) -> Iterator[Outcome | Notice | DecodedWindow | VideoEnd]:
        try:
            copy = video.wait()
        except (StoreError, OSError) as error:
            yield from self._failures(video.origin, str(error))
            return
        try:
            for item in self._read(copy):
                yield video.told(item)
        finally:
            video.drop()

    def _read(self, file: VideoFile) -> Iterator[Outcome | Notice | DecodedWindow | VideoEnd]:
        try:
            with self._clock.busy("decode"):
                identity = self._identify(file)
        except OSError as error:
            reason = f"{file.path}: cannot be read ({error.strerror or error}); check the path and its permissions"
            yield from self._failures(file, reason)
            return
        size_bytes, modified_ns, digest, never_written = identity
        owed = [
            stream
            for stream in self._streams
            if not self._ledger.is_settled(file.video_id, stream.name, row_key(digest, stream.settings_digest))
        ]
        done = {stream.name for stream in self._streams} - {stream.name for stream in owed}
        yield from self._ledger.unrecorded(file, sorted(done), size_bytes, modified_ns)
        if not owed:
            return
        if never_written:
            yield from self._undecodable(file, owed, identity, DecodeError(f"{file.path}: {never_written}"))
            return
        with self._slots.slot() as slot:
            for thorough in (False, True):
                try:
                    with self._clock.busy("decode"):
                        probe = slot.probe(file.local_path, thorough=thorough)
                except DecodeError as error:
                    yield from self._undecodable(file, owed, identity, error)
                    return
                video = VideoRecord(file.video_id, file.local_path, size_bytes, modified_ns, digest, probe)
                try:
                    yield from self._deliver(slot, video, owed, last_try=thorough)
                    return
                except IndexMismatch:
                    continue  # its packets were no index of its frames: index it by decoding

    def _deliver(
        self, slot: DecodeSlot, video: VideoRecord, owed: Sequence[Stream], *, last_try: bool
    ) -> Iterator[Outcome | DecodedWindow | VideoEnd]:
        plan, outcomes = plan_video(video, owed, self._progress)
        yield from (_blame_the_cut(outcome, video.probe) for outcome in outcomes)
        if plan.streams:
            yield from _decode(slot, plan, self._clock, last_try=last_try)

    def _identify(self, file: VideoFile) -> _Identity:
        """Reads the file only where an earlier run did not."""
        status = os.stat(file.local_path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a regular file")
        if digest := self._ledger.known_digest(file):
            return _Identity(status.st_size, status.st_mtime_ns, digest, "")
        content = self._slots.probes.content(file.local_path)
        if content is None:
            before = state_of(file.local_path)
            content = read_content(file.local_path)
            self._slots.probes.keep_content(file.local_path, before, content)
        return _Identity(status.st_size, status.st_mtime_ns, content.digest, content.never_written)

    def _failures(self, file: VideoFile, reason: str) -> Iterator[Outcome | Notice]:
        """Of a file that cannot be read: it replaces nothing that an earlier run made."""
        kept: list[str] = []
        for stream in self._streams:
            if self._ledger.has_lasting_end(file.video_id, stream.name, stream.settings_digest):
                kept.append(stream.name)
            else:
                yield Outcome(file.video_id, stream.name, "failed", reason, transient=True)
        if kept:
            yield Notice(f"{reason}; what the store has of {', '.join(kept)} stays")

    def _undecodable(
        self, file: VideoFile, owed: Sequence[Stream], identity: _Identity, error: DecodeError
    ) -> Iterator[Outcome]:
        for stream in owed:
            yield Outcome(
                file.video_id,
                stream.name,
                "failed",
                str(error),
                transient=isinstance(error, TransientDecodeError),
                key=row_key(identity.digest, stream.settings_digest),
                content_digest=identity.digest,
                settings_digest=stream.settings_digest,
                size_bytes=identity.size_bytes,
                modified_ns=identity.modified_ns,
            )


def cut_short(probe: Probe) -> str:
    """Why a container holds less than its header promises; empty where it holds all of it."""
    if probe.declared_end_s is None or probe.declared_end_s - probe.end_s <= END_TOLERANCE_FRAMES / probe.fps:
        return ""
    return (
        f"the file breaks off: its header promises {probe.declared_end_s:.2f} s, "
        f"its frames end at {probe.end_s:.2f} s; get the whole file and run again"
    )


def _decode(
    slot: DecodeSlot, plan: VideoPlan, clock: StageClock, *, last_try: bool
) -> Iterator[DecodedWindow | VideoEnd]:
    """Windows and the end; raises `IndexMismatch`, the plan abandoned, unless this is the last try."""
    began, delivered = time.perf_counter(), 0
    end = VideoEnd(plan, frames_delivered=0, decode_s=0.0, broke=cut_short(plan.video.probe))
    try:
        for window in slot.decode(
            plan.video.path,
            plan.video.probe,
            plan.wanted,
            audio_until_s=plan.audio_until_s,
            bytes_later=preprocessed_bytes(plan),
        ):
            if len(window.indices):
                delivered = int(window.indices[-1]) + 1
            clock.add("decode", window.decode_s)
            yield DecodedWindow(plan, window)
    except SoundBroken as error:
        end = replace(end, sound_broke=str(error))
    except DecodeError as error:
        if isinstance(error, IndexMismatch) and not last_try:
            yield replace(end, abandoned=True)
            raise
        end = replace(end, broke=str(error), transient=isinstance(error, TransientDecodeError))
    yield replace(end, frames_delivered=delivered, decode_s=time.perf_counter() - began)


def preprocessed_bytes(plan: VideoPlan) -> int:
    """Of one frame in every geometry: small pictures may be enlarged."""
    probe = plan.video.probe
    sizes = ((geometry, output_size(probe.height_px, probe.width_px, geometry)) for geometry in plan.frames_by_geometry)
    return sum((1 if geometry.gray else 3) * height * width for geometry, (height, width) in sizes)


def _blame_the_cut(outcome: Outcome, probe: Probe) -> Outcome:
    """A stream that finds nothing in a file that was cut short has failed: the missing part may have held it."""
    reason = cut_short(probe)
    if not reason or (probe.audio is None and "audio" in outcome.reason):
        return outcome
    return replace(outcome, kind="failed", reason=reason)
