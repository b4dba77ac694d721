"""An LSTM that learns to leave steps out (Campos et al., ICLR 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SkipLstm(nn.Module):
    """After each step the cell says how soon the next one matters; steps below one half are skipped.

    The decision is rounded, and its gradient passes straight through.
    """

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(input_dim, hidden_dim)
        self.update = nn.Linear(hidden_dim, 1)
        nn.init.ones_(self.update.bias)  # begin by taking almost every step, as the paper does

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """``[routines, steps, input]`` → the state after the last real step, ``[routines, hidden]``."""
        hidden = sequence.new_zeros(len(sequence), self.cell.hidden_size)
        memory = torch.zeros_like(hidden)
        due = sequence.new_ones(len(sequence), 1)
        for step, here in zip(sequence.unbind(1), mask.to(sequence.dtype).unsqueeze(-1).unbind(1), strict=True):
            taken = _round(due) * here
            new_hidden, new_memory = self.cell(step, (hidden, memory))
            hidden = hidden + taken * (new_hidden - hidden)
            memory = memory + taken * (new_memory - memory)
            growth = torch.sigmoid(self.update(memory))
            due = taken * growth + (1 - taken) * torch.minimum(due + growth, torch.ones_like(due))
        return hidden


def _round(value: Tensor) -> Tensor:
    return value + (value.round() - value).detach()
