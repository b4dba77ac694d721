"""Measure the efficiency of a run's queue in simulated time, and the processor time of the queue.

    python benchmarks/scheduling.py --json scheduling.json --chart scheduling.png

The queue is the real one (`pipeline/workers/queue.py`); videos have random costs in simulated seconds. A worker that
fails is restarted a minute later, and its video is processed again from the beginning. Efficiency: the seconds of all
videos ÷ the seconds of all workers until the last video has finished.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import numpy as np
from charts import BLUE, GREEN, ORANGE, SKY, SMALL, VERMILION, lines, picture
from matplotlib.axes import Axes
from measured import Found, markdown, measured_or_read, parser_for

from arabesque.pipeline.planning.partition import Partition
from arabesque.pipeline.workers.queue import VideoQueue

MEDIAN_S, SPREAD = 60.0, 0.5
"""Cost of a video: log-normal. The longest of a million takes ten times the median."""
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
    """Videos that a worker was processing when it died."""
    scheduling_us: float
    """Processor time of the whole simulation per video, which is more than that of the queue"""


class Crew:
    """Workers in simulated time. Events are (time, number, kind, incarnation of the worker)."""

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
        """Return the time at which the last video has finished."""
        now_s = 0.0
        for worker in self._lives:
            self._enter(worker, now_s)
        while len(self._queue):
            now_s, _, what, worker, life = heapq.heappop(self._events)
            if life != self._lives[worker]:
                continue  # event of the worker before its restart
            if what == "done":
                name = self._now[worker]
                assert name is not None
                self._queue.complete(worker, name)
                self._begin(worker, now_s)
            elif what == "lost":
                self.losses += 1
                self.redone += len(self._queue.assigned_to(worker))
                self._lives[worker] += 1
                self._idle.discard(worker)
                self._at(now_s + RESTART_S, "back", worker)
            else:
                self._queue.worker_died(worker)
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
    """Return the time of the longest partition (``--partition i/n``), without failures."""
    parts = [Partition(number, workers) for number in range(1, workers + 1)]
    sums = dict.fromkeys(parts, 0.0)
    for number, cost in enumerate(costs):
        sums[next(part for part in parts if part.holds(f"Ball_{number:07d}"))] += cost
    return max(sums.values())


def queue_us(videos: int) -> float:
    """Return the processor time of the queue per video: a pull, a heartbeat and the completion, with 256 workers."""
    queue = VideoQueue((str(number), cost) for number, cost in enumerate(drawn_costs(videos)))
    began = time.process_time()
    for number in range(videos):
        worker = str(number % 256)
        name = queue.pull(worker, float(number))
        queue.renew_lease(worker, float(number))
        assert name is not None
        queue.complete(worker, name)
        queue.expired_workers(float(number))
    return 1e6 * (time.process_time() - began) / videos


def draw(found: Found, path: Path) -> None:
    runs, costs = found["runs"], found["queue_us"]
    title = "A queue keeps 256 workers busy, and costs microseconds a video"
    with picture(path, title, found, 3.8, panels=2) as (left, right):
        draw_efficiency(left, runs)
        points = [(float(videos), cost) for videos, cost in costs.items()]
        lines(right, {"": points}, "videos in the queue", "its processor time, µs a video", colors=[BLUE])
        for videos, cost in points:
            right.annotate(
                f"{cost:.1f}", (videos, cost), (0, 7), textcoords="offset points", ha="center", fontsize=SMALL
            )
        right.set(xscale="log", ylim=(0, 1.25 * max(costs.values())))
        right.set_xticks([videos for videos, _ in points], [f"{videos:,.0f}" for videos, _ in points])
        right.minorticks_off()


def draw_efficiency(axes: Axes, runs: Sequence[Found]) -> None:
    series = {
        f"{videos:,}{'' if order == 'longest first' else f', {order}'}": [
            (run["workers"], 100 * run["efficiency"])
            for run in runs
            if (run["order"], run["videos"]) == (order, videos)
        ]
        for order, videos in dict.fromkeys((run["order"], run["videos"]) for run in runs)
    }
    lines(axes, series, "workers", "efficiency, %", colors=(BLUE, ORANGE, VERMILION, SKY, GREEN), at_ends=False)
    axes.set_xscale("log", base=2)
    axes.set_xticks(WORKERS, [str(number) for number in WORKERS])
    axes.set_ylim(0, 105)
    axes.legend(title="videos, longest first if not said", title_fontsize=SMALL, fontsize=SMALL, frameon=False)


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--videos", type=int, default=1_000_000, help="number of videos of the largest run")
    options = parser.parse_args(given)
    found = measured_or_read(options, lambda: measure(options.videos))
    print(*table(found), sep="\n")
    told = (f"{int(videos):,}: {cost:.1f}" for videos, cost in found["queue_us"].items())
    print("the queue itself, µs a video:", ", ".join(told))
    if options.chart is not None:
        draw(found, options.chart)


def table(found: Found) -> list[str]:
    kinds = list(dict.fromkeys((run["videos"], run["order"]) for run in found["runs"]))
    efficiency = {(run["videos"], run["order"], run["workers"]): run["efficiency"] for run in found["runs"]}
    rows = [
        [str(workers), *(f"{100 * efficiency[*kind, workers]:.1f} %" for kind in kinds)]
        for workers in WORKERS
        if all((*kind, workers) in efficiency for kind in kinds)
    ]
    return markdown(["workers", *(f"{videos:,} videos, {order}" for videos, order in kinds)], rows)


def measure(most: int) -> Found:
    plans = [("longest first", 1_000), ("any order", 1_000), ("parts", 1_000), ("longest first", 10_000)]
    runs = [
        asdict(simulate(order, videos, workers))
        for order, videos in [*plans, ("longest first", most)]
        for workers in (WORKERS if videos < most else WORKERS[::2])
    ]
    costs = {str(videos): queue_us(videos) for videos in sorted({1_000, 10_000, 100_000, most})}
    return {"runs": runs, "queue_us": costs}


if __name__ == "__main__":
    main()
