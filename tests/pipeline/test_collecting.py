"""Segments in any order in, rows and outcomes out."""

from __future__ import annotations

import numpy as np
from fakes import stream, video

from arabesque.pipeline.collecting import Collector
from arabesque.pipeline.planning import plan_video
from arabesque.pipeline.records import AudioTrack, FeatureRow, Outcome
from arabesque.pipeline.store.progress_journal import FinishedSegment
from arabesque.pipeline.work import SegmentFailure, SegmentFeature, VideoEnd, VideoSettled


def planned(*streams, progress=None, **facts):
    plan, _ = plan_video(video(**facts), streams, progress or {})
    return plan


def feature(plan, name="fake", index=0, row=True):
    vector = np.array([index, 10 * index], np.float32) if row else None
    of = plan.streams[name]
    start_s, end_s = float(of.segments.start_s[index]), float(of.segments.end_s[index])
    return SegmentFeature(plan, of.stream, index, start_s, end_s, vector, compute_s=0.5)


def end(plan, broke="", transient=False, **sent):
    return VideoEnd(plan, frames_delivered=10, decode_s=1.0, broke=broke, transient=transient, segments_sent=sent)


def collect(collector, *items):
    return [result for item in items for result in collector([item]) if not isinstance(result, SegmentFeature)]


def test_a_row_is_whole_and_in_order_whatever_came_first():
    plan = planned(stream(), num_frames=12)
    collector = Collector({"device": "cpu"})
    row, outcome, settled = collect(
        collector, feature(plan, index=2), end(plan, fake=3), feature(plan, index=0), feature(plan, index=1)
    )
    assert isinstance(row, FeatureRow)
    assert row.features[:, 0].tolist() == [0, 1, 2]
    assert row.start_s.tolist() == [0.0, 0.4, 0.8]
    assert row.key == plan.streams["fake"].key
    assert (outcome.kind, outcome.reason, outcome.segments, outcome.compute_s) == ("done", "", 3, 1.5)
    assert settled == VideoSettled("a")
    assert collector.unsettled == []


def test_nothing_is_settled_before_the_end_has_said_how_many_were_sent():
    plan = planned(stream(), num_frames=8)
    collector = Collector({})
    assert collect(collector, feature(plan, index=0), feature(plan, index=1)) == []
    assert collector.unsettled == ["a"]


def test_each_stream_is_settled_on_its_own():
    plan = planned(stream("one"), stream("two"), num_frames=4)
    collector = Collector({})
    first = collect(collector, end(plan, one=1, two=1), feature(plan, "two"))
    assert [item.stream for item in first] == ["two", "two"]
    second = collect(collector, feature(plan, "one"))
    assert [type(item) for item in second] == [FeatureRow, Outcome, VideoSettled]


def test_a_video_that_breaks_off_is_partial_with_what_there_was():
    plan = planned(stream(), num_frames=12)
    row, outcome, _ = collect(Collector({}), feature(plan, index=0), end(plan, broke="cut at 0.4 s", fake=1))
    assert (row.outcome, len(row.features)) == ("partial", 1)
    assert (outcome.kind, outcome.reason) == ("partial", "cut at 0.4 s")


def test_a_video_that_breaks_off_before_its_first_segment_has_failed():
    plan = planned(stream(), num_frames=12)
    outcome, _ = collect(Collector({}), end(plan, broke="cut at 0.1 s"))
    assert (outcome.kind, outcome.reason, outcome.transient) == ("failed", "cut at 0.1 s", False)


def test_a_decoder_that_died_leaves_no_partial_row():
    plan = planned(stream(), num_frames=12)
    outcome, _ = collect(
        Collector({}), feature(plan, index=0), end(plan, broke="decoder crashed", transient=True, fake=1)
    )
    assert (outcome.kind, outcome.transient, outcome.segments) == ("failed", True, 0)


def test_one_failed_segment_fails_its_stream_and_no_other():
    plan = planned(stream("one"), stream("two"), num_frames=8)
    failure = SegmentFailure(plan, plan.streams["one"].stream, 1, "one failed at 0.40 s", transient=False)
    results = collect(
        Collector({}),
        feature(plan, "one", 0),
        failure,
        feature(plan, "two", 0),
        feature(plan, "two", 1),
        end(plan, one=2, two=2),
    )
    assert {item.stream: item.kind for item in results if isinstance(item, Outcome)} == {"one": "failed", "two": "done"}
    assert [item.stream for item in results if isinstance(item, FeatureRow)] == ["two"]


def test_segments_without_a_row_leave_a_gap_that_the_outcome_tells_of():
    plan = planned(stream(), num_frames=12)
    row, outcome, _ = collect(
        Collector({}),
        feature(plan, index=0),
        feature(plan, index=1, row=False),
        feature(plan, index=2),
        end(plan, fake=3),
    )
    assert row.start_s.tolist() == [0.0, 0.8]
    assert (outcome.kind, outcome.reason) == ("done", "1 of 3 segments have no row")


def test_a_stream_that_finds_nothing_is_empty():
    plan = planned(stream(), num_frames=4)
    outcome, _ = collect(Collector({}), feature(plan, row=False), end(plan, fake=1))
    assert outcome.kind == "empty"
    assert "nothing found in any of its 1 segments" in outcome.reason


def test_a_track_that_covers_nothing_is_empty():
    plan = planned(stream(), num_frames=4, audio=AudioTrack(8000, 1, 0.0, None))
    outcome, _ = collect(Collector({}), end(plan))
    assert (outcome.kind, outcome.reason) == ("empty", "the sound covers none of its 1 segments")


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
    row, outcome, _ = collect(Collector({}), feature(plan, index=1), end(plan, fake=1))
    assert row.features[:, 0].tolist() == [7, 1]
    assert outcome.reason == "1 of 3 segments have no row"


def test_a_row_of_journalled_segments_alone_needs_no_decoding():
    key = planned(stream(), num_frames=4).streams["fake"].key
    progress = {key: {0: FinishedSegment(0.0, 0.4, np.array([7, 7], np.float32))}}
    plan = planned(stream(), num_frames=4, progress=progress)
    assert len(plan.wanted) == 0
    row, _, _ = collect(Collector({}), end(plan))
    assert row.features.tolist() == [[7, 7]]
