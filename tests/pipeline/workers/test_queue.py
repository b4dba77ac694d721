"""The queue assigns each video once, longest first, and again only if its worker died."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from arabesque.pipeline.workers.queue import MAX_DEATHS_PER_VIDEO, VideoQueue

LENGTHS = {"short": 1.0, "long": 30.0, "middling": 7.0}


def pull_all(queue: VideoQueue, worker: str) -> list[str]:
    return list(iter(lambda: queue.pull(worker, 0.0), None))


def test_longest_videos_come_first_and_equal_ones_keep_their_order():
    assert pull_all(VideoQueue(LENGTHS.items()), "w") == ["long", "middling", "short"]
    assert pull_all(VideoQueue((name, 1.0) for name in "bca"), "w") == ["b", "c", "a"]


def test_only_the_videos_of_a_dead_worker_are_assigned_again():
    queue = VideoQueue(LENGTHS.items())
    assert [queue.pull("a", 0), queue.pull("b", 0), queue.pull("a", 0)] == ["long", "middling", "short"]
    queue.complete("a", "short")
    assert queue.worker_died("a") == []
    assert pull_all(queue, "b") == ["long"]
    assert len(queue) == 2


def test_a_worker_considered_dead_may_still_complete_its_video():
    queue = VideoQueue(LENGTHS.items())
    assert queue.pull("a", 0) == "long"
    queue.worker_died("a")
    queue.complete("a", "long")
    assert pull_all(queue, "b") == ["middling", "short"]


def test_a_video_assigned_whenever_a_worker_dies_is_poisoned_and_the_others_complete():
    queue = VideoQueue([("poison", 9.0), ("a", 5.0), ("b", 4.0), ("c", 3.0)])
    done, poisoned, num_deaths = set[str](), list[str](), 0
    while len(queue):
        num_deaths += 1
        assigned = [name for name in (queue.pull("w", 0), queue.pull("w", 0)) if name]
        if "poison" in assigned:
            poisoned += queue.worker_died("w")
            continue
        for name in assigned:
            queue.complete("w", name)
            done.add(name)
    assert poisoned == ["poison"]
    assert done == {"a", "b", "c"}
    assert num_deaths <= MAX_DEATHS_PER_VIDEO + 3


def test_heartbeats_renew_a_lease():
    queue = VideoQueue(LENGTHS.items(), lease_s=10)
    queue.pull("silent", 0)
    queue.pull("alive", 0)
    queue.renew_lease("alive", 8)
    assert queue.expired_workers(9.9) == []
    assert queue.expired_workers(10) == ["silent"]
    assert queue.expired_workers(17.9) == []
    assert queue.expired_workers(18) == ["alive"]
    assert queue.expired_workers(100) == [], "each is returned once"
    queue.renew_lease("silent", 100)
    assert queue.expired_workers(110) == ["silent"]


def test_the_lease_of_a_restarted_worker_expires_as_before():
    queue = VideoQueue(LENGTHS.items(), lease_s=10)
    for start in range(0, 40, 5):
        queue.pull("w", start)
        queue.worker_died("w")
    queue.pull("w", 40)
    assert queue.expired_workers(49) == []
    assert queue.expired_workers(50) == ["w"]


@pytest.mark.parametrize("num_videos", [1_000, 30_000])
def test_a_pull_compares_few_videos(num_videos):
    """Counts comparisons instead of time: with thirty times the videos a pull needs hardly more."""
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
    """Any sequence of calls leaves each video waiting, assigned to one worker, complete or poisoned."""

    @initialize(lengths=st.lists(st.integers(0, 5), max_size=12))
    def begin(self, lengths):
        self.now_s = 0.0
        self.queue = VideoQueue(((str(number), length) for number, length in enumerate(lengths)), lease_s=10)
        self.lengths = {str(number): length for number, length in enumerate(lengths)}
        self.assigned: dict[str, set[str]] = {worker: set() for worker in "abc"}
        self.deaths = Counter[str]()
        self.finished = set[str]()

    def all_assigned(self):
        return set().union(*self.assigned.values())

    @rule(worker=WORKERS)
    def pull(self, worker):
        name = self.queue.pull(worker, self.now_s)
        waiting = set(self.lengths) - self.finished - self.all_assigned()
        fresh = {other for other in waiting if not self.deaths[other]}
        if name is None:
            assert not fresh
            assert not waiting or any(self.deaths[held] for held in self.assigned[worker])
            return
        assert name in waiting
        if name in fresh:
            assert self.lengths[name] == max(self.lengths[other] for other in fresh)
        self.assigned[worker].add(name)
        assert sum(self.deaths[held] > 0 for held in self.assigned[worker]) <= 1

    @rule(worker=WORKERS, which=st.integers(0, 11))
    def complete(self, worker, which):
        if self.assigned[worker]:
            name = sorted(self.assigned[worker])[which % len(self.assigned[worker])]
            self.queue.complete(worker, name)
            self.assigned[worker].remove(name)
            self.finished.add(name)

    @rule(worker=WORKERS)
    def die(self, worker):
        poisoned = self.queue.worker_died(worker)
        for name in self.assigned[worker]:
            self.deaths[name] += 1
        assert set(poisoned) == {name for name in self.assigned[worker] if self.deaths[name] == MAX_DEATHS_PER_VIDEO}
        self.finished |= set(poisoned)
        self.assigned[worker] = set()

    @rule(pause_s=st.integers(0, 15))
    def wait(self, pause_s):
        self.now_s += pause_s
        for worker in self.queue.expired_workers(self.now_s):
            self.die(worker)

    @invariant()
    def no_video_is_missing(self):
        if hasattr(self, "queue"):
            assert len(self.queue) == len(set(self.lengths) - self.finished)
            assert all(set(self.queue.assigned_to(worker)) == names for worker, names in self.assigned.items())


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
