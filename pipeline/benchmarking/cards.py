"""Peak rates of GPUs, from their data sheets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...manifests.streams import Precision


@dataclass(frozen=True)
class Card:
    """Peak rates of a GPU without sparsity, from its data sheet."""

    name: str
    float32_per_s: float
    """Floating-point operations per second in float32, without tensor cores."""
    tf32_per_s: float
    half_per_s: float
    """Floating-point operations per second in bfloat16 and float16."""
    bytes_per_s: float
    """Memory bandwidth."""
    tvl1_pairs_per_s: float
    """Pairs of 256 × 341 pixels per second of TV-L1: a bound from the memory traffic of the kernels on the H200, scaled
    by the bandwidth for other cards."""

    def operations_per_s(self, precision: Precision) -> float:
        """Return the peak rate of matrix products and convolutions, in operations per second."""
        return {"float32": self.float32_per_s, "tf32": self.tf32_per_s}.get(precision, self.half_per_s)


def _card(name: str, float32: float, tf32: float, half: float, terabytes: float) -> Card:
    return Card(name, float32 * 1e12, tf32 * 1e12, half * 1e12, terabytes * 1e12, 7000 * terabytes / 4.8)


CARDS: Mapping[str, Card] = {
    "h200": _card("NVIDIA H200", 67, 494, 989, 4.8),
    "h100": _card("NVIDIA H100 SXM", 67, 494, 989, 3.35),
    "a100": _card("NVIDIA A100 80GB SXM", 19.5, 156, 312, 2.04),
    "l4": _card("NVIDIA L4", 30.3, 60, 121, 0.3),
}
