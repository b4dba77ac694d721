"""A worker has no more videos in hand than it has decoders, and lets the office know that it lives."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

from arabesque.pipeline.executors.dispatching import Pulled
from arabesque.pipeline.executors.working import PulledVideos
from arabesque.pipeline.records import VideoFile

FILES = [VideoFile(name, Path(f"{name}.mp4")) for name in "abcd"]


class Office:
    """Hands out what it was given, then says ``"later"``."""

    def __init__(self, *answers: Pulled) -> None:
        self._answers = list(answers)
        self.num_asked = 0

    def pull(self) -> Pulled:
        self.num_asked += 1
        return self._answers.pop(0) if self._answers else "later"

    def report(self, report: object) -> bool:
        return True


def test_a_video_is_asked_for_when_a_decoder_is_free_for_it():
    office = Office(*FILES)
    pulled = PulledVideos(office, num_decoders=2)
    assert pulled.wait()
    source = iter(pulled)
    assert [next(source).video_id, next(source).video_id] == ["a", "b"]
    assert office.num_asked == 2
    came: queue.Queue[str] = queue.Queue()
    thread = threading.Thread(target=lambda: came.put(next(source).video_id))
    thread.start()
    assert came.empty()
    assert office.num_asked == 2
    pulled.has_read("a")
    assert came.get(timeout=10) == "c"
    thread.join()


def test_an_iteration_ends_when_there_is_nothing_for_the_moment_and_another_follows():
    office = Office(FILES[0], "later", "later", FILES[1], "over")
    pulled = PulledVideos(office, num_decoders=2)
    assert pulled.wait()
    assert [file.video_id for file in pulled] == ["a"]
    pulled.has_read("a")
    assert pulled.wait()
    assert next(iter(pulled)).video_id == "b"
    assert not pulled.wait()


def test_an_iteration_that_waits_for_a_decoder_can_be_ended():
    pulled = PulledVideos(Office(*FILES), num_decoders=1)
    pulled.wait()
    source = iter(pulled)
    next(source)
    thread = threading.Thread(target=lambda: list(source))
    thread.start()
    pulled.close()
    thread.join(timeout=10)
    assert not thread.is_alive()
