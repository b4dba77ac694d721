"""Collection of rows and outcomes from segments in any order."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import PLAIN, stream, video

from arabesque.extractors.protocol import AudioNeed, FinishedVideo, FrameNeed, PersonBoxes
from arabesque.pipeline.items import BatchResult, SegmentFailure, SegmentFeature, VideoEnd, VideoSettled
from arabesque.pipeline.planning.plan import plan_video
from arabesque.pipeline.records import AudioTrack, FeatureRow, Hole, Outcome, VideoBoxes
from arabesque.pipeline.stages.collect import RowCollector
from arabesque.pipeline.store.write_ahead_log import FinishedSegment


def planned(*streams, progress=None, **facts):
    plan, _ = plan_video(video(**facts), streams, progress or {})
    return plan


def feature(plan, name="fake", index=0, row=True):
    vector = np.array([index, 10 * index], np.float32) if row else None
    of = plan.streams[name]
    start_s, end_s = float(of.segments.start_s[index]), float(of.segments.end_s[index])
    return SegmentFeature(plan, of.stream, index, start_s, end_s, vector, compute_s=0.5)


def end(plan, error="", transient=False, holes=(), audio_holes=(), **sent):
    return VideoEnd(
        plan,
        frames_delivered=10,
        decode_s=1.0,
        error=error,
        holes=tuple(holes),
        audio_holes=tuple(audio_holes),
        transient=transient,
        segments_sent=sent,
    )


def collect(collector, *items):
    inputs = [BatchResult((item,)) if isinstance(item, SegmentFeature) else item for item in items]
    return [result for item in inputs for result in collector(item) if not isinstance(result, SegmentFeature)]


def test_a_row_is_complete_and_in_order_for_any_order_of_segments():
    plan = planned(stream(), num_frames=12)
    collector = RowCollector({"device": "cpu"})
    row, outcome, settled = collect(
        collector, feature(plan, index=2), end(plan, fake=3), feature(plan, index=0), feature(plan, index=1)
    )
    assert isinstance(row, FeatureRow)
    assert row.features[:, 0].tolist() == [0, 1, 2]
    assert row.start_s.tolist() == [0.0, 0.4, 0.8]
    assert row.key == plan.streams["fake"].key
    assert (outcome.kind, outcome.reason, outcome.segments, outcome.compute_s) == ("done", "", 3, 1.5)
    assert settled == VideoSettled("a")
    assert collector.videos == {}


def test_no_stream_is_done_before_the_end_marker_states_its_segments():
    plan = planned(stream(), num_frames=8)
    collector = RowCollector({})
    assert collect(collector, feature(plan, index=0), feature(plan, index=1)) == []
    assert [plan.video.video_id for plan in collector.videos] == ["a"]


def test_each_stream_is_completed_separately():
    plan = planned(stream("one"), stream("two"), num_frames=4)
    collector = RowCollector({})
    first = collect(collector, end(plan, one=1, two=1), feature(plan, "two"))
    assert [item.stream for item in first] == ["two", "two"]
    second = collect(collector, feature(plan, "one"))
    assert [type(item) for item in second] == [FeatureRow, Outcome, VideoSettled]


def test_a_truncated_video_is_partial():
    plan = planned(stream(), num_frames=12)
    holes = [Hole(0.4, 1.2, "cut at 0.4 s")]
    row, outcome, _ = collect(RowCollector({}), feature(plan, index=0), end(plan, holes=holes, fake=1))
    assert (row.outcome, len(row.features)) == ("partial", 1)
    assert (outcome.kind, outcome.reason) == ("partial", "66.7% of 1.20 s lost in 1 hole: cut at 0.4 s")
    assert (outcome.holes, outcome.lost_share) == (((0.4, 1.2),), pytest.approx(2 / 3))


def test_segments_that_touch_a_hole_are_left_out_of_the_row():
    plan = planned(stream(), num_frames=20)
    features = [feature(plan, index=index) for index in range(5)]
    holes = [Hole(0.9, 1.0, "damaged"), Hole(0.5, 0.6, "damaged")]
    row, outcome, _ = collect(RowCollector({}), *features, end(plan, holes=holes, fake=5))
    assert row.start_s.tolist() == pytest.approx([0.0, 1.2, 1.6])
    assert (outcome.kind, outcome.segments, outcome.holes) == ("partial", 3, ((0.5, 0.6), (0.9, 1.0)))


def test_a_hole_outside_of_all_segments_leaves_the_row_complete():
    plan = planned(stream(), num_frames=14)
    features = [feature(plan, index=index) for index in range(3)]
    row, outcome, _ = collect(RowCollector({}), *features, end(plan, holes=[Hole(1.25, 1.35, "damaged")], fake=3))
    assert len(row.features) == 3
    assert outcome.kind == "done"
    assert outcome.holes == ((1.25, 1.35),)
    assert "outside of all segments" in outcome.reason


def test_optical_flow_does_not_cross_a_hole():
    plan = planned(stream(frames=FrameNeed(PLAIN, next_frame=True)), num_frames=20)
    features = [feature(plan, index=index) for index in range(5)]
    row, outcome, _ = collect(RowCollector({}), *features, end(plan, holes=[Hole(0.8, 0.9, "damaged")], fake=5))
    assert row.start_s.tolist() == pytest.approx([0.0, 1.2, 1.6])
    assert outcome.kind == "partial"


def test_a_stream_that_needs_the_whole_track_has_no_row_where_a_part_is_lost():
    need = AudioNeed(100, windows="equal-split")
    track = AudioTrack(100, 1, 0.0, 2.0)
    plan = planned(stream(frames=None, audio=need), num_frames=20, audio=track)
    (outcome, _) = collect(RowCollector({}), end(plan, audio_holes=[Hole(5.0, 6.0, "damaged")]))
    assert outcome.kind == "failed"
    assert "needs the whole audio track" in outcome.reason


def test_a_video_truncated_before_its_first_segment_has_failed():
    plan = planned(stream(), num_frames=12)
    outcome, _ = collect(RowCollector({}), end(plan, holes=[Hole(0.1, 1.2, "cut at 0.1 s")]))
    assert (outcome.kind, outcome.transient) == ("failed", False)
    assert "cut at 0.1 s" in outcome.reason


def test_a_decoder_that_died_leaves_no_partial_row():
    plan = planned(stream(), num_frames=12)
    outcome, _ = collect(
        RowCollector({}), feature(plan, index=0), end(plan, error="decoder crashed", transient=True, fake=1)
    )
    assert (outcome.kind, outcome.transient, outcome.segments) == ("failed", True, 0)


def test_one_failed_segment_fails_only_its_stream():
    plan = planned(stream("one"), stream("two"), num_frames=8)
    failure = SegmentFailure(plan, plan.streams["one"].stream, 1, "one failed at 0.40 s", transient=False)
    results = collect(
        RowCollector({}),
        feature(plan, "one", 0),
        failure,
        feature(plan, "two", 0),
        feature(plan, "two", 1),
        end(plan, one=2, two=2),
    )
    assert {item.stream: item.kind for item in results if isinstance(item, Outcome)} == {"one": "failed", "two": "done"}
    assert [item.stream for item in results if isinstance(item, FeatureRow)] == ["two"]


def test_segments_without_a_row_leave_a_gap_that_the_outcome_reports():
    plan = planned(stream(), num_frames=12)
    row, outcome, _ = collect(
        RowCollector({}),
        feature(plan, index=0),
        feature(plan, index=1, row=False),
        feature(plan, index=2),
        end(plan, fake=3),
    )
    assert row.start_s.tolist() == [0.0, 0.8]
    assert (outcome.kind, outcome.reason) == ("done", "1 of 3 segments have no row")


def test_a_stream_that_finds_nothing_is_empty():
    plan = planned(stream(), num_frames=4)
    outcome, _ = collect(RowCollector({}), feature(plan, row=False), end(plan, fake=1))
    assert outcome.kind == "empty"
    assert "nothing found in any of its 1 segments" in outcome.reason


def test_a_track_that_covers_nothing_is_empty():
    plan = planned(stream(), num_frames=4, audio=AudioTrack(8000, 1, 0.0, None))
    outcome, _ = collect(RowCollector({}), end(plan))
    assert (outcome.kind, outcome.reason) == ("empty", "the audio track covers none of its 1 segments")


def test_segments_of_an_interrupted_run_count_as_arrived():
    key = planned(stream(), num_frames=12).streams["fake"].key
    progress = {
        key: {
            0: FinishedSegment(0.0, 0.4, np.array([7, 7], np.float32)),
            2: FinishedSegment(0.8, 1.2, None),
        }
    }
    plan = planned(stream(), num_frames=12, progress=progress)
    assert plan.streams["fake"].todo == [1]
    assert plan.wanted.tolist() == [4, 5, 6, 7]
    row, outcome, _ = collect(RowCollector({}), feature(plan, index=1), end(plan, fake=1))
    assert row.features[:, 0].tolist() == [7, 1]
    assert outcome.reason == "1 of 3 segments have no row"


def test_a_row_of_logged_segments_needs_no_decoding():
    key = planned(stream(), num_frames=4).streams["fake"].key
    progress = {key: {0: FinishedSegment(0.0, 0.4, np.array([7, 7], np.float32))}}
    plan = planned(stream(), num_frames=4, progress=progress)
    assert len(plan.wanted) == 0
    row, _, _ = collect(RowCollector({}), end(plan))
    assert row.features.tolist() == [[7, 7]]


class Whole:
    """Combines parts: the row of a segment is its part and the number of earlier parts; segment 1 has no row."""

    def __init__(self, taken):
        self._taken = taken
        self._rows = {}

    def add(self, index, part, frame_times_s):
        self._taken.append((index, frame_times_s))
        self._rows[index] = np.array([part[0], len(self._rows)], np.float32)

    def finish(self):
        boxes = PersonBoxes.without_people([time_s for _, times_s in self._taken for time_s in times_s], 6, 8)
        boxes.chosen[:4] = True
        return FinishedVideo({index: row for index, row in self._rows.items() if index != 1}, boxes)


def whole_video_stream():
    taken = []
    made = stream()
    made.extractor.start_video = lambda: Whole(taken)
    made.extractor.is_part = lambda values: len(values) == 2
    return made, taken


def test_parts_are_combined_in_the_order_of_segments_and_boxes_come_before_the_row():
    made, taken = whole_video_stream()
    plan = planned(made, num_frames=12)
    parts = [feature(plan, index=index) for index in (2, 0, 1)]
    boxes, row, outcome, _ = collect(RowCollector({}), *parts, end(plan, fake=3))
    assert [index for index, _ in taken] == [0, 1, 2]
    assert taken[1][1] == [0.4, 0.5, 0.6, 0.7]
    assert isinstance(boxes, VideoBoxes)
    assert (boxes.video_id, boxes.stream, boxes.key) == ("a", "fake", row.key)
    assert row.features.tolist() == [[0, 0], [2, 2]]
    assert (outcome.kind, outcome.reason) == ("done", "1 of 3 segments have no row")
    assert (outcome.frames_seen, outcome.frames_with_person, outcome.person_share) == (12, 4, 4 / 12)
    assert row.provenance["frames_with_person"] == "4"


def test_parts_of_an_interrupted_run_are_used_and_other_entries_of_the_log_are_not():
    made, taken = whole_video_stream()
    key = planned(made, num_frames=12).streams["fake"].key
    stored = {
        0: FinishedSegment(0.0, 0.4, np.array([7, 0], np.float32)),
        1: FinishedSegment(0.4, 0.8, np.zeros(3, np.float32)),
        2: FinishedSegment(0.8, 1.2, None),
    }
    plan = planned(made, num_frames=12, progress={key: stored})
    assert plan.streams["fake"].todo == [1, 2]
    _, row, *_ = collect(RowCollector({}), feature(plan, index=2), feature(plan, index=1), end(plan, fake=2))
    assert [index for index, _ in taken] == [0, 1, 2]
    assert row.features.tolist() == [[7, 0], [2, 2]]


def test_a_failed_video_has_no_boxes():
    made, _ = whole_video_stream()
    plan = planned(made, num_frames=12)
    outcome, _ = collect(RowCollector({}), feature(plan, index=0), end(plan, error="broken", fake=1))
    assert (outcome.kind, outcome.frames_seen) == ("failed", 0)
