"""float32 means float32, whatever the environment or the surrounding program has chosen."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import torch
from arabesque.extractors.precision import inference

backends = torch.backends

def reduced():
    kinds = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    return [kind for kind in kinds if kind.fp32_precision not in ("ieee", "none")]

def is_float32():
    x = torch.linspace(0, 1, 4096).reshape(64, 64)
    return torch.allclose((x @ x).double(), x.double() @ x.double(), rtol=1e-6, atol=0)

assert backends.cuda.matmul in reduced(), "the environment variable has no effect"
for choice in (
    "pass",
    "backends.cuda.matmul.allow_tf32 = True",
    "backends.fp32_precision = 'tf32'",
    "torch.set_float32_matmul_precision('medium')",
    "backends.cudnn.conv.fp32_precision = 'tf32'",
):
    exec(choice)
    with inference(torch.device("cpu"), "float32"):
        assert not reduced(), (choice, reduced())
        assert is_float32(), choice
"""


def test_float32_is_computed_in_float32() -> None:
    environment = os.environ | {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
