"""Compare our former CPU code for trainings with plain PyTorch.

    python benchmarks/training_paths.py

The former dropout and skip-LSTM are read from the history of the repository. Whole training steps of 32 routines with
130 segments of 1,024 features, one thread, alternately: processor seconds, the best of ``--repeats``. Processes:
wall-clock seconds for two trainings, in parallel with one thread each, and one after the other with two threads each.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import time
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from measured import ROOT, Found, markdown, measured_or_read, parser_for
from torch import nn

from arabesque.extractors import onednn_layers
from arabesque.model_contract import random_batch
from arabesque.models.table import build_model

FORMER_COMMIT = "416a19f"
SETTINGS: Mapping[str, dict[str, Any]] = {"ms-lstm": {"hidden_dim": 128, "dropout": 0.5, "bounded": True}}
ROUTINES, SEGMENTS, DIM = 32, 130, 1024


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--without-processes", action="store_true", help="do not measure processes")
    options = parser.parse_args(given)
    found = measured_or_read(options, lambda: {"results": measure_all(options)}, ["torch"])
    rows = [
        [row["what"], f"{row['own_s']:.3f}", f"{row['plain_s']:.3f}", f"{row['plain_s'] / row['own_s']:.2f}"]
        for row in found["results"]
    ]
    print("\n".join(markdown(["what", "own, s", "plain PyTorch, s", "ratio"], rows)))


def measure_all(options: Any) -> list[Found]:
    torch.set_num_threads(1)
    rows: list[Found] = []
    dropout, skip_lstm = former("models/dropout.py"), former("models/skip_lstm.py")
    for model in ("pamfn-branch", "gdlt"):
        quick = step(dropout.with_quick_dropout(network(model)))
        rows.append(compare(f"dropout, step of {model}", quick, step(network(model)), options.repeats))
        products, plain = step(onednn_layers.with_onednn(network(model))), step(network(model))
        rows.append(compare(f"oneDNN products, step of {model}", forced(products), plain, options.repeats))
    former_cells = network("ms-lstm")
    for scale in former_cells.get_submodule("scales").children():
        scale.get_submodule("lstm").__class__ = skip_lstm.SkipLstm
    written = step(former_cells)
    rows.append(
        compare("skip-LSTM with its own gradient, step of ms-lstm", written, step(network("ms-lstm")), options.repeats)
    )
    if not options.without_processes:
        rows += [processes(model) for model in ("pamfn-branch", "gdlt", "ms-lstm")]
    return rows


def former(path: str) -> Any:
    """Return a module as it was at the former commit."""
    source = subprocess.run(
        ["git", "show", f"{FORMER_COMMIT}:{path}"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    module = types.ModuleType(f"arabesque.models.former_{Path(path).stem}")
    module.__package__ = "arabesque.models"
    exec(compile(source, path, "exec"), module.__dict__)
    return module


def network(model: str) -> nn.Module:
    return build_model(model, {"vst": DIM}, SETTINGS.get(model, {}), seed=0)


def step(trained: nn.Module) -> Callable[[], None]:
    """Return a function that runs one training step without the optimizer."""
    batch = random_batch({"vst": DIM}, {"vst": [SEGMENTS] * ROUTINES})
    wanted = torch.linspace(0, 1, ROUTINES)

    def run() -> None:
        trained.zero_grad()
        prediction = trained(batch)
        (nn.functional.mse_loss(prediction.score, wanted) + prediction.penalty).backward()

    return run


def forced(run: Callable[[], None]) -> Callable[[], None]:
    """Return a function that uses oneDNN on every processor, also if `onednn_pays` is False."""

    def run_in_onednn() -> None:
        pays = onednn_layers.onednn_pays
        onednn_layers.onednn_pays = lambda *_: True  # pyright: ignore[reportAttributeAccessIssue]
        try:
            run()
        finally:
            onednn_layers.onednn_pays = pays

    return run_in_onednn


def compare(what: str, own: Callable[[], None], plain: Callable[[], None], repeats: int) -> Found:
    best = {"own_s": float("inf"), "plain_s": float("inf")}
    for _ in range(repeats):
        for name, run in (("own_s", own), ("plain_s", plain)):
            began = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - began)
    return {"what": what, **best}


def processes(model: str, steps: int = 4) -> Found:
    """Compare two processes with one thread each with one process and two threads, on two trainings."""
    context = multiprocessing.get_context("spawn")
    results, ready = context.Queue(), context.Barrier(2)
    pair = [context.Process(target=train_alone, args=(model, 1, steps, ready, results)) for _ in range(2)]
    for each in pair:
        each.start()
    side_by_side = max(results.get() for _ in pair)
    one = context.Process(target=train_alone, args=(model, 2, 2 * steps, None, results))
    one.start()
    one_by_one = results.get()
    for each in [*pair, one]:
        each.join()
    return {"what": f"two processes, {model} (seconds of the clock)", "own_s": side_by_side, "plain_s": one_by_one}


def train_alone(model: str, threads: int, steps: int, ready: Any, results: Any) -> None:
    torch.set_num_threads(threads)
    run = step(network(model))
    run()
    if ready is not None:
        ready.wait()
    began = time.perf_counter()
    for _ in range(steps):
        run()
    results.put(time.perf_counter() - began)


if __name__ == "__main__":
    main()
