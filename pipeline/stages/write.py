"""Write stage: pass finished rows, outcomes and segments to the store's writer."""

from __future__ import annotations

from dataclasses import replace

from ..items import Event, SegmentFeature
from ..records import FeatureRow, Outcome, VideoBoxes, one_line
from ..store.writer import StoreWriter


class StoreSink:
    """Passes rows, outcomes and finished segments to the writer, and returns the events for the caller of the run."""

    def __init__(self, writer: StoreWriter) -> None:
        self._writer = writer
        self._is_stopped = False

    def stop(self) -> None:
        """Ignore all further items. During shutdown, stages report failures that are not the videos' fault."""
        self._is_stopped = True

    def __call__(self, item: FeatureRow | VideoBoxes | Event) -> Event | None:
        if self._is_stopped:
            return None
        if isinstance(item, FeatureRow):
            self._writer.add(item)
            return None
        if isinstance(item, VideoBoxes):
            self._writer.add_boxes(item)
            return None
        if isinstance(item, Outcome):
            if item.reason:
                item = replace(item, reason=one_line(item.reason))  # a file name may hold any byte
            self._writer.add_outcome(item)
        elif isinstance(item, SegmentFeature):
            key = item.plan.streams[item.stream.name].key
            self._writer.add_progress(key, item.index, item.start_s, item.end_s, item.feature)
        return item
