"""float32 is IEEE float32 under every setting of the environment or the surrounding program."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from arabesque.extractors.network_runner import NetworkRunner
from arabesque.extractors.precision import DTYPES
from arabesque.manifests.streams import Precision

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
with inference(torch.device("cpu"), "tf32"):
    assert backends.cuda.matmul.fp32_precision == backends.cudnn.conv.fp32_precision == "tf32"
    assert is_float32(), "a CPU has no TF32"
with inference(torch.device("cpu"), "float32"):
    assert not reduced(), reduced()
"""


class Layers(nn.Module):
    """A convolution, a normalization, which stays float32, and a product."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU())
            self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).mean((2, 3)))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_weights_are_converted_once_and_give_the_same_rows(precision: Precision) -> None:
    images = list(torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1)))
    plain = Layers().eval().requires_grad_(False)
    with torch.inference_mode(), torch.autocast("cpu", DTYPES[precision]):
        expected = plain(torch.stack(images).to(DTYPES[precision])).float()
    network = Layers().eval().requires_grad_(False)
    found = NetworkRunner(network, torch.device("cpu"), precision).rows(images, lambda batch: batch)
    assert torch.equal(torch.stack(found), expected)
    assert {str(name): value.dtype for name, value in network.state_dict().items()} == {
        **dict.fromkeys(("body.0.weight", "body.0.bias", "head.weight", "head.bias"), DTYPES[precision]),
        **dict.fromkeys(("body.1.weight", "body.1.bias"), torch.float32),
    }


def test_float32_is_computed_in_float32() -> None:
    environment = os.environ | {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
