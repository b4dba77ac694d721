"""Segments that a hole touches, and the lost share."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from clips import Clip, write_clip
from decoding_checks import build, deliver_with_holes
from fakes import probe

from arabesque.manifests.streams import Sampling
from arabesque.pipeline.decoding.decoders import MAX_GAP_S
from arabesque.pipeline.planning.holes import describe, gap_holes, intervals_of, lost_share, touched
from arabesque.pipeline.planning.sampling import cut_segments
from arabesque.pipeline.records import Hole


def of(*intervals):
    return [Hole(start_s, end_s, f"damaged at {start_s:g}") for start_s, end_s in intervals]


@pytest.mark.parametrize(
    ("hole", "next_frame", "expected"),
    [
        ((0.5, 0.6), False, [1]),
        ((0.4, 0.8), False, [1]),
        ((0.4, 0.8), True, [0, 1]),
        ((0.81, 0.9), True, [2]),
        ((0.3, 0.9), False, [0, 1, 2]),
        ((1.6, 2.0), False, []),
        ((1.6, 2.0), True, []),
        ((5.0, 6.0), True, []),
    ],
)
def test_a_hole_touches_the_segments_that_it_overlaps(hole, next_frame, expected):
    sampling = Sampling(fps="native", frames_per_segment=4, frames_per_step=4, remainder="drop-tail")
    segments = cut_segments(np.arange(16) / 10, 1.6, sampling)
    assert np.flatnonzero(touched(segments, of(hole), next_frame=next_frame)).tolist() == expected


def test_overlapping_holes_count_once():
    holes = of((3.0, 4.0), (1.0, 2.0), (3.5, 4.5), (9.0, 12.0))
    assert intervals_of(holes) == ((1.0, 2.0), (3.0, 4.5), (9.0, 12.0))
    assert lost_share(intervals_of(holes), 10.0) == pytest.approx(0.35)
    assert describe(holes, 10.0) == (
        "35.0% of 10.00 s lost in 3 holes: damaged at 1; damaged at 3; damaged at 3.5; and 1 more"
    )


def test_gaps_of_a_slow_recording_are_not_holes():
    assert gap_holes(probe(20, fps=1.0)) == ()
    assert gap_holes(probe(20, fps=1 / MAX_GAP_S)) == ()


def test_a_long_gap_is_a_hole_after_the_duration_of_a_frame():
    times_s = np.array([0.0, 0.1, 0.2, 0.3, 6.3, 6.4])
    (hole,) = gap_holes(probe(frame_times_s=times_s, end_s=6.5))
    assert (hole.start_s, hole.end_s) == pytest.approx((0.4, 6.3))


def test_forty_frames_in_ten_hours_have_holes_everywhere():
    times_s = np.arange(40) * 923.0
    holes = gap_holes(probe(frame_times_s=times_s, end_s=40 * 923.0))
    assert lost_share(intervals_of(holes), 40 * 923.0) == 1.0


def test_a_gap_of_seconds_in_a_reordered_stream_is_one_hole(tmp_path):
    times_ms = [40 * number + 7000 * (number >= 50) for number in range(100)]
    path = write_clip(tmp_path / "a.mkv", Clip(num_frames=100, time_base=Fraction(1, 1000), times=times_ms))
    numbers, holes, found = deliver_with_holes(build("pyav"), path)
    assert (len(numbers), holes, found.lost_at, found.clock) == (100, [], (), ())
    assert [(hole.start_s, hole.end_s) for hole in gap_holes(found)] == [pytest.approx((2.0, 9.0))]
