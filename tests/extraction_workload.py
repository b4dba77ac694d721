"""Runs of `arabesque extract` in forks of one process that has imported all modules; see `workloads`.

    {"videos": PATH or URL, "out": PATH or URL, "runs": NUMBER, "arguments": […], "kill_at": disk call,
     "kill_at_request": PUT or removal of an object store,
     "kill_after_s": SECONDS, "kill_runs": NUMBER, "fail_from": [write, errno], "max_age_s": SECONDS,
     "stop_first": true to suspend the first run when it has claimed a video, and to continue it after the others,
     which start then, have exited}

Answers ``{"runs": [{"status", "calls", "computed", "said"}, …]}``: exit status (−9 if it was killed), number of
disk calls of the store and of computed segments (null if it was killed), and output.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd  # noqa: F401 as in store_workload
from known_extractors import RECIPE, FrameNumbers
from tripwire import TrippedOs, kill_process

from arabesque.cli import main, progress  # noqa: F401 imported once here, not in every fork
from arabesque.pipeline.planning import run_claims as sharing
from arabesque.pipeline.store.concurrency import writer_locks
from arabesque.pipeline.store.files import local
from arabesque.pipeline.store.files.object_storage import ObjectStorage
from arabesque.pipeline.store.writer import StoreWriter


def execute(order: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder, str(number)) for number in range(order.get("runs", 1))]
        if order.get("stop_first"):
            return {"runs": _stop_first(order, places)}
        children = [_start(order, place) for place in places]
        if order.get("kill_after_s") is not None:
            time.sleep(order["kill_after_s"])
            for child in children[: order.get("kill_runs")]:
                os.kill(child, signal.SIGKILL)
        ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        return {"runs": [_report(end, place) for end, place in zip(ends, places, strict=True)]}


def _stop_first(order: dict[str, Any], places: list[Path]) -> list[dict[str, Any]]:
    stopped = _start(order, places[0])
    while not list(Path(order["out"], ".claims").glob("*.json")):
        time.sleep(0.001)
    os.kill(stopped, signal.SIGSTOP)
    others = [_start(order, place) for place in places[1:]]
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in others]
    os.kill(stopped, signal.SIGCONT)
    ends.insert(0, os.waitstatus_to_exitcode(os.waitpid(stopped, 0)[1]))
    return [_report(end, place) for end, place in zip(ends, places, strict=True)]


def _report(status: int, place: Path) -> dict[str, Any]:
    counts = place.with_suffix(".json")
    known = json.loads(counts.read_text()) if counts.exists() else {"calls": None, "computed": None}
    return known | {"status": status, "said": place.read_text(errors="replace")}


def _start(order: dict[str, Any], place: Path) -> int:
    said = os.open(place, os.O_WRONLY | os.O_CREAT)  # before the fork: the child may be killed at any time
    child = os.fork()
    if child == 0:
        os.dup2(said, 1)
        os.dup2(said, 2)
        _run(order, place.with_suffix(".json"))
    os.close(said)
    return child


def _run(order: dict[str, Any], counts: Path) -> NoReturn:
    tripped = _tripped(order)
    for module in (local, writer_locks):
        setattr(module, "os", tripped)  # noqa: B010 to a type checker it is another module
    requests = _counted_requests(order.get("kill_at_request"))
    computed = [0]

    def counted(extractor: FrameNumbers, segment: Any) -> Any:
        computed[0] += 1
        return numbers(extractor, segment)

    numbers, FrameNumbers._numbers = FrameNumbers._numbers, counted
    sharing.POLL_S = 0.05
    StoreWriter.__init__.__kwdefaults__["max_age_s"] = order.get(
        "max_age_s", 0.1
    )  # so that a short run writes several times
    sys.argv = ["arabesque", "extract", order["videos"], "--out", order["out"], "--recipe", order["recipe"]]
    sys.argv += ["--threads", "1", "--decode-workers", "1", *order.get("arguments", [])]
    status: Any = 1
    try:
        main.app()
    except SystemExit as error:
        status = error.code
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    counts.write_text(json.dumps({"calls": tripped.calls, "requests": requests[0], "computed": computed[0]}))
    os._exit(status or 0)


def _counted_requests(kill_at: int | None) -> list[int]:
    """Count requests to object storage, and kill the process before request number ``kill_at``."""
    made = [0]

    def counted(real: Any) -> Any:
        def request(*arguments: Any) -> Any:
            if made[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            made[0] += 1
            return real(*arguments)

        return request

    for name in ("_put", "remove"):
        setattr(ObjectStorage, name, counted(getattr(ObjectStorage, name)))
    return made


def _tripped(order: dict[str, Any]) -> TrippedOs:
    if order.get("fail_from") is not None:
        first, code = order["fail_from"]

        def refuse(name: str, arguments: tuple[Any, ...]) -> None:
            raise OSError(code, os.strerror(code))

        return TrippedOs(first, refuse, only="write", onwards=True)
    return TrippedOs(-1 if order.get("kill_at") is None else order["kill_at"], kill_process)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder, "known.toml")
        recipe.write_text(RECIPE)
        for line in sys.stdin:
            print(json.dumps(execute(json.loads(line) | {"recipe": str(recipe)})), flush=True)
