"""Compare the rate of each engine with the rate of matrix products of the processor, on one thread.

python benchmarks/engines.py [--only i3d resnet50] [--rounds 3] [--json FILE] [--chart FILE]

Four networks with their published architectures, seeded weights and noise as input. For each network: CPU milliseconds
for an item in PyTorch's own layers (float32, "plain") and in ours on each engine and in each precision, measured
alternately, the fastest of the rounds; operations per CPU second as a share of the rate of products of 2048 × 2048
matrices just before and after, the median of the rounds, because other programs slow both; and the difference of rows
from the plain ones, as a share of the largest number of a row.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from charts import BLUE, GRAY, GREEN, ORANGE, SKY, bars, picture
from measured import Found, markdown, parser_for, present, three
from networks import CASES, in_pytorchs_layers, rows_of
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from arabesque.extractors.engines import Engine, building_for
from arabesque.extractors.network_runner import NetworkRunner
from arabesque.extractors.precision import DTYPES, inference
from arabesque.manifests.streams import Precision
from arabesque.pipeline.benchmarking.circumstances import processor_extensions

ITEMS = {
    "i3d": replace(CASES["i3d"], item=(3, 64, 224, 224)),
    "resnet50": CASES["resnet50"],
    "video_swin_b": CASES["video_swin_b"],
    "ast": CASES["ast"],
}
SIDE = 2048
"""Side of the matrices whose product defines the rate of the processor."""
WAYS: dict[str, tuple[Engine, Precision]] = {
    "torch, float32": ("torch", "float32"),
    "torch, bfloat16": ("torch", "bfloat16"),
    "openvino, float32": ("openvino", "float32"),
    "openvino, bfloat16": ("openvino", "bfloat16"),
}
PLAIN = "plain, float32"
COLORS = {PLAIN: GRAY, "torch, float32": SKY, "torch, bfloat16": BLUE}
COLORS |= {"openvino, float32": ORANGE, "openvino, bfloat16": GREEN}


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--only", nargs="*", choices=ITEMS, default=list(ITEMS))
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(given)
    torch.set_num_threads(1)

    def measure_all() -> Found:
        networks = [measure(name, options.ways, options.rounds) for name in options.only]
        return {"instructions": processor_extensions(), "networks": networks}

    present(table, draw, options, measure_all, ["torch", "torchvision", "openvino"])


def measure(name: str, ways: Sequence[str], rounds: int) -> dict[str, Any]:
    case = ITEMS[name]
    network = case.load()
    items = torch.randn(case.batch[0], *case.item, generator=torch.Generator().manual_seed(0))
    plain = in_pytorchs_layers(copy.deepcopy(network))
    runs: dict[str, Callable[[], Tensor]] = {PLAIN: lambda: in_float32(plain, items)}
    for way in ways:
        runs[way] = runner(copy.deepcopy(network), *WAYS[way], items)
    products = {precision: square(cast(Precision, precision)) for precision in {precision_of(way) for way in runs}}
    operations = operations_of(plain, items[:1])
    found = {way: run() for way, run in runs.items()}  # warm-up: exports and compiles
    turns: dict[str, list[tuple[float, float]]] = {way: [] for way in runs}
    for _ in range(rounds):
        for way, run in runs.items():
            rate = products[precision_of(way)]
            before, item_s, after = rate(), cpu_s(run) / len(items), rate()
            turns[way].append((item_s, 2 * operations / item_s / (before + after)))
    results = [
        {
            "way": way,
            "ms_an_item": 1000 * min(item_s for item_s, _ in turns[way]),
            "share_of_rate": median(share for _, share in turns[way]),
            "off_by": off_by(found[way], found[PLAIN]),
        }
        for way in runs
    ]
    rates = {precision: product() / 1e9 for precision, product in products.items()}
    print(f"{name}: {operations / 1e9:.1f} GFLOP, products in GFLOP/s {rates}")
    for row in results:
        print(
            "  " + "  ".join(f"{key} {value:.4g}" if key != "way" else value for key, value in row.items()), flush=True
        )
    return {"network": name, "gflop": operations / 1e9, "gemm_gflop_per_s": rates, "results": results}


def precision_of(way: str) -> str:
    return way.split(", ")[1]


def cpu_s(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def in_float32(network: nn.Module, items: Tensor) -> Tensor:
    with inference(items.device, "float32"):
        return rows_of(network(items))


def runner(network: nn.Module, engine: Engine, precision: Precision, items: Tensor) -> Callable[[], Tensor]:
    """Return a function that computes the network as in a run, with all items in one batch."""
    with building_for(engine):
        built = NetworkRunner(Rows(network), items.device, precision)
    return lambda: torch.stack(built.rows(list(items), lambda batch: batch))


class Rows(nn.Module):
    """A network that returns one row for each item, like those of the extractors."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, items: Tensor) -> Tensor:
        return rows_of(self.network(items))


def square(precision: Precision) -> Callable[[], float]:
    """Return a function that measures the operations per CPU second of a matrix product, the fastest of three."""
    left, right = (torch.rand(SIDE, SIDE).to(DTYPES[precision]) for _ in range(2))
    return lambda: 2 * SIDE**3 / min(cpu_s(lambda: torch.mm(left, right)) for _ in range(3))


def operations_of(network: nn.Module, item: Tensor) -> int:
    """Return the number of additions and multiplications in products and convolutions for one item."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(item)
    return counter.get_total_flops()


def off_by(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).abs().amax(1) / expected.abs().amax(1)).max())


def table(found: Found) -> list[str]:
    """Return a table of CPU milliseconds per item, and of the share of the rate of products in that precision."""
    ways = [result["way"] for result in found["networks"][0]["results"]]
    lines: list[list[str]] = []
    for network in found["networks"]:
        cells = [
            f"{three(result['ms_an_item'])} ({100 * result['share_of_rate']:.0f} %)" for result in network["results"]
        ]
        lines.append([f"{network['network']} ({network['gflop']:.3g} GFLOP)", *cells])
    return markdown(["CPU ms an item", *ways], lines)


def draw(found: Found, path: Path) -> None:
    rows = {
        network["network"]: {result["way"]: 100 * result["share_of_rate"] for result in network["results"]}
        for network in found["networks"]
    }
    with picture(path, "How near each engine comes to the rate of matrix products", found, 5.5) as (axes,):
        bars(axes, rows, "% of the rate of products in the same precision", colors=COLORS, told="{:.0f} %".format)


if __name__ == "__main__":
    main()
