"""Skip-LSTM: an LSTM that learns to skip steps (Campos et al., ICLR 2018)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SkipLstm(nn.Module):
    """LSTM cell that skips steps while its update probability is below one half.

    After each update, it predicts by how much the probability grows with each step. The gradient of the rounded
    decision is straight-through.
    """

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.from_input = nn.Linear(input_dim, 4 * hidden_dim)
        self.from_hidden = nn.Linear(hidden_dim, 4 * hidden_dim, bias=False)
        self.update = nn.Linear(hidden_dim, 1)
        for layer in (self.from_input, self.from_hidden):  # initialization of PyTorch's LSTM
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -1 / math.sqrt(hidden_dim), 1 / math.sqrt(hidden_dim))
        nn.init.ones_(self.update.bias)  # as in the paper: almost no step is skipped at first

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """Map ``[samples, steps, input]`` to the state after the last step, ``[samples, hidden]``.

        The mask is True for the steps of a sample and False after its last step, where states do not change. States are
        at least float32, because a bfloat16 state would lose small changes.
        """
        inputs = self.from_input(sequence)  # one product for all steps, because only the recurrence is sequential
        exact = torch.promote_types(inputs.dtype, torch.float32)
        from_hidden = self.from_hidden.weight.to(inputs.dtype).t()
        to_growth, bias = self.update.weight.to(exact).t(), self.update.bias.to(exact)
        hidden = memory = inputs.new_zeros(len(inputs), len(from_hidden), dtype=exact)
        due = inputs.new_ones(len(inputs), 1, dtype=exact)
        with torch.autocast(inputs.device.type, enabled=False):
            for put, there in zip(inputs.unbind(1), mask.unsqueeze(2).unbind(1), strict=True):
                gates = (put + hidden.to(inputs.dtype) @ from_hidden).to(exact)
                take, forget, candidate, give = gates.chunk(4, dim=1)
                new_memory = forget.sigmoid() * memory + take.sigmoid() * candidate.tanh()
                taken = (due + (due.round() - due).detach()) * there
                hidden = torch.lerp(hidden, give.sigmoid() * new_memory.tanh(), taken)
                memory = torch.lerp(memory, new_memory, taken)
                growth = (memory @ to_growth + bias).sigmoid()
                due = torch.lerp((due + growth).clamp(max=1), growth, taken)
        return hidden.to(inputs.dtype)
