"""Exports in forks of one process that has imported all modules; see `workloads`.

    {"store": PATH, "out": PATH, "format": NAME, "streams": [NAME, …] | null, "moment": NUMBER}

The export is killed after ``moment`` files, or when it reads the ``-moment``-th array. Answers ``{"killed": bool}``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pandas as pd  # noqa: F401 as in store_workload

from arabesque.pipeline.interop.exporting import export
from arabesque.pipeline.store.reader import FeatureStore


def run(order: dict[str, Any]) -> None:
    moment, reads, read = order["moment"], [0], FeatureStore.read

    def read_some(store: FeatureStore, *name: Any) -> Any:
        reads[0] += 1
        if reads[0] == -moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(store, *name)

    def kill(done: int, total: int) -> None:
        if done == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    FeatureStore.read = read_some  # pyright: ignore[reportAttributeAccessIssue]
    options = {} if order["streams"] is None else {"streams": order["streams"]}
    export(FeatureStore(order["store"]), Path(order["out"]), order["format"], on_file=kill, **options)


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"killed": status == -signal.SIGKILL}), flush=True)


if __name__ == "__main__":
    main()
