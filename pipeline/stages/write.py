"""Write stage: passes finished rows, outcomes and segments to the store's writer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..items import Event, SegmentFeature
from ..records import FeatureRow, Outcome, VideoBoxes, one_line
from ..store.writer import StoreWriter


@dataclass(eq=False)
class StoreSink:
    """Passes rows, outcomes and finished segments to the writer, and returns the events for the caller of the run."""

    writer: StoreWriter
    is_stopped: bool = False
    """Whether to ignore all further items: during shutdown, stages report failures that the videos did not cause."""

    def __call__(self, item: FeatureRow | VideoBoxes | Event) -> Event | None:
        if self.is_stopped:
            return None
        if isinstance(item, FeatureRow):
            self.writer.add(item)
            return None
        if isinstance(item, VideoBoxes):
            self.writer.add_boxes(item)
            return None
        if isinstance(item, Outcome):
            if item.reason:
                item = replace(item, reason=one_line(item.reason))  # a file name may contain any byte
            self.writer.add_outcome(item)
        elif isinstance(item, SegmentFeature):
            key = item.plan.streams[item.stream.name].key
            self.writer.add_progress(key, item.index, item.start_s, item.end_s, item.feature)
        return item
