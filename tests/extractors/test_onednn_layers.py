from typing import Any

import pytest
import torch
from torch import nn

from arabesque.extractors import onednn_layers
from arabesque.extractors.onednn_layers import OneDnnConv3d, OneDnnLinear, linear, to_device, with_onednn


@pytest.fixture(autouse=True)
def on_any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn_layers, "onednn_pays", lambda kind: True)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 48), (7, 48), (2, 3, 48), (2, 3, 5, 48)])
@pytest.mark.parametrize("biased", [True, False])
def test_product_and_gradients_are_those_of_the_linear_layer(shape: tuple[int, ...], biased: bool) -> None:
    ours = OneDnnLinear(48, 20, bias=biased)
    exact = nn.Linear(48, 20, bias=biased).double()
    exact.load_state_dict(ours.state_dict())
    values, gradient = drawn(*shape).requires_grad_(), drawn(*shape[:-1], 20, seed=1)
    wanted = values.detach().double().requires_grad_()
    ours(values).backward(gradient)
    exact(wanted).backward(gradient.double())
    pairs = [(values, wanted), *zip(ours.parameters(), exact.parameters(), strict=True)]
    torch.testing.assert_close(ours(values), exact(wanted).float(), rtol=1e-5, atol=1e-5)
    for mine, other in pairs:
        assert mine.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(mine.grad, other.grad.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (3, 2, 1), ((1, 5, 5), 1, (0, 2, 2))])
@pytest.mark.parametrize("last", [True, False], ids=["channels-last", "channels-first"])
def test_convolution_is_pytorchs(groups: int, kernel: Any, stride: int, padding: Any, last: bool) -> None:
    theirs = nn.Conv3d(8, 12, kernel, stride, padding, groups=groups)
    values = drawn(2, 8, 4, 9, 9)
    exact = nn.functional.conv3d(
        values.double(),
        theirs.weight.double(),
        theirs.bias.double(),
        stride,
        padding,
        1,
        groups,  # pyright: ignore
    )
    ours = with_onednn(theirs)
    found = (to_device(ours, torch.device("cpu")) if last else ours)(values)
    assert type(ours) is OneDnnConv3d
    assert ours.weight.is_contiguous(memory_format=torch.channels_last_3d) or not last
    torch.testing.assert_close(found, exact.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", [{"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}], ids=str)
def test_unsupported_paddings_are_computed_by_pytorch(settings: dict[str, Any]) -> None:
    layer = nn.Conv2d(3, 4, 3, **settings)
    image = drawn(1, 3, 8, 8)
    expected = layer(image)
    assert torch.equal(with_onednn(layer)(image), expected)


def test_strided_values_of_a_transposed_sequence_are_read_in_place() -> None:
    values, weight = drawn(2, 48, 9).transpose(1, 2), drawn(20, 48, seed=1)
    torch.testing.assert_close(linear(values, weight), values @ weight.t(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "values", [drawn(3, 48).double(), drawn(48), drawn(0, 48)], ids=["float64", "vector", "nothing"]
)
def test_unsupported_inputs_are_computed_by_pytorch(values: torch.Tensor) -> None:
    weight = drawn(20, 48, seed=1).to(values.dtype)
    assert torch.equal(linear(values, weight), nn.functional.linear(values, weight))


def test_autocast_still_decides_the_precision() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(drawn(3, 48), drawn(20, 48, seed=1)).dtype == torch.bfloat16


def test_a_network_keeps_its_parameters() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 2)))
    before = network.state_dict()
    assert [type(each) for each in with_onednn(network).modules()].count(OneDnnLinear) == 2
    assert all(
        network.state_dict()[name] is not None and before[name].data_ptr() == value.data_ptr()
        for name, value in network.state_dict().items()
    )
