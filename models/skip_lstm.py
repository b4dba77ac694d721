"""An LSTM that learns to leave steps out (Campos et al., ICLR 2018)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pack_padded_sequence

from ..extractors.onednn_layers import linear


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
        weights = self.from_hidden.weight, self.update.weight, self.update.bias
        last = _Recurrence.apply(inputs, *weights, packed.batch_sizes.tolist())
        return last[packed.unsorted_indices] * (lengths > 0).unsqueeze(1)


class _Recurrence(torch.autograd.Function):
    """The steps one after the other, and back by hand: the weights' gradient is one product, not one for each step.

    Matrix products are in the inputs' type, all else in float32 at least: a bfloat16 memory would lose small changes.
    Differentiable once. The hyperbolic tangent is ``2 sigmoid(2x) - 1``, which PyTorch computes in a fifth of the time.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, update_weight: Tensor, update_bias: Tensor, sizes: list[int]
    ) -> Tensor:
        """``inputs [all steps, 4 hidden]`` of a packed sequence, of which ``sizes`` rows belong to each step.

        Returns each routine's last state ``[routines, hidden]``, in the packed sequence's order.
        """
        exact = torch.promote_types(inputs.dtype, torch.float32)
        weight, update_weight, update_bias = weight.to(inputs.dtype), update_weight.to(exact), update_bias.to(exact)
        hidden, memory, due = (_states(inputs, sizes, width, exact) for width in (weight.shape[1], weight.shape[1], 1))
        due[: sizes[0]] = 1
        gates = torch.empty_like(inputs, dtype=exact)
        new_memory, peak = torch.empty_like(memory[sizes[0] :]), torch.empty_like(memory[sizes[0] :])
        growth = torch.empty_like(due[sizes[0] :])
        steps = (values.split(sizes) for values in (inputs, gates, new_memory, peak, growth))
        states = (views for values in (hidden, memory, due) for views in _before_and_after(values, sizes))
        with torch.autocast(inputs.device.type, enabled=False):
            for put, now, fresh, high, grown, h, next_h, m, next_m, d, next_d in zip(*steps, *states, strict=True):
                now.copy_(put + _product(h.to(inputs.dtype), weight))
                take, forget, candidate, give = now.chunk(4, dim=1)
                candidate.mul_(2)
                now.sigmoid_()
                torch.addcmul(forget * m, take, candidate * 2 - 1, out=fresh)
                torch.sigmoid(fresh + fresh, out=high).mul_(2).sub_(1)
                taken = d.round()
                torch.lerp(m, fresh, taken, out=next_m)
                torch.lerp(h, give * high, taken, out=next_h)
                torch.sigmoid(torch.addmm(update_bias, next_m, update_weight.t()), out=grown)
                torch.lerp((d + grown).clamp_(max=1), grown, taken, out=next_d)
        ctx.save_for_backward(weight, update_weight, gates, new_memory, peak, growth, hidden, memory, due)
        ctx.sizes = sizes
        return hidden[_last(sizes)].to(inputs.dtype)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        weight, update_weight, gates, new_memory, peak, growth, hidden, memory, due = ctx.saved_tensors
        sizes = ctx.sizes
        earlier = _earlier(sizes)
        waited = due[earlier] + growth
        taken = due[earlier].round()
        left = 1 - taken
        passed = left * (waited <= 1)
        by_logit = (taken + passed) * growth * (1 - growth)
        by_taken = growth - waited.clamp(max=1)
        by_inputs, by_growth = torch.empty_like(gates, dtype=weight.dtype), torch.empty_like(growth)

        all_h = gradients[0].to(hidden.dtype, copy=True)  # a routine that ends early waits here for its last step
        all_m, all_d = torch.zeros_like(all_h), torch.zeros_like(all_h[:, :1])
        steps = zip(
            *(part.split(sizes) for part in (gates, new_memory, peak, taken, left, passed + by_taken, by_logit)),
            *(part.split(sizes) for part in (by_inputs, by_growth)),
            _before_and_after(hidden, sizes)[0],
            _before_and_after(memory, sizes)[0],
            strict=True,
        )
        for now, fresh, high, took, stays, later, logit, by_put, by_grown, h, m in reversed(list(steps)):
            d_h, d_m, d_d = all_h[: len(now)], all_m[: len(now)], all_d[: len(now)]
            take, forget, candidate, give = now.chunk(4, dim=1)
            torch.mul(d_d, logit, out=by_grown)
            d_m.addcmul_(by_grown, update_weight)
            shown = give * high
            change = (d_h * (shown - h)).addcmul_(d_m, fresh - m).sum(1, keepdim=True)
            d_d.mul_(later).add_(change)

            d_shown = d_h * took
            d_fresh = (d_m * took).addcmul_(d_shown, torch.addcmul(give, shown, high, value=-1))
            by_gates = torch.empty_like(now)
            by_take, by_forget, by_candidate, by_give = by_gates.chunk(4, dim=1)
            torch.mul(d_fresh, candidate * 2 - 1, out=by_take)
            torch.mul(d_fresh, m, out=by_forget)
            torch.mul(d_fresh, take * 4, out=by_candidate)
            torch.mul(d_shown, high, out=by_give)
            torch.mul(by_gates, torch.addcmul(now, now, now, value=-1), out=by_put)
            d_h.mul_(stays).add_(_product(by_put, weight.t()))
            d_m.mul_(stays).addcmul_(d_fresh, forget)
        by_weight = by_inputs.t() @ hidden[earlier].to(weight.dtype)
        by_update = by_growth.t() @ memory[sizes[0] :]
        return by_inputs, by_weight.to(hidden.dtype), by_update, by_growth.sum(0), None


def _states(inputs: Tensor, sizes: list[int], width: int, dtype: torch.dtype) -> Tensor:
    """Zeros for the state before the first step, then for that after each."""
    return inputs.new_zeros(sizes[0] + len(inputs), width, dtype=dtype)


def _before_and_after(states: Tensor, sizes: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Of each step's routines, the states that it begins with, and those that it leaves."""
    first, *after = states.split([sizes[0], *sizes])
    before = [part[:size] for part, size in zip([first, *after], sizes, strict=False)]
    return before, after


def _earlier(sizes: list[int]) -> Tensor:
    """Of each row of the inputs, where the state before it stands among all states."""
    return torch.cat(_before_and_after(torch.arange(sizes[0] + sum(sizes)), sizes)[0])


def _last(sizes: list[int]) -> Tensor:
    """Of each routine, where its last state stands among all states."""
    last = torch.empty(sizes[0], dtype=torch.int64)
    for places in torch.arange(sizes[0], sizes[0] + sum(sizes)).split(sizes):
        last[: len(places)] = places
    return last


def _product(values: Tensor, weight: Tensor) -> Tensor:
    few = len(values) <= 4  # are quicker without oneDNN
    return values @ weight.t() if few or values.dtype != torch.float32 else linear(values, weight)
