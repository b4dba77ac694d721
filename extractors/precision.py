"""The number format that a network runs in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..manifests.streams import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


TOLERANCES: dict[Precision, float] = {"float32": 1e-5, "bfloat16": 3e-2, "float16": 4e-3}
"""How far a batch's company, the number of decoders or an interruption may move a number of a network's row, as a share
of the row's largest: matrix products sum in another order. Streams without a network do not move at all.

Rows are as near to float32's: bfloat16 was off by 8e-3 with seeded weights and 2e-2 with I3D's, float16 by 1.4e-3."""


@contextmanager
def inference(device: torch.device, precision: Precision) -> Iterator[None]:
    """Run networks without gradients and in the given precision.

    Matrix products and convolutions use ``precision``; other operations use it where autocast considers it safe.
    ``float32`` means IEEE float32; see `forbid_reduced_float32`.
    """
    forbid_reduced_float32()
    with torch.inference_mode(), torch.autocast(device.type, DTYPES[precision], enabled=precision != "float32"):
        yield


def forbid_reduced_float32() -> None:
    """Make float32 matrix products and convolutions of this process compute in float32.

    By default, cuDNN convolves in TF32, which has 10 bits of mantissa. ``TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1``, which
    NVIDIA's container images set, does the same for matrix products, and ``torch.set_float32_matmul_precision`` can
    select TF32 or bfloat16, on CPUs as well. The switches belong to the process, not to the thread, so they are set
    and never reset.
    """
    cudnn: Any = torch.backends.cudnn  # torch annotates some of their attributes only
    mkldnn: Any = torch.backends.mkldnn
    for backend in (torch.backends.cuda.matmul, mkldnn.matmul, mkldnn.conv):
        if backend.fp32_precision not in _IEEE:
            backend.fp32_precision = "ieee"
    if any(kind.fp32_precision not in _IEEE for kind in (cudnn.conv, cudnn.rnn)):
        cudnn.allow_tf32 = False  # the older switch, which reports an error if only the new ones are set
        cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "ieee"


_IEEE = ("ieee", "none")
"""Values of torch's switches that mean float32."""
