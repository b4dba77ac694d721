"""The queue hands every video out, longest first, and again only where its worker was lost."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from arabesque.pipeline.executors.video_queue import LOSSES_ALLOWED, VideoQueue

LENGTHS = {"short": 1.0, "long": 30.0, "middling": 7.0}


def pull_all(queue: VideoQueue, worker: str) -> list[str]:
    return list(iter(lambda: queue.pull(worker, 0.0), None))


def test_the_longest_come_first_and_equals_in_their_order():
    assert pull_all(VideoQueue(LENGTHS.items()), "w") == ["long", "middling", "short"]
    assert pull_all(VideoQueue((name, 1.0) for name in "bca"), "w") == ["b", "c", "a"]


def test_what_a_lost_worker_had_in_hand_comes_again_and_nothing_else():
    queue = VideoQueue(LENGTHS.items())
    assert [queue.pull("a", 0), queue.pull("b", 0), queue.pull("a", 0)] == ["long", "middling", "short"]
    queue.settle("a", "short")
    assert queue.lose("a") == []
    assert pull_all(queue, "b") == ["long"]
    assert len(queue) == 2


def test_a_worker_that_was_taken_for_lost_may_still_finish_its_video():
    queue = VideoQueue(LENGTHS.items())
    assert queue.pull("a", 0) == "long"
    queue.lose("a")
    queue.settle("a", "long")
    assert pull_all(queue, "b") == ["middling", "short"]


def test_a_video_that_is_there_whenever_a_worker_is_lost_is_given_up_and_its_companions_get_through():
    queue = VideoQueue([("poison", 9.0), ("a", 5.0), ("b", 4.0), ("c", 3.0)])
    done, given_up, losses = set[str](), list[str](), 0
    while len(queue):
        losses += 1
        hand = [name for name in (queue.pull("w", 0), queue.pull("w", 0)) if name]
        if "poison" in hand:
            given_up += queue.lose("w")
            continue
        for name in hand:
            queue.settle("w", name)
            done.add(name)
    assert given_up == ["poison"]
    assert done == {"a", "b", "c"}
    assert losses <= LOSSES_ALLOWED + 3


def test_a_lease_lasts_as_long_as_there_are_signs_of_life():
    queue = VideoQueue(LENGTHS.items(), lease_s=10)
    queue.pull("silent", 0)
    queue.pull("alive", 0)
    queue.extend("alive", 8)
    assert queue.overdue(9.9) == []
    assert queue.overdue(10) == ["silent"]
    assert queue.overdue(17.9) == []
    assert queue.overdue(18) == ["alive"]
    assert queue.overdue(100) == [], "each is named once"
    queue.extend("silent", 100)
    assert queue.overdue(110) == ["silent"]


def test_a_worker_that_comes_again_is_looked_after_as_before():
    queue = VideoQueue(LENGTHS.items(), lease_s=10)
    for start in range(0, 40, 5):
        queue.pull("w", start)
        queue.lose("w")
    queue.pull("w", 40)
    assert queue.overdue(49) == []
    assert queue.overdue(50) == ["w"]


@pytest.mark.parametrize("num_videos", [1_000, 30_000])
def test_a_pull_compares_few_videos(num_videos):
    """Counted, not timed: thirty times the videos cost hardly more a pull."""
    compared = Counter[str]()

    class Length(float):
        def __lt__(self, other: float) -> bool:
            compared["times"] += 1
            return float(self) < float(other)

        def __neg__(self) -> Length:
            return Length(-float(self))

    queue = VideoQueue((str(number), Length(number * 7919 % num_videos)) for number in range(num_videos))
    compared.clear()
    for _ in range(100):
        queue.pull("w", 0.0)
    assert 0 < compared["times"] < 100 * 2 * num_videos.bit_length()


WORKERS = st.sampled_from("abc")


class AnyHistory(RuleBasedStateMachine):
    """Whatever workers do, every video is at one place, and ends."""

    @initialize(lengths=st.lists(st.integers(0, 5), max_size=12))
    def begin(self, lengths):
        self.now_s = 0.0
        self.queue = VideoQueue(((str(number), length) for number, length in enumerate(lengths)), lease_s=10)
        self.lengths = {str(number): length for number, length in enumerate(lengths)}
        self.hands: dict[str, set[str]] = {worker: set() for worker in "abc"}
        self.losses = Counter[str]()
        self.ended = set[str]()

    def out(self):
        return set().union(*self.hands.values())

    @rule(worker=WORKERS)
    def pull(self, worker):
        name = self.queue.pull(worker, self.now_s)
        waiting = set(self.lengths) - self.ended - self.out()
        fresh = {other for other in waiting if not self.losses[other]}
        if name is None:
            assert not fresh
            assert not waiting or any(self.losses[held] for held in self.hands[worker])
            return
        assert name in waiting
        if name in fresh:
            assert self.lengths[name] == max(self.lengths[other] for other in fresh)
        self.hands[worker].add(name)
        assert sum(self.losses[held] > 0 for held in self.hands[worker]) <= 1

    @rule(worker=WORKERS, which=st.integers(0, 11))
    def settle(self, worker, which):
        if self.hands[worker]:
            name = sorted(self.hands[worker])[which % len(self.hands[worker])]
            self.queue.settle(worker, name)
            self.hands[worker].remove(name)
            self.ended.add(name)

    @rule(worker=WORKERS)
    def lose(self, worker):
        given_up = self.queue.lose(worker)
        for name in self.hands[worker]:
            self.losses[name] += 1
        assert set(given_up) == {name for name in self.hands[worker] if self.losses[name] == LOSSES_ALLOWED}
        self.ended |= set(given_up)
        self.hands[worker] = set()

    @rule(pause_s=st.integers(0, 15))
    def wait(self, pause_s):
        self.now_s += pause_s
        for worker in self.queue.overdue(self.now_s):
            self.lose(worker)

    @invariant()
    def nothing_is_missing(self):
        if hasattr(self, "queue"):
            assert len(self.queue) == len(set(self.lengths) - self.ended)
            assert all(set(self.queue.in_hand(worker)) == hand for worker, hand in self.hands.items())


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
