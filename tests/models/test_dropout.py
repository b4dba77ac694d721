import pytest
import torch
from torch import nn

from arabesque.models.dropout import Dropout, with_quick_dropout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_each_element_is_dropped_by_chance_and_the_mean_stays(p: float) -> None:
    torch.manual_seed(0)
    left = Dropout(p)(torch.ones(1000, 1003))
    kept = left != 0
    assert kept.float().mean() == pytest.approx(1 - p, abs=2e-3)  # 4 standard deviations of a million draws
    assert left[kept].unique().tolist() == pytest.approx([1 / (1 - p)], rel=2e-4)
    assert left.mean() == pytest.approx(1, abs=8e-3)


def test_neighbours_that_share_a_draw_are_independent() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(100_000, 4)) != 0).double()
    off_diagonal = torch.corrcoef(kept.T) - torch.eye(4)
    assert off_diagonal.abs().max() < 0.015  # 5 standard deviations


def test_the_seed_decides() -> None:
    layer, values = Dropout(0.3), torch.ones(5, 7)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(layer(values))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.5, False), (1.0, True)])
def test_where_nothing_is_drawn_it_is_pytorchs(p: float, training: bool) -> None:
    values = torch.ones(5, 7)
    assert torch.equal(Dropout(p).train(training)(values), nn.Dropout(p).train(training)(values))


def test_gradients_pass_where_values_do() -> None:
    values = torch.ones(9, 11, requires_grad=True)
    left = Dropout(0.4)(values)
    left.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, left.detach())


def test_a_transformers_layers_are_turned_too() -> None:
    network = with_quick_dropout(nn.TransformerEncoderLayer(8, 2))
    assert {type(each) for each in network.modules() if isinstance(each, nn.Dropout)} == {Dropout}
