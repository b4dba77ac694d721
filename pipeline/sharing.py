"""Several runs on one store: which videos are this run's to do, and what became of those that others had in hand."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .keys import row_key
from .ledger import Ledger
from .records import Outcome, VideoFile
from .store.folders import Root, open_folder
from .store.neighbours import neighbours
from .store.news import OutcomeNews
from .store.writer import StoreWriter
from .work import Awaiting, VideoSettled

POLL_S = 0.5


class SharedWork:
    """One for a run. `take` is called by the stage that reads videos, from several threads; the rest by the run."""

    def __init__(
        self,
        root: Root,
        writer: StoreWriter,
        ledger: Ledger,
        news: OutcomeNews,
        settings_digests: Mapping[str, str],
    ) -> None:
        """``news`` must be older than ``ledger``: what comes between the two is then known twice, and not never."""
        self._writer = writer
        self._ledger = ledger
        self._news = news
        self._settings_digests = settings_digests
        self._claims = neighbours(open_folder(root)).claims(writer.writer_id)
        self._deferred: list[VideoFile] = []

    def take(self, file: VideoFile) -> bool | None:
        """True: the video is this run's to read. False: another run has it in hand. None: another run has ended it."""
        if not self._claims.take(file.video_id):
            self._deferred.append(file)
            return False
        self._news.refresh(self._writer.writer_id)
        if not self._is_ended(file.video_id):
            return True
        self._claims.give_back([file.video_id])
        return None

    def has_read(self, file: VideoFile) -> None:
        """The stage that reads videos is free for the next one."""

    def is_free(self, file: VideoFile) -> bool:
        """Whether `take` would most likely be granted."""
        return self._claims.is_free(file.video_id)

    def settle(self, video_id: str) -> None:
        """Lets go of a video as soon as its outcomes, which the writer has, are on disk."""
        self._writer.when_written(lambda: self._claims.give_back([video_id]))

    def left(self) -> Iterator[VideoFile | VideoSettled | Awaiting]:
        """What becomes of the videos that other runs had in hand: the files that they left behind come last.

        Waits, and says so again and again, while the others live and have not finished.
        """
        self._writer.flush()  # nobody must wait for what is finished here
        waiting, self._deferred = self._deferred, []
        while waiting:
            self._news.refresh(self._writer.writer_id)
            ended = [file for file in waiting if self._is_ended(file.video_id)]
            yield from (VideoSettled(file.video_id) for file in ended)
            waiting = _without(waiting, ended)
            if free := [file for file in waiting if self._claims.is_free(file.video_id)]:
                self._deferred = _without(waiting, free)
                yield from free
                return
            if waiting:
                yield Awaiting(len(waiting))
                time.sleep(POLL_S)

    def _is_ended(self, video_id: str) -> bool:
        """Whether another run has brought every stream that was open to an end, whatever its kind.

        A failure of the day counts: it is for the next run to try again, not for each of those that run side by side.
        """
        news = {stream: self._fresh(video_id, stream) for stream in self._settings_digests}
        digest = next((end.content_digest for end in news.values() if end is not None and end.content_digest), "")
        return any(news.values()) and all(
            news[stream] is not None or self._ledger.is_settled(video_id, stream, row_key(digest, settings))
            for stream, settings in self._settings_digests.items()
        )

    def _fresh(self, video_id: str, stream: str) -> Outcome | None:
        """An outcome that the ledger does not know, under this run's settings."""
        end = self._news.get(video_id, stream)
        if end is None or end.settings_digest not in ("", self._settings_digests[stream]):
            return None
        return None if self._ledger.outcome(video_id, stream) == end else end


def _without(files: Sequence[VideoFile], others: Iterable[VideoFile]) -> list[VideoFile]:
    gone = set(others)
    return [file for file in files if file not in gone]
