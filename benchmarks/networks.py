"""Measure the speed of networks against PyTorch's own layers, and the effect of lower precision on rows.

python benchmarks/networks.py [--device cuda] [--only video_swin_b resnet50] [--json FILE] [--chart FILE]

Published architectures, seeded weights, noise as input; one thread on a CPU. For each network: CPU seconds (on CUDA:
wall-clock seconds) per item in PyTorch's layers in float32 ("plain") and in ours in each precision; the difference of
rows from the plain float32 ones, as a share of the largest number of a row, and their cosine.
Networks whose package is not installed are left out, with a message.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from charts import BLUE, GREEN, SKY, aim, bars, picture
from measured import Found, markdown, parser_for, present, three
from torch import Tensor, nn
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d

from arabesque.extractors.audio_spectrogram_network import load_spectrogram_transformer
from arabesque.extractors.c3d import load_c3d
from arabesque.extractors.checkpoints import RandomWeights, load_network
from arabesque.extractors.i3d import load_i3d
from arabesque.extractors.onednn_layers import TURNED, to_device
from arabesque.extractors.panns import load_cnn14
from arabesque.extractors.precision import inference
from arabesque.extractors.pytorchvideo_hub import load_hub_network
from arabesque.extractors.r2plus1d import load_r2plus1d_34
from arabesque.extractors.resnet import load_resnet50
from arabesque.extractors.s3d import load_s3d
from arabesque.extractors.unmasked_teacher import load_unmasked_teacher
from arabesque.extractors.vggish import load_vggish
from arabesque.extractors.video_swin import headless_swin3d_b
from arabesque.extractors.window_attention import WindowAttention
from arabesque.manifests.streams import Precision

WEIGHTS = RandomWeights(0)


@dataclass(frozen=True)
class Case:
    load: Callable[[], nn.Module]
    item: tuple[int, ...]
    """Shape of one item of a batch"""
    batch: tuple[int, int]
    """Batch size on a CPU and on a GPU"""
    float32_only: bool = False


def yolo() -> nn.Module:
    from arabesque.extractors.ultralytics_yolo import ultralytics_tasks

    return load_network(lambda: ultralytics_tasks().DetectionModel("yolov8n.yaml", verbose=False), WEIGHTS, {})


CASES = {
    "video_swin_b": Case(lambda: load_network(headless_swin3d_b, WEIGHTS, {}), (3, 32, 224, 224), (1, 8)),
    "i3d": Case(lambda: load_i3d(WEIGHTS, in_channels=3, batch_norm_eps=1e-3), (3, 32, 224, 224), (1, 16)),
    "resnet50": Case(lambda: load_resnet50(WEIGHTS), (3, 224, 224), (8, 64)),
    "x3d_m": Case(lambda: load_hub_network("x3d_m", WEIGHTS)[0], (3, 16, 224, 224), (1, 16)),
    "s3d": Case(lambda: load_s3d(WEIGHTS), (3, 32, 224, 224), (1, 16)),
    "r2plus1d_34": Case(lambda: load_r2plus1d_34(WEIGHTS), (3, 32, 112, 112), (1, 16)),
    "c3d": Case(lambda: load_c3d(WEIGHTS), (3, 16, 112, 112), (1, 16)),
    "unmt_l16_f16": Case(lambda: load_unmasked_teacher("l16", 16, WEIGHTS), (3, 16, 224, 224), (1, 8)),
    "vggish": Case(lambda: load_vggish(WEIGHTS), (10, 96, 64), (1, 64)),
    "panns_cnn14": Case(lambda: load_cnn14(WEIGHTS), (1000, 64), (1, 64)),
    "ast": Case(lambda: load_spectrogram_transformer(WEIGHTS, 1e-6), (1024, 128), (1, 32)),
    "yolov8n": Case(yolo, (3, 384, 640), (4, 32), float32_only=True),
}


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--precisions", nargs="*", default=None, help="float32, bfloat16, float16")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    on_cpu = options.device.type == "cpu"
    usual: list[Precision] = ["float32", "bfloat16"] if on_cpu else ["float32", "bfloat16", "float16"]
    precisions = options.precisions or usual

    def measure_all() -> Found:
        print(
            f"{'network':14}{'layers':11}{'precision':10}{'s an item':>11}{'ratio':>7}{'off by':>10}{'1 - cosine':>12}"
        )
        device = "CPU" if on_cpu else torch.cuda.get_device_name(options.device)
        rows = [row for name in options.only for row in measure(name, options.device, precisions, options.repeats)]
        return {"device": device, "results": rows}

    present(table, draw, options, measure_all, ["torch", "torchvision"])


def measure(name: str, device: torch.device, precisions: Sequence[Precision], repeats: int) -> list[dict[str, Any]]:
    """Return one row for PyTorch's layers in float32, and one for ours in each precision."""
    case = CASES[name]
    try:
        network = case.load()
    except ImportError as error:
        print(f"{name:14}not measured: {error}")
        return []
    batch = case.batch[0] if device.type == "cpu" else case.batch[1]
    items = torch.randn(batch, *case.item, generator=torch.Generator().manual_seed(0)).to(device)
    plain = in_pytorchs_layers(copy.deepcopy(network)).to(device)
    ours = to_device(network, device)
    expected, whole_s = timed(plain, items, "float32", repeats)
    rows = [report(name, "PyTorch's", "float32", whole_s / batch, whole_s / batch, expected, expected)]
    chosen: Sequence[Precision] = ("float32",) if case.float32_only else precisions
    for precision in chosen:
        found, seconds = timed(ours, items, precision, repeats)
        rows.append(report(name, "ours", precision, seconds / batch, whole_s / batch, found, expected))
    return rows


