"""How well the queue of a run keeps its workers busy, in simulated time, and what it costs itself, in measured time.

    python benchmarks/scheduling.py --chart benchmarks/scheduling.png

The queue is the real one (`pipeline/executors/video_queue.py`); videos of drawn costs take simulated seconds. A worker
that is lost is back a minute later and its video is done again from the beginning. Efficiency: the seconds that all
videos take, over those of all workers until the last one has finished.
"""

from __future__ import annotations

import argparse
import heapq
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import numpy as np

from arabesque.pipeline.executors.video_queue import VideoQueue
from arabesque.pipeline.shard import Shard

MEDIAN_S, SPREAD = 60.0, 0.5
"""What a video costs a worker: log-normal. The longest of a million takes ten times the median."""
RESTART_S = 60.0
HOURS_BETWEEN_LOSSES = 24.0
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Result:
    """One simulated run."""

    order: str
    videos: int
    workers: int
    efficiency: float
    losses: int
    redone: int
    """Videos that were in hand when a worker was lost."""
    scheduling_us: float
    """Processor time of the whole simulation, a video: more than the queue's own."""


class Crew:
    """Workers in simulated time; events are (when, number, what, worker's life)."""

    def __init__(
        self, costs: Sequence[float], queue: VideoQueue, workers: int, lose_after_s: Callable[[], float]
    ) -> None:
        self._costs = costs
        self._queue = queue
        self._lose_after_s = lose_after_s
        self._numbers = count()
        self._events: list[tuple[float, int, str, str, int]] = []
        self._lives = {f"worker {number}": 0 for number in range(workers)}
        self._now: dict[str, str | None] = dict.fromkeys(self._lives)
        self._idle: set[str] = set()
        self.losses = self.redone = 0

    def run(self) -> float:
        """When the last video has come to its end."""
        now_s = 0.0
        for worker in self._lives:
            self._enter(worker, now_s)
        while len(self._queue):
            now_s, _, what, worker, life = heapq.heappop(self._events)
            if life != self._lives[worker]:
                continue  # of an earlier life of the worker
            if what == "done":
                name = self._now[worker]
                assert name is not None
                self._queue.settle(worker, name)
                self._begin(worker, now_s)
            elif what == "lost":
                self.losses += 1
                self.redone += len(self._queue.in_hand(worker))
                self._lives[worker] += 1
                self._idle.discard(worker)
                self._at(now_s + RESTART_S, "back", worker)
            else:
                self._queue.lose(worker)
                for other in [*self._idle]:
                    self._begin(other, now_s)
                self._enter(worker, now_s)
        return now_s

    def _enter(self, worker: str, now_s: float) -> None:
        self._at(now_s + self._lose_after_s(), "lost", worker)
        self._begin(worker, now_s)

    def _begin(self, worker: str, now_s: float) -> None:
        name = self._now[worker] = self._queue.pull(worker, now_s)
        if name is None:
            self._idle.add(worker)
            return
        self._idle.discard(worker)
        self._at(now_s + self._costs[int(name)], "done", worker)

    def _at(self, when_s: float, what: str, worker: str) -> None:
        heapq.heappush(self._events, (when_s, next(self._numbers), what, worker, self._lives[worker]))


def drawn_costs(videos: int) -> list[float]:
    return np.random.default_rng(videos).lognormal(np.log(MEDIAN_S), SPREAD, videos).tolist()


def simulate(order: str, videos: int, workers: int) -> Result:
    costs = drawn_costs(videos)
    began = time.process_time()
    losses = redone = 0
    if order == "parts":
        end_s = longest_part_s(costs, workers)
    else:
        chance = np.random.default_rng(workers)
        lengths = costs if order == "longest first" else [0.0] * videos
        queue = VideoQueue((str(number), length) for number, length in enumerate(lengths))
        crew = Crew(costs, queue, workers, lambda: float(chance.exponential(3600 * HOURS_BETWEEN_LOSSES)))
        end_s = crew.run()
        losses, redone = crew.losses, crew.redone
    efficiency = sum(costs) / (workers * end_s)
    return Result(order, videos, workers, efficiency, losses, redone, 1e6 * (time.process_time() - began) / videos)


def longest_part_s(costs: Sequence[float], workers: int) -> float:
    """``--shard i/n``: as many runs that know nothing of each other, none of them ever lost."""
    parts = [Shard(number, workers) for number in range(1, workers + 1)]
    sums = dict.fromkeys(parts, 0.0)
    for number, cost in enumerate(costs):
        sums[next(part for part in parts if part.holds(f"Ball_{number:07d}"))] += cost
    return max(sums.values())


def queue_us(videos: int) -> float:
    """Processor time of the queue for a video: a pull, a sign of life and the end, with 256 workers."""
    queue = VideoQueue((str(number), cost) for number, cost in enumerate(drawn_costs(videos)))
    began = time.process_time()
    for number in range(videos):
        worker = str(number % 256)
        name = queue.pull(worker, float(number))
        queue.extend(worker, float(number))
        assert name is not None
        queue.settle(worker, name)
        queue.overdue(float(number))
    return 1e6 * (time.process_time() - began) / videos


def draw(results: Sequence[Result], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.8), layout="constrained")
    for order, videos in dict.fromkeys((each.order, each.videos) for each in results):
        line = [each for each in results if (each.order, each.videos) == (order, videos)]
        style = {"longest first": "-", "any order": "--", "parts": ":"}[order]
        points = [each.workers for each in line], [100 * each.efficiency for each in line]
        axes.plot(*points, style, marker=".", label=f"{videos:,} videos, {order}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(WORKERS, [str(number) for number in WORKERS])
    axes.set(xlabel="workers", ylabel="efficiency, %", ylim=(0, 103))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=1_000_000, help="of the largest run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--chart", type=Path)
    arguments = parser.parse_args()
    plans = [("longest first", 1_000), ("any order", 1_000), ("parts", 1_000), ("longest first", 10_000)]
    results: list[Result] = []
    print(f"{'order':<15}{'videos':>10}{'workers':>9}{'efficiency':>12}{'losses':>8}{'redone':>8}{'µs a video':>12}")
    for order, videos in [*plans, ("longest first", arguments.videos)]:
        for workers in WORKERS if videos < arguments.videos else WORKERS[::2]:
            each = simulate(order, videos, workers)
            results.append(each)
            row = f"{order:<15}{videos:>10,}{workers:>9}{each.efficiency:>11.1%}{each.losses:>9,}{each.redone:>8,}"
            print(f"{row}{each.scheduling_us:>11.1f}", flush=True)
    costs = {videos: queue_us(videos) for videos in (1_000, 10_000, 100_000, arguments.videos)}
    print("the queue itself, µs a video:", ", ".join(f"{videos:,}: {cost:.1f}" for videos, cost in costs.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps({"runs": [asdict(each) for each in results], "queue_us": costs}, indent=1))
    if arguments.chart:
        draw(results, arguments.chart)


if __name__ == "__main__":
    main()
