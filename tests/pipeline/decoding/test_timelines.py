"""The arithmetic of time stamps, and the kinds of files that are opened."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from arabesque.manifests.errors import DecodeError
from arabesque.pipeline.decoding.source_files import Content, check_file, content_digest, read_content
from arabesque.pipeline.decoding.timelines import (
    NO_STAMP,
    Packets,
    check_gaps,
    timeline_of_frames,
    timeline_of_packets,
)

NOMINAL = Fraction(40)


def packets(
    times: Sequence[int | None],
    keys: Sequence[int] = (0,),
    duration: int = 40,
    decoded: Sequence[int | None] | None = None,
) -> Packets:
    """Return packets in the order of decoding; ``keys`` are those of keyframes."""
    decoded = [40 * number for number in range(len(times))] if decoded is None else decoded
    return Packets(
        pts=np.array([NO_STAMP if pts is None else pts for pts in times], np.int64),
        dts=np.array([NO_STAMP if dts is None else dts for dts in decoded], np.int64),
        duration=np.full(len(times), duration, np.int64),
        keyframe=np.isin(np.arange(len(times)), keys),
        position=1000 * np.arange(len(times)),
        size=np.full(len(times), 900, np.int64),
    )


def test_the_digest_is_of_the_bytes(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"routine" * 100_000)
    assert content_digest(tmp_path / "a.mp4") == hashlib.sha256(b"routine" * 100_000).hexdigest()


def test_packets_are_presented_in_the_order_of_their_times_and_time_begins_with_the_first():
    timeline = timeline_of_packets(packets([80, 200, 120, 160]), NOMINAL)
    assert timeline is not None
    times_s, end_s = timeline.seconds(Fraction(1, 1000))
    assert times_s.tolist() == [0, 0.04, 0.08, 0.12]
    assert end_s == pytest.approx(0.16)


def test_the_last_frame_has_the_duration_of_its_packet_or_the_usual_one():
    stated = timeline_of_packets(packets([0, 40, 80], duration=500), NOMINAL)
    silent = timeline_of_packets(packets([0, 50, 100], duration=0), NOMINAL)
    alone = timeline_of_packets(packets([7], duration=0), NOMINAL)
    assert stated is not None
    assert silent is not None
    assert alone is not None
    assert (stated.end, silent.end, alone.end) == (580, 150, 47)


def test_a_packet_that_damage_has_split_is_one_frame():
    whole = timeline_of_packets(packets([0, 40, 40, 80]), NOMINAL)
    damaged = timeline_of_packets(packets([0, 40, 40, 80]), NOMINAL, missing=[(0, 80)])
    assert whole is not None
    assert damaged is not None
    assert (whole.ticks.tolist(), damaged.ticks.tolist()) == ([0, 40, 40, 80], [0, 40, 80])


def test_packets_without_times_give_no_timeline():
    assert timeline_of_packets(packets([0, None, 80]), NOMINAL) is None


def test_invisible_packets_between_close_frames_are_not_a_loss():
    sent = packets([0, 40, 41, 80, 81, 120])
    assert timeline_of_frames([0, 40, 80, 120], sent, NOMINAL, broken=False).ticks.tolist() == [0, 40, 80, 120]


def test_a_lost_frame_stays_in_the_timeline():
    sent = packets([0, 40, 80, 120, 160, 200])
    timeline = timeline_of_frames([0, 40, 80, 160, 200], sent, NOMINAL, broken=False)
    assert timeline.ticks.tolist() == [0, 40, 80, 120, 160, 200]


def test_frames_after_a_break_stay_in_the_timeline():
    sent = packets([0, 40, 80, 120, 160])
    assert timeline_of_frames([0, 40], sent, NOMINAL, broken=True).ticks.tolist() == [0, 40, 80, 120, 160]


def test_frames_before_the_first_keyframe_are_left_out():
    sent = packets([0, 40, 160, 80, 120, 200], keys=[2])  # 80 and 120 are B-frames of the keyframe at 160
    assert timeline_of_frames([160, 200], sent, NOMINAL, broken=False).ticks.tolist() == [160, 200]


def test_a_lost_keyframe_at_the_head_stays_in_the_timeline():
    sent = packets([0, 40, 80, 120], keys=[0, 2])
    assert timeline_of_frames([80, 120], sent, NOMINAL, broken=False).ticks.tolist() == [0, 40, 80, 120]


def test_shuffled_times_are_sorted_and_only_their_order_is_used():
    sent = packets([0, 40, 80, 120])
    timeline = timeline_of_frames([0, 80, 120, 40], sent, NOMINAL, broken=False)
    assert timeline.ticks.tolist() == [0, 40, 80, 120]
    assert timeline.counted


def test_times_that_run_backwards_are_an_error_that_names_the_frame():
    twice = [40 * number for number in range(50)] * 2
    with pytest.raises(DecodeError, match="run backwards at frame"):
        timeline_of_frames(twice, packets(twice), NOMINAL, broken=False)


def test_frames_without_times_take_those_of_decoding():
    sent = packets([None] * 3, duration=0, decoded=[0, 30, 70])
    assert timeline_of_frames([None] * 3, sent, NOMINAL, broken=False).ticks.tolist() == [0, 30, 70]


@pytest.mark.parametrize(("broken", "num_frames"), [(False, 2), (True, 3)])
def test_frames_without_any_times_are_counted_at_the_nominal_rate(broken, num_frames):
    sent = packets([None] * 3, duration=0, decoded=[None] * 3)
    timeline = timeline_of_frames([None] * 2, sent, NOMINAL, broken=broken)
    assert timeline.ticks.tolist() == [0, 40, 80][:num_frames]
    assert timeline.counted


def test_a_gap_of_hours_is_an_error_that_names_the_frame():
    check_gaps(np.array([0.0, 3000.0]), 3000.04)
    with pytest.raises(DecodeError, match="jump by 1,000,000 s after frame 1 of 3"):
        check_gaps(np.array([0.0, 0.04, 1_000_000.04]), 1_000_000.08)


def test_only_regular_readable_nonempty_files_are_accepted(tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    with socket.socket(socket.AF_UNIX) as reader:
        reader.bind(str(tmp_path / "socket.mp4"))
        for name, complaint in {
            "fifo": "not a regular file",
            "folder": "is a folder",
            "empty": "is empty",
            "loop": "symbolic links",
            "socket": "not a regular file",
            "nothing": "No such file",
        }.items():
            with pytest.raises(DecodeError, match=complaint) as caught:
                check_file(tmp_path / f"{name}.mp4")
            assert str(tmp_path / f"{name}.mp4") in str(caught.value)
    (tmp_path / "good.mp4").write_bytes(b"x")
    check_file(tmp_path / "good.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "good.mp4")
    check_file(tmp_path / "link.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "a.mp4").chmod(0)
    with pytest.raises(DecodeError, match="permission denied"):
        check_file(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("size_mib", "zeros_mib", "told"),
    [(20, 15, False), (20, 17, True), (40, 17, False), (40, 24, True), (3000, 1023, False), (3000, 1025, True)],
)
def test_a_file_that_was_never_written_to_its_end_is_recognized_by_its_zeros(size_mib, zeros_mib, told):
    reason = Content("digest", size_mib << 20, zeros_mib << 20).never_written
    assert bool(reason) is told
    assert not told or f"{zeros_mib:,} MiB of its {size_mib:,} are zeros in a row" in reason


def test_the_longest_stretch_of_zeros_counts(tmp_path):
    mib = 1 << 20
    path = tmp_path / "a.bin"
    path.write_bytes(b"\1" + bytes(3 * mib) + b"\1" * mib + bytes(2 * mib + 5))
    content = read_content(path)
    assert content.size_bytes == 6 * mib + 6
    assert content.longest_zeros_bytes == 2 * mib  # in blocks of zeros only
    assert content.digest == hashlib.sha256(path.read_bytes()).hexdigest()
