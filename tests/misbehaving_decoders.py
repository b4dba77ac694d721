"""Decoders that simulate the effects of hostile files in a decoder process; the name of the file selects the effect."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import resource
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arabesque.pipeline.decoding.audio_reader import AudioChunk
from arabesque.pipeline.decoding.chunks import Span
from arabesque.pipeline.decoding.decoders import Picture
from arabesque.pipeline.decoding.messages import Alive, Failed, Filled, Probed, Ready
from arabesque.pipeline.decoding.planes import ColorSpace
from arabesque.pipeline.decoding.pyav_backend import PyAvDecoder
from arabesque.pipeline.records import AudioTrack, Deinterlace, Hole, VideoMetadata
from arabesque.pipeline.system.typed_data import MessagePipe


def pictures(items: Iterable[tuple[int, Picture] | Hole]) -> Iterator[tuple[int, Picture]]:
    """Yield the pictures of a video without holes."""
    for item in items:
        assert not isinstance(item, Hole), item.reason
        yield item


class Misbehaving(PyAvDecoder):
    """Misbehaves at frame 5 of files with such names, and while it probes those named ``probe-…``."""

    def probe(self, path: Path, thorough: bool = False, audio_track: int | str = "best") -> VideoMetadata:
        _misbehave(path.stem.removeprefix("probe-") if path.stem.startswith("probe-") else "")
        return super().probe(path, thorough, audio_track)

    def frames(
        self,
        path: Path,
        metadata: VideoMetadata,
        wanted: NDArray[np.int64],
        deinterlace: Deinterlace = "none",
        spans: Sequence[Span] = (),
    ) -> Iterator[tuple[int, Picture]]:
        for index, picture in pictures(super().frames(path, metadata, wanted)):
            if index == 5:
                _misbehave(path.stem)
            yield index, picture


class Slow(PyAvDecoder):
    """Takes long for every frame, and sends heartbeats."""

    def frames(
        self,
        path: Path,
        metadata: VideoMetadata,
        wanted: NDArray[np.int64],
        deinterlace: Deinterlace = "none",
        spans: Sequence[Span] = (),
    ) -> Iterator[tuple[int, Picture]]:
        for index, picture in pictures(super().frames(path, metadata, wanted)):
            time.sleep(0.1)
            self._alive()
            yield index, picture


class Confused(PyAvDecoder):
    """Delivers other frames than the requested ones."""

    def frames(
        self,
        path: Path,
        metadata: VideoMetadata,
        wanted: NDArray[np.int64],
        deinterlace: Deinterlace = "none",
        spans: Sequence[Span] = (),
    ) -> Iterator[tuple[int, Picture]]:
        for index, picture in pictures(super().frames(path, metadata, wanted)):
            yield (index + 1 if index == 3 else index), picture


class Changing(PyAvDecoder):
    """Changes the pixel format of its pictures from frame 6 to frame 8, as may happen in a stream."""

    def frames(
        self,
        path: Path,
        metadata: VideoMetadata,
        wanted: NDArray[np.int64],
        deinterlace: Deinterlace = "none",
        spans: Sequence[Span] = (),
    ) -> Iterator[tuple[int, Picture]]:
        rgb = pictures(PyAvDecoder(self._alive).frames(path, metadata, wanted))
        for (index, planes), (_, picture) in zip(pictures(super().frames(path, metadata, wanted)), rgb, strict=True):
            yield index, picture if 6 <= index <= 8 else planes


class Importing(PyAvDecoder):
    """Reports in the codec field which large packages its process has imported."""

    def probe(self, path: Path, thorough: bool = False, audio_track: int | str = "best") -> VideoMetadata:
        heavy = {"torch", "torchvision", "pandas", "pyarrow", "pydantic", "typer", "cv2", "decord"}
        found = super().probe(path, thorough, audio_track)
        return VideoMetadata(**{**vars(found), "codec": ",".join(sorted(heavy & set(sys.modules)))})


class Hostile(PyAvDecoder):
    """Taken over by files named ``attack-NAME``: sends the message of that name in `ATTACKS` or `PROBE_ATTACKS`."""

    def probe(self, path: Path, thorough: bool = False, audio_track: int | str = "best") -> VideoMetadata:
        metadata = super().probe(path, thorough, audio_track)
        if (attack := PROBE_ATTACKS.get(_attack(path))) is not None:
            _send(Probed(attack(metadata)))
        return metadata

    def frames(
        self,
        path: Path,
        metadata: VideoMetadata,
        wanted: NDArray[np.int64],
        deinterlace: Deinterlace = "none",
        spans: Sequence[Span] = (),
    ) -> Iterator[tuple[int, Picture]]:
        attack = ATTACKS.get(_attack(path))
        for index, picture in pictures(super().frames(path, metadata, wanted)):
            if index == 5 and attack is not None:
                _send(attack)
            yield index, picture


def _attack(path: Path) -> str:
    return path.stem.removeprefix("attack-") if path.stem.startswith("attack-") else ""


class _Payload:
    """Creates a file if it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ.get("ARABESQUE_TEST_PICKLE", "/tmp/arabesque-unpickled"),)


