"""float32 matrix products and convolutions by oneDNN, where it is faster than PyTorch's default (`kernel_choice`).

oneDNN sums in another order, so numbers differ by a few units of the last place.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .kernel_choice import Kind, is_available, speed_ratios

Network = TypeVar("Network", bound=nn.Module)


def onednn_pays(kind: Kind) -> bool:
    """Return whether oneDNN is at least as fast as PyTorch's default for a kind of layer, measured on this machine."""
    return is_available() and speed_ratios()[kind] <= 1.0


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `nn.functional.linear`. It has no second derivative if oneDNN computes it."""
    if values.dim() < 2 or not _computes("linear", values, weight):
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
    """Turn the layers of a network into those above, in place. Inputs that oneDNN does not accept use PyTorch."""
    for module in network.modules():
        module.__class__ = TURNED.get(type(module), type(module))
    return network


def without_onednn(network: Network) -> Network:
    """Turn the layers above back into PyTorch's layers, in place."""
    own = {turned: original for original, turned in TURNED.items()}
    for module in network.modules():
        module.__class__ = own.get(type(module), type(module))
    return network


def to_device(network: Network, device: torch.device) -> Network:
    """Move a network to a device. On a CPU, convolutions become channels last, which halves the time of X3D-M."""
    network.to(device)
    if device.type != "cpu":
        return network
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and onednn_pays("conv2d"):
            module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        elif isinstance(module, nn.Conv3d) and onednn_pays("conv3d"):
            module.to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]
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
    return plain and _computes("conv2d" if isinstance(layer, nn.Conv2d) else "conv3d", input, layer.weight)


def _convolution(layer: nn.Conv2d | nn.Conv3d, input: Tensor) -> Tensor:
    shape: Any = layer.padding, layer.stride, layer.dilation, layer.groups
    return torch.mkldnn_convolution(input, layer.weight, layer.bias, *shape)


def _computes(kind: Kind, *tensors: Tensor) -> bool:
    """Return whether oneDNN should compute with these tensors."""
    fit = all(each.device.type == "cpu" and each.dtype == torch.float32 and each.numel() > 0 for each in tensors)
    return fit and onednn_pays(kind) and not torch.is_autocast_enabled("cpu")
