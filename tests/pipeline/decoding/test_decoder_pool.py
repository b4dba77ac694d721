"""Decoder processes deliver the frames of their decoders, and recover from every failure of these."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import Clip, beep_times, number_of, write_clip, write_cut_transport_stream

from arabesque.manifests.errors import ArabesqueError, DecodeError, TransientDecodeError
from arabesque.pipeline.decoding import decoder_pool as slots
from arabesque.pipeline.decoding.decoder_pool import DecoderPool, DecoderProcess, DecoderSettings, FrameChunk, Holes
from arabesque.pipeline.decoding.decoders import IndexMismatch
from arabesque.pipeline.system.child_process import IsolatedChild

FRAME_BYTES = 128 * 96 * 3
SMALL = DecoderSettings(buffer_bytes=4 * FRAME_BYTES)
"""Settings for chunks of four frames"""
NARROW = DecoderSettings(memory_bytes=300 << 20, buffer_bytes=4 * FRAME_BYTES)
NERVOUS = replace(NARROW, timeout_s=2.0)
EVERY = np.arange(50)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "good.mp4", Clip(beeps_s=[0.3, 1.6]))


@pytest.fixture
def slot():
    with DecoderProcess(settings=SMALL) as slot:
        yield slot


def deliver(slot: DecoderProcess, path: Path, wanted=None, audio_until_s=None) -> tuple[list[int], DecodeError | None]:
    """Return the numbers in the delivered frames, and the error that ended the decoding."""
    numbers: list[int] = []
    try:
        metadata = slot.probe(path)
        wanted = np.arange(metadata.num_frames) if wanted is None else wanted
        holes = Holes((), ())
        for window in slot.decode(path, metadata, wanted, audio_until_s=audio_until_s):
            if isinstance(window, Holes):
                holes = window
                continue
            numbers += [number_of(frame) for frame in window.frames]
            window.release()
    except DecodeError as error:
        return numbers, error
    reasons = [hole.reason for hole in holes.frames + holes.audio]
    return numbers, DecodeError("; ".join(reasons)) if reasons else None


def release_all(windows) -> None:
    for window in windows:
        window.release()


def numbers_of(slot: DecoderProcess, path: Path, wanted=None) -> list[int]:
    numbers, error = deliver(slot, path, wanted)
    assert error is None
    return numbers


def pid_of(slot: DecoderProcess) -> int:
    assert slot._child is not None
    return slot._child.pid


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int, timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


@pytest.mark.slow
def test_a_million_frames_are_probed_in_little_memory(tmp_path):
    """About eleven hours of video; 5 s of processor time on 2026-11-29."""
    path = tmp_path / "long.mp4"
    with av.open(path, "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=25)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.full((24, 16), 128, np.uint8), format="yuv420p").reformat(
            format="yuvj420p"
        )
        [first] = [*stream.encode(frame), *stream.encode(None)]
        data, time_base = bytes(first), first.time_base
        for number in range(1_000_000):
            packet: Any = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, time_base, True
            packet.pts = packet.dts = number * round(1 / 25 / time_base)
            container.mux_one(packet)
    with DecoderProcess(settings=replace(SMALL, memory_bytes=700 << 20)) as slot:
        metadata = slot.probe(path)
        assert metadata.num_frames == 1_000_000
        assert metadata.frame_times_s[-1] == pytest.approx(999_999 / 25)
        assert num_delivered(slot, path, metadata, [0, 999_999]) == 2


def num_delivered(slot: DecoderProcess, path: Path, metadata, wanted: list[int]) -> int:
    """Return the count of delivered frames, which contain no numbers."""
    count = 0
    for window in slot.decode(path, metadata, np.array(wanted)):
        assert isinstance(window, FrameChunk)
        count += len(window.indices)
        window.release()
    return count


def test_chunks_contain_the_wanted_frames_and_all_audio(slot, clip):
    metadata = slot.probe(clip)
    wanted = np.arange(3, 50, 2)
    seen: list[int] = []
    samples: list[np.ndarray] = []
    lasts: list[bool] = []
    for window in slot.decode(clip, metadata, wanted, audio_until_s=metadata.end_s):
        assert window.frames.shape == (len(window.indices), 96, 128, 3)
        assert len(window.indices) <= 4
        assert [number_of(frame) for frame in window.frames] == window.indices.tolist()
        seen += window.indices.tolist()
        if window.audio is not None:
            assert window.audio.start_s == pytest.approx(sum(map(len, samples)) / 44100)
            samples.append(window.audio.samples[0])
            lasts.append(window.audio.last)
        heard_s = sum(map(len, samples)) / 44100
        if len(window.indices):
            assert heard_s >= metadata.frame_times_s[window.indices[-1]] + 0.04 - 1e-4
        window.release()
    assert seen == wanted.tolist()
    assert beep_times(np.concatenate(samples), 44100) == pytest.approx([0.3, 1.6], abs=0.002)
    assert lasts == [False] * (len(lasts) - 1) + [True]


def test_chunks_without_frames_contain_the_rest_of_the_audio(slot, clip):
    metadata = slot.probe(clip)
    windows = list(slot.decode(clip, metadata, EVERY[:2], audio_until_s=1.5))
    assert [len(window.indices) for window in windows] == [2, 0]
    assert windows[1].audio is not None
    assert windows[1].audio.start_s == pytest.approx(0.08)
    assert windows[1].audio.samples.shape[1] == round(1.42 * 44100)


def test_audio_can_be_decoded_without_frames(slot, clip):
    windows = list(slot.decode(clip, slot.probe(clip), EVERY[:0], audio_until_s=2.0))
    assert [len(window.indices) for window in windows] == [0]
    assert windows[0].audio is not None
    assert windows[0].audio.last


def test_without_audio_until_no_audio_is_decoded(slot, clip):
    assert [window.audio for window in slot.decode(clip, slot.probe(clip), EVERY[:3])] == [None]


def test_views_stay_valid_until_released_and_the_process_waits(slot, clip):
    windows = []
    began = 0.0
    for window in slot.decode(clip, slot.probe(clip), EVERY):
        windows.append(window)
        if len(windows) == SMALL.num_buffers:  # all of them are out now: the next one waits
            assert [number_of(frame) for kept in windows for frame in kept.frames] == list(range(12))
            began = time.monotonic()
            threading.Timer(0.4, windows[0].release).start()
        elif len(windows) == SMALL.num_buffers + 1:
            assert time.monotonic() - began > 0.35
            assert number_of(windows[1].frames[0]) == 4
            for kept in windows:
                kept.release()
                kept.release()  # a second call has no effect
        elif began:
            window.release()
    assert len(windows) == 13


def test_chunks_outlive_their_process(clip):
    with DecoderProcess(settings=SMALL) as slot:
        windows = [window for _, window in zip(range(2), slot.decode(clip, slot.probe(clip), EVERY), strict=False)]
    assert [number_of(frame) for window in windows for frame in window.frames] == list(range(8))
    windows[0].release()


def test_decoding_may_stop_early_and_another_video_follow(slot, clip):
    for window in slot.decode(clip, slot.probe(clip), EVERY):
        window.release()
        break
    pid = pid_of(slot)
    left = slot.decode(clip, slot.probe(clip), EVERY)
    next(left).release()
    assert numbers_of(slot, clip) == list(range(50))
    assert pid_of(slot) == pid
    with pytest.raises(ValueError, match="one at a time"):
        next(left)


def test_larger_frames_get_larger_buffers_up_to_a_limit(slot, clip, tmp_path, monkeypatch):
    large = write_clip(tmp_path / "large.mp4", Clip(width_px=512, height_px=384, num_frames=5))
    assert numbers_of(slot, clip, EVERY[:9]) == list(range(9))
    assert numbers_of(slot, large, EVERY[:5]) == list(range(5))
    assert numbers_of(slot, clip, EVERY[:9]) == list(range(9))
    monkeypatch.setattr(slots, "MAX_FRAME_BYTES", 512 * 384 * 3 - 1)
    numbers, error = deliver(slot, large)
    assert numbers == []
    assert "large.mp4: one frame of 512×384 pixels takes" in str(error)


def test_errors_name_the_file_and_the_child_continues(slot, clip, tmp_path):
    (tmp_path / "noise.mp4").write_bytes(os.urandom(5000))
    slot.probe(clip)
    pid = pid_of(slot)
    for name, complaint in {"noise.mp4": "cannot be opened as a video", "absent.mp4": "No such file"}.items():
        with pytest.raises(DecodeError, match=complaint) as caught:
            slot.probe(tmp_path / name)
        assert not isinstance(caught.value, TransientDecodeError)
    assert numbers_of(slot, clip) == list(range(50))
    assert pid_of(slot) == pid


def test_an_error_follows_all_intact_frames(slot, tmp_path):
    path = write_clip(tmp_path / "cut.mp4", Clip(), movflags="faststart")
    path.write_bytes(path.read_bytes()[:-20_000])
    numbers, error = deliver(slot, path)
    assert 20 < len(numbers) < 50
    assert numbers[:-1] == list(range(len(numbers) - 1))  # the last one may be shown after the damaged one
    assert "the file is damaged or truncated within this frame" in str(error)


def test_a_mismatch_is_recognized_and_a_thorough_probe_resolves_it(slot, tmp_path):
    path = write_cut_transport_stream(tmp_path / "a.ts", Clip(), missing=0.3)
    thorough = slot.probe(path, thorough=True)
    assert thorough.timed_by == "frames"
    wrong = replace(thorough, timed_by="packets", start_s=thorough.start_s - 1)
    with pytest.raises(IndexMismatch):
        next(slot.decode(path, wrong, EVERY[:3]))
    assert len(numbers_of(slot, path)) == thorough.num_frames


@pytest.mark.parametrize("wanted", [EVERY[:25], EVERY[:20], EVERY[:25:5]])
def test_frames_behind_the_end_of_the_index_are_a_mismatch(slot, clip, wanted):
    whole = slot.probe(clip)
    half = replace(whole, frame_times_s=whole.frame_times_s[:25], end_s=1.0, declared_end_s=1.0)
    with pytest.raises(IndexMismatch, match="25 frames are known, but there is another one at 1"):
        release_all(slot.decode(clip, half, wanted))
    assert numbers_of(slot, clip, EVERY[:25]) == list(range(25))


def test_a_fork_of_the_parent_does_not_affect_the_children(slot, clip):
    slot.probe(clip)
    pid = pid_of(slot)
    fork = os.fork()
    if fork == 0:
        slot.close()
        os._exit(0)
    os.waitpid(fork, 0)
    assert numbers_of(slot, clip) == list(range(50))
    assert pid_of(slot) == pid


def test_broken_audio_loses_no_frame(slot, tmp_path):
    path = write_clip(tmp_path / "a.mkv", Clip(beeps_s=[0.3], audio_codec="pcm_f32le"))
    content = bytearray(path.read_bytes())
    hole = content.rindex(bytes(2000))  # in the silence of the second half
    content[hole : hole + 2000] = b"\xff" * 2000  # invalid numbers
    path.write_bytes(content)
    numbers, error = deliver(slot, path, audio_until_s=2.0)
    assert "the audio from 1." in str(error)
    assert "samples that are not numbers" in str(error)
    assert numbers == list(range(50))


@pytest.mark.parametrize(
    ("name", "kind", "complaint", "num_delivered"),
    [
        ("segfault", TransientDecodeError, "crashed (SIGSEGV)", 4),
        ("abort", TransientDecodeError, "crashed (SIGABRT): terminate called: codec tables are corrupt", 4),
        ("exit", TransientDecodeError, "exited with status 3", 4),
        ("hang", TransientDecodeError, "sent no answer within 2 s", 4),
        ("grow", TransientDecodeError, "exceeded its memory allowance of 300 MiB", 4),
        ("raise", DecodeError, "the decoder failed: IndexError: tuple index out of range", 5),
        ("probe-segfault", TransientDecodeError, "SIGSEGV", 0),
        ("probe-hang", TransientDecodeError, "sent no answer", 0),
    ],
)
def test_a_misbehaving_decoder_fails_only_its_video(clip, tmp_path, name, kind, complaint, num_delivered):
    bad = tmp_path / f"{name}.mp4"
    bad.write_bytes(clip.read_bytes())
    # a busy machine may delay a decoder for seconds: only hanging ones have a short limit
    with DecoderProcess("misbehaving_decoders:Misbehaving", NERVOUS if "hang" in name else NARROW) as slot:
        assert numbers_of(slot, clip) == list(range(50))
        numbers, error = deliver(slot, bad)
        assert numbers == list(range(num_delivered))
        assert type(error) is kind
        assert complaint in str(error)
        assert str(bad) in str(error)
        assert numbers_of(slot, clip) == list(range(50))


def test_a_slow_decoder_is_not_considered_hung(clip):
    with DecoderProcess("misbehaving_decoders:Slow", DecoderSettings(timeout_s=2.0)) as slot:
        began = time.monotonic()
        assert numbers_of(slot, clip, EVERY[:30]) == list(range(30))
        assert time.monotonic() - began > 2.5


def test_wrong_frames_are_noticed(clip):
    with DecoderProcess("misbehaving_decoders:Confused") as slot:
        numbers, error = deliver(slot, clip)
    assert numbers == [0, 1, 2]
    assert "frame 4 instead of 3" in str(error)


def test_several_threads_may_end_a_child_at_once():
    def end(child, together):
        together.wait()
        child.end()

    for _ in range(5):
        child = IsolatedChild("arabesque.pipeline.decoding.decoder_main", 5.0)
        with ThreadPoolExecutor(8) as pool:
            together = threading.Barrier(8)
            ends = [pool.submit(end, child, together) for _ in range(8)]
        assert [ended.exception() for ended in ends] == [None] * 8


def test_a_backend_that_does_not_load_is_reported():
    with (
        DecoderProcess("misbehaving_decoders_that_are_not_there:X") as slot,
        pytest.raises(Exception, match="does not load"),
    ):
        slot.probe(Path("a.mp4"))


def test_too_few_open_files_are_a_clear_error():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(ArabesqueError, match="cannot be started: Too many open files; allow more"):
            DecoderProcess().start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ctrl_c_in_a_terminal_reaches_the_parent_only(slot, clip):
    slot.probe(clip)
    assert os.getpgid(pid_of(slot)) == pid_of(slot)


def test_neither_children_nor_parents_import_large_packages(clip):
    with DecoderProcess("misbehaving_decoders:Importing") as slot:
        assert slot.probe(clip).codec == ""
    heavy = "{'av', 'torch', 'decord'}"
    check = f"import sys, arabesque.pipeline.decoding.decoder_pool; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_threads_borrow_and_return_decoder_processes(clip):
    results: list[list[int]] = []

    def work() -> None:
        for _ in range(2):
            with pool.decoder() as slot:
                results.append(numbers_of(slot, clip))

    with closing(DecoderPool(2, settings=SMALL)) as pool:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pids = pool.pids
        assert len(pids) == 2
    assert results == [list(range(50))] * 6
    assert not any(is_running(pid) for pid in pids)


def test_a_decoder_process_returned_during_a_video_can_be_used_again(clip):
    with closing(DecoderPool(1, settings=SMALL)) as pool:
        with pool.decoder() as slot:
            windows = slot.decode(clip, slot.probe(clip), EVERY)
            next(windows).release()
        with pool.decoder() as slot:
            assert numbers_of(slot, clip) == list(range(50))


# --- how parents end

SCRIPT = """
    import sys, time
    import numpy as np
    from pathlib import Path
    from arabesque.pipeline.decoding.decoder_pool import DecoderPool, DecoderSettings
    clip, ending = Path(sys.argv[1]), sys.argv[2]
    print("main", flush=True)
    pool = DecoderPool(2, "misbehaving_decoders:Misbehaving", DecoderSettings(buffer_bytes=150_000))
    borrowed = [pool.decoder() for _ in range(2)]
    slots = [each.__enter__() for each in borrowed]
    metadata = slots[0].probe(clip)
    windows = slots[0].decode(clip, metadata, np.arange(50))
    kept = next(windows)
    print(*pool.pids, flush=True)
    if ending == "close":
        pool.close()
    elif ending == "hang":
        next(slots[1].decode(clip.with_name("hang.mp4"), metadata, np.arange(5, 50)))
    elif ending == "wait":
        time.sleep(1000)
