"""What the office makes of its workers' reports, deaths and silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from arabesque.manifests.errors import StoreError
from arabesque.pipeline.executors.dispatching import DEATHS_ALLOWED, Dispatcher, Failure, Report, unless_failed
from arabesque.pipeline.executors.video_queue import LOSSES_ALLOWED
from arabesque.pipeline.records import Outcome, VideoFile
from arabesque.pipeline.work import GivenUp, Notice, VideoSettled, WorkDone


def office(names: str = "ab") -> Dispatcher:
    return Dispatcher([VideoFile(name, Path(f"{name}.mp4")) for name in names], {}, clock=lambda: 0.0)


def pulled(dispatcher: Dispatcher, worker: str) -> str:
    found = dispatcher.pull(worker)
    return found.video_id if isinstance(found, VideoFile) else found


def test_the_run_is_over_when_everything_is_on_disk_and_not_before():
    dispatcher = office("a")
    assert [pulled(dispatcher, "1"), pulled(dispatcher, "2")] == ["a", "later"]
    dispatcher.report("1", Report(told=(VideoSettled("a"),)))
    assert pulled(dispatcher, "2") == "later", "its worker may still be lost before it has written it"
    dispatcher.report("1", Report(on_disk=("a",)))
    assert [pulled(dispatcher, "1"), pulled(dispatcher, "2")] == ["over", "over"]
    assert dispatcher.num_left == 0


def test_a_video_that_is_done_twice_is_told_of_once():
    dispatcher = office("a")
    done = (Outcome("a", "vst", "done"), VideoSettled("a"))
    for worker in ("1", "2"):
        assert pulled(dispatcher, worker) == "a"
        dispatcher.report(worker, Report(told=done, num_segments=3))
        dispatcher.lose(worker, "was killed")
    told = [event for event in dispatcher.news() if not isinstance(event, Notice)]
    assert told == [*done, WorkDone(3, {}, {}), WorkDone(3, {}, {})]
    assert dispatcher.news() == []


def test_a_video_that_workers_die_of_is_given_up_with_the_reason():
    dispatcher = office("a")
    for number in range(LOSSES_ALLOWED):
        worker = str(number)
        assert pulled(dispatcher, worker) == "a"
        assert dispatcher.lose(worker, "was killed (SIGKILL)")
    (end,) = [event for event in dispatcher.news() if isinstance(event, GivenUp)]
    assert end.video_id == "a"
    assert "a.mp4: was in hand each of the 3 times" in end.reason
    assert dispatcher.num_left == 0


def test_a_worker_that_dies_again_and_again_is_not_started_any_more_unless_it_finishes_something():
    dispatcher = office("abc")
    for _ in range(DEATHS_ALLOWED - 1):
        assert dispatcher.enter("1")
        assert dispatcher.lose("1", "was killed")
    pulled(dispatcher, "1")
    dispatcher.report("1", Report(on_disk=("a",)))
    assert [dispatcher.lose("1", "was killed") for _ in range(DEATHS_ALLOWED)] == [True] * (DEATHS_ALLOWED - 1) + [
        False
    ]
    assert not dispatcher.enter("1")


def test_a_worker_that_begins_again_has_lost_what_it_had_in_hand():
    dispatcher = office("ab")
    dispatcher.enter("1")
    assert [pulled(dispatcher, "1"), pulled(dispatcher, "1")] == ["a", "b"]
    dispatcher.enter("1")
    assert pulled(dispatcher, "2") == "a"


def test_workers_are_told_to_stop():
    dispatcher = office()
    assert dispatcher.report("1", Report())
    dispatcher.is_stopping = True
    assert not dispatcher.report("1", Report())
    assert pulled(dispatcher, "1") == "over"


@pytest.mark.parametrize(
    ("failure", "kind", "text"),
    [
        (Failure("StoreError", "the disk is full", "…"), StoreError, "^the disk is full$"),
        (Failure("KeyError", "'x'", "Traceback …"), RuntimeError, "KeyError: 'x'"),
    ],
)
def test_what_a_worker_cannot_go_on_from_ends_the_run(failure, kind, text):
    dispatcher = office()
    dispatcher.report("1", Report(failure=failure))
    with pytest.raises(kind, match=text):
        list(unless_failed(dispatcher.news()))
