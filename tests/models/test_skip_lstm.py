from __future__ import annotations

import math

import torch
from torch import Tensor

from arabesque.models.skip_lstm import SkipLstm


def network() -> SkipLstm:
    torch.manual_seed(0)
    return SkipLstm(5, 6).double()


def one_by_one(cell: SkipLstm, steps: Tensor) -> Tensor:
    """The paper's equations 2 to 6 with an LSTM cell, for one routine."""
    hidden, memory, due = torch.zeros(6).double(), torch.zeros(6).double(), torch.ones(1).double()
    for step in steps:
        if due.round() == 1:
            take, forget, candidate, give = (cell.from_input(step) + cell.from_hidden(hidden)).chunk(4)
            memory = forget.sigmoid() * memory + take.sigmoid() * candidate.tanh()
            hidden = give.sigmoid() * memory.tanh()
            due = cell.update(memory).sigmoid()
        else:
            due = (due + cell.update(memory).sigmoid()).clamp(max=1)
    return hidden


def test_routines_of_several_lengths_are_read_as_if_alone() -> None:
    lengths = torch.tensor([4, 9, 0, 1, 9])
    for bias in (1.0, -0.5):
        cell = network()
        torch.nn.init.constant_(cell.update.bias, bias)
        sequence = torch.randn(5, 9, 5, dtype=torch.float64)
        together = cell(sequence, torch.arange(9) < lengths[:, None])
        alone = torch.stack([one_by_one(cell, steps[:length]) for steps, length in zip(sequence, lengths, strict=True)])
        torch.testing.assert_close(together, alone)


def test_a_step_that_is_not_due_is_left_out() -> None:
    cell = network()
    torch.nn.init.zeros_(cell.update.weight)
    torch.nn.init.constant_(cell.update.bias, math.log(0.3 / 0.7))  # 0.3 a step: the first is taken, then every second
    sequence = torch.randn(1, 5, 5, dtype=torch.float64, requires_grad=True)
    cell(sequence, torch.ones(1, 5, dtype=torch.bool)).sum().backward()
    assert sequence.grad is not None
    read = sequence.grad[0].abs().sum(1) > 0
    assert read.tolist() == [True, False, True, False, True]


def test_the_decision_to_skip_learns_straight_through() -> None:
    cell = network()
    cell(torch.randn(3, 8, 5, dtype=torch.float64), torch.ones(3, 8, dtype=torch.bool)).square().sum().backward()
    assert cell.update.weight.grad is not None
    assert bool(cell.update.weight.grad.all())
