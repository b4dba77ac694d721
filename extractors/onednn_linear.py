"""float32 matrix products in oneDNN where MKL holds back.

PyTorch gives them to MKL, which uses no AVX-512 on processors that are not Intel's: 95 GFLOP/s on one core of a Zen 5,
where oneDNN's reach 215. The sums run in another order, so that a product moves by a few units of the last place.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@cache
def onednn_pays(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor has AVX-512 and is not Intel's; never by measurement, so that a machine stays with one."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available() and cpuinfo.is_file()):
        return False
    fields = dict(line.split(":", 1) for line in cpuinfo.read_text().split("\n\n")[0].splitlines() if ":" in line)
    about = {name.strip(): value.split() for name, value in fields.items()}
    return about.get("vendor_id") != ["GenuineIntel"] and "avx512f" in about.get("flags", [])


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`nn.functional.linear`, differentiable once where oneDNN computes it."""
    if not (_in_reach(values) and _in_reach(weight) and onednn_pays()) or torch.is_autocast_enabled("cpu"):
        return nn.functional.linear(values, weight, bias)
    if torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in (values, weight, bias)):
        return _Linear.apply(values, weight, bias)
    return _product(values, weight, bias)


class OneDnnLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def with_onednn(network: nn.Module) -> nn.Module:
    """The same network, every `nn.Linear` in it turned into a `OneDnnLinear`."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear
    return network


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(values, weight)
        return _product(values, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        values, weight = ctx.saved_tensors
        rows = gradients[0].flatten(0, -2)
        by_values, by_weight, by_bias = ctx.needs_input_grad
        return (
            _product(rows, weight.t(), None).view(values.shape) if by_values else None,
            _product(rows.t(), values.flatten(0, -2).t(), None) if by_weight else None,
            rows.sum(0) if by_bias else None,
        )


def _product(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")


def _in_reach(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.dim() > 1 and tensor.numel() > 0