"""


def start_parent(tmp_path: Path, clip: Path, ending: str) -> subprocess.Popen[str]:
    """A script without a ``__main__`` guard, as users write them."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    (tmp_path / "good.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "hang.mp4").write_bytes(clip.read_bytes())
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "good.mp4"), ending],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )


@pytest.mark.parametrize("ending", ["close", "leave"])
def test_a_parent_that_exits_leaves_no_process_and_prints_nothing(tmp_path, clip, ending):
    with start_parent(tmp_path, clip, ending) as parent:
        said, complained = parent.communicate(timeout=60)
    lines = said.splitlines()
    assert parent.returncode == 0
    assert lines[0] == "main"
    assert len(lines) == 2, "the script ran again in a child"
    assert complained == ""
    assert all(wait_until_gone(int(pid)) for pid in lines[1].split())


@pytest.mark.parametrize("ending", ["wait", "hang"])
def test_children_end_with_a_parent_that_is_killed(tmp_path, clip, ending):
    with start_parent(tmp_path, clip, ending) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "main\n"
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        time.sleep(1.0 if ending == "hang" else 0.0)  # the second child is in its decoder by now
        assert all(is_running(pid) for pid in pids)
        # shared memory without a name cannot be left behind
        assert not any("/dev/shm" in Path(f"/proc/{pid}/maps").read_text() for pid in (parent.pid, *pids))
        parent.kill()
        _, complained = parent.communicate(timeout=60)
    assert complained == ""
    assert all(wait_until_gone(pid) for pid in pids)
