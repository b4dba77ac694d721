"""A decoding process that a file has taken over harms the results of that file only."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from clips import Clip, number_of, write_clip
from fakes import probe as fake_probe
from misbehaving_decoders import ATTACKS, PROBE_ATTACKS
from numpy.typing import NDArray

from arabesque.manifests.errors import DecodeError, TransientDecodeError
from arabesque.pipeline.decoding.decoder_pool import DecoderProcess, DecoderSettings
from arabesque.pipeline.decoding.decoder_process import ExpectedChunks, SharedBuffers, check_probe
from arabesque.pipeline.decoding.messages import ANSWERS, Filled, Probed
from arabesque.pipeline.decoding.planes import ColorSpace
from arabesque.pipeline.records import AudioTrack
from arabesque.pipeline.system.restriction import still_allowed
from arabesque.pipeline.system.typed_data import MalformedDataError, MessagePipe, from_data, to_data

EVERY = np.arange(50)
WINDOWS_OF_FOUR = DecoderSettings(buffer_bytes=4 * 128 * 96 * 3)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "good.mp4", Clip(beeps_s=[0.3]))


@pytest.fixture(scope="module")
def slot():
    with DecoderProcess("misbehaving_decoders:Hostile", WINDOWS_OF_FOUR) as slot:
        yield slot


def numbers_of(slot: DecoderProcess, path: Path) -> tuple[list[int], str]:
    """Return the numbers in the delivered frames, and the error after them."""
    numbers: list[int] = []
    try:
        metadata = slot.probe(path)
        for window in slot.decode(path, metadata, np.arange(50), audio_until_s=2.0):
            numbers += [number_of(frame) for frame in window.frames]
            window.release()
    except TransientDecodeError as error:
        return numbers, str(error)
    return numbers, ""


IN_A_PROCESS = ["pickle", "noise", "half", "deep", "unknown-kind", "other-buffer", "not-wanted", "out-of-turn"]


@pytest.mark.parametrize("attack", [*IN_A_PROCESS, "size-as-text", "ends-in-ages"])
def test_a_malformed_message_costs_its_video_and_its_process(slot, clip, tmp_path, monkeypatch, attack):
    monkeypatch.setenv("ARABESQUE_TEST_PICKLE", str(tmp_path / "unpickled"))
    bad = tmp_path / f"attack-{attack}.mp4"
    bad.write_bytes(clip.read_bytes())
    if attack == "half":
        slot.close()
        slot = DecoderProcess("misbehaving_decoders:Hostile", replace(WINDOWS_OF_FOUR, timeout_s=3.0))
    assert numbers_of(slot, clip) == (list(range(50)), "")
    pid = slot.pid
    numbers, error = numbers_of(slot, bad)
    assert numbers == ([] if attack in PROBE_ATTACKS else [0, 1, 2, 3])
    assert error.startswith(f"{bad}: the decoder ")
    assert ("sent no answer" if attack == "half" else "and was ended") in error
    assert slot.pid is None
    assert not Path(f"/proc/{pid}").exists()
    assert not (tmp_path / "unpickled").exists()
    slot.close()


@pytest.mark.parametrize("attack", [name for name in ATTACKS if name != "out-of-turn"])
def test_every_malformed_answer_is_refused(attack):
    expected = ExpectedChunks(fake_probe(50, audio=AudioTrack(44100, 1, 0.0, None)), EVERY, 4, 2.0, planar=False)
    expected.check(Filled(0, EVERY[:4], None, None, 0.1), {0, 1, 2})
    ours, theirs = socket.socketpair()
    message = ATTACKS[attack]
    send = theirs.sendall if isinstance(message, bytes) else MessagePipe(theirs).send
    with ThreadPoolExecutor(1) as sending, theirs, ours:
        sending.submit(send, message)  # some do not fit into the pipe
        with pytest.raises((MalformedDataError, TimeoutError)):
            expected.check(MessagePipe(ours).receive(ANSWERS, 0.5 if attack == "half" else 30.0), {0, 1, 2})


@pytest.mark.parametrize("attack", PROBE_ATTACKS)
def test_every_malformed_probe_is_refused(attack):
    metadata = fake_probe(50, audio=AudioTrack(44100, 1, 0.0, None))
    check_probe(metadata)
    arrays: list[NDArray] = []
    data = to_data(Probed(PROBE_ATTACKS[attack](metadata)), arrays)
    with pytest.raises(MalformedDataError):
        check_probe(from_data(Probed, data, b"".join(array.tobytes() for array in arrays)).metadata)


def test_chunks_without_some_wanted_frames_are_accepted():
    expected = ExpectedChunks(fake_probe(50), EVERY[::2], 4, None, planar=True)
    color = ColorSpace("bt709", full_range=False)
    expected.check(Filled(1, np.array([2, 4, 10]), color, None, 0.0), {1})
    expected.check(Filled(0, np.array([48]), None, None, 0.0), {0})


@pytest.mark.parametrize("error", ["ArabesqueError", "SystemExit"])
def test_an_unexpected_error_of_a_child_is_an_error_of_the_video(clip, tmp_path, error):
    bad = tmp_path / f"{error}.mp4"
    bad.write_bytes(clip.read_bytes())
    with (
        DecoderProcess("misbehaving_decoders:Failing", WINDOWS_OF_FOUR) as slot,
        pytest.raises(DecodeError, match="as it says"),
    ):
        slot.probe(bad)


def test_many_messages_do_not_delay_the_next_video(clip, tmp_path):
    flooding = tmp_path / "attack-flood.mp4"
    flooding.write_bytes(clip.read_bytes())
    with DecoderProcess("misbehaving_decoders:Flooding", WINDOWS_OF_FOUR) as slot:
        windows = slot.decode(flooding, slot.probe(flooding), np.arange(50))
        next(windows).release()
        assert numbers_of(slot, clip) == (list(range(50)), "")


def test_the_shared_memory_cannot_be_truncated():
    buffers = SharedBuffers(2, 4096)
    with pytest.raises(PermissionError):
        os.ftruncate(buffers.descriptor, 0)
    assert buffers.view(1, (64, 64)).sum() == 0


def test_a_restricted_process_reaches_neither_network_nor_files_nor_processes(clip, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(clip.read_bytes())
    with DecoderProcess("misbehaving_decoders:Escaping") as slot:
        slot.wait_until_ready()
        if still_allowed(slot.refused):
            pytest.skip(f"this kernel refuses {slot.refused or 'nothing'}")
        assert slot.probe(path).codec == ""
    assert path.read_bytes() == clip.read_bytes()
    assert [each.name for each in tmp_path.iterdir()] == ["a.mp4"]


def test_a_restricted_process_writes_to_the_device_files_that_it_needs_and_to_no_others(clip):
    with DecoderProcess("misbehaving_decoders:WithDevice") as slot:
        slot.wait_until_ready()
        if "file writes" in still_allowed(slot.refused):
            pytest.skip(f"this kernel refuses {slot.refused or 'nothing'}")
        assert slot.probe(clip).codec == "/dev/null"


class Color(Enum):
    RED = "red"


@dataclass(frozen=True)
class Part:
    values: NDArray[np.float32]
    holes: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Whole:
    track: int | str
    part: Part | None
    color: Color
    path: Path
    kind: Literal["a", "b"]
    facts: dict[str, int]
    indices: NDArray[np.int64]
    is_last: bool


WHOLE = Whole(
    "best",
    Part(np.ones((2, 3), np.float32), ((0.5, 1.0),)),
    Color.RED,
    Path("a\udcff"),
    "b",
    {"x": 1},
    np.arange(3),
    True,
)


def test_typed_data_is_restored_unchanged():
    arrays: list[NDArray] = []
    data = to_data(WHOLE, arrays)
    back = from_data(Whole, data, b"".join(array.tobytes() for array in arrays))
    assert back.part is not None
    assert back.part.values.tolist() == [[1.0] * 3] * 2
    assert back.indices.tolist() == [0, 1, 2]
    assert replace(back, part=None, indices=None) == replace(WHOLE, part=None, indices=None)
    assert back.part.holes == ((0.5, 1.0),)


@pytest.mark.parametrize(
    "change",
    [
        {"track": 1.5},
        {"color": "green"},
        {"path": 7},
        {"kind": "c"},
        {"facts": {"x": "y"}},
        {"facts": []},
        {"is_last": 1},
        {"indices": [4]},
        {"indices": [-1]},
        {"indices": "3"},
        {"part": []},
        {"part": {"values": [2, 3], "holes": [[0.5]]}},
        {"part": {"values": [2, 3], "holes": [[0.5, float("inf")]]}},
        {"part": {"values": [1] * 9, "holes": []}},
        {"more": 1},
    ],
)
def test_typed_data_of_another_type_is_refused(change):
    arrays: list[NDArray] = []
    data = to_data(WHOLE, arrays)
    with pytest.raises(MalformedDataError):
        from_data(Whole, data | change, b"".join(array.tobytes() for array in arrays))
