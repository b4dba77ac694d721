"""Joined recordings, clocks that jump, and streams whose audio changes: none of these counts as damage."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import TS_PACKET_BYTES, Clip, beep_times, write_clip
from decoding_checks import build, deliver_with_holes

from arabesque.pipeline.decoding.clocks import Clock, by_index, restarts
from arabesque.pipeline.decoding.timelines import Packets
from arabesque.pipeline.records import Hole

MP2 = {"audio_codec": "mp2", "audio_rate_hz": 48000}
TS_WRAPS_S = 2**33 / 90000


def heard(path: Path) -> tuple[list[float], list[Hole], float]:
    """Return the times of the beeps relative to the first frame, the holes, and the end of the track."""
    decoder = build("pyav")
    metadata = decoder.probe(path)
    assert metadata.audio is not None
    items = list(decoder.audio(path, metadata, metadata.end_s))
    samples = np.concatenate([item for item in items if not isinstance(item, Hole)], axis=1)
    start_s, rate_hz = metadata.audio.start_s, metadata.audio.rate_hz
    times_s = [time_s + start_s for time_s in beep_times(samples.mean(axis=0), rate_hz)]
    return times_s, [item for item in items if isinstance(item, Hole)], start_s + samples.shape[1] / rate_hz


def check_joined(path: Path, beeps_s: list[float]) -> None:
    numbers, holes, metadata = deliver_with_holes(build("pyav"), path)
    assert holes == []
    assert numbers == {index: index for index in range(100)}
    assert metadata.frame_times_s == pytest.approx(np.arange(100) / 25, abs=0.001)
    assert metadata.end_s == pytest.approx(4.0, abs=0.001)
    times_s, audio_holes, end_s = heard(path)
    assert audio_holes == []
    assert times_s == pytest.approx(beeps_s, abs=0.03)
    assert end_s == pytest.approx(4.0, abs=0.05)


@pytest.mark.parametrize("offset_s", [0, 1, 20, 5000])
def test_the_clock_of_joined_transport_streams_continues(tmp_path, offset_s):
    """The second clock begins where the first one did, or earlier or later by any time."""
    one = write_clip(tmp_path / "one.ts", Clip(beeps_s=[0.5], **MP2))
    offset = {"output_ts_offset": str(offset_s)}
    two = write_clip(tmp_path / "two.ts", Clip(beeps_s=[1.0], **MP2), range(50, 100), **offset)
    for first, second, beeps_s in ((one, two, [0.5, 3.0]), (two, one, [1.0, 2.5])):
        joined = tmp_path / "joined.ts"
        joined.write_bytes(first.read_bytes() + second.read_bytes())
        if first is one:
            check_joined(joined, beeps_s)
        else:
            numbers, holes, _ = deliver_with_holes(build("pyav"), joined)
            assert holes == []
            assert list(numbers.values()) == [*range(50, 100), *range(50)]


def with_check_bytes(content: bytes) -> bytes:
    """Return the packets of a transport stream with 16 bytes after each, as DVB receivers store them."""
    starts = range(0, len(content), TS_PACKET_BYTES)
    return b"".join(content[start : start + TS_PACKET_BYTES] + bytes(16) for start in starts)


@pytest.mark.parametrize("kind", ["m2ts", "dvb", "vob", "mpg"])
def test_the_clock_of_other_joined_streams_continues(tmp_path, kind):
    """Packets of 192 and 204 bytes, and program streams."""
    suffix = "ts" if kind == "dvb" else kind
    video = {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}} if kind in ("vob", "mpg") else {}
    muxer = {"mpegts_m2ts_mode": "1"} if kind == "m2ts" else {}
    clips = (Clip(beeps_s=[0.5], **video, **MP2), range(50)), (Clip(beeps_s=[1.0], **video, **MP2), range(50, 100))
    parts = [write_clip(tmp_path / f"part.{suffix}", *clip, **muxer).read_bytes() for clip in clips]
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(b"".join(with_check_bytes(part) if kind == "dvb" else part for part in parts))
    check_joined(joined, [0.5, 3.0])


@pytest.mark.parametrize("options", [{"bf": "2", "g": "12"}, {"bf": "1", "g": "12"}, {"g": "12"}])
@pytest.mark.parametrize("num_frames", [25, 50])
def test_frames_whose_interpolated_times_contradict_one_another_are_counted(tmp_path, options, num_frames):
    """Several small frames share a packet of a program stream."""
    clip = Clip(num_frames=num_frames, codec="mpeg2video", options=options, beeps_s=[0.5], **MP2)
    path = write_clip(tmp_path / "a.vob", clip)
    numbers, holes, metadata = deliver_with_holes(build("pyav"), path)
    assert holes == []
    assert numbers == {index: index for index in range(num_frames)}
    assert metadata.frame_times_s == pytest.approx(np.arange(num_frames) / 25, abs=0.001)
    assert metadata.end_s == pytest.approx(num_frames / 25, abs=0.001)
    assert heard(path)[0] == pytest.approx([0.5], abs=0.03)


def test_audio_that_only_a_later_recording_has_is_read(tmp_path):
    one = write_clip(tmp_path / "one.ts", Clip(), range(50))
    two = write_clip(tmp_path / "two.ts", Clip(beeps_s=[1.0], **MP2), range(50, 100))
    (tmp_path / "joined.ts").write_bytes(one.read_bytes() + two.read_bytes())
    check_joined(tmp_path / "joined.ts", [3.0])


def test_a_recording_that_is_joined_with_itself_is_decoded_twice(tmp_path):
    one = write_clip(tmp_path / "one.ts", Clip(beeps_s=[0.5], **MP2))
    (tmp_path / "joined.ts").write_bytes(2 * one.read_bytes())
    numbers, holes, _ = deliver_with_holes(build("pyav"), tmp_path / "joined.ts")
    assert holes == []
    assert list(numbers.values()) == 2 * list(range(50))


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
@pytest.mark.parametrize("extra_bytes", [0, 77])
def test_a_truncated_recording_loses_its_own_end_only(tmp_path, codec, extra_bytes):
    options = {"libx264": {}, "libx265": {"options": {"x265-params": "log-level=none:keyint=12"}}}
    video = {"codec": codec, **options.get(codec, {"options": {"bf": "2", "g": "12"}})}
    one = write_clip(tmp_path / "one.ts", Clip(num_frames=60, beeps_s=[0.5], **video, **MP2)).read_bytes()
    two = write_clip(tmp_path / "two.ts", Clip(num_frames=60, beeps_s=[0.5], **video, **MP2), range(60, 120))
    length = len(one) * 2 // 3 // TS_PACKET_BYTES * TS_PACKET_BYTES + extra_bytes
    (tmp_path / "joined.ts").write_bytes(one[:length] + two.read_bytes())
    numbers, holes, _ = deliver_with_holes(build("pyav"), tmp_path / "joined.ts")
    first = {index: number for index, number in numbers.items() if number < 60}
    assert all(index == number for index, number in first.items())
    assert len(first) > 30
    assert list(numbers.values())[-60:] == list(range(60, 120))
    assert np.ptp([index - number for index, number in numbers.items() if number >= 60]) == 0
    assert sum(hole.end_s - hole.start_s for hole in holes) < 0.3


def test_a_clock_may_wrap(tmp_path):
    offset = {"output_ts_offset": f"{TS_WRAPS_S - 3.0:.3f}"}
    path = write_clip(tmp_path / "a.ts", Clip(num_frames=100, beeps_s=[0.5, 3.0], **MP2), **offset)
    check_joined(path, [0.5, 3.0])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"audio_codec": "ac3", "audio_layout": "5.1"}, {"audio_codec": "ac3", "audio_layout": "stereo"}),
        ({"audio_codec": "ac3", "audio_layout": "stereo"}, {"audio_codec": "ac3", "audio_layout": "5.1"}),
        ({"audio_codec": "mp2"}, {"audio_codec": "mp2", "audio_rate_hz": 44100}),
        ({"audio_codec": "mp2", "audio_layout": "stereo"}, {"audio_codec": "mp2"}),
    ],
)
def test_audio_may_change_its_channels_and_its_rate(tmp_path, first, second):
    rate = {"audio_rate_hz": 48000}
    one = write_clip(tmp_path / "one.ts", Clip(beeps_s=[0.5], **(rate | first)))
    two = write_clip(tmp_path / "two.ts", Clip(beeps_s=[1.0], **(rate | second)), range(50, 100))
    (tmp_path / "joined.ts").write_bytes(one.read_bytes() + two.read_bytes())
    check_joined(tmp_path / "joined.ts", [0.5, 3.0])


def packets(dts: Sequence[int], keys: Sequence[int] = (0,), sizes: Sequence[int] | None = None) -> Packets:
    stamps, count = np.array(dts, np.int64), len(dts)
    return Packets(
        pts=stamps,
        dts=stamps,
        duration=np.full(count, 40, np.int64),
        keyframe=np.isin(np.arange(count), keys),
        position=1000 * np.arange(count),
        size=np.array(range(100, 100 + count) if sizes is None else sizes, np.int64),
    )


@pytest.mark.parametrize(
    ("dts", "keys", "clock", "damaged"),
    [
        ([0, 40, 80, 120], [0], (), []),
        ([0, 40, 80, 0, 40, 80], [0, 3], ((3000, 120),), []),
        ([0, 40, 80, 0, 40, 80], [0], (), [3, 4, 5]),  # an earlier stretch is repeated
        ([0, 40, 80, 9_000_000, 160, 200], [0], (), [3]),
        ([0, 40, 80, 9_000_000, 9_000_040], [0], ((3000, -8_999_880),), []),
        ([0, 40, 5_000, 5_040], [0], (), []),
        ([0, 40, 80, 40, 80, 120, 160], [0], (), [3, 4]),
        ([0, 40, 900, 940, 160, 200], [0, 4], (), [2, 3]),  # two from a later place, then a keyframe
        ([900, 0, 40, 80, 120, 160], [0, 3], (), [0]),
        ([0, 40, 80, 120, 60, 100], [0, 4], ((4000, 100),), []),  # two recordings that overlap
    ],
)
def test_a_clock_restarts_with_a_keyframe_or_its_stamps_are_damaged(dts, keys, clock, damaged):
    assert restarts(packets(dts, keys), max_forward=10_000) == (clock, damaged)


def test_a_repeated_stretch_is_not_another_recording():
    assert restarts(packets([0, 40, 80, 40, 80, 120], [0, 1, 3], [9, 8, 7, 8, 7, 6]), 10_000) == ((), [3, 4])


@pytest.mark.parametrize(
    ("losses", "restarts_there"),
    [
        ([], True),
        ([3000], True),  # where two recordings were joined
        ([1000], True),
        ([5000], False),  # the clock runs on behind it, as if an earlier stretch were repeated
        ([2500], False),  # within the packet before
        ([3500], False),  # within the keyframe
        ([2500, 3000], False),
    ],
)
def test_no_other_recording_begins_where_a_packet_is_incomplete(losses: list[int], restarts_there: bool) -> None:
    """A repeated stretch whose keyframe has lost bytes has another size than the original."""
    found = restarts(packets([0, 40, 80, 40, 80, 120], [0, 1, 3], [9, 8, 7, 5, 7, 6]), 10_000, losses)
    assert found == ((((3000, 80),), []) if restarts_there else ((), [3, 4]))


@pytest.mark.parametrize(("losses", "clock"), [([5500], ()), ([4000, 6000], ()), ([], ((4000, 560),))])
def test_a_misplaced_start_with_a_loss_is_not_another_recording(losses: list[int], clock: Clock) -> None:
    found, damaged = restarts(packets([400, 440, 480, 520, 0, 40, 640, 680], [0, 4, 6]), 10_000, losses)
    assert (found, damaged) == (clock, [4, 5] if losses else [])


def test_one_recording_three_times_is_three_recordings() -> None:
    found = restarts(packets([0, 40, 80] * 3, [0, 3, 6], [9, 8, 7] * 3), 10_000)
    assert found == (((3000, 120), (6000, 240)), [])


def test_lost_packets_of_an_avi_file_shift_the_count_of_those_behind_them():
    read = packets([0, 40, 80, 120])
    index = np.array(
        [[0, 100, 0], [1000, 101, 40], [1500, 50, 80], [1800, 50, 120], [2000, 102, 160], [3000, 103, 200]]
    )
    assert by_index(read, index) == (((2000, 80),), [])
    moved = index.copy()
    moved[2:, 0] += 77  # bytes were cut out before them
    assert by_index(read, moved) == (((2000, 80),), [])
    assert by_index(read, index[[0, 1, 3, 4]]) == (((2000, 80),), [3])


def test_a_jump_of_a_slow_recording_is_kept(tmp_path):
    times_ms = [1000 * number for number in range(50)]
    path = write_clip(tmp_path / "a.mkv", Clip(time_base=Fraction(1, 1000), times=times_ms, fps=Fraction(1)))
    numbers, holes, metadata = deliver_with_holes(build("pyav"), path)
    assert (len(numbers), holes, metadata.clock) == (50, [], ())