def report(
    name: str, layers: str, precision: str, item_s: float, plain_s: float, found: Tensor, expected: Tensor
) -> dict[str, Any]:
    off = float(((found - expected).abs().amax(1) / expected.abs().amax(1)).max())
    apart = float(1 - nn.functional.cosine_similarity(found.double(), expected.double()).min())
    kind = {"network": name, "layers": layers, "precision": precision}
    row = {**kind, "s_an_item": item_s, "ratio": plain_s / item_s, "off_by": off, "one_minus_cosine": apart}
    show(row)
    return row


def show(row: dict[str, Any]) -> None:
    print(
        f"{row['network']:14}{row['layers']:11}{row['precision']:10}{row['s_an_item']:11.4f}{row['ratio']:7.2f}"
        f"{row['off_by']:10.1e}{row['one_minus_cosine']:12.1e}",
        flush=True,
    )


def table(found: Found) -> list[str]:
    """Return a table: seconds per item, and for each precision the ratio to PyTorch's float32 layers and the error."""
    by_network: dict[str, dict[str, dict[str, Any]]] = {}
    for row in found["results"]:
        by_network.setdefault(row["network"], {})["plain" if row["layers"] != "ours" else row["precision"]] = row
    precisions = [
        name for name in ("float32", "bfloat16", "float16") if any(name in rows for rows in by_network.values())
    ]
    titles = [
        "network",
        "plain, float32",
        *(title for name in precisions for title in (f"ours, {name}", "ratio", "off by")),
    ]
    lines: list[list[str]] = []
    for network, rows in by_network.items():
        lines.append([network, three(rows["plain"]["s_an_item"])])
        for precision in precisions:
            row = rows.get(precision)
            told = (
                ["", "", ""]
                if row is None
                else [three(row["s_an_item"]), f"{row['ratio']:.1f}", f"{row['off_by']:.0e}"]
            )
            lines[-1] += told
    return markdown(titles, lines)


def draw(found: Found, path: Path) -> None:
    ours = [row for row in found["results"] if row["layers"] == "ours"]
    rows: dict[str, dict[str, float]] = {row["network"]: {} for row in ours}
    for row in ours:
        rows[row["network"]][row["precision"]] = row["ratio"]
    notes = {(row["network"], row["precision"]): f"   off by {row['off_by']:.0e}" for row in ours}
    precisions = dict.fromkeys(row["precision"] for row in ours)
    colors = dict(zip(precisions, (BLUE, SKY, GREEN), strict=False))
    title = f"How many times as fast as in PyTorch's own layers in float32, on a {found['device']}"
    with picture(path, title, found, 1.4 + 0.24 * len(ours)) as (axes,):
        bars(
            axes,
            rows,
            "speed ÷ that of PyTorch's layers",
            colors=colors,
            told="{:.1f} ×".format,
            notes=notes,
            room=1.3,
        )
        aim(axes, 1.0, "PyTorch's own layers")


def timed(network: nn.Module, items: Tensor, precision: Precision, repeats: int) -> tuple[Tensor, float]:
    """Return rows in float32, and the shortest time of all calls but the first."""
    clock = time.process_time if items.device.type == "cpu" else time.perf_counter
    times: list[float] = []
    rows = items
    for _ in range(repeats):
        start = clock()
        with inference(items.device, precision):
            rows = rows_of(network(items))
        if items.device.type == "cuda":
            torch.cuda.synchronize(items.device)
        times.append(clock() - start)
    return rows.float(), min(times[1:] or times)


def rows_of(output: Any) -> Tensor:
    """Return ``[n, dim]`` from the output of a network in any form."""
    output = getattr(output, "pooler_output", output)
    return (output[0] if isinstance(output, tuple) else output).flatten(1)


def in_pytorchs_layers(network: nn.Module) -> nn.Module:
    """Return the network as its library builds it."""
    plain = {ours: theirs for theirs, ours in TURNED.items()} | {WindowAttention: ShiftedWindowAttention3d}
    for module in network.modules():
        module.__class__ = plain.get(type(module), type(module))
    return network


if __name__ == "__main__":
    main()
