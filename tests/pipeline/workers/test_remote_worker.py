"""A worker pulls a video only when a decoder is free for it."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

from arabesque.pipeline.records import VideoFile
from arabesque.pipeline.workers.coordinator import Assignment
from arabesque.pipeline.workers.remote_worker import PulledVideos

FILES = [VideoFile(name, Path(f"{name}.mp4")) for name in "abcd"]


class FakeCoordinator:
    """Returns the given answers, then ``"later"``."""

    def __init__(self, *answers: Assignment) -> None:
        self._answers = list(answers)
        self.num_pulls = 0

    def pull(self) -> Assignment:
        self.num_pulls += 1
        return self._answers.pop(0) if self._answers else "later"

    def report(self, report: object) -> bool:
        return True


def test_a_video_is_pulled_when_a_decoder_is_free():
    coordinator = FakeCoordinator(*FILES)
    pulled = PulledVideos(coordinator, num_decoders=2)
    assert pulled.wait()
    source = iter(pulled)
    assert [next(source).video_id, next(source).video_id] == ["a", "b"]
    assert coordinator.num_pulls == 2
    received: queue.Queue[str] = queue.Queue()
    thread = threading.Thread(target=lambda: received.put(next(source).video_id))
    thread.start()
    assert received.empty()
    assert coordinator.num_pulls == 2
    pulled.has_read(FILES[0])
    assert received.get(timeout=10) == "c"
    thread.join()


def test_an_iteration_ends_when_no_video_is_available_and_another_follows():
    coordinator = FakeCoordinator(FILES[0], "later", "later", FILES[1], "over")
    pulled = PulledVideos(coordinator, num_decoders=2)
    assert pulled.wait()
    assert [file.video_id for file in pulled] == ["a"]
    pulled.has_read(FILES[0])
    assert pulled.wait()
    assert next(iter(pulled)).video_id == "b"
    assert not pulled.wait()


def test_closing_ends_an_iteration_that_waits_for_a_decoder():
    pulled = PulledVideos(FakeCoordinator(*FILES), num_decoders=1)
    pulled.wait()
    source = iter(pulled)
    next(source)
    thread = threading.Thread(target=lambda: list(source))
    thread.start()
    pulled.close()
    thread.join(timeout=10)
    assert not thread.is_alive()
