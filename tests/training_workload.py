"""Run trainings and downloads of checkpoints in a subprocess that is killed at a chosen change of the disk.

Orders are read from stdin, one JSON object per line. Each order runs in a fork, so that modules are imported once:

    {"do": "train" | "train seed" | "add" | "fetch", "out": PATH, "kill_at": CHANGE | null, …}

The answer is ``{"killed": bool, "changes": int | null, "result": … | null}``. Changes are counted by Python's audit
events in the folder ``out``: opening a file for writing, renaming, removing, linking and creating folders.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd  # noqa: F401 pyarrow imports it at its first array
import torch
from small_trainings import make_run

from arabesque.extractors.checkpoint_fit import require_fit  # noqa: F401 imported once, not in every fork
from arabesque.manifests.weights import WeightsEntry, WeightsManifest
from arabesque.models import trainer
from arabesque.models.training import train_and_evaluate
from arabesque.pipeline.weights.cache import WeightsCache

EVENTS = ("open", "os.rename", "os.remove", "os.link", "os.mkdir", "shutil.copyfile")


class Tripwire:
    """Kill this process before change number ``at`` in a folder, counted from 0."""

    def __init__(self, folder: Path, at: int | None) -> None:
        self.changes = 0
        self._folder, self._at = f"{folder}{os.sep}", at
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or not str(arguments[0]).startswith(self._folder):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        if self.changes == self._at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.changes += 1


def cache_in(folder: Path, entry: dict[str, Any]) -> WeightsCache:
    manifest = WeightsManifest(weights={"net": WeightsEntry.model_validate(entry)})
    return WeightsCache(folder, manifest, fits=lambda *_: None)


def carry_out(order: dict[str, Any]) -> Any:
    out = Path(order["out"])
    if order["do"] == "train":
        report = train_and_evaluate(order["store"], order["labels"], out, epochs=1, seed=order["seed"])
        return [asdict(prediction) for prediction in report.predictions]
    if order["do"] == "train seed":
        trainer.SAVE_EVERY_S = 0.0
        return asdict(make_run(out, epochs=3, seed=order["seed"]).result())
    cache = cache_in(out, order["entry"])
    if order["do"] == "add":
        return cache.add("net", Path(order["file"]), trust=order["trust"]).digests.sha256
    return cache.fetch("net", force=True).digests.sha256


def run_in_fork(order: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        tripwire = Tripwire(Path(order["out"]), order.get("kill_at"))
        result = carry_out(order)
        with open(writing, "w") as pipe:
            json.dump({"changes": tripwire.changes, "result": result}, pipe)
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        answer = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"order {order} ended with status {status}")
    return {"killed": status != 0, **(json.loads(answer) if answer else {"changes": None, "result": None})}


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["no_proxy"] = "127.0.0.1"
    is_warm = False
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"].startswith("train") and not is_warm:
            with TemporaryDirectory() as folder:  # the first optimizer imports modules for seconds
                make_run(Path(folder), epochs=1).result()
            is_warm = True
        print(json.dumps(run_in_fork(order)), flush=True)
