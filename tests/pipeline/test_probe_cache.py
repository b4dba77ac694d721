"""What is remembered of files that have not changed, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
from clips import Clip, write_clip
from fakes import probe as fake_probe
from hypothesis import given
from hypothesis import strategies as st

from arabesque.pipeline import probe_cache
from arabesque.pipeline.decoding.probing import Content, read_content
from arabesque.pipeline.decoding.slots import SlotPool
from arabesque.pipeline.frame_times import packed_times, unpacked_times
from arabesque.pipeline.probe_cache import ProbeCache, by_length, open_probe_cache
from arabesque.pipeline.records import AudioTrack, Probe, VideoFile, state_of

PROBE = replace(fake_probe(7, audio=AudioTrack(44100, 2, -0.01, None)), lost_at=(7, 9), declared_end_s=None)
CONTENT = Content("ab" * 32, 5, 0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"bytes")
    return path


def open_cache(tmp_path: Path, **options) -> ProbeCache:
    """Of files that were written a moment ago, too."""
    return ProbeCache(tmp_path / "probes", settled_ns=0, **options)


def filled(tmp_path: Path, *files: Path) -> ProbeCache:
    probes = open_cache(tmp_path)
    for path in files:
        probes.keep_probe(path, state_of(path), PROBE, thorough=False)
        probes.keep_content(path, state_of(path), CONTENT)
    probes.close()
    return open_cache(tmp_path)


def equal(one: Probe | None, other: Probe | None) -> bool:
    assert one is not None
    assert other is not None
    times = one.frame_times_s.tobytes() == other.frame_times_s.tobytes()
    return times and astuple(replace(one, frame_times_s=None)) == astuple(replace(other, frame_times_s=None))


def test_an_unchanged_file_is_known_to_later_runs(tmp_path, file):
    probes = filled(tmp_path, file)
    assert equal(probes.probe(file, thorough=False), PROBE)
    assert probes.content(file) == CONTENT
    assert probes.durations_s([VideoFile("a", file), VideoFile("b", tmp_path / "b.mp4")]) == {"a": 0.7}
    assert probes.probe(file, thorough=True) is None


def test_lengths_are_as_probed_or_by_size(tmp_path, file):
    (tmp_path / "b.mp4").write_bytes(b"twice long")
    files = [VideoFile(name, tmp_path / f"{name}.mp4") for name in ("a", "b", "gone")]
    assert by_length(files, open_cache(tmp_path)) == {"a": 5, "b": 10}
    assert by_length(files, filled(tmp_path, file)) == {"a": 0.7, "b": 1.4}


@pytest.mark.parametrize("change", ["bytes", "bytes of another time set back", "time", "another file in its place"])
def test_a_changed_file_is_not_known(tmp_path, file, change):
    probes = filled(tmp_path, file)
    before = file.stat()
    if change == "time":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif change == "another file in its place":
        (tmp_path / "b").write_bytes(b"bytes")
        os.utime(tmp_path / "b", ns=(before.st_atime_ns, before.st_mtime_ns))
        (tmp_path / "b").replace(file)
    else:
        file.write_bytes(b"bytez" if "back" in change else b"more bytes")
        if "back" in change:
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert probes.probe(file, thorough=False) is None
    assert probes.content(file) is None
    assert probes.durations_s([VideoFile("a", file)]) == {}
    file.unlink()
    assert probes.content(file) is None


def test_what_was_changed_while_it_was_read_or_right_before_is_not_kept(tmp_path, file):
    probes = open_cache(tmp_path)
    before = state_of(file)
    file.write_bytes(b"other bytes")
    probes.keep_content(file, before, CONTENT)
    assert probes.content(file) is None
    hasty = ProbeCache(tmp_path / "probes")
    hasty.keep_content(file, state_of(file), CONTENT)
    assert hasty.content(file) is None


def test_another_decoder_or_other_code_around_it_probes_anew(tmp_path, file, monkeypatch):
    filled(tmp_path, file)
    other = open_cache(tmp_path, decoder="decord")
    assert other.probe(file, thorough=False) is None
    assert other.durations_s([VideoFile("a", file)]) == {}
    assert other.content(file) == CONTENT
    monkeypatch.setattr(probe_cache, "_probed_by", lambda decoder: f"{decoder} of tomorrow")
    assert open_cache(tmp_path).probe(file, thorough=False) is None


@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 0.9, 1.0])
def test_a_damaged_cache_is_as_good_as_none(tmp_path, file, at):
    filled(tmp_path, file)
    (part,) = (tmp_path / "probes").glob("part-*")
    data = bytearray(part.read_bytes())
    data[round(at * (len(data) - 1))] ^= 1
    part.write_bytes(data)
    probes = open_cache(tmp_path)
    assert probes.probe(file, thorough=False) is None
    assert not part.exists()
    part.write_bytes(b"torn")
    assert filled(tmp_path, file).content(file) == CONTENT


def test_a_folder_that_refuses_costs_nothing_else(tmp_path, file):
    (tmp_path / "probes").write_text("a file")
    probes = filled(tmp_path, file)
    assert probes.content(file) is None
    nowhere = ProbeCache()
    nowhere.keep_content(file, state_of(file), CONTENT)
    assert nowhere.content(file) is None


def test_only_the_files_of_a_run_are_held(tmp_path, file):
    (tmp_path / "b.mp4").write_bytes(b"more")
    filled(tmp_path, file, tmp_path / "b.mp4")
    probes = open_cache(tmp_path, files=[VideoFile("a", file)])
    assert probes.content(file) == CONTENT
    assert probes.content(tmp_path / "b.mp4") is None


def test_many_files_of_the_cache_become_one_that_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(probe_cache, "MAX_PARTS", 3)
    monkeypatch.setattr(probe_cache, "MAX_ENTRIES", 4)
    paths = [tmp_path / f"{number}.mp4" for number in range(4)]
    for path in paths:
        path.write_bytes(b"bytes")
        filled(tmp_path, path)
    assert len(list((tmp_path / "probes").iterdir())) == 1
    probes = open_cache(tmp_path)
    assert [probes.content(path) is not None for path in paths] == [False, False, True, True], "the newest stay"


KEEP = """
import sys
from pathlib import Path
from arabesque.pipeline import probe_cache
from arabesque.pipeline.decoding.probing import Content
from arabesque.pipeline.records import state_of
probe_cache.MAX_PARTS = 1
root, name = Path(sys.argv[1]), sys.argv[2]
for number in range(10):
    probes = probe_cache.ProbeCache(root / "probes", settled_ns=0)
    path = root / f"{name}{number}.mp4"
    path.write_bytes(b"bytes")
    probes.keep_content(path, state_of(path), Content("ab" * 32, 5, 0))
    probes.close()