def _filled(number: int = 0, indices: list[int] | None = None, **fields: Any) -> Filled:
    frames = np.array([4, 5, 6] if indices is None else indices, np.int64)
    return replace(Filled(number, frames, None, None, 0.1), **fields)


def _text(text: bytes, arrays: bytes = b"") -> bytes:
    return struct.pack("<II", len(text), len(arrays)) + text + arrays


def _sound(*shape: int, rate_hz: int = 44100, value: float = 0.0) -> AudioChunk:
    return AudioChunk(0.0, rate_hz, np.full(shape, value, np.float32), last=False)


_PICKLED = pickle.dumps(_Payload())
ATTACKS: dict[str, Any] = {
    "pickle": struct.pack("!i", len(_PICKLED)) + _PICKLED,
    "noise": os.urandom(4096),
    "half": struct.pack("<II", 1000, 0) + b"{",
    "endless": struct.pack("<II", 100, 2**32 - 1),
    "not-json": _text(b"\xff\xfe"),
    "deep": _text(b"[" * 500_000),
    "long-number": _text(b'["Filled",{"number":' + b"9" * 100_000 + b"}]"),
    "unknown-kind": _text(b'["os.system",{"command":"true"}]'),
    "no-fields": _text(b'["Filled",{}]'),
    "text-as-number": _text(
        b'["Filled",{"number":"0","indices":[0],"color":null,"audio":null,"decode_s":0,"by_card":false,"on_cpu":""}]'
    ),
    "long-array": _text(
        b'["Filled",{"number":0,"indices":[9999],"color":null,"audio":null,"decode_s":0,"by_card":false,"on_cpu":""}]',
        bytes(8),
    ),
    "huge-array": _text(
        b'["Filled",{"number":0,"indices":[0,4611686018427387904],"color":null,"audio":null,"decode_s":0,"by_card":false,"on_cpu":""}]'
    ),
    "more-bytes": _text(b'["Ended",{}]', bytes(8)),
    "not-a-time": _text(
        b'["Filled",{"number":0,"indices":[0],"color":null,"audio":null,"decode_s":NaN,"by_card":false,"on_cpu":""}]'
    ),
    "other-buffer": _filled(number=3),
    "negative-buffer": _filled(number=-1),
    "too-many-frames": _filled(indices=[4, 5, 6, 7, 8]),
    "not-wanted": _filled(indices=[4, 60]),
    "delivered-before": _filled(indices=[3, 4]),
    "descending": _filled(indices=[6, 5]),
    "twice-the-same": _filled(indices=[5, 5]),
    "negative-index": _filled(indices=[-1, 5]),
    "long-reason": Filled(0, np.zeros(1, np.int64), None, None, 0.1, on_cpu="x" * 3000),
    "reason-of-control-characters": Filled(0, np.zeros(1, np.int64), None, None, 0.1, on_cpu="\33[2J"),
    "table-of-indices": Filled(0, np.zeros((2, 1), np.int64), None, None, 0.1),
    "nothing": _filled(indices=[]),
    "planes-that-were-not-asked-for": _filled(color=ColorSpace("bt709", full_range=False)),
    "negative-time": _filled(decode_s=-1.0),
    "more-sound-than-there-is": _filled(audio=_sound(1, 200_000)),
    "sound-without-end": _filled(indices=[], audio=_sound(1, 0)),
    "sound-of-another-rate": _filled(audio=_sound(1, 10, rate_hz=1)),
    "sound-that-is-not-finite": _filled(audio=_sound(1, 10, value=float("inf"))),
    "sound-without-channels": _filled(audio=_sound(0, 10)),
    "out-of-turn": Ready(""),
}
"""Name → message that is sent instead of a chunk with frames 4 to 7 of 50."""
PROBE_ATTACKS: dict[str, Callable[[VideoMetadata], VideoMetadata]] = {
    "no-frames": lambda metadata: replace(metadata, frame_times_s=np.zeros(0)),
    "table-of-times": lambda metadata: replace(metadata, frame_times_s=np.zeros((2, 2))),
    "times-that-fall": lambda metadata: replace(
        metadata, frame_times_s=metadata.frame_times_s[::-1] - metadata.frame_times_s[-1]
    ),
    "not-a-time": lambda metadata: replace(metadata, frame_times_s=np.append(metadata.frame_times_s, np.nan)),
    "whole-numbers": lambda metadata: replace(metadata, frame_times_s=np.arange(50, dtype=np.int32)),
    "ends-in-ages": lambda metadata: replace(metadata, end_s=1e300),
    "ends-before": lambda metadata: replace(metadata, end_s=0.1),
    "negative-size": lambda metadata: replace(metadata, width_px=-128),
    "size-as-text": lambda metadata: replace(metadata, width_px="128"),
    "turned-by-one": lambda metadata: replace(metadata, rotation_deg=1),
    "no-rate": lambda metadata: replace(metadata, fps=0.0),
    "long-name": lambda metadata: replace(metadata, codec="x" * 10_000),
    "name-with-escapes": lambda metadata: replace(metadata, codec="\x1b[2J"),
    "another-clock": lambda metadata: replace(metadata, timed_by="wishes"),
    "sound-without-rate": lambda metadata: replace(metadata, audio=AudioTrack(0, 1, 0.0, None)),
    "losses-that-fall": lambda metadata: replace(metadata, lost_at=(5, 3)),
}


