"""The number format in which networks compute."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..manifests.streams import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


TOLERANCES: dict[Precision, float] = {"float32": 1e-5, "tf32": 4e-3, "bfloat16": 3e-2, "float16": 4e-3}
"""Largest difference between two computations of a network's row, as a share of the largest number of the row. The sums
of matrix products depend on the batch, and thus on the number of decoders and on interruptions. Rows of streams without
a network are always equal.

The difference from float32 is below the same limit: 8e-3 with seeded weights and 2e-2 with I3D's in bfloat16, 1.4e-3 in
float16 (measured). TF32 has the mantissa of float16; its difference has not been measured."""


@contextmanager
def inference(device: torch.device, precision: Precision) -> Generator[None, None, None]:
    """Run networks without gradients and in the given precision.

    Matrix products and convolutions use ``precision``; other operations use it where autocast considers it safe.
    ``float32`` means IEEE float32; see `forbid_reduced_float32`. ``tf32`` lets NVIDIA's GPUs use TensorFloat-32, which
    rounds the factors of products to 10 bits; other devices compute in float32.
    """
    if precision == "tf32":
        allow_tf32()
    else:
        forbid_reduced_float32()
    cast_on = "cpu" if device.type == "meta" else device.type
    with torch.inference_mode(), torch.autocast(cast_on, DTYPES[precision], enabled=is_half(precision)):
        yield


def is_half(precision: Precision) -> bool:
    """Return whether a precision has 16 bits."""
    return DTYPES[precision] != torch.float32


def convert_weights(network: nn.Module, precision: Precision) -> None:
    """Convert the weights of matrix products and convolutions once, in place; other parameters stay float32.

    Otherwise every call of a layer would convert its float32 weights: autocast caches converted weights only if they
    require gradients. The rounding is the same.
    """
    if not is_half(precision):
        return
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            module.to(DTYPES[precision])


def allow_tf32() -> None:
    """Let this process use TF32 on NVIDIA's GPUs, until `forbid_reduced_float32`. Networks run one at a time."""
    cudnn: Any = torch.backends.cudnn
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "tf32"


def forbid_reduced_float32() -> None:
    """Make float32 matrix products and convolutions of this process compute in float32.

    By default, cuDNN convolves in TF32, which has 10 bits of mantissa. ``TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1``, which
    NVIDIA's container images set, does the same for matrix products, and ``torch.set_float32_matmul_precision`` can
    select TF32 or bfloat16, on CPUs as well. The switches belong to the process, not to the thread, so they are set
    and only changed by `allow_tf32`.
    """
    cudnn: Any = torch.backends.cudnn  # torch annotates only some of the attributes
    mkldnn: Any = torch.backends.mkldnn
    for backend in (torch.backends.cuda.matmul, mkldnn.matmul, mkldnn.conv):
        if backend.fp32_precision not in _IEEE:
            backend.fp32_precision = "ieee"
    if any(kind.fp32_precision not in _IEEE for kind in (cudnn.conv, cudnn.rnn)):
        cudnn.allow_tf32 = False  # reading this older switch fails if only the new ones are set
        cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "ieee"


_IEEE = ("ieee", "none")
"""Values of torch's switches that mean float32."""