"""


def test_two_processes_that_write_and_merge_at_once_lose_nothing(tmp_path):
    pair = [subprocess.Popen([sys.executable, "-c", KEEP, str(tmp_path), name]) for name in "ab"]
    assert [process.wait() for process in pair] == [0, 0]
    probes = open_cache(tmp_path)
    assert all(probes.content(tmp_path / f"{name}{number}.mp4") for name in "ab" for number in range(10))


def test_a_known_video_is_probed_by_no_decoder(tmp_path, monkeypatch):
    monkeypatch.setenv("ARABESQUE_PROBES", str(tmp_path / "probes"))
    monkeypatch.setattr(probe_cache.ProbeCache.__init__, "__kwdefaults__", {"settled_ns": 0})
    path = tmp_path / "a.mp4"
    write_clip(path, Clip(num_frames=20, beeps_s=(0.2,)))
    with open_probe_cache("pyav") as probes, SlotPool(1, probes=probes) as slots, slots.slot() as slot:
        found = slot.probe(path)
        probes.keep_content(path, state_of(path), read_content(path))
    with open_probe_cache("pyav", [VideoFile("a", path)]) as probes:
        slot = SlotPool(1, probes=probes)._new_slot("pyav", None)
        monkeypatch.setattr(slot, "_started", None)  # whoever starts a decoder fails
        assert equal(slot.probe(path), found)
        assert probes.content(path) == read_content(path)


@given(
    st.sampled_from([(1, 25), (1001, 30000), (1, 12800), (1, 90000), (1, 1000), (3, 7)]),
    st.lists(st.integers(1, 5000), max_size=200),
)
def test_times_come_back_to_the_last_bit(time_base, steps):
    ticks = np.cumsum([0, *steps])
    times = ticks.astype(np.float64) * time_base[0] / time_base[1]
    assert unpacked_times(packed_times(times)).tobytes() == times.tobytes()


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=50))
def test_times_of_no_clock_come_back_too(times):
    given_times = np.sort(np.array(times))
    assert unpacked_times(packed_times(given_times)).tolist() == given_times.tolist()


def test_regular_times_take_few_bytes():
    assert len(packed_times(np.arange(100_000) * 1001 / 30000)) < 2_000
