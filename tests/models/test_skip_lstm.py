from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from arabesque.models.skip_lstm import SkipLstm


def network() -> SkipLstm:
    torch.manual_seed(0)
    return SkipLstm(5, 6).double()


def one_by_one(cell: SkipLstm, steps: Tensor) -> Tensor:
    """The paper's equations 2 to 6 with an LSTM cell, for one sample."""
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


def by_autograd(cell: SkipLstm, sequence: Tensor, mask: Tensor) -> Tensor:
    """The recurrence on all samples with PyTorch's gradients and a straight-through gradient of rounding."""
    hidden, memory = sequence.new_zeros(2, len(sequence), 6)
    due = sequence.new_ones(len(sequence), 1)
    for step, there in zip(sequence.unbind(1), mask.unsqueeze(2).unbind(1), strict=True):
        taken = due + (due.round() - due).detach()
        take, forget, candidate, give = (cell.from_input(step) + cell.from_hidden(hidden)).chunk(4, dim=1)
        new_memory = forget.sigmoid() * memory + take.sigmoid() * candidate.tanh()
        new_hidden = give.sigmoid() * new_memory.tanh()
        hidden = torch.where(there, taken * new_hidden + (1 - taken) * hidden, hidden)
        memory = torch.where(there, taken * new_memory + (1 - taken) * memory, memory)
        growth = cell.update(memory).sigmoid()
        due = taken * growth + (1 - taken) * (due + growth).clamp(max=1)
    return hidden


def five_routines() -> tuple[Tensor, Tensor]:
    return torch.randn(5, 9, 5, dtype=torch.float64), torch.arange(9) < torch.tensor([4, 9, 0, 1, 9])[:, None]


def test_samples_of_different_lengths_do_not_influence_each_other() -> None:
    for bias in (1.0, -0.5):
        cell = network()
        torch.nn.init.constant_(cell.update.bias, bias)
        sequence, mask = five_routines()
        together = cell(sequence, mask)
        alone = torch.stack([one_by_one(cell, steps[there]) for steps, there in zip(sequence, mask, strict=True)])
        torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("bias", [1.0, -0.5, -1.0])
def test_gradients_are_those_of_autograd(bias: float) -> None:
    cell = network()
    torch.nn.init.constant_(cell.update.bias, bias)
    sequence, mask = five_routines()
    weights = torch.randn(5, 6, dtype=torch.float64)
    found: list[list[Tensor]] = []
    for compute in (cell, lambda *batch: by_autograd(cell, *batch)):
        given = sequence.clone().requires_grad_()
        score = (compute(given, mask) * weights).sum()
        found.append(list(torch.autograd.grad(score, [given, *cell.parameters()])))
    for ours, theirs in zip(*found, strict=True):
        assert theirs.abs().max() > 1e-4
        torch.testing.assert_close(ours, theirs)


def test_gradients_are_those_of_finite_differences_where_no_decision_can_change() -> None:
    cell = network()
    torch.nn.init.zeros_(cell.update.weight)
    torch.nn.init.constant_(cell.update.bias, math.log(0.3 / 0.7))
    sequence, mask = five_routines()
    names = ("from_input.weight", "from_input.bias", "from_hidden.weight")
    weights = [cell.get_parameter(name).detach().clone().requires_grad_() for name in names]

    def state(given: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(cell, dict(zip(names, values, strict=True)), (given, mask))

    assert torch.autograd.gradcheck(state, (sequence.requires_grad_(), *weights))


def test_in_bfloat16_the_memory_does_not_lose_small_changes() -> None:
    cell = SkipLstm(1, 1)
    for parameter in cell.parameters():
        torch.nn.init.zeros_(parameter)
    cell.from_input.bias.data = torch.tensor(
        [20.0, 20.0, 0.002, 20.0]
    )  # input and forget gates are open; each step adds 0.002
    cell.update.bias.data.fill_(20.0)
    with torch.autocast("cpu", torch.bfloat16):
        state = cell(torch.zeros(1, 300, 1), torch.ones(1, 300, dtype=torch.bool))
    assert state.dtype == torch.bfloat16
    assert state.item() == pytest.approx(math.tanh(300 * 0.002), abs=0.005)


def test_gradients_in_bfloat16_point_where_those_in_float32_do() -> None:
    cell = network().float()
    sequence, mask = five_routines()
    gradients = []
    for low in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            state = cell(sequence.float(), mask)
        parts = torch.autograd.grad(state.square().sum(), [*cell.parameters()])
        gradients.append(torch.cat([part.flatten() for part in parts]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


def test_a_copy_in_inference_mode_gives_the_same_states() -> None:
    cell = network()
    sequence, mask = five_routines()
    with torch.inference_mode():
        torch.testing.assert_close(copy.deepcopy(cell)(sequence, mask), cell(sequence, mask))
    torch.testing.assert_close(copy.deepcopy(cell)(sequence, mask), by_autograd(cell, sequence, mask))


def test_a_step_that_is_not_due_is_skipped() -> None:
    cell = network()
    torch.nn.init.zeros_(cell.update.weight)
    torch.nn.init.constant_(
        cell.update.bias, math.log(0.3 / 0.7)
    )  # 0.3 per step: the first step is taken, then every second
    sequence = torch.randn(1, 5, 5, dtype=torch.float64, requires_grad=True)
    cell(sequence, torch.ones(1, 5, dtype=torch.bool)).sum().backward()
    assert sequence.grad is not None
    read = sequence.grad[0].abs().sum(1) > 0
    assert read.tolist() == [True, False, True, False, True]


def test_the_skip_decision_has_a_straight_through_gradient() -> None:
    cell = network()
    cell(torch.randn(3, 8, 5, dtype=torch.float64), torch.ones(3, 8, dtype=torch.bool)).square().sum().backward()
    assert cell.update.weight.grad is not None
    assert bool(cell.update.weight.grad.all())
