"""float32 matrix products and convolutions in oneDNN where MKL holds back.

PyTorch gives products to MKL, and so it does with most convolutions of few items on one thread. MKL uses no AVX-512 on
processors that are not Intel's: 95 GFLOP/s on one core of a Zen 5, where oneDNN's reach 215. The sums run in another
order, so that a number moves by a few units of the last place.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Network = TypeVar("Network", bound=nn.Module)


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
    if values.dim() < 2 or not _computes(values, weight):
        return nn.functional.linear(values, weight, bias)
    if torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in (values, weight, bias)):
        return _Linear.apply(values, weight, bias)
    return _product(values, weight, bias)


class OneDnnLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class OneDnnConv2d(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return _convolution(self, input) if _convolves(self, input) else super().forward(input)


class OneDnnConv3d(nn.Conv3d):
    def forward(self, input: Tensor) -> Tensor:
        return _convolution(self, input) if _convolves(self, input) else super().forward(input)


TURNED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: OneDnnLinear,
    nn.Conv2d: OneDnnConv2d,
    nn.Conv3d: OneDnnConv3d,
}


def with_onednn(network: Network) -> Network:
    """The same network, its layers turned into those above; what oneDNN does not take they leave to PyTorch."""
    for module in network.modules():
        module.__class__ = TURNED.get(type(module), type(module))
    return network


def to_device(network: Network, device: torch.device) -> Network:
    """On a CPU convolutions get the layout that oneDNN is fastest in, channels last: X3D-M takes half the time."""
    network.to(device)
    if device.type != "cpu" or not onednn_pays():
        return network
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            layout = torch.channels_last if isinstance(module, nn.Conv2d) else torch.channels_last_3d
            module.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
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


def _convolves(layer: nn.Conv2d | nn.Conv3d, input: Tensor) -> bool:
    plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and input.dim() == layer.weight.dim()
    return plain and _computes(input, layer.weight)


def _convolution(layer: nn.Conv2d | nn.Conv3d, input: Tensor) -> Tensor:
    shape: Any = layer.padding, layer.stride, layer.dilation, layer.groups
    return torch.mkldnn_convolution(input, layer.weight, layer.bias, *shape)


def _computes(*tensors: Tensor) -> bool:
    """Whether oneDNN is to compute with these."""
    fit = all(each.device.type == "cpu" and each.dtype == torch.float32 and each.numel() > 0 for each in tensors)
    return fit and onednn_pays() and not torch.is_autocast_enabled("cpu")
