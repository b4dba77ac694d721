"""The number format that a network runs in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
    """No gradients; matrix products and convolutions in ``precision``, the rest where autocast finds it safe.

    ``float32`` means it: cuDNN would otherwise run convolutions in TF32, with 10 bits of mantissa. The switch is the
    process's, not the thread's, so it is thrown once and never back.
    """
    if torch.backends.cudnn.allow_tf32:
        torch.backends.cudnn.allow_tf32 = False
    with torch.inference_mode(), torch.autocast(device.type, DTYPES[precision], enabled=precision != "float32"):
        yield
