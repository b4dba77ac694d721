"""Predictions of a trained network for whole videos."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .samples import Samples


@contextmanager
def seeded(seed: int, device: torch.device) -> Generator[None, None, None]:
    """Seed PyTorch's generators of the CPU and of the device; restore their states after the block."""
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type=device.type):  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        yield


def predict(network: nn.Module, samples: Samples, rows: Tensor) -> Tensor:
    """Predict whole samples, ``float64 [rows]`` in fractions of the score range, on the CPU.

    Batches have no padding, except for networks with ``masks_padding``, which would be slow on many small batches. A
    model that draws random numbers in evaluation (PAMFN's ``stochastic``) draws the same numbers in each call.
    """
    return _predicted(network, samples, rows)[0]


def predict_intervals(network: nn.Module, samples: Samples, rows: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Predict whole samples with intervals: score, lowest and highest score, ``float64 [rows]`` each; see `predict`.

    Returns:
        None for a model without intervals.
    """
    scores, low, high = _predicted(network, samples, rows)
    return None if low.isnan().all() else (scores, low, high)


def _predicted(network: nn.Module, samples: Samples, rows: Tensor) -> Tensor:
    """Return ``float64 [3, rows]``: score, lowest and highest score, or NaN."""
    network.eval()
    found = torch.full((3, len(samples)), torch.nan, dtype=torch.float64)
    with torch.inference_mode(), seeded(0, samples.device):
        grouped = samples.like_lengths if getattr(network, "masks_padding", False) else samples.equal_lengths
        for group in grouped(rows):
            prediction = network(samples.whole(group))
            for values, place in zip((prediction.score, *(prediction.interval or ())), found, strict=False):
                place[group] = values.cpu().double()
    return found[:, rows]