def _send(attack: Any) -> None:
    descriptor = os.dup(int(sys.argv[2]))
    if isinstance(attack, bytes):
        os.write(descriptor, attack)
    else:
        MessagePipe(socket.socket(fileno=descriptor)).send(attack)
    time.sleep(1000)  # until it is killed


class Failing(PyAvDecoder):
    """Fails with the error in the name of the file."""

    def probe(self, path: Path, thorough: bool = False, audio_track: int | str = "best") -> VideoMetadata:
        MessagePipe(socket.socket(fileno=os.dup(int(sys.argv[2])))).send(Failed(path.stem, "as it says"))
        time.sleep(1000)
        raise AssertionError


class Flooding(PyAvDecoder):
    """Sends endless heartbeats from the second frame on."""

    def frames(
        self,
        path: Path,
        metadata: VideoMetadata,
        wanted: NDArray[np.int64],
        deinterlace: Deinterlace = "none",
        spans: Sequence[Span] = (),
    ) -> Iterator[tuple[int, Picture]]:
        pipe = MessagePipe(socket.socket(fileno=os.dup(int(sys.argv[2]))))
        for index, picture in pictures(super().frames(path, metadata, wanted)):
            while index == 5 and _attack(path) == "flood":
                pipe.send(Alive())
            yield index, picture


class Escaping(PyAvDecoder):
    """Tries the actions of a process that was taken over, and reports in the codec field which succeeded."""

    def probe(self, path: Path, thorough: bool = False, audio_track: int | str = "best") -> VideoMetadata:
        beside = path.with_name("written")
        attempts: dict[str, Callable[[], object]] = {
            "tcp": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
            "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            "unix": lambda: socket.socket(socket.AF_UNIX),
            "create": lambda: beside.write_bytes(b"x"),
            "write": lambda: path.open("r+b"),
            "append": lambda: path.open("ab"),
            "truncate": lambda: os.truncate(path, 1),
            "remove": path.unlink,
            "rename": lambda: path.rename(beside),
            "link": lambda: beside.hardlink_to(path),
            "folder": lambda: beside.mkdir(),
            "mode": lambda: path.chmod(0o777),
            "times": lambda: os.utime(path, (0, 0)),
            "kill": lambda: os.kill(os.getppid(), 0),
            "limits": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CORE),
            "memory": lambda: os.open(f"/proc/{os.getppid()}/mem", os.O_RDWR),
            "program": lambda: os.execv("/bin/true", ["true"]),
        }
        succeeded: list[str] = []
        for name, attempt in attempts.items():
            try:
                attempt()
                succeeded.append(name)
            except PermissionError:
                pass
        return replace(super().probe(path, thorough, audio_track), codec=",".join(succeeded))


class WithDevice(PyAvDecoder):
    """Reports in the codec field which device files and files it can open for writing."""

    on_cpu = ""
    device_files = ("/dev/null",)

    def probe(self, path: Path, thorough: bool = False, audio_track: int | str = "best") -> VideoMetadata:
        opened: list[str] = []
        for each in ("/dev/null", "/dev/zero", str(path)):
            with contextlib.suppress(PermissionError):
                os.close(os.open(each, os.O_RDWR))
                opened.append(each)
        return replace(super().probe(path, thorough, audio_track), codec=",".join(opened))


def _misbehave(how: str) -> None:
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "abort":
        print("terminate called: codec tables are corrupt", file=sys.stderr, flush=True)
        os.abort()
    elif how == "exit":
        os._exit(3)
    elif how == "hang":
        time.sleep(1000)
    elif how == "grow":
        hoard = []
        while True:
            hoard.append(np.empty(16 << 20, np.uint8))  # untouched: memory is allowed by address, and this is quick
    elif how == "raise":
        raise IndexError("tuple index out of range")
