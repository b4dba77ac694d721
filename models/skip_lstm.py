"""An LSTM that learns to leave steps out (Campos et al., ICLR 2018)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence


class SkipLstm(nn.Module):
    """After each step the cell says how soon the next one matters; steps below one half are skipped.

    The decision is rounded, and its gradient passes straight through.
    """

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.from_input = nn.Linear(input_dim, 4 * hidden_dim)
        self.from_hidden = nn.Linear(hidden_dim, 4 * hidden_dim, bias=False)
        self.update = nn.Linear(hidden_dim, 1)
        for layer in (self.from_input, self.from_hidden):  # as PyTorch's own LSTM begins
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -1 / math.sqrt(hidden_dim), 1 / math.sqrt(hidden_dim))
        nn.init.ones_(self.update.bias)  # begin by taking almost every step, as the paper does

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """``[routines, steps, input]`` → the state after the last step, ``[routines, hidden]``.

        The mask is True for a routine's steps and False behind its last. A routine that has ended costs nothing more.
        """
        lengths = mask.sum(1)
        # a packed sequence needs a step; one that is not there is taken back afterwards
        packed = pack_padded_sequence(sequence, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        inputs = self.from_input(packed.data)  # all steps at once: only the recurrence has to wait
        hidden = inputs.new_zeros(len(sequence), self.from_hidden.in_features)
        memory = torch.zeros_like(hidden)
        due = inputs.new_ones(len(sequence), 1)
        ended: list[Tensor] = []
        for gates in inputs.split(packed.batch_sizes.tolist()):
            if len(gates) < len(hidden):
                ended.append(hidden[len(gates) :])
                hidden, memory, due = (state[: len(gates)] for state in (hidden, memory, due))
            taken = _round(due)
            take, forget, candidate, give = (gates + self.from_hidden(hidden)).chunk(4, dim=1)
            new_memory = torch.sigmoid(forget) * memory + torch.sigmoid(take) * torch.tanh(candidate)
            new_hidden = torch.sigmoid(give) * torch.tanh(new_memory)
            hidden = torch.lerp(hidden, new_hidden, taken)
            memory = torch.lerp(memory, new_memory, taken)
            growth = torch.sigmoid(self.update(memory))
            due = torch.lerp((due + growth).clamp(max=1), growth, taken)
        last = torch.cat([hidden, *reversed(ended)])[packed.unsorted_indices]
        return last * (lengths > 0).unsqueeze(1)


def _round(value: Tensor) -> Tensor:
    return value + (value.round() - value).detach()
