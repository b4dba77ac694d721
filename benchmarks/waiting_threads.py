"""Measure how long a thread that waits 0.2 ms at a time takes while another thread computes in Python.

python benchmarks/waiting_threads.py

A wait for a GPU releases the interpreter's lock and acquires it again. The busy thread keeps it for
``sys.getswitchinterval()``: 5 ms by default. Prints the median time of a wait for several intervals, and the throughput
of the busy thread, both as ratios to Python's default.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time

WAIT_S = 0.0002
WAITS = 200
INTERVALS_S = (0.005, 0.002, 0.001, 0.0005, 0.0002)


def measured(interval_s: float) -> tuple[float, float]:
    """Return the median seconds of a wait, and the rounds of the busy thread per second of its own CPU time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(interval_s)
    stop, rounds, busy_s = threading.Event(), [0], [1.0]

    def compute() -> None:
        began = time.thread_time()
        while not stop.is_set():
            sum(range(200))
            rounds[0] += 1
        busy_s[0] = time.thread_time() - began

    thread = threading.Thread(target=compute)
    thread.start()
    waits: list[float] = []
    for _ in range(WAITS):
        began = time.perf_counter()
        time.sleep(WAIT_S)
        waits.append(time.perf_counter() - began)
    stop.set()
    thread.join()
    sys.setswitchinterval(before)
    return statistics.median(waits), rounds[0] / busy_s[0]


def main() -> None:
    found = {interval_s: measured(interval_s) for interval_s in INTERVALS_S}
    usual = found[INTERVALS_S[0]]
    for interval_s, (wait_s, speed) in found.items():
        print(
            f"{1e3 * interval_s:.1f} ms: a wait of {1e3 * WAIT_S:.1f} ms takes {1e3 * wait_s:.2f} ms "
            f"({wait_s / usual[0]:.2f}), the busy thread does {speed / usual[1]:.3f} of its work per CPU second"
        )


if __name__ == "__main__":
    main()
